"""A sweep's folder under every name that a file system allows, moved, copied and damaged: right, or refused."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from framp_private.cli import main
from framp_private.errors import FrampError, LedgerError, RunError
from framp_private.inspect_ledgers import verify_ledgers
from framp_private.sweep import sweep_of
from framp_private.sweep.intervals import SHARE, difference, interval
from framp_private.sweep.run import run_sweep
from framp_private.sweep.storage import open_storage
from tests.sweep.harness import grid
from tests.sweep.trials import summarised, trivial

NAMES = (
    "r?a", "r?b", "r#a", "p%20z", "p z", "50%", "%2e", "a&b=c", "a:b", "a;b", "[x]", "a*b", "{x}", "a'b", 'a"b', "ä ö",
    "new\nline", "e ", "-x", "mode=memory", ":memory:", "file:x", "back\\slash", "a@b", "<i>", "$HOME", "~x", "x" * 200,
)  # fmt: skip


SWEEP = sweep_of(grid(2))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweeps") / "first"
    run_sweep(SWEEP, out, run=summarised)
    return out


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_keeps_its_own_study_and_goes_on(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    run_sweep(SWEEP, out, run=trivial)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert (out / "study.db").is_file() and (out / "summary.json").is_file()
    assert run_sweep(SWEEP, out, resume=True, run=trivial)["trials"]["waiting"] == 0
    assert main(["sweep", "status", "--", str(out)]) == 0


def test_two_sweeps_in_folders_that_differ_behind_a_question_mark_do_not_meet(tmp_path: Path) -> None:
    for name in ("r?a", "r?b", "p z", "p%20z"):
        summary = run_sweep(SWEEP, tmp_path / name, run=trivial)
        assert summary["trials"]["waiting"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p z", "p%20z", "r?a", "r?b"]


def test_a_name_that_is_no_text_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff"))
    with pytest.raises(RunError, match="UTF-8"):
        run_sweep(SWEEP, out, run=trivial)
    assert not list(tmp_path.iterdir())


def test_a_moved_and_a_copied_folder_read_and_write_their_own_study(finished: Path, tmp_path: Path) -> None:
    copy, moved = tmp_path / "copy", tmp_path / "moved"
    shutil.copytree(finished, copy)
    assert verify_ledgers(finished) and verify_ledgers(copy)
    original = digest(finished / "study.db")
    run_sweep(SWEEP, copy, resume=True, run=trivial)
    assert digest(finished / "study.db") == original
    (copy / "study.db").unlink()
    with pytest.raises(FrampError, match=r"study\.db"):  # and not the original's
        run_sweep(SWEEP, copy, resume=True, run=trivial)
    assert not (copy / "study.db").exists()
    shutil.copytree(finished, moved)
    shutil.move(moved, tmp_path / "elsewhere")
    assert run_sweep(SWEEP, tmp_path / "elsewhere", resume=True, run=trivial)["trials"]["waiting"] == 0


def test_the_study_of_another_sweep_of_the_same_name_is_not_taken(finished: Path, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    shutil.copytree(finished, mine)
    run_sweep(SWEEP, other, run=trivial)
    shutil.copy(other / "study.db", mine / "study.db")
    before = digest(mine / "summary.json")
    with pytest.raises(RunError, match="two sweeps"):
        run_sweep(SWEEP, mine, resume=True, run=trivial)
    assert digest(mine / "summary.json") == before
    with pytest.raises(LedgerError, match="another sweep"):
        verify_ledgers(mine)
    assert main(["sweep", "status", str(mine)]) == 1


@pytest.mark.parametrize("damage", ["gone", "empty", "garbage"])
def test_a_study_that_is_gone_or_damaged_does_not_verify(damage: str, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    if damage == "gone":
        (out / "study.db").unlink()
    else:
        (out / "study.db").write_bytes(b"" if damage == "empty" else b"garbage" * 500)
    with pytest.raises(LedgerError):
        verify_ledgers(out)
    assert main(["ledger", "verify", str(out)]) == 1
    assert (out / "study.db").exists() == (damage != "gone")


def test_a_path_is_never_read_as_an_address(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "a?mode=memory%20b.db")
    storage.close()
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == ["a?mode=memory%20b.db"]


def test_intervals_end_where_a_measure_does() -> None:
    """Two seeds leave next to everything open: .276 +- 1.221 is 0 to 1."""
    found = interval([0.18, 0.372], SHARE)
    assert (found.low, found.high) == (0.0, 1.0) and found.mean == pytest.approx(0.276)
    wide = difference([0.9, 0.1], [0.1, 0.9], SHARE)
    assert (wide.low, wide.high) == (-1.0, 1.0)
    assert interval([0.5, 0.52, 0.51], SHARE).low == pytest.approx(0.51 - 4.303 * 0.01 / 3**0.5, abs=1e-4)
