"""Adaptive samplers, pruning and repetitions in whole sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from dp_accounting import GaussianDpEvent

from framp_private import Ledger
from framp_private.errors import ConfigError
from framp_private.privacy.selection import SelectionDpEvent
from framp_private.sweep import Machine, run_sweep, sweep_of
from tests.sweep import trials
from tests.sweep.harness import ran

TWO = Machine(workers=2)
RANGES: dict[str, Any] = {"learning_rate": {"low": 0.01, "high": 0.9}, "method": ["framp", "local"]}
OPEN = {"privacy": "none"}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_adaptive_points_are_drawn_once_and_repeated_at_every_seed(tmp_path: Path, sampler: str) -> None:
    written = {
        "name": sampler,
        "axes": RANGES,
        "sampler": sampler,
        "points": 9,
        "seeds": [0, 1],
        "objectives": ["local"],
    }
    summary = run_sweep(sweep_of(written), tmp_path / "sweep", machine=TWO, run=trials.noted)
    assert sorted(ran(tmp_path / "sweep")) == list(range(18))
    assert [point["replicates"] for point in summary["points"]] == [2] * 9
    axes = [tuple(point["axes"].values()) for point in summary["points"]]
    assert len(set(axes)) >= 6 and all(0.01 <= rate <= 0.9 for rate, _ in axes)
    for row in summary["rows"]:
        assert row["place"] == row["number"] // 2 and row["seed"] == row["number"] % 2
        rate = summary["points"][row["place"]]["axes"]["learning_rate"]
        assert row["values"][0] == pytest.approx(0.45 + 0.3 * rate + 0.01 * row["seed"], abs=1e-5)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_adaptive_samplers_take_several_objectives_and_an_infinite_epsilon(tmp_path: Path, sampler: str) -> None:
    """Half of the points guarantee nothing; both kinds are run, stored and told apart."""
    axes = {"learning_rate": RANGES["learning_rate"], "guarantee": {"own": {"privacy.epsilon": 2}, "none": OPEN}}
    written = {"name": sampler, "preset": "digits-private", "axes": axes, "sampler": sampler, "points": 16}
    more = {"objectives": ["accuracy.validation", "epsilon"], "choosing": {"records": "public"}}
    summary = run_sweep(sweep_of({**written, **more}), tmp_path / "sweep", machine=TWO, run=trials.trivial)
    assert summary["trials"]["done"] == 16
    epsilons = [point["epsilon"] for point in summary["points"]]
    guarantees = [point["axes"]["guarantee"] for point in summary["points"]]
    assert {"own", "none"} == set(guarantees)
    assert [epsilon is None for epsilon in epsilons] == [name == "none" for name in guarantees]
    study = optuna.load_study(study_name=sampler, storage=f"sqlite:///{tmp_path / 'sweep' / 'study.db'}")
    assert [each.name for each in study.directions] == ["MAXIMIZE", "MINIMIZE"] and study.best_trials


def test_references_do_not_blind_evolution(tmp_path: Path) -> None:
    """Children have their parents' values on axes of many: drawn at random, 24 rates of 40 would nearly all differ."""
    rates = [round(0.01 * (place + 1), 2) for place in range(40)]
    written = {"name": "bred", "axes": {"learning_rate": rates, "alpha": rates}, "sampler": "nsga2", "points": 32}
    more = {"references": {"alone": {"method": "local"}}, "objectives": ["local"]}
    summary = run_sweep(sweep_of({**written, **more}), tmp_path / "sweep", machine=TWO, run=trials.trivial)
    axes = [point["axes"] for point in summary["points"] if point["reference"] is None]
    first, later = axes[:8], axes[8:]
    inherited = sum(row["learning_rate"] in {each["learning_rate"] for each in first} for row in later)
    assert len(later) == 24 and inherited >= 16


def test_screening_prunes_whole_points_and_leaves_the_rest_as_it_was(tmp_path: Path) -> None:
    axes = {"learning_rate": [0.1, 0.4, 0.7, 0.9]}
    written = {"name": "whole", "axes": axes, "seeds": [1, 2], "objectives": ["local", "bytes"]}
    whole = run_sweep(sweep_of(written), tmp_path / "whole", machine=TWO, run=trials.trivial)
    screened = {**written, "pruning": {"seeds": [100], "margin": 0.1}}
    pruned = run_sweep(sweep_of(screened), tmp_path / "pruned", machine=TWO, run=trials.trivial)
    assert pruned["trials"] == {"planned": 12, "done": 8, "failed": 0, "pruned": 4, "running": 0, "waiting": 0}
    assert [point["pruned"] for point in pruned["points"]] == [True, True, False, False]
    for place in (2, 3):
        for key in ("objectives", "accuracies", "axes", "replicates"):
            assert pruned["points"][place][key] == whole["points"][place][key]
    assert all("screening" in row["error"] for row in pruned["rows"] if row["state"] == "pruned")


def test_repetitions_are_drawn_once_and_paid_before_the_first(tmp_path: Path) -> None:
    best = {"publish": "best", "mean": 3, "shape": 1}
    written = {
        "name": "best",
        "preset": "digits-private",
        "set": {"rounds": 1},
        "axes": {"privacy.epsilon": [0.5, 1]},
        "sampler": "random",
        "choosing": best,
    }
    sweep, out = sweep_of(written), tmp_path / "sweep"
    first = run_sweep(sweep, out, machine=TWO, run=trials.spending)
    again = run_sweep(sweep, out, machine=TWO, run=trials.spending, resume=True)
    assert [row["place"] for row in again["rows"]] == [row["place"] for row in first["rows"]]
    assert first["trials"]["planned"] >= 1
    (account,) = again["choosing"]["accounts"]
    assert account["ledger"]["rows"] == 2 and account["epsilon"] is not None  # the best alone, whatever ran
    path = out / "ledgers" / "record-add-remove.jsonl"
    ledger = Ledger.open(path, unit="record", owner="sweep best", repair=False)
    assert ledger.releases == 1 and ledger.epsilon(1e-5) > 1.0
    dearest = Ledger.open(None, unit="record")
    dearest.spend(SelectionDpEvent([GaussianDpEvent(100.0)], mean=3.0, shape=1.0), "x")
    assert ledger.epsilon(1e-5) > dearest.epsilon(1e-5)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"axes": {"privacy.epsilon": {"low": 0.5, "high": 1.0}}}, "no ranges"),
        ({"references": {"open": {"preset": "digits"}}}, "no references"),
        ({"axes": {"guarantee": {"a": {"rounds": 1}, "b": {"preset": "digits", "rounds": 1}}}}, "guarantees nothing"),
    ],
)
def test_repetitions_need_one_public_list_of_settings_that_protect_alike(
    tmp_path: Path, more: dict[str, Any], says: str
) -> None:
    written = {
        "name": "best",
        "preset": "digits-private",
        "axes": {"privacy.epsilon": [0.5, 1]},
        "sampler": "random",
        "choosing": {"publish": "best", "mean": 3},
        **more,
    }
    with pytest.raises(ConfigError, match=says):
        run_sweep(sweep_of(written), tmp_path / "sweep", run=trials.trivial)
