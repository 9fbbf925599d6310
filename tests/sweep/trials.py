"""Trials that train nothing, for tests of what happens around them; workers import them by name."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import time
from typing import Any

from framp_private.sweep.trial import Row, Spend, Task


def result(task: Task, value: float | None = None) -> Row:
    """A row as a run would leave it: its accuracy is a function of the configuration alone."""
    config = task.config
    rate, epsilon = config.learning_rate, config.privacy.epsilon if config.privacy else None
    found = value if value is not None else round(0.5 + 0.3 * rate + 0.01 * (config.seed % 7), 6)
    table = {"1": found, "1/4": found - 0.1, "mean": found - 0.05}
    unit = config.privacy.unit if config.privacy else None
    claim = {
        "epsilon": epsilon,
        "delta": 1e-5,
        "relation": "add/remove",
        "trust_model": "any",
        "scope": "this run alone",
    }
    nothing = {**claim, "epsilon": None, "delta": None}
    return {
        "method": config.method,
        "dataset": config.dataset,
        "seed": config.seed,
        "accuracy": {"local": table, "union": table, "after_local_training": table, "unseen": dict.fromkeys(table)},
        "worst_client": found - 0.2,
        "validation": found,
        "unit": unit,
        "epsilon": epsilon,
        "privacy": {name: claim if name == unit else nothing for name in ("record", "client")},
        "bytes": 1000,
        "seconds": 0.0,
        "empirical_epsilon": None,
        "refuted": None,
        "server_view": {},
        "provenance": {"versions": {"python": "3"}, "code_sha256": "0" * 64},
        "summary_sha256": "",
    }


def plan(task: Task, multiplier: float = 1.0) -> dict[str, Any]:
    """One Gaussian release."""
    event = f'{{"kind": "GaussianDpEvent", "noise_multiplier": {multiplier}}}'
    return {"unit": "record", "relation": "add/remove", "delta": 1e-5, "events": {event: 1}, "noise_values": 0}


def trivial(task: Task, spend: Spend) -> Row:
    spend({})
    return result(task)


def summarised(task: Task, spend: Spend) -> Row:
    """Spends, and leaves a summary, as a real trial does."""
    row = spending(task, spend)
    (task.folder / "summary.json").write_text(f'{{"trial": {task.number}}}')
    digest = hashlib.sha256((task.folder / "summary.json").read_bytes()).hexdigest()
    return {**row, "summary_sha256": digest}


def noted(task: Task, spend: Spend) -> Row:
    """Leaves a line for every time it ran, beside the trials' folders, and takes a moment."""
    spend({})
    with (task.folder.parent.parent / "ran.txt").open("a") as file:
        file.write(f"{task.number} {os.getpid()}\n")
    time.sleep(0.05)
    return result(task)


def shared(task: Task, spend: Spend) -> Row:
    """From the fifth trial on it waits, at most a minute, until three processes have run one."""
    row = noted(task, spend)
    ran, end = task.folder.parent.parent / "ran.txt", time.monotonic() + 60
    while task.number >= 4 and time.monotonic() < end:
        if len({line.split()[1] for line in ran.read_text().splitlines()}) > 2:
            break
        time.sleep(0.05)
    return row


def spending(task: Task, spend: Spend) -> Row:
    spend(plan(task))
    task.folder.mkdir(parents=True, exist_ok=True)
    (task.folder / "config.yaml").write_text("")
    return result(task)


def spending_and_slow(task: Task, spend: Spend) -> Row:
    """Trial 1 ends once trial 2 has asked to spend, at most after a minute."""
    asked, end = task.folder.parent.parent / "asked", time.monotonic() + 60
    if task.number == 2:
        asked.touch()
    row = spending(task, spend)
    while task.number == 1 and not asked.exists() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5 if task.number == 1 else 0.0)
    return row


def spending_at_falling_deltas(task: Task, spend: Spend) -> Row:
    spend({**plan(task), "delta": 1e-5 / 1e4**task.number})
    task.folder.mkdir(parents=True, exist_ok=True)
    (task.folder / "config.yaml").write_text("")
    return result(task)


def stolen(task: Task, spend: Spend) -> Row:
    """Trial 1 is no longer its process's when it first asks to spend."""
    trace = task.folder.parent.parent / "stolen"
    if task.number == 1 and not trace.exists():
        trace.touch()
        with sqlite3.connect(task.folder.parent.parent / "study.db") as study:
            study.execute("UPDATE trial_user_attributes SET value_json = '{}' WHERE key = 'owner' AND trial_id = 2")
        study.close()
    return spending(task, spend)


def crashing(task: Task, spend: Spend) -> Row:
    spend({})
    if task.number == 1:
        raise ValueError("a bad trial")
    return result(task)


def dying(task: Task, spend: Spend) -> Row:
    """Its process is gone each time trial 1 is run, and the first time trial 2 is."""
    spend({})
    task.folder.mkdir(parents=True, exist_ok=True)
    before = task.folder / "before"
    if task.number == 1 or (task.number == 2 and not before.exists()):
        before.touch()
        os._exit(9)
    return result(task)


def filling(task: Task, spend: Spend) -> Row:
    """The disk is full from trial 2 on, until `room` is there."""
    spend({})
    if task.number >= 2 and not (task.folder.parent.parent / "room").exists():
        raise OSError(errno.ENOSPC, "No space left on device")
    return result(task)


def without_validation(task: Task, spend: Spend) -> Row:
    spend({})
    return {**result(task), "validation": None}


def slow(task: Task, spend: Spend) -> Row:
    spend({})
    (task.folder.parent.parent / f"pid-{task.number}").write_text(str(os.getpid()))
    time.sleep(60)
    return result(task)
