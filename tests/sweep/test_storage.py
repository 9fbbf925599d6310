"""Storages that fail: locked, out of reach, full, of another version; and one that several processes share."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import text

from framp_private.errors import ConfigError, StorageError
from framp_private.sweep import Machine, run_sweep, sweep_of
from framp_private.sweep.attributes import LONGEST_ERROR, kept_error
from framp_private.sweep.locks import held_lock
from framp_private.sweep.opening import find_study, open_study
from framp_private.sweep.owners import Owner, Watch
from framp_private.sweep.storage import Storage, open_storage
from framp_private.sweep.study import Study
from tests.services import mariadb, postgres
from tests.sweep import trials
from tests.sweep.harness import child, grid, ran, stored


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nonsense", "no database's address"),
        ("oracle://somewhere/x", "kind 'oracle'"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:///study.db?mode=memory&uri=true", "a plain path"),
        ("sqlite:///file:study.db", "a plain path"),
        ("postgresql://me:secret@word@127.0.0.1/x", "%40"),
        ("postgresql://m/e:secret@127.0.0.1/x", "%2F"),
        ("postgresql://me:secret", "no database's address"),
        ("postgresql://me:a@sec:ret@127.0.0.1/x", "no database's address"),
        ("postgresql://me@127.0.0.1/x?password=secret", "behind its question mark"),
    ],
)
def test_what_is_no_storage_is_refused(address: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        open_storage(address)
    assert "secret" not in str(caught.value) and "word" not in str(caught.value).replace("password", "")
    assert caught.value.__cause__ is None


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
    assert not slow.fail(0, "its machine woke up")  # and the trial is not lost to whoever runs it
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
    assert not watch.alive(Owner("y", here.host, os.getppid(), "12"), None)  # another process has its number now
    assert watch.alive(here, 1)
    assert watch.alive(elsewhere, 1) and watch.alive(elsewhere, 1)
    time.sleep(0.25)
    assert watch.alive(elsewhere, 2)
    time.sleep(0.25)
    assert not watch.alive(elsewhere, 2)
    assert not watch.alive(here, 1)  # this process lives, and that part of it has given up


def test_a_long_error_keeps_its_first_line_and_its_end_and_says_what_was_cut() -> None:
    short = "ValueError: bad" + "x" * (LONGEST_ERROR - 15)
    assert kept_error(short) == short and kept_error("") == ""
    for first in ("ValueError: bad\n", "ValueError: " + "\u00e9" * 90_000 + "\n"):
        error = first + "".join(f"line {i}\n" for i in range(9_000))
        kept = kept_error(error)
        lines = kept.splitlines()
        assert LONGEST_ERROR - 100 < len(kept) <= LONGEST_ERROR and lines[0] == first[:500].rstrip()
        assert str(len(error)) in lines[1] and "cut" in lines[1] and error.endswith(kept.split("\n", 2)[2])


SERVERS = {"postgresql": postgres, "mariadb": mariadb}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name == "mariadb" else ()) for name in SERVERS],
)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    with SERVERS[request.param]() as url:
        yield url


def test_two_processes_share_a_study_on_a_server(tmp_path: Path, server: str) -> None:
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


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_goes_away_stops_the_sweep_and_loses_nothing(kind: str) -> None:
    written = grid(40, name="gone-study")
    with SERVERS[kind]() as url:
        storage = open_storage(url, patience=1.0)
        study = open_study(storage, sweep_of(written))
        claimed = study.claim()
        assert claimed is not None and study.finish(claimed.number, {"kept": True}, [0.5, 1.0])
        claimed = study.claim()
        assert claimed is not None
    with pytest.raises(StorageError, match="could not be reached"):
        study.finish(claimed.number, {"lost": True}, [0.5, 1.0])
    storage.close()


def test_facts_of_any_length_are_kept_whole_on_a_server(tmp_path: Path, server: str) -> None:
    written, label = grid(2, name="long-study"), "y" * 70_000
    storage = open_storage(server, patience=2.0)
    study = open_study(storage, sweep_of(written))
    assert study.claim() is not None and study.claim() is not None
    spent, result, error = [{"events": {label: i}} for i in range(3)], {"name": label * 3}, "E: \u20ac" * 30_000
    assert study.note(0, "spent", spent) and study.finish(0, result, [0.5, 1.0])
    assert study._end(1, {"error": error}, optuna.trial.TrialState.FAIL, None)
    third = storage.trials.create_new_trial(storage.trials.create_new_study([optuna.study.StudyDirection.MINIMIZE]))
    axis = optuna.distributions.CategoricalDistribution((label,))
    storage.trials.set_trial_param(third, "x", 0, axis)
    with pytest.raises(StorageError, match="does not hold such a value"):
        storage.patiently(lambda: storage.trials.create_new_study([optuna.study.StudyDirection.MINIMIZE], "n" * 600))
    storage.close()
    found = stored(tmp_path, written, server)
    assert (found[0].spent, found[0].result, found[1].error) == (tuple(spent), result, error)
    again = open_storage(server)
    assert again.trials.get_trial(third).distributions == {"x": axis}
    again.close()


def test_thousands_of_drawn_repetitions_are_the_same_for_all(server: str) -> None:
    choosing = {"publish": "best", "mean": 4000, "shape": 100}
    axes = {"privacy.epsilon": [0.5, 1]}
    written = {
        "name": "drawn-study",
        "preset": "digits-private",
        "axes": axes,
        "sampler": "random",
        "choosing": choosing,
    }
    first, second = open_storage(server, patience=2.0), open_storage(server, patience=2.0)
    sweep = sweep_of(written)
    slots = open_study(first, sweep).slots
    assert len(slots) > 2000 and find_study(second, sweep).slots == slots
    first.close(), second.close()


def test_narrow_texts_that_may_not_be_widened_are_refused_with_what_to_run() -> None:
    with mariadb() as url:
        narrow = optuna.storages.RDBStorage(url)
        with narrow.engine.connect() as connection:
            connection.execute(text("REVOKE ALTER ON framp.* FROM framp@'127.0.0.1'"))
        narrow.engine.dispose()
        with pytest.raises(
            StorageError, match="ALTER TABLE trial_user_attributes MODIFY value_json LONGTEXT"
        ) as caught:
            open_storage(url, patience=2.0)
    assert url.split(":")[2].split("@", maxsplit=1)[0] not in str(caught.value)


def kill_lock(storage: Storage, by: Storage) -> None:
    """Ends the connection that holds the lock, as a server does that restarts or gives up on a client."""
    lock = held_lock(storage.engine)
    assert lock is not None
    postgresql = storage.engine.engine.name == "postgresql"
    number = lock.connection().scalar(text(f"SELECT {'pg_backend_pid' if postgresql else 'connection_id'}()"))
    lock.connection().commit()
    with by.engine.engine.connect() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend({number}, 10000)" if postgresql else f"KILL {number}"))


def two(server: str, name: str) -> tuple[Study, Study]:
    sweep = sweep_of(grid(3, name=name))
    return open_study(open_storage(server, patience=5.0), sweep), open_study(open_storage(server, patience=5.0), sweep)


def test_a_trial_is_begun_once_though_the_lock_is_lost_on_the_way(server: str) -> None:
    slow, quick = two(server, "lost-begin")
    create, theirs = slow.storage.trials.create_new_trial, []

    def late(*arguments: Any) -> int:
        if not theirs:
            kill_lock(slow.storage, quick.storage)
            theirs.append(quick.claim())
        return create(*arguments)

    slow.storage.trials.create_new_trial = late  # type: ignore[method-assign]
    mine = slow.claim()
    assert theirs[0] is not None and theirs[0].number == 0 and mine is not None and mine.number == 1
    assert [(t.state, dict(t.params)) for t in quick.trials()] == [
        ("running", {"learning_rate": "0.01"}),
        ("running", {"learning_rate": "0.02"}),
        ("waiting", {"learning_rate": "0.03"}),
    ]
    slow.storage.close(), quick.storage.close()


@pytest.mark.parametrize("stored_before", [False, True])
def test_a_result_is_stored_once_though_the_lock_is_lost_on_the_way(server: str, stored_before: bool) -> None:
    slow, quick = two(server, f"lost-end-{stored_before}")
    end, ends = slow.storage.trials.set_trial_state_values, 0
    assert slow.claim() is not None

    def late(*arguments: Any) -> bool:
        nonlocal ends
        ends += 1
        ended = end(*arguments) if stored_before or ends > 1 else False
        if ends == 1:
            kill_lock(slow.storage, quick.storage)
        return ended if ended else end(*arguments)

    slow.storage.trials.set_trial_state_values = late  # type: ignore[method-assign]
    assert slow.finish(0, {"who": "slow"}, [0.5, 1.0])
    assert quick.refresh() and not quick.finish(0, {"who": "quick"}, [0.1, 1.0])
    first, *_ = quick.trials()
    assert (first.state, first.result, list(first.values)) == ("complete", {"who": "slow"}, [0.5, 1.0])
    assert ends == (1 if stored_before else 2)
    slow.storage.close(), quick.storage.close()


def test_what_was_read_under_a_lost_lock_is_not_acted_upon(server: str) -> None:
    slow, quick = two(server, "lost-read")
    attributes = quick.storage.trials.get_study_user_attrs
    with pytest.raises(StorageError, match="held the lock"), slow.storage.exclusive("lost-read"):
        assert slow._read() == []
        kill_lock(slow.storage, quick.storage)
        with quick.storage.exclusive("lost-read"):
            assert quick.storage.patiently(quick._read) == []
        slow.storage.patiently(lambda: slow.storage.trials.set_study_user_attr(slow._id, "late", 1))
    assert "late" not in attributes(quick._id)
    with slow.storage.exclusive("lost-read"):
        slow.storage.patiently(lambda: slow.storage.trials.set_study_user_attr(slow._id, "kept", 1))
        kill_lock(slow.storage, quick.storage)
    assert attributes(quick._id)["kept"] == 1 and slow.claim() is not None
    slow.storage.close(), quick.storage.close()
