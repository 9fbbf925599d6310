"""The trials of a sweep, numbered before the first one runs: what a number stands for is the same for everybody.

Grid and random points go through one seed after the other, so that a picture of all points is there early. Adaptive
samplers go through points, each at all seeds, as a point is drawn from what came before.
"""

from __future__ import annotations

from dataclasses import dataclass

from framp_private.randomness import Entropy
from framp_private.sweep.spec import ADAPTIVE, REFERENCE, Point, Sweep


@dataclass(frozen=True)
class Slot:
    """One trial to be run.

    Args:
        place: of its point; replicates share it. seed: of the run. point: None if an adaptive sampler draws it.
        screening: its result decides what is pruned, and is in no mean.
    """

    place: int
    seed: int
    point: Point | None
    screening: bool = False


def slots_of(sweep: Sweep, repetitions: int | None = None, entropy: Entropy | None = None) -> list[Slot]:
    """Every trial in the order of its number.

    Args:
        repetitions, entropy: for `choosing.publish=best`: how many points to draw, and from what.
    """
    points: list[Point | None] = [{REFERENCE: label} for label in sweep.references]
    if repetitions is not None and entropy is not None:
        points += [sweep.drawn_in_secret(entropy) for _ in range(repetitions)]
    elif sweep.sampler == "grid":
        points += list(sweep.grid()) if sweep.axes else []
    elif sweep.sampler == "random":
        points += [sweep.drawn(place) for place in range(sweep.points or 0)]
    else:
        points += [None] * (sweep.points or 0)
    places = list(enumerate(points))
    if sweep.sampler in ADAPTIVE:
        return [Slot(place, seed, point) for place, point in places for seed in sweep.seeds]
    screened = [
        Slot(place, seed, point, True)
        for seed in (sweep.pruning.seeds if sweep.pruning else ())
        for place, point in places
        if point is None or REFERENCE not in point
    ]
    return screened + [Slot(place, seed, point) for seed in sweep.seeds for place, point in places]
