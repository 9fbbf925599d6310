"""A sweep in a process of its own, to be killed: `python -m tests.sweep.child OUT RUN [STORAGE]`, the sweep on standard input."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from framp_private.sweep import Machine, run_sweep, sweep_of
from framp_private.sweep.trial import run_trial
from tests.sweep import trials


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which whoever started the tests may have switched off
    out, run, *storage = sys.argv[1:]
    function = run_trial if run == "run_trial" else getattr(trials, run)
    machine = Machine(workers=2, storage=storage[0] if storage else None)
    sweep = sweep_of(json.load(sys.stdin))
    run_sweep(sweep, Path(out), machine=machine, resume=(Path(out) / "sweep.yaml").exists(), run=function)


if __name__ == "__main__":
    main()
