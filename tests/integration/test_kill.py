"""A real child process, killed with SIGKILL at random moments, ends where an uninterrupted one does."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_training import snapshot

ROOT = Path(__file__).resolve().parents[2]


def start(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.integration.kill_child", str(out)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(child: subprocess.Popen[bytes]) -> None:
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors.decode()


def committed(out: Path) -> int:
    """Number of the last checkpoint file of either kind, whole or in the making."""
    names = [path.name for path in (out / "checkpoint").glob("state-*")] if (out / "checkpoint").is_dir() else []
    return max((int(name[6:12]) for name in names), default=-1)


def kill_at(out: Path, moment: float, inside_write: bool) -> bool:
    """Runs until `moment` seconds after the first sign of life (or until a write is under way) and kills; False if it ended first."""
    child = start(out)
    limit = time.monotonic() + 60
    before = committed(out)
    while child.poll() is None and not (out / "config.yaml").exists() and time.monotonic() < limit:
        time.sleep(0.001)
    if inside_write:
        while child.poll() is None and time.monotonic() < limit:
            if committed(out) > before and list((out / "checkpoint").glob("*.partial")):
                break
    else:
        started = time.monotonic()
        while (
            child.poll() is None
            and committed(out) == before
            and time.monotonic() < limit
            and (before >= 0 or time.monotonic() < started + moment)
        ):
            time.sleep(0.001)
        time.sleep(moment if child.poll() is None else 0)
    ended = child.poll() is not None
    child.kill()
    child.communicate()
    return not ended


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(start(out))
    return snapshot(out)


def survive(out: Path, whole: dict[str, object], kills: int, seed: int) -> None:
    rng = random.Random(seed)
    killed = sum(kill_at(out, rng.uniform(0, 0.25), inside_write=rng.random() < 0.4) for _ in range(kills))
    assert killed >= kills // 2, "the run ended before it could be killed"
    finish(start(out))
    assert snapshot(out) == whole


def test_three_kills(tmp_path: Path, whole: dict[str, object]) -> None:
    survive(tmp_path / "run", whole, 3, seed=0)


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path, whole: dict[str, object]) -> None:
    for part in range(4):
        survive(tmp_path / f"run-{part}", whole, 5, seed=part)
