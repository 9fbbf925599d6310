"""Means, intervals, differences, frontiers and pruning, against slow oracles."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from framp_private.sweep import sweep_of
from framp_private.sweep.frontier import frontier
from framp_private.sweep.intervals import difference, interval
from framp_private.sweep.pruning import hopeless
from framp_private.sweep.record import Record
from framp_private.sweep.results import points_of, summarise
from tests.report.sweeps import row
from tests.sweep.harness import grid


def test_intervals_are_students() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 10):
        values = rng.normal(size=n)
        found = interval(values.tolist())
        low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high)) and found.n == n
        other = rng.normal(size=n)
        pair = difference(values.tolist(), other.tolist())
        assert pair.p == pytest.approx(stats.ttest_rel(values, other).pvalue)
    single = interval([0.5])
    assert (single.mean, single.low, single.high) == (0.5, None, None)
    assert interval([1.0, math.inf]).as_row()["mean"] is None
    assert difference([1.0, 2.0], [0.0, 1.0]).p is None and difference([1.0], [0.0]).low is None


def test_intervals_cover_what_they_say() -> None:
    """95 % of 2,000 draws of three: between 93.5 and 96.5 % except with probability below .003."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        found = interval(rng.normal(size=3).tolist())
        assert found.low is not None and found.high is not None
        covered += found.low <= 0 <= found.high
    assert 0.935 < covered / 2000 < 0.965


def point(place: int, epsilon: float, values: list[float]) -> dict[str, Any]:
    table = {str(seed): value for seed, value in enumerate(values)}
    return {"place": place, "epsilon": epsilon, "accuracies": {"local": {"mean": table}}}


def test_the_frontier_is_what_a_slow_search_finds() -> None:
    rng = np.random.default_rng(2)
    for _ in range(100):
        points = [point(i, float(rng.integers(1, 5)), rng.integers(0, 6, 3).tolist()) for i in range(7)]
        found = {row["place"]: row["state"] for row in frontier(points, "mean")}
        assert len(found) == 7
        for mine in points:
            values = list(mine["accuracies"]["local"]["mean"].values())
            ahead, surely = False, False
            for other in points:
                theirs = list(other["accuracies"]["local"]["mean"].values())
                no_worse = other["epsilon"] <= mine["epsilon"] and np.mean(theirs) >= np.mean(values)
                better = other["epsilon"] < mine["epsilon"] or np.mean(theirs) > np.mean(values)
                if other is not mine and no_worse and better:
                    ahead = True
                    gap = np.subtract(theirs, values)
                    half = stats.t.ppf(0.975, 2) * gap.std(ddof=1) / math.sqrt(3)
                    surely |= bool(gap.mean() - half > 0)
            assert found[mine["place"]] == ("beaten" if surely else "behind" if ahead else "front")


def record(number: int, place: int, seed: int, found: dict[str, Any] | None, **more: Any) -> Record:
    state = more.pop("state", "complete" if found else "failed")
    values = (found["accuracy"]["local"]["mean"], found["epsilon"] or math.inf) if found else ()
    return Record(
        number,
        state,
        place,
        seed,
        result=found or {},
        values=values,
        params={"learning_rate": str(round(0.01 * (place + 1), 2))},
        **more,
    )


def test_seeds_are_averaged_and_never_chosen_from() -> None:
    sweep = sweep_of(grid(2, seeds=3))
    trials = [record(i, i % 2, i // 2, row("record", 1.0 + i % 2, 0.5 + 0.1 * (i // 2), i // 2)) for i in range(6)]
    first, second = points_of(sweep, trials)
    assert first["objectives"]["accuracy.local"]["mean"] == pytest.approx(0.6) and first["replicates"] == 3
    assert first["accuracies"]["local"]["mean"] == {"0": 0.5, "1": 0.6, "2": 0.7}
    assert (first["epsilon"], second["epsilon"], first["unit"]) == (1.0, 2.0, "record")


def test_units_have_frontiers_of_their_own_and_screening_is_in_no_mean() -> None:
    sweep = sweep_of(grid(4))
    trials = [
        record(0, 0, 0, row("record", 1.0, 0.5)),
        record(1, 1, 0, row("client", 2.0, 0.4)),
        record(2, 2, 0, row(None, None, 0.9)),
        record(3, 3, 0, None, error="ValueError: no"),
        record(4, 0, 9, row("record", 1.0, 0.1), screening=True),
    ]
    summary = summarise(sweep, trials, {"accounts": []})
    assert {(row["unit"], row["budget"]) for row in summary["frontier"]} == {
        (unit, budget) for unit in ("record, delta 1e-05", "client, delta 1e-05") for budget in ("1/4", "1", "mean")
    }
    assert all(row["points"][0]["state"] == "front" for row in summary["frontier"])
    assert summary["points"][0]["objectives"]["accuracy.local"]["mean"] == 0.5
    assert summary["points"][2]["unit"] == "none" and summary["points"][2]["epsilon"] is None
    assert summary["points"][3]["objectives"] == {} and summary["rows"][3]["error"] == "ValueError: no"
    assert summary["trials"]["failed"] == 1


def test_a_point_that_lacks_a_replicate_is_on_no_frontier() -> None:
    sweep = sweep_of(grid(2, seeds=2))
    trials = [
        record(0, 0, 0, row("record", 1.0, 0.5)),
        record(1, 1, 0, row("record", 1.0, 0.9)),
        record(2, 0, 1, row("record", 1.0, 0.5, 1)),
        record(3, 1, 1, None),
    ]
    summary = summarise(sweep, trials, {"accounts": []})
    assert [row["place"] for row in summary["frontier"][-1]["points"]] == [0]


PRUNED = sweep_of({**grid(5, seeds=2), "pruning": {"seeds": [100, 101], "margin": 0.1}})


def screened(locals_: list[tuple[float, float]], epsilons: list[float]) -> list[tuple[int, dict[str, Any]]]:
    return [
        (place, row("record", epsilons[place], value, 100 + at))
        for place, pair in enumerate(locals_)
        for at, value in enumerate(pair)
    ]


def test_only_points_that_are_worse_everywhere_and_by_the_margin_are_hopeless() -> None:
    rows = screened([(0.8, 0.8), (0.6, 0.7), (0.72, 0.72), (0.2, 0.2), (0.9, 0.9)], [2, 2, 2, 1, 8])
    assert hopeless(PRUNED, rows) == {1}  # 2 is within the margin, 3 is cheaper, 4 costs more than what it beats
    without_seed = [pair for pair in rows if pair != rows[2]]
    assert hopeless(PRUNED, without_seed) == frozenset()  # a point that lacks a seed is not compared
    other_unit = [(place, {**found, "unit": "client"} if place == 0 else found) for place, found in rows]
    assert hopeless(PRUNED, other_unit) == frozenset()
    assert hopeless(sweep_of(grid(2)), rows) == frozenset()


def test_pruning_leaves_means_unbiased_and_choosing_by_replicates_would_not() -> None:
    """24 points that are all alike, 150 times: the mean over what screening leaves is the truth, within 4 deviations
    (a false alarm in 15,000); kept by their own first seed instead, they come out better than they are.
    """
    sweep = sweep_of({**grid(24, seeds=2), "pruning": {"seeds": [100], "margin": 0.02}})
    rng = np.random.default_rng(3)
    honest, lucky = [], []
    for _ in range(150):
        values = rng.normal(0.5, 0.02, (3, 24))
        rows = [(place, row("record", 1.0, values[0, place])) for place in range(24)]
        kept = [place for place in range(24) if place not in hopeless(sweep, rows)]
        assert 0 < len(kept) < 24
        honest.append(values[1:, kept].mean())
        own = [(place, row("record", 1.0, values[1, place])) for place in range(24)]
        lucky.append(values[1:, [place for place in range(24) if place not in hopeless(sweep, own)]].mean())
    error = np.std(honest) / math.sqrt(150)
    assert abs(np.mean(honest) - 0.5) < 4 * error
    assert np.mean(lucky) - 0.5 > 10 * error


def test_what_beats_is_never_beaten_by_what_it_beats() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        rows = screened([tuple(rng.random(2)) for _ in range(5)], rng.integers(1, 4, 5).tolist())
        left = set(range(5)) - hopeless(PRUNED, rows)
        assert left, "everything was pruned"
        for a, b in itertools.permutations(left, 2):
            gap = np.mean([found["accuracy"]["local"]["mean"] for place, found in rows if place == a]) - np.mean(
                [found["accuracy"]["local"]["mean"] for place, found in rows if place == b]
            )
            assert not (gap >= 0.1 and rows[2 * a][1]["epsilon"] <= rows[2 * b][1]["epsilon"])
