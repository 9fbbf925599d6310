"""Which points a screening finds hopeless.

The screening has its own seeds. Whether a point is left therefore says nothing of how its replicates will come out, and
their means are as unbiased as without pruning; dropping points by the replicates themselves would favour those whose
first seeds were lucky. What pruning can do is to leave a point out that would have stood on the frontier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from framp_private.sweep.objectives import Objective
from framp_private.sweep.spec import Sweep


def hopeless(sweep: Sweep, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> frozenset[int]:
    """Places of points that another point of the same unit beats: no worse anywhere, better by the margin where
    measured.

    Args:
        rows: place and result of every screening trial that ended well. A point of which none did is never pruned, and
            one lacking a seed is not compared.
    """
    if sweep.pruning is None:
        return frozenset()
    by_place: dict[int, list[Mapping[str, Any]]] = {}
    for place, row in rows:
        by_place.setdefault(place, []).append(row)
    whole = {place: found for place, found in by_place.items() if len(found) == len(sweep.pruning.seeds)}
    means = {place: [_mean(objective, found) for objective in sweep.objectives] for place, found in whole.items()}
    units = {place: found[0]["unit"] for place, found in whole.items()}

    costs = {place: max(_cost(row) for row in found) for place, found in whole.items()}

    def beats(a: int, b: int) -> bool:
        if not costs[a] <= costs[b]:
            return False
        for objective, mine, its in zip(sweep.objectives, means[a], means[b], strict=True):
            if mine is None or its is None:
                return False
            gain = mine - its if objective.direction == "maximize" else its - mine
            if not gain >= (sweep.pruning.margin if sweep.pruning and objective.private else 0.0):
                return False
        return any(objective.private for objective in sweep.objectives)

    return frozenset(b for b in whole if any(a != b and units[a] == units[b] and beats(a, b) for a in whole))


def _cost(row: Mapping[str, Any]) -> float:
    """Epsilon, infinite without a guarantee, whether or not it is an objective."""
    return math.inf if row["epsilon"] is None else float(row["epsilon"])


def _mean(objective: Objective, rows: Sequence[Mapping[str, Any]]) -> float | None:
    values = [objective.of(row) for row in rows]
    return None if any(value is None for value in values) else float(np.mean([v for v in values if v is not None]))
