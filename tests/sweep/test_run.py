"""A whole sweep: every trial once, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import optuna
import pytest
from dp_accounting import GaussianDpEvent

from framp_private import Ledger
from framp_private.errors import ConfigError, PrivacyBudgetExhausted, RunError, StorageError
from framp_private.sweep import Machine, run_sweep, sweep_of
from tests.sweep import trials
from tests.sweep.harness import child, grid, ran, stored

TWO = Machine(workers=2)


def test_every_trial_is_run_once_and_a_finished_sweep_is_left_alone(tmp_path: Path) -> None:
    sweep, out = sweep_of(grid(4, seeds=2)), tmp_path / "sweep"
    seen: list[int] = []
    machine = Machine(workers=2, on_change=lambda found: seen.append(len(found)))
    summary = run_sweep(sweep, out, machine=machine, run=trials.noted)
    assert sorted(ran(out)) == list(range(8))
    assert summary["trials"] == {"planned": 8, "done": 8, "failed": 0, "pruned": 0, "running": 0, "waiting": 0}
    assert seen and set(seen) == {8}
    assert [point["replicates"] for point in summary["points"]] == [2, 2, 2, 2]
    again = run_sweep(sweep, out, machine=TWO, run=trials.noted, resume=True)
    assert len(ran(out)) == 8 and again == summary == json.loads((out / "summary.json").read_text())


def test_a_crashing_trial_is_kept_with_its_traceback_and_the_others_go_on(tmp_path: Path) -> None:
    summary = run_sweep(sweep_of(grid(4)), tmp_path / "sweep", machine=TWO, run=trials.crashing)
    assert [row["state"] for row in summary["rows"]] == ["complete", "failed", "complete", "complete"]
    assert (
        summary["rows"][1]["error"].startswith("ValueError: a bad trial") and "Traceback" in summary["rows"][1]["error"]
    )


def test_a_trial_whose_process_dies_is_run_again_but_not_for_ever(tmp_path: Path) -> None:
    summary = run_sweep(sweep_of(grid(4)), tmp_path / "sweep", machine=TWO, run=trials.dying)
    assert [row["state"] for row in summary["rows"]] == ["complete", "failed", "complete", "complete"]
    assert "died 3 times" in summary["rows"][1]["error"] and "status 9" in summary["rows"][1]["error"]


def test_a_full_disk_stops_the_sweep_and_loses_nothing(tmp_path: Path) -> None:
    sweep, out = sweep_of(grid(4)), tmp_path / "sweep"
    with pytest.raises(StorageError, match="No space left"):
        run_sweep(sweep, out, machine=Machine(workers=1), run=trials.filling)
    assert [t.state for t in stored(out, sweep)] == ["complete", "complete", "waiting", "waiting"]
    (out / "room").touch()
    assert run_sweep(sweep, out, resume=True, run=trials.filling)["trials"]["done"] == 4


def test_an_objective_that_a_run_does_not_have_fails_the_trial(tmp_path: Path) -> None:
    sweep = sweep_of(grid(1, objectives=["validation"]))
    summary = run_sweep(sweep, tmp_path / "sweep", run=trials.without_validation)
    assert "accuracy.validation" in summary["rows"][0]["error"]


def test_an_unfinished_sweep_needs_resume_and_another_folder_is_refused(tmp_path: Path) -> None:
    sweep, out = sweep_of(grid(4)), tmp_path / "sweep"
    with pytest.raises(RunError, match="no sweep to go on with"):
        run_sweep(sweep, out, resume=True, run=trials.trivial)
    with pytest.raises(StorageError):
        run_sweep(sweep, out, run=trials.filling)
    with pytest.raises(RunError, match="--resume"):
        run_sweep(sweep, out, run=trials.trivial)
    with pytest.raises(RunError, match="started with another axes"):
        run_sweep(sweep_of(grid(5)), out, resume=True, run=trials.trivial)
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    with pytest.raises(RunError, match="not empty"):
        run_sweep(sweep, other, run=trials.trivial)
    with pytest.raises(ConfigError, match="workers=0"):
        Machine(workers=0)


def test_the_sweeps_budget_refuses_the_trial_that_would_exceed_it(tmp_path: Path) -> None:
    written = grid(4, preset="digits-private", choosing={"budget": 8})
    sweep, out = sweep_of(written), tmp_path / "sweep"
    for resume in (False, True):
        with pytest.raises(PrivacyBudgetExhausted, match=r"choosing\.budget=8"):
            run_sweep(sweep, out, machine=Machine(workers=1), run=trials.spending, resume=resume)
        states = [t.state for t in stored(out, sweep)]
        assert states == ["complete", "complete", "waiting", "waiting"]  # each run costs 4.4, two 6.6, three 8.4
        summary = json.loads((out / "summary.json").read_text())
        assert (summary["trials"]["done"], summary["trials"]["waiting"]) == (2, 2)
        assert 6 < summary["choosing"]["accounts"][0]["epsilon"] < 8 and (out / "report.html").is_file()


def test_a_budget_holds_at_the_smallest_delta_of_an_account(tmp_path: Path) -> None:
    """Two runs stay below 8 at their own deltas, and not at the smaller one, which the report goes by."""
    sweep, out = sweep_of(grid(4, preset="digits-private", choosing={"budget": 8})), tmp_path / "sweep"
    with pytest.raises(PrivacyBudgetExhausted, match=r"choosing\.budget=8"):
        run_sweep(sweep, out, machine=Machine(workers=1), run=trials.spending_at_falling_deltas)
    summary = json.loads((out / "summary.json").read_text())
    (account,) = summary["choosing"]["accounts"]
    assert summary["trials"]["done"] == 1 and account["epsilon"] < 8


def test_every_trial_is_spent_once_and_the_whole_is_their_composition(tmp_path: Path) -> None:
    sweep, out = sweep_of(grid(3)), tmp_path / "sweep"
    (account,) = run_sweep(sweep, out, machine=TWO, run=trials.spending)["choosing"]["accounts"]
    oracle = Ledger.open(None, unit="record")
    for i in range(3):
        oracle.spend(GaussianDpEvent(1.0), f"run {i}")
    assert account["epsilon"] == pytest.approx(oracle.epsilon(1e-5), rel=1e-9) and account["runs"] == 3
    assert account["ledger"]["rows"] == 4
    again = run_sweep(sweep, out, resume=True, run=trials.spending)
    assert again["choosing"]["accounts"] == [account]


@pytest.mark.parametrize("kill", ["parent", pytest.param("interrupt", marks=pytest.mark.slow)])
def test_workers_end_with_their_parent(tmp_path: Path, kill: str) -> None:
    written, out = grid(2), tmp_path / "sweep"
    process = child(written, out, "slow")
    end = time.monotonic() + 120
    while len(list(out.glob("pid-*"))) < 2 or not all(path.read_text() for path in out.glob("pid-*")):
        assert time.monotonic() < end and process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.1)
    workers = [int(path.read_text()) for path in out.glob("pid-*")]
    process.send_signal(signal.SIGKILL if kill == "parent" else signal.SIGINT)
    process.wait(30)
    end = time.monotonic() + 20
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < end, "a worker outlived its parent"
        time.sleep(0.05)
    states = {trial.state for trial in stored(out, written)}
    assert states == ({"running"} if kill == "parent" else {"waiting"})
    (out / "ran.txt").unlink(missing_ok=True)
    summary = run_sweep(sweep_of(written), out, machine=TWO, resume=True, run=trials.noted)
    assert summary["trials"]["done"] == 2 and sorted(ran(out)) == [0, 1]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


@pytest.mark.slow
def test_killed_three_times_and_resumed_it_is_the_same_sweep(tmp_path: Path) -> None:
    written, out = grid(20, seeds=3), tmp_path / "sweep"
    draw = random.Random(int.from_bytes(os.urandom(4)))
    finished: dict[int, object] = {}
    for _ in range(3):
        before = len(ran(out))
        process = child(written, out, "noted")
        end = time.monotonic() + 120
        while len(ran(out)) < before + draw.randint(2, 15):
            assert time.monotonic() < end
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.02)
        process.kill()
        process.wait(30)
        now = {t.number: (t.result, t.values, t.params) for t in stored(out, written) if t.finished}
        assert finished.items() <= now.items(), "a row that was finished changed"
        again = [number for number in ran(out)[before:] if number in finished]
        assert not again, "a finished trial ran again"
        finished = now
    summary = run_sweep(sweep_of(written), out, machine=TWO, resume=True, run=trials.noted)
    whole = run_sweep(sweep_of(written), tmp_path / "twin", machine=TWO, run=trials.noted)
    assert summary == whole
    assert [row["number"] for row in summary["rows"]] == list(range(60))
    assert set(ran(out)) == set(range(60)) and len(ran(out)) <= 60 + 3 * 2


def test_two_commands_that_start_at_once_in_a_new_folder_share_the_work(tmp_path: Path) -> None:
    written, out = grid(12), tmp_path / "sweep"
    processes = [child(written, out, "noted") for _ in range(2)]
    assert [process.wait(240) for process in processes] == [0, 0], [p.stderr and p.stderr.read() for p in processes]
    assert sorted(ran(out)) == list(range(12))
    assert {trial.state for trial in stored(out, written)} == {"complete"}


@pytest.mark.slow
def test_two_commands_on_one_folder_share_the_work(tmp_path: Path) -> None:
    written, out = grid(12), tmp_path / "sweep"
    first = child(written, out, "shared")
    end = time.monotonic() + 120
    while not ran(out):
        assert time.monotonic() < end and first.poll() is None
        time.sleep(0.05)
    second = child(written, out, "shared")
    assert first.wait(120) == 0 and second.wait(120) == 0
    assert sorted(ran(out)) == list(range(12))
    pids = {line.split()[1] for line in (out / "ran.txt").read_text().splitlines()}
    assert len(pids) > 2, "the second command did nothing"


def test_the_study_is_an_ordinary_one_for_optuna(tmp_path: Path) -> None:
    run_sweep(sweep_of(grid(3)), tmp_path / "sweep", run=trials.trivial)
    study = optuna.load_study(study_name="tried", storage=f"sqlite:///{tmp_path / 'sweep' / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert study.directions[0].name == "MAXIMIZE" and len(study.best_trials) >= 1
    assert all("learning_rate" in trial.params for trial in study.trials)


def test_threads_of_the_caller_are_left_alone(tmp_path: Path) -> None:
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    run_sweep(sweep_of(grid(1)), tmp_path / "sweep", run=trials.trivial)
    assert before == {name: os.environ.get(name) for name in before}
    assert threading.active_count() < 20
