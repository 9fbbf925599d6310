"""What a sweep has spent stays spent, whatever becomes of its study."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from framp_private.errors import PrivacyBudgetExhausted, RunError, StorageError
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


def test_a_forgotten_storage_is_asked_for_and_a_moved_folder_keeps_its_own(tmp_path: Path) -> None:
    sweep, out = sweep_of(grid(2)), tmp_path / "sweep"
    shared = Machine(storage=f"sqlite:///{tmp_path / 'shared' / 'study.db'}")
    (tmp_path / "shared").mkdir()
    run_sweep(sweep, out, machine=shared, run=trials.spending)
    with pytest.raises(RunError, match="keeps its trials in"):
        run_sweep(sweep, out, resume=True, run=trials.spending)
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


def test_a_budget_holds_for_runs_that_are_chosen_on_the_way(tmp_path: Path) -> None:
    """Two runs fit by PLD, which holds for runs that were planned; by RDP, which the other sweep needs, one fits."""
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
    assert done == {"grid": 2, "tpe": 1}


def test_partitions_are_of_every_run_that_was_begun(tmp_path: Path) -> None:
    written = {"name": "sizes", "axes": {"clients": [4, 5]}, "seeds": [0, 1]}
    summary = run_sweep(sweep_of(written), tmp_path / "sizes", run=trials.crashing)
    assert summary["trials"]["failed"] == 1 and summary["partitions"] == 2
    same = run_sweep(sweep_of(grid(2, seeds=2)), tmp_path / "same", run=trials.trivial)
    assert same["partitions"] == 1
    public = {**grid(2, seeds=2), "choosing": {"records": "public"}}
    assert run_sweep(sweep_of(public), tmp_path / "public", run=trials.trivial)["partitions"] == 2
