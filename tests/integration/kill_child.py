"""A run for the kill test: trains the folder given on the command line, resuming if it is there."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from framp_private import Options, train
from framp_private.privacy.events import Budget
from tests import private
from tests.tiny import tiny_dataset, tiny_federation

PRIVATE_ROUNDS = 45


def main() -> None:
    torch.set_num_threads(1)
    out, noised = Path(sys.argv[1]), sys.argv[2] == "private"
    dataset = private.DATASET if noised else tiny_dataset()
    budget = Budget(200.0, 1e-5) if noised else None
    options = Options(evaluate_every=3, home_steps=3, record_transcript=True, budget=budget)
    train(
        private.federation(rounds=PRIVATE_ROUNDS, noise_multiplier=6.0)
        if noised
        else tiny_federation(dataset, rounds=30),
        dataset,
        out=out,
        resume=out.exists(),
        config={"method": "framp"},
        options=options,
    )


if __name__ == "__main__":
    main()
