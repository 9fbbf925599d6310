"""Storages that fail: locked, out of reach, full, of another version; and one that several processes share."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from framp_private.errors import ConfigError, StorageError
from framp_private.sweep import Machine, run_sweep, sweep_of
from framp_private.sweep.opening import find_study, open_study
from framp_private.sweep.owners import Owner, Watch
from framp_private.sweep.storage import open_storage
from tests.services import postgres
from tests.sweep import trials
from tests.sweep.harness import child, grid, ran, stored


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nonsense", "no database's address"),
        ("oracle://somewhere/x", "kind 'oracle'"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("postgresql://me@127.0.0.1/x?password=secret", "behind its question mark"),
    ],
)
def test_what_is_no_storage_is_refused(address: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_storage(address)


def test_one_that_cannot_be_reached_is_tried_again_and_then_named_without_its_password(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(StorageError) as caught:
        open_storage("postgresql://me:secret@127.0.0.1:1/x", patience=1.0)
    assert time.monotonic() - start >= 0.5
    assert "secret" not in str(caught.value) and "127.0.0.1" in str(caught.value) and "--resume" in str(caught.value)
    with pytest.raises(StorageError, match="is no folder"):
        open_storage(f"sqlite:///{tmp_path / 'nowhere' / 'study.db'}")
    (tmp_path / "file.db").write_text("no database at all, but long enough to look at " * 10)
    with pytest.raises(StorageError, match="not a database"):
        open_storage(f"sqlite:///{tmp_path / 'file.db'}")


def test_a_locked_file_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    sweep = sweep_of(grid(3))
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}", patience=1.0)
    study = open_study(storage, sweep)
    claimed = study.claim()
    assert claimed is not None
    blocker = sqlite3.connect(tmp_path / "study.db")
    blocker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match="locked"):
        study.finish(claimed.number, {"unit": None}, [0.5, 1.0])
    blocker.rollback()
    blocker.close()
    assert study.finish(claimed.number, {"unit": None}, [0.5, 1.0])
    assert [trial.state for trial in study.trials()] == ["complete", "waiting", "waiting"]
    storage.close()


def test_the_lock_keeps_others_out(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    first, second = open_storage(url), open_storage(url, patience=0.3)
    with first.exclusive("x"), pytest.raises(StorageError, match="locked by another process"), second.exclusive("x"):
        raise AssertionError("two were inside")
    with second.exclusive("x"):
        pass
    first.close(), second.close()


def test_studies_of_another_sweep_version_or_maker_are_refused(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    study = open_study(storage, sweep_of(grid(3)))
    with pytest.raises(StorageError, match="another sweep, which differs in axes"):
        open_study(storage, sweep_of(grid(4)))
    with pytest.raises(StorageError, match="no study 'other'"):
        find_study(storage, sweep_of({**grid(3), "name": "other"}))
    storage.trials.set_study_user_attr(study._id, "version", "0.0.9")
    with pytest.raises(StorageError, match=r"made by version 0\.0\.9"):
        open_study(storage, sweep_of(grid(3)))
    foreign = optuna.create_study(study_name="foreign", storage=storage.trials)
    foreign.enqueue_trial({"x": 1})
    with pytest.raises(StorageError, match="no sweep made"):
        open_study(storage, sweep_of({**grid(3), "name": "foreign"}))
    storage.close()


def test_tables_of_another_optuna_are_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    open_storage(url).close()
    with sqlite3.connect(tmp_path / "study.db") as file:
        file.execute("UPDATE version_info SET schema_version = 1")
        file.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    with pytest.raises(StorageError, match="another version of Optuna"):
        open_storage(url)


def test_a_study_whose_maker_died_is_made_to_its_end(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    sweep, write, written = sweep_of(grid(6)), storage.trials.set_study_user_attr, 0

    def cut(*arguments: Any) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise KeyboardInterrupt
        write(*arguments)

    storage.trials.set_study_user_attr = cut  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        open_study(storage, sweep)
    storage.trials.set_study_user_attr = write  # type: ignore[method-assign]
    study = open_study(storage, sweep)
    assert [(trial.number, trial.place, trial.state) for trial in study.trials()] == [
        (i, i, "waiting") for i in range(6)
    ]
    storage.close()


def test_what_was_claimed_by_a_process_that_died_meanwhile_is_taken_back(tmp_path: Path) -> None:
    """Whichever of the writes of a claim was the last one."""
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    sweep = sweep_of({**grid(3), "sampler": "tpe", "points": 3, "seeds": [0, 1]})
    study = open_study(storage, sweep)
    suggest = study._suggest

    def dies(trial_id: int, number: int) -> Any:
        raise KeyboardInterrupt

    study._suggest = dies  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        study.claim()
    study._suggest = suggest  # type: ignore[method-assign]
    second = study.claim()  # the second replicate of a point that was not drawn
    assert second is not None and second.number == 1 and set(second.point) == {"learning_rate"}
    study._watch.alive = lambda owner, counter: False  # type: ignore[method-assign, assignment]
    assert study.refresh()
    claimed = [study.claim() for _ in range(6)]
    assert [each.number for each in claimed if each] == [0, 1, 2, 3, 4, 5]
    points = [each.point for each in claimed if each]
    assert points[0] == points[1] == second.point and points[2] == points[3] and points[4] == points[5]
    assert study.claim() is None
    storage.close()


def test_a_trial_ends_once_whoever_ends_it(tmp_path: Path) -> None:
    """A process that was taken for dead and was not cannot overwrite what another one found meanwhile."""
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    sweep = sweep_of(grid(1))
    slow, quick = open_study(storage, sweep), open_study(storage, sweep)
    quick._watch.alive = lambda owner, counter: False  # type: ignore[method-assign, assignment]
    first = slow.claim()
    assert first is not None and quick.refresh()
    second = quick.claim()
    assert second is not None and second.number == first.number
    assert quick.finish(0, {"who": "quick"}, [0.1, 1.0])
    assert not slow.finish(0, {"who": "slow"}, [0.2, 1.0]) and not slow.fail(0, "late")
    (trial,) = slow.trials()
    assert trial.result == {"who": "quick"} and list(trial.values) == [0.1, 1.0] and trial.state == "complete"
    storage.close()


def test_a_trial_that_was_begun_and_lost_on_the_way_is_taken_back(tmp_path: Path) -> None:
    """As after a connection that broke once the trial was stored: this process lives, and does not know of it."""
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    study = open_study(storage, sweep_of(grid(2)))
    assert study._begin(0) is not None
    kept = study.claim()
    assert kept is not None and kept.number == 1 and study.claim() is None
    assert study.refresh() and study.holds(1)
    again = study.claim()
    assert again is not None and again.number == 0 and study.claim() is None
    storage.close()


def test_a_process_elsewhere_is_dead_once_its_counter_stands_still() -> None:
    here, elsewhere, watch = Owner.me(), Owner("x", "another machine", 1, "1"), Watch(grace=0.2)
    assert watch.alive(here, None) and not watch.alive(Owner("y", here.host, here.pid, "12"), None)
    assert watch.alive(elsewhere, 1) and watch.alive(elsewhere, 1)
    time.sleep(0.25)
    assert watch.alive(elsewhere, 2)
    time.sleep(0.25)
    assert not watch.alive(elsewhere, 2)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


def test_two_processes_share_a_study_in_postgresql(tmp_path: Path, server: str) -> None:
    written = grid(20, name="shared-study")
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    folders = [tmp_path / "a" / "sweep", tmp_path / "b" / "sweep"]
    processes = [child(written, out, "noted", server) for out in folders]
    assert [process.wait(240) for process in processes] == [0, 0]
    assert sorted(ran(folders[0]) + ran(folders[1])) == list(range(20))
    found = stored(folders[0], written, server)
    assert [trial.state for trial in found] == ["complete"] * 20
    assert (folders[0] / "summary.json").read_bytes() == (folders[1] / "summary.json").read_bytes()
    for out in folders:
        password = server.split(":")[2].split("@", maxsplit=1)[0]
        assert not any(password in path.read_text(errors="ignore") for path in out.rglob("*") if path.is_file())


def test_what_one_machine_spent_stands_in_the_others_ledger(tmp_path: Path, server: str) -> None:
    sweep, machine = sweep_of(grid(4, name="spent-study")), Machine(storage=server)
    first = run_sweep(sweep, tmp_path / "a", machine=machine, run=trials.spending)
    second = run_sweep(sweep, tmp_path / "b", machine=machine, run=trials.spending)
    (ours,), (theirs,) = first["choosing"]["accounts"], second["choosing"]["accounts"]
    assert ours["epsilon"] == theirs["epsilon"] and ours["ledger"]["rows"] == theirs["ledger"]["rows"] == 5


def test_a_server_that_goes_away_stops_the_sweep_and_loses_nothing(tmp_path: Path) -> None:
    written = grid(40, name="gone-study")
    with postgres() as url:
        sweep = sweep_of(written)
        storage = open_storage(url, patience=1.0)
        study = open_study(storage, sweep)
        claimed = study.claim()
        assert claimed is not None and study.finish(claimed.number, {"kept": True}, [0.5, 1.0])
        claimed = study.claim()
        assert claimed is not None
    with pytest.raises(StorageError, match="could not be reached"):
        study.finish(claimed.number, {"lost": True}, [0.5, 1.0])
    storage.close()
