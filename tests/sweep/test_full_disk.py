"""A disk that really is full: wherever that is noticed, the sweep stops and says so, nothing is lost, and it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from framp_private.errors import StorageError
from framp_private.sweep import Machine, run_sweep, sweep_of
from framp_private.sweep.disk import room_in
from framp_private.sweep.record import Record
from framp_private.sweep.trial import Row, RunTrial, Spend, Task
from tests.sweep import trials
from tests.sweep.harness import ROOT, grid, stored

PAGE = 4096
CHILD = "from tests.sweep import test_full_disk; test_full_disk.main()"
TRIALS = 8


def heavy(task: Task, spend: Spend) -> Row:
    """Leaves 600 KB, and a line beside the disk once they are written."""
    row = trials.spending(task, spend)
    (task.folder / "models").write_bytes(bytes(600_000))
    with (task.folder.parents[3] / "ran.txt").open("a") as file:
        file.write(f"{task.number}\n")
    return row


def function(name: str) -> RunTrial:
    found: RunTrial = globals().get(name) or getattr(trials, name)
    return found


def main() -> None:
    """A sweep in a process of its own, whose trials go to the next one when it ends."""
    out, run, *storage = sys.argv[1:]
    machine = Machine(workers=2, storage=storage[0] if storage else None)
    run_sweep(sweep_of(json.load(sys.stdin)), Path(out), machine=machine, run=function(run))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB and 300 files."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted by root alone: run as root in a container that may mount")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=300", "framp", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no disk can be mounted here: run as root in a container that may mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def filled(disk: Path, kibibytes: int | None, files: int | None) -> None:
    """Leaves so much."""
    found = os.statvfs(disk)
    if kibibytes is not None:
        (disk / "ballast").write_bytes(bytes(found.f_bavail * PAGE - kibibytes * 1024))
    for number in range(found.f_favail - files if files is not None else 0):
        (disk / f"file-{number}").touch()


def known(out: Path, written: dict[str, Any], storage: str | None) -> list[Record]:
    """All trials; none if the sweep did not come so far as to have a study."""
    try:
        return stored(out, written, storage)
    except StorageError as error:
        assert "is no folder" in str(error) or "no study" in str(error)
        return []


def stops_and_goes_on(disk: Path, run: str, storage: str | None) -> list[int]:
    """Runs a sweep until the disk is full, then with room; the trials that were finished before there was room."""
    out, written = disk / "sweep", grid(TRIALS)
    command = [sys.executable, "-c", CHILD, str(out), run, *([storage] if storage else [])]
    ended = subprocess.run(
        command, cwd=ROOT, input=json.dumps(written), stderr=subprocess.PIPE, text=True, timeout=240, check=False
    )
    said = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert said[-1].startswith("framp_private.errors.StorageError"), said[-30:]
    assert "full" in said[-1] or "No space left" in said[-1]
    subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=3000", str(disk)], check=True)
    begun = (out / "sweep.yaml").exists()
    found = known(out, written, storage)
    assert {trial.state for trial in found} <= {"complete", "running", "waiting"}
    machine = Machine(workers=2, storage=storage)
    summary = run_sweep(sweep_of(written), out, machine=machine, resume=begun, run=function(run))
    assert summary["trials"]["done"] == TRIALS == len(summary["rows"])
    assert [row["result"]["accuracy"]["local"]["1"] for row in summary["rows"]] == [
        round(0.5 + 0.3 * 0.01 * (i + 1), 6) for i in range(TRIALS)
    ]
    (account,) = summary["choosing"]["accounts"]
    assert account["runs"] >= TRIALS and account["ledger"]["rows"] == account["runs"] + 1
    assert (out / "report.html").is_file()
    return [trial.number for trial in found if trial.state == "complete"]


def test_a_disk_that_trials_fill_stops_the_sweep_and_what_was_finished_is_not_run_again(disk: Path) -> None:
    before = stops_and_goes_on(disk, "heavy", None)
    ran = [int(line) for line in (disk.parent / "ran.txt").read_text().split()]
    assert 0 < len(before) < TRIALS and set(ran) == set(range(TRIALS))
    assert all(ran.count(number) == 1 for number in before)


@pytest.mark.slow
@pytest.mark.parametrize("kibibytes", [100, 200])
def test_a_disk_that_is_full_of_bytes_stops_the_study_that_is_on_it(disk: Path, kibibytes: int) -> None:
    filled(disk, kibibytes, None)
    stops_and_goes_on(disk, "spending", None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kibibytes", "files"),
    [(8, None), (12, None), (32, None), (None, 0), (None, 3), (None, 4)],
)
def test_a_full_disk_stops_what_is_not_in_the_study(disk: Path, kibibytes: int | None, files: int | None) -> None:
    """The sweep's own files, the workers' log, the ledgers and their key, the summary, the report."""
    filled(disk, kibibytes, files)
    stops_and_goes_on(disk, "spending", f"sqlite:///{disk.parent / 'study.db'}")


def test_only_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"the disk is full.*--resume"), room_in(tmp_path):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("dressed") from error
    with pytest.raises(PermissionError), room_in(tmp_path):
        raise PermissionError(13, "no")
    with pytest.raises(StorageError, match=r"^as it was$"), room_in(tmp_path):
        raise StorageError("as it was")
