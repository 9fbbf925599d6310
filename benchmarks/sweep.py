"""What a sweep costs beside its trials: bookkeeping for each trial, and two workers against one.

    python benchmarks/sweep.py

Bookkeeping is planning, claiming, handing over and storing a trial that does nothing, in one process with one worker,
without the seconds that workers take to start; beside it, in the same minutes, what Optuna takes to ask for such a
trial and to be told its values on the same disk. Two workers run the same real trials as one, each on one thread.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import optuna

from framp_private.sweep import Machine, run_sweep, sweep_of
from framp_private.sweep.trial import Row, Spend, Task

REAL = {"clients": 10, "rounds": 60, "network": "linear", "evaluate_every": 60, "unseen_clients": 0, "home_steps": 5}


def nothing(task: Task, spend: Spend) -> Row:
    """A trial that does nothing."""
    spend({})
    table = {"1": 0.5, "mean": 0.5}
    claim = {"epsilon": None, "delta": None, "relation": "add/remove", "trust_model": "", "scope": ""}
    return {
        "seed": task.config.seed,
        "accuracy": dict.fromkeys(("local", "union", "after_local_training"), table),
        "worst_client": 0.4,
        "unit": None,
        "epsilon": None,
        "privacy": {"record": claim, "client": claim},
        "bytes": 1,
        "seconds": 0.0,
        "server_view": {},
        "provenance": {"versions": {}, "code_sha256": ""},
    }


def bookkeeping(axes: int, seeds: int, root: Path) -> None:
    """Milliseconds for each trial of a grid of ten values on every axis, and Optuna's own."""
    values = [round(0.01 * (place + 1), 2) for place in range(10)]
    names = ("learning_rate", "alpha", "test_fraction")[:axes]
    written = {"axes": dict.fromkeys(names, values), "seeds": list(range(seeds)), "objectives": ["local", "bytes"]}
    sweep, trials = sweep_of({"name": "empty", **written}), 10**axes * seeds
    start = time.perf_counter()
    run_sweep(sweep, root / f"empty-{axes}", run=nothing)
    spent = time.perf_counter() - start
    study = optuna.create_study(storage=f"sqlite:///{root}/asked-{axes}.db", directions=["maximize", "minimize"])
    asked, start = min(trials, 200), time.perf_counter()
    for _ in range(asked):
        trial = study.ask()
        for name in names:
            trial.suggest_categorical(name, [str(value) for value in values])
        study.tell(trial, [0.5, 1.0])
    floor = (time.perf_counter() - start) / asked
    each = f"{1000 * spent / trials:.1f} ms each; Optuna's ask and tell {1000 * floor:.1f} ms"
    print(f"{trials} empty trials, axes: {axes}, seeds: {seeds}: {each}")


def workers(root: Path) -> None:
    """The same real trials by one worker and by two."""
    written = {"name": "real", "preset": "digits", "set": REAL, "axes": {"learning_rate": [0.1, 0.2, 0.3, 0.4]}}
    sweep = sweep_of({**written, "seeds": [0, 1, 2], "objectives": ["local"]})
    seconds = []
    for count in (1, 2):
        start = time.perf_counter()
        run_sweep(sweep, root / f"workers-{count}", machine=Machine(workers=count))
        seconds.append(time.perf_counter() - start)
    print(f"12 trials: one worker {seconds[0]:.1f} s, two {seconds[1]:.1f} s, {seconds[0] / seconds[1]:.2f} x")


def main() -> None:
    """Prints both."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        print(f"{os.cpu_count()} cores")
        warm = sweep_of({"name": "warm", "axes": {"learning_rate": [0.1]}, "objectives": ["local"]})
        run_sweep(warm, Path(folder) / "warm", run=nothing)  # starts what all later workers are started from
        bookkeeping(1, 100, Path(folder))
        bookkeeping(3, 1, Path(folder))
        workers(Path(folder))


if __name__ == "__main__":
    main()
