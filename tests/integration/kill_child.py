"""A run for the kill test: trains the folder given on the command line, resuming if it is there."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from framp_private import Options, train
from tests.tiny import tiny_dataset, tiny_federation


def main() -> None:
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    dataset = tiny_dataset()
    options = Options(evaluate_every=3, home_steps=3, record_transcript=True)
    train(
        tiny_federation(dataset, rounds=30),
        dataset,
        out=out,
        resume=out.exists(),
        config={"method": "framp"},
        options=options,
    )


if __name__ == "__main__":
    main()
