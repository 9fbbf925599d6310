"""A sweep's `summary.json`: points with their means, the frontier, what failed, and what choosing costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from framp_private.errors import ConfigError
from framp_private.evaluation import budget_of
from framp_private.sweep.frontier import frontier
from framp_private.sweep.intervals import AMOUNT, CONFIDENCE, SHARE, finite, interval, range_of
from framp_private.sweep.partition import partition_digest
from framp_private.sweep.record import Record
from framp_private.sweep.spec import REFERENCE, Point, Sweep
from framp_private.version import __version__

Row = dict[str, Any]
KINDS = ("local", "union", "after_local_training")
UNPROTECTED = "none"
"""What stands for a unit where a run guarantees nothing."""


def summarise(sweep: Sweep, trials: Sequence[Record], choosing: Mapping[str, Any]) -> Row:
    """Everything that the sweep says; every number in it is of finished trials' rows or of the sweep's accounts."""
    points = points_of(sweep, trials)
    states = Counter(trial.state for trial in trials)
    return {
        "sweep": sweep.name,
        "version": __version__,
        "digest": sweep.digest,
        "confidence": CONFIDENCE,
        "spec": sweep.as_row(),
        "objectives": [
            {"name": objective.name, "direction": objective.direction, "words": objective.words}
            for objective in sweep.objectives
        ],
        "trials": {
            "planned": len(trials),
            "done": states["complete"],
            "failed": states["failed"],
            "pruned": states["pruned"],
            "running": states["running"],
            "waiting": states["waiting"],
        },
        "points": points,
        "frontier": _frontiers(points, len(sweep.seeds)),
        "partitions": len(_partitions(sweep, trials)),
        "provenance": _provenance(trials),
        "refuted": [trial.number for trial in trials if trial.result.get("refuted")],
        "rows": [_trial(trial) for trial in trials],
        "choosing": dict(choosing),
        "chosen": _chosen(sweep, trials, points) if sweep.choosing.publish == "best" else None,
    }


def _chosen(sweep: Sweep, trials: Sequence[Record], points: Sequence[Row]) -> Row | None:
    """The best repetition by the first objective, the earlier of two alike; None if none ended well.

    It stands alone, so that what is published of it does not tell how many others there were.
    """
    sign = 1 if sweep.objectives[0].direction == "maximize" else -1
    done = [trial for trial in trials if trial.state == "complete"]
    if not done:
        return None
    best = max(done, key=lambda trial: (sign * trial.values[0], -trial.number))
    point = next(point for point in points if point["place"] == best.place)
    return {"trial": best.number, "axes": point["axes"], "claim": point["claim"], "value": finite(best.values[0])}


def _trial(trial: Record) -> Row:
    row: Row = {
        "number": trial.number,
        "state": trial.state,
        "place": trial.place,
        "seed": trial.seed,
        "screening": trial.screening,
    }
    if trial.state == "complete":
        result = {key: finite(value) for key, value in trial.result.items()}
        row |= {"values": [finite(value) for value in trial.values], "result": result}
    return row | ({"reason": _reason(trial.error), "error": trial.error} if trial.error else {})


def _reason(error: str) -> str:
    """What a report may show of an error: its kind. Its text may quote records, and stays in the summary."""
    first = error.splitlines()[0]
    kind = first.partition(":")[0]
    return kind if kind.isidentifier() and kind != first else first


def points_of(sweep: Sweep, trials: Sequence[Record]) -> list[Row]:
    """Every point with the means over its replicates, by place."""
    by_place: dict[int, list[Record]] = {}
    for trial in trials:
        if not trial.screening:
            by_place.setdefault(trial.place, []).append(trial)
    return [_point(sweep, place, found) for place, found in sorted(by_place.items())]


def _point(sweep: Sweep, place: int, trials: Sequence[Record]) -> Row:
    """A point over its replicates. One with replicates missing has means over those there are, and says how many."""
    first = trials[0]
    label = first.reference
    done = [trial for trial in trials if trial.state == "complete"]
    rows = [trial.result for trial in done]
    found: Row = {
        "place": place,
        "reference": label,
        "axes": {axis.name: first.params.get(axis.name) for axis in sweep.axes} if label is None else {},
        "trials": [trial.number for trial in trials],
        "replicates": len(done),
        "pruned": any(trial.state == "pruned" for trial in trials),
    }
    if not rows:
        return {**found, "unit": None, "epsilon": None, "claim": None, "objectives": {}, "accuracies": {}}
    units = {row["unit"] or UNPROTECTED for row in rows}
    claims = [row["privacy"][row["unit"]] for row in rows if row["unit"]]
    worst = max(claims, key=lambda claim: claim["epsilon"]) if claims else None
    accuracies = _accuracies(rows)
    infinite = any(row["epsilon"] is None for row in rows)
    return {
        **found,
        "unit": units.pop() if len(units) == 1 else UNPROTECTED,
        "epsilon": None if infinite else max(row["epsilon"] for row in rows),
        "claim": None if infinite else worst,
        "objectives": {
            objective.name: interval([trial.values[at] for trial in done], range_of(objective.name)).as_row()
            for at, objective in enumerate(sweep.objectives)
        },
        "accuracies": accuracies,
        "intervals": {
            kind: {budget: interval(list(values.values()), SHARE).as_row() for budget, values in table.items()}
            for kind, table in accuracies.items()
        },
        "server_view": rows[0]["server_view"],
        "worst_client": interval([row["worst_client"] for row in rows], SHARE).as_row(),
        "bytes": interval([row["bytes"] for row in rows], AMOUNT).as_row(),
        "seconds": interval([row["seconds"] for row in rows], AMOUNT).as_row(),
    }


def _partitions(sweep: Sweep, trials: Sequence[Record]) -> set[str]:
    """Of all trials that were begun, whatever came of them."""
    seeds: dict[int, set[int]] = {}
    points: dict[int, Point] = {}
    for trial in trials:
        point = trial.params if trial.reference is None else {REFERENCE: trial.reference}
        drawn = trial.reference is not None or len(point) == len(sweep.axes)  # else its process died before
        if drawn and (trial.state in ("running", "complete", "failed") or trial.spent):
            points[trial.place] = point
            seeds.setdefault(trial.place, set()).add(trial.seed)
    found = set()
    for place, point in points.items():
        with suppress(ConfigError):  # it failed for that: no run was made of it
            config = sweep.config(point, sweep.seeds[0])
            found |= {partition_digest(config, seed) for seed in seeds[place]}
    return found


def _provenance(trials: Sequence[Record]) -> list[Row]:
    """Versions and code of the finished trials, each once: more than one means that trials are not alike."""
    found: list[Row] = []
    for trial in trials:
        row = {key: trial.result.get("provenance", {}).get(key) for key in ("versions", "code_sha256")}
        if trial.result and row not in found:
            found.append(row)
    return found


def _accuracies(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """By kind, budget and seed."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        for kind in KINDS:
            for budget, value in row["accuracy"][kind].items():
                if value is not None:
                    table.setdefault(kind, {}).setdefault(budget, {})[str(row["seed"])] = value
    return table


def _frontiers(points: Sequence[Row], replicates: int) -> list[Row]:
    """One for each kind of claim and each budget, on points that have every replicate.

    A kind of claim is unit, what one is, relation and delta: epsilons of two kinds do not compare. A run without a
    guarantee is on none. Means over all budgets are compared between points of the same budgets.
    """
    kinds: dict[str, list[Row]] = {}
    for point in points:
        if point["epsilon"] and point["claim"] and point["replicates"] == replicates:
            kinds.setdefault(_kind(point), []).append({**point, "epsilon": float(point["epsilon"])})
    found = []
    for kind, members in sorted(kinds.items()):
        for budget in sorted({budget for point in members for budget in point["accuracies"]["local"]}, key=_size):
            for group in _alike(members, budget):
                found.append({"unit": kind, "budget": budget, "points": frontier(group, budget)})
    return found


def _kind(point: Row) -> str:
    """What an epsilon is of, in words."""
    claim = point["claim"]
    relation = claim["relation"] if claim["relation"] != "add/remove" else ""
    return ", ".join(
        part for part in (point["unit"], claim.get("protects", ""), relation, f"delta {claim['delta']:g}") if part
    )


def _alike(points: Sequence[Row], budget: str) -> list[list[Row]]:
    """Points whose accuracies at a budget are of the same clients' budgets."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for point in points:
        table = point["accuracies"]["local"]
        if budget in table:
            groups.setdefault(tuple(sorted(table)) if budget == "mean" else (), []).append(point)
    return list(groups.values())


def _size(budget: str) -> float:
    """Budgets by their size, and what is over all of them last."""
    return math.inf if budget == "mean" else budget_of(budget)
