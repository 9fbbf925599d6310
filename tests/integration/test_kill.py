"""A real child process, killed with SIGKILL at random moments, ends where an uninterrupted one does."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from framp_private import Ledger, read_transcript
from framp_private.errors import WireError
from framp_private.privacy.chain import read_chain
from tests import private
from tests.integration.kill_child import PRIVATE_ROUNDS
from tests.test_training import snapshot

ROOT = Path(__file__).resolve().parents[2]


def start(out: Path, kind: str = "plain") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.integration.kill_child", str(out), kind]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(child: subprocess.Popen[bytes]) -> None:
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors.decode()


def committed(out: Path) -> int:
    """Number of the last checkpoint file of either kind, whole or in the making."""
    names = (
        [path.name for path in (out / "private" / "checkpoint").glob("state-*")]
        if (out / "private" / "checkpoint").is_dir()
        else []
    )
    return max((int(name[6:12]) for name in names), default=-1)


def kill_at(out: Path, moment: float, inside_write: bool, kind: str = "plain") -> tuple[bool, bool]:
    """Runs until `moment` seconds after the first sign of life (or until a write is under way) and kills.

    Returns whether it was killed before it ended, and whether the kill left half a checkpoint write behind.
    """
    child = start(out, kind)
    limit = time.monotonic() + 60
    before = committed(out)
    while child.poll() is None and not (out / "config.yaml").exists() and time.monotonic() < limit:
        time.sleep(0.001)
    if inside_write:
        while child.poll() is None and time.monotonic() < limit:
            if committed(out) > before and list((out / "private" / "checkpoint").glob("*.partial")):
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
    return not ended, bool(list((out / "private" / "checkpoint").glob("*.partial")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(start(out))
    return snapshot(out)


def survive(out: Path, whole: dict[str, object], kills: int, seed: int) -> int:
    """Kills and resumes; returns how many kills hit a checkpoint write."""
    rng = random.Random(seed)
    hits = [kill_at(out, rng.uniform(0, 0.25), inside_write=rng.random() < 0.4) for _ in range(kills)]
    assert sum(killed for killed, _ in hits) >= kills // 2, "the run ended before it could be killed"
    finish(start(out))
    assert snapshot(out) == whole
    return sum(inside for _, inside in hits)


def test_three_kills(tmp_path: Path, whole: dict[str, object]) -> None:
    survive(tmp_path / "run", whole, 3, seed=0)


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path, whole: dict[str, object]) -> None:
    inside = [survive(tmp_path / f"run-{part}", whole, 5, seed=part) for part in range(4)]
    assert sum(inside) >= 1, "no kill hit a checkpoint write"


def noised_replies(out: Path) -> dict[tuple[str, str], bytes]:
    """The uploads that were delivered so far, by file and client; a last record that the kill cut is left out."""
    found: dict[tuple[str, str], bytes] = {}
    with contextlib.suppress(WireError):
        for name, delivery in read_transcript(out / "private" / "transcript"):
            if delivery.direction == "up":
                found[name, delivery.client] = delivery.data
    return found


def survive_private(out: Path, kills: int, seed: int) -> None:
    """Kills and resumes a private run: no release is ever drawn twice, spent twice, or delivered unspent."""
    rng, seen, killed = random.Random(seed), dict[tuple[str, str], bytes](), 0
    for _ in range(kills):
        if (out / "summary.json").exists():
            break
        killed += kill_at(out, rng.uniform(0, 0.4), rng.random() < 0.3, "private")[0]
        for key, data in noised_replies(out).items():
            assert seen.setdefault(key, data) == data, f"{key} was drawn twice"
    assert killed >= kills // 2, "the run ended before it could be killed"
    if not (out / "summary.json").exists():
        finish(start(out, "private"))
    for key, data in noised_replies(out).items():
        assert seen.setdefault(key, data) == data, f"{key} was drawn twice"
    for name in private.DATASET.clients:
        rows = read_chain(out / "ledgers" / f"{name}.jsonl")
        labels = [row["label"] for row in rows if row["kind"] == "spend"]
        assert len(labels) == len(set(labels)) == 1 + 2 * PRIVATE_ROUNDS
        for file, client in seen:
            if client == name and file != "settlement":
                label = "enrolment/descriptor" if file == "enrolment" else f"round {int(file[6:])}/update"
                assert label in labels
    epsilon = json.loads((out / "summary.json").read_text())["privacy"]["record"]["epsilon"]
    ledger = Ledger.open(out / "ledgers" / "client-00.jsonl", unit="record", owner="client-00")
    assert epsilon == pytest.approx(ledger.epsilon(1e-5))


@pytest.mark.slow
def test_three_kills_of_a_private_run(tmp_path: Path) -> None:
    survive_private(tmp_path / "run", 3, 0)


@pytest.mark.slow
def test_twenty_kills_of_a_private_run(tmp_path: Path) -> None:
    survive_private(tmp_path / "run", 20, 1)
