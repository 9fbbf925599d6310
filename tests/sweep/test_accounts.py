"""What a sweep has spent stays spent, whatever becomes of its study."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from framp_private.errors import LedgerError, PrivacyBudgetExhausted, RunError, StorageError
from framp_private.sweep import Machine, run_sweep, sweep_of
from tests.sweep import trials
from tests.sweep.harness import grid


def test_a_study_that_is_gone_is_not_begun_anew_beside_its_ledgers(tmp_path: Path) -> None:
    sweep, out = sweep_of(grid(3)), tmp_path / "sweep"
    run_sweep(sweep, out, run=trials.spending)
    (out / "study.db").unlink()
    with pytest.raises(RunError, match=r"holds no study 'tried' any more: restore it"):
        run_sweep(sweep, out, resume=True, run=trials.spending)


def test_a_study_that_is_older_than_its_ledgers_draws_no_noise_unseen(tmp_path: Path) -> None:
    """As after a backup that was restored: the ledgers know of runs that the study has forgotten."""
    sweep, out = sweep_of(grid(3)), tmp_path / "sweep"
    run_sweep(sweep, out, run=trials.spending)
    shutil.rmtree(out / "trials")
    _empty(out / "study.db")
    with pytest.raises(StorageError, match=r"trial 0000 was spent before, and the study does not know"):
        run_sweep(sweep, out, resume=True, run=trials.spending)


def _empty(study: Path) -> None:
    """Leaves the study as it was before its first trial."""
    file = sqlite3.connect(study)
    for table in ("trial_user_attributes", "trial_params", "trial_values", "trials"):
        file.execute(f"DELETE FROM {table}")
    file.commit()
    file.close()


def test_a_sweep_is_gone_on_with_where_it_was_begun_and_a_moved_folder_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, out = sweep_of(grid(2)), tmp_path / "sweep"
    shared = Machine(storage=f"sqlite:///{tmp_path / 'shared' / 'study.db'}")
    (tmp_path / "shared").mkdir()
    run_sweep(sweep, out, machine=shared, run=trials.spending)
    assert run_sweep(sweep, out, resume=True, run=trials.spending)["trials"]["done"] == 2  # as it was begun
    monkeypatch.chdir(tmp_path)
    named = Machine(storage="sqlite:///shared/study.db")
    assert run_sweep(sweep, out, machine=named, resume=True, run=trials.spending)["trials"]["done"] == 2
    (tmp_path / "shared" / "study.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(RunError, match="any more: restore it"):
        run_sweep(sweep, out, resume=True, run=trials.spending)
    other = Machine(storage=f"sqlite:///{tmp_path / 'elsewhere.db'}")
    with pytest.raises(RunError, match="keeps its trials in"):
        run_sweep(sweep, out, machine=other, resume=True, run=trials.spending)
    assert not (out / "study.db").exists()
    own = tmp_path / "own"
    run_sweep(sweep, own, run=trials.spending)
    moved = own.rename(tmp_path / "moved")
    assert run_sweep(sweep, moved, resume=True, run=trials.spending)["trials"]["done"] == 2


def test_a_trial_that_was_taken_over_is_dropped_and_the_sweep_goes_on(tmp_path: Path) -> None:
    sweep, out = sweep_of(grid(4)), tmp_path / "sweep"
    summary = run_sweep(sweep, out, run=trials.stolen)
    assert summary["trials"]["done"] == 4 and (out / "stolen").exists()
    (account,) = summary["choosing"]["accounts"]
    assert account["runs"] == 4 and account["ledger"]["rows"] == 5


def test_what_was_paid_for_runs_to_its_end_when_the_budget_does(tmp_path: Path) -> None:
    """Two workers: the third trial is refused while the second one, which is slow, still runs."""
    sweep, out = sweep_of(grid(4, preset="digits-private", choosing={"budget": 8})), tmp_path / "sweep"
    with pytest.raises(PrivacyBudgetExhausted):
        run_sweep(sweep, out, machine=Machine(workers=2), run=trials.spending_and_slow)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["trials"]["done"], summary["trials"]["waiting"]) == (2, 2)
    assert summary["choosing"]["accounts"][0]["runs"] == 2
    with pytest.raises(RunError, match="add --resume"):
        run_sweep(sweep, out, run=trials.spending_and_slow)


def test_ledgers_whose_key_is_gone_are_not_gone_on_with(tmp_path: Path) -> None:
    sweep, out = sweep_of(grid(2)), tmp_path / "sweep"
    run_sweep(sweep, out, run=trials.spending)
    (out / "private" / "keys" / "sweep.key").unlink()
    with pytest.raises(LedgerError, match=r"sweep\.key, which signs it, is not"):
        run_sweep(sweep, out, resume=True, run=trials.spending)
    assert not (out / "private" / "keys" / "sweep.key").exists()


def test_a_summary_that_cannot_be_read_is_written_anew(tmp_path: Path) -> None:
    sweep, out = sweep_of(grid(2)), tmp_path / "sweep"
    whole = run_sweep(sweep, out, run=trials.spending)
    for text in ("", "[1]", "null", '{"trials": []}', '{"trials": {"waiting": 0}}'):
        (out / "summary.json").write_text(text)
        assert run_sweep(sweep, out, resume=True, run=trials.spending) == whole
        assert json.loads((out / "summary.json").read_text())["trials"]["done"] == 2


def test_a_sweep_with_points_that_are_no_configuration_comes_to_its_end(tmp_path: Path) -> None:
    """Both ends of the range are whole numbers, and what is drawn between them is not."""
    written = {"name": "drawn", "axes": {"local_steps": {"low": 5.0, "high": 20.0}}, "sampler": "tpe", "points": 2}
    summary = run_sweep(sweep_of({**written, "objectives": ["local"]}), tmp_path / "sweep", run=trials.trivial)
    assert summary["trials"]["failed"] == 2 and summary["partitions"] == 0
    assert all("local_steps" in row["error"] for row in summary["rows"])


def test_a_budget_holds_for_runs_that_are_chosen_on_the_way(tmp_path: Path) -> None:
    """Two runs of the three fit by PLD, which holds for a plan as a whole and for no part of it; by RDP one fits."""
    written = {"preset": "digits-private", "axes": {"learning_rate": [0.1, 0.2, 0.3]}, "choosing": {"budget": 6.7}}
    done = {}
    for sampler, more in (("grid", {}), ("tpe", {"points": 3})):
        out = tmp_path / sampler
        sweep = sweep_of({"name": sampler, **written, "sampler": sampler, **more})
        with pytest.raises(PrivacyBudgetExhausted):
            run_sweep(sweep, out, run=trials.spending)
        summary = json.loads((out / "summary.json").read_text())
        done[sampler] = summary["trials"]["done"]
        assert summary["choosing"]["accounts"][0]["epsilon"] <= 6.7
    assert done == {"grid": 1, "tpe": 1}


def test_partitions_are_of_every_run_that_was_begun(tmp_path: Path) -> None:
    written = {"name": "sizes", "axes": {"clients": [4, 5]}, "seeds": [0, 1]}
    summary = run_sweep(sweep_of(written), tmp_path / "sizes", run=trials.crashing)
    assert summary["trials"]["failed"] == 1 and summary["partitions"] == 2
    same = run_sweep(sweep_of(grid(2, seeds=2)), tmp_path / "same", run=trials.trivial)
    assert same["partitions"] == 1
    public = {**grid(2, seeds=2), "choosing": {"records": "public"}}
    assert run_sweep(sweep_of(public), tmp_path / "public", run=trials.trivial)["partitions"] == 2
