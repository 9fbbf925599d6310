"""Real runs in a sweep that is killed: without noise it ends as if nothing had happened, to the last bit."""

from __future__ import annotations

import copy
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from framp_private.sweep import Machine, run_sweep, sweep_of
from tests.sweep.harness import child, stored

SMALL = {"clients": 6, "rounds": 30, "local_steps": 4, "home_steps": 2, "network": "linear", "evaluate_every": 30}
TIMED = ("seconds", "summary_sha256", "provenance")


def timeless(summary: dict[str, Any]) -> dict[str, Any]:
    """Without what depends on the clock, on a key, or on which worker was first."""
    found = copy.deepcopy(summary)
    for row in found["rows"]:
        for key in TIMED:
            row["result"].pop(key)
    for point in found["points"]:
        point.pop("seconds")
    for account in found["choosing"]["accounts"]:
        account["ledger"].pop("hash")  # of rows in the order in which workers came to ask
    return found


def killed_at_random(written: dict[str, Any], out: Path, times: int) -> None:
    """Kills a child that runs the sweep after each few trials more; rows that were finished stay as they were."""
    draw, finished = random.Random(int.from_bytes(os.urandom(4))), {}
    for _ in range(times):
        process = child(written, out, "run_trial")
        more, end = draw.uniform(0.5, 4.0), time.monotonic() + 240
        while len(list(out.glob("trials/*/metrics.jsonl"))) <= len(finished):
            assert time.monotonic() < end
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.02)
        time.sleep(more)
        process.kill()
        process.wait(30)
        now = {t.number: (t.result, t.values) for t in stored(out, written) if t.finished}
        assert finished.items() <= now.items(), "a row that was finished changed"
        finished = now
    assert len(finished) < len(stored(out, written)), "it was never killed at work"


@pytest.mark.slow
def test_without_noise_a_killed_sweep_ends_exactly_as_an_uninterrupted_one(tmp_path: Path) -> None:
    written = {
        "name": "open",
        "preset": "digits",
        "set": {**SMALL, "unseen_clients": 0},
        "axes": {"learning_rate": [0.05, 0.1], "method": ["framp", "fedavg", "local"]},
        "seeds": [0, 1],
        "objectives": ["local", "bytes"],
    }
    killed_at_random(written, tmp_path / "killed", 3)
    machine = Machine(workers=2)
    killed = run_sweep(sweep_of(written), tmp_path / "killed", machine=machine, resume=True)
    whole = run_sweep(sweep_of(written), tmp_path / "whole", machine=machine)
    assert killed["trials"]["done"] == 12 and timeless(killed) == timeless(whole)
    for number in range(12):
        files = [tmp_path / name / "trials" / f"{number:04d}" for name in ("killed", "whole")]
        for name in ("metrics.jsonl", "config.yaml"):
            assert (files[0] / name).read_bytes() == (files[1] / name).read_bytes()


@pytest.mark.slow
def test_with_noise_every_release_of_a_killed_sweep_is_spent_once(tmp_path: Path) -> None:
    written = {
        "name": "private",
        "preset": "digits-private",
        "set": SMALL,
        "axes": {"privacy.epsilon": [1, 4]},
        "seeds": [0, 1, 2],
        "objectives": ["local", "epsilon"],
    }
    killed_at_random(written, tmp_path / "killed", 3)
    summary = run_sweep(sweep_of(written), tmp_path / "killed", machine=Machine(workers=2), resume=True)
    assert summary["trials"]["done"] == 6
    (account,) = summary["choosing"]["accounts"]
    assert account["runs"] == 6 and account["ledger"]["rows"] == 7
    for row in summary["rows"]:
        wanted = 1 if row["place"] == 0 else 4
        assert 0.99 * wanted <= row["result"]["epsilon"] <= wanted
