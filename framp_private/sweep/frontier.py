"""The frontier of privacy and utility: points that no other point beats in both, and which of the others are surely
beaten.

Epsilons of different units are never compared, so there is a frontier for each unit, and for each budget's accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framp_private.sweep.intervals import difference

ALIKE = 0.002
"""Epsilons that lie no further apart count as one: calibration reaches what was asked for within a thousandth."""
Row = Mapping[str, Any]


def frontier(points: Sequence[Row], budget: str, kind: str = "local") -> list[dict[str, Any]]:
    """One row for each point of one unit, by epsilon: where it stands.

    Args:
        points: of one unit, each with `place`, `epsilon` (a mean) and `accuracies`, by kind, budget and seed. budget:
            whose accuracy; `mean` for all. kind: which accuracy.

    Returns:
        place, and `state`: `front` if no point has at most its epsilon and a higher mean accuracy (or the same with a
        smaller epsilon); `beaten` if one such point is ahead by a paired t test over common seeds (95 %); else
        `behind`.
    """
    found = []
    usable = [point for point in points if _values(point, kind, budget)]
    means = {point["place"]: _mean(point, kind, budget) for point in usable}
    for point in sorted(usable, key=lambda row: (row["epsilon"], row["place"])):
        ahead = [other for other in usable if other is not point and _dominates(other, point, means)]
        surely = any(_surely(other, point, kind, budget) for other in ahead)
        found.append({"place": point["place"], "state": "beaten" if surely else "behind" if ahead else "front"})
    return found


def _values(point: Row, kind: str, budget: str) -> Mapping[str, float]:
    values: Mapping[str, float] = point["accuracies"].get(kind, {}).get(budget, {})
    return values


def _mean(point: Row, kind: str, budget: str) -> float:
    values = _values(point, kind, budget)
    return sum(values.values()) / len(values)


def _dominates(other: Row, point: Row, means: Mapping[int, float]) -> bool:
    better = means[other["place"]] - means[point["place"]]
    no_dearer = other["epsilon"] <= point["epsilon"] * (1 + ALIKE)
    cheaper = other["epsilon"] * (1 + ALIKE) < point["epsilon"]
    return better >= 0 and no_dearer and (better > 0 or cheaper)


def _surely(other: Row, point: Row, kind: str, budget: str) -> bool:
    ours, theirs = _values(point, kind, budget), _values(other, kind, budget)
    seeds = [seed for seed in ours if seed in theirs]
    if len(seeds) < 2:
        return False
    found = difference([theirs[seed] for seed in seeds], [ours[seed] for seed in seeds])
    return found.low is not None and found.low > 0
