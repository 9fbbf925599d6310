"""How many neighbours and which threshold a cohort needs (Bell et al. 2020, section 4 and theorem 3.10).

Neighbourhoods are random samples, so the numbers of corrupt and of dropped members in one are hypergeometric. Three
things must not happen to any client:

- *privacy*: `threshold` or more of its neighbourhood are corrupt, who then open what they like;
- *completeness*: fewer than `threshold` of its neighbourhood survive, and the round fails;
- *separation*: the graph of honest survivors falls apart, so that parts of the cohort are summed by themselves. On a
  circle that takes k / 2 neighbours in a row who are all corrupt or gone.

Each is bounded by the sum over all clients. A fourth is for a server that does not follow the protocol:

- *split*: it tells distant parts of the cohort different sets of active clients, and opens a sum for each. Two clients
  that open under different sets have together too few confirmations unless 2 t - k - 1 - c others sit between them, c
  the corrupt; and those in the middle of that band stay closed, and their neighbours with them, if 3 t > 2 k + 3 + c.
  On the complete graph 2 t > n + c does. With a threshold of two thirds or less a sparse graph does not exclude it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from framp_private.errors import PlanError

COMPLETE_TO = 64
"""Cohorts up to this size share with everybody."""


@dataclass(frozen=True)
class Failure:
    """Upper bounds on the probability of each failure, for the whole cohort and one round."""

    privacy: float
    completeness: float
    separation: float
    split: float


@dataclass(frozen=True)
class Design:
    """neighbours: k, even, or cohort - 1 for the complete graph. threshold: shares that open, of k + 1."""

    cohort: int
    neighbours: int
    threshold: int
    failure: Failure


def failure(cohort: int, neighbours: int, threshold: int, dropout: float, corrupt: float) -> Failure:
    """What may go wrong with a given graph and threshold.

    Args:
        dropout, corrupt: largest shares of the cohort, in [0, 1), that drop out and that collude with the server.
    """
    others = cohort - 1
    bad, gone = min(math.ceil(corrupt * cohort), others), min(math.ceil(dropout * cohort), others)
    if neighbours >= others:
        split = float(bad >= 2 * threshold - cohort)
        return Failure(float(bad >= threshold), float(cohort - gone < threshold), 0.0, split)
    # a client that is asked about has survived or is corrupt itself, so one place of its neighbourhood is taken
    private = cohort * _at_least(others, bad, neighbours, threshold)
    complete = cohort * _at_least(others, gone, neighbours, neighbours + 1 - threshold + 1)
    separate = cohort * _at_least(others, min(bad + gone, others), neighbours // 2, neighbours // 2)
    split = cohort * _at_least(others, bad, neighbours, 3 * threshold - 2 * neighbours - 3)
    return Failure(*(min(1.0, chance) for chance in (private, complete, separate, split)))


def design(
    cohort: int,
    *,
    threshold: float | None = None,
    dropout: float = 0.2,
    corrupt: float = 0.1,
    complete_to: int = COMPLETE_TO,
    privacy_bits: int = 40,
    completeness_bits: int = 20,
) -> Design:
    """The fewest neighbours with which each failure stays below its bound; the complete graph for small cohorts.

    Args:
        threshold: share of a neighbourhood that opens, in [0.5, 1); None looks for the best between the corrupt and
            those who stay. privacy_bits, completeness_bits: a failure of privacy or separation has probability at most
            2^-privacy_bits, one of completeness 2^-completeness_bits.

    Raises:
        PlanError: no graph will do: more drop out than the threshold allows, or more are corrupt.
    """
    check(0.5 if threshold is None else threshold, dropout, corrupt, cohort)
    sizes = [cohort - 1] if cohort <= complete_to else [*range(8, cohort - 1, 2), cohort - 1]
    for neighbours in sizes:
        for opening in _openings(neighbours + 1, threshold, dropout, corrupt):
            found = failure(cohort, neighbours, opening, dropout, corrupt)
            private = max(found.privacy, found.separation) <= 2.0**-privacy_bits
            if private and found.completeness <= 2.0**-completeness_bits:
                return Design(cohort, neighbours, opening, found)
    raise PlanError(
        f"dropout={dropout} and corrupt={corrupt} of {cohort} clients, threshold={threshold}: no neighbour graph keeps "
        "all failures rare; choose a threshold between the corrupt share and the share that stays"
    )


def least_opening(size: int, corrupt: float) -> int:
    """The fewest shares t of a neighbourhood with 2 t > size + its corrupt: no two halves open two views of a round."""
    return (size + math.ceil(corrupt * size)) // 2 + 1


def _openings(size: int, threshold: float | None, dropout: float, corrupt: float) -> list[int]:
    """Thresholds to try for a neighbourhood, best first."""
    least = least_opening(size, corrupt)
    if threshold is not None:
        opening = math.floor(threshold * size) + 1
        return [opening] if opening >= least else []
    most = math.floor((1 - dropout) * size)
    middle = (least + most) // 2
    return sorted(range(least, most + 1), key=lambda opening: abs(opening - middle))


def check(threshold: float, dropout: float, corrupt: float, cohort: int) -> None:
    """Raises `PlanError` unless 0.5 <= threshold < 1, shares are in [0, 1), and the cohort has 3 or more."""
    if not 0.5 <= threshold < 1:
        raise PlanError(
            f"threshold={threshold} must lie in [0.5, 1): below, a server could open two views of one round"
        )
    if not 0 <= dropout < 1 or not 0 <= corrupt < 1:
        raise PlanError(f"dropout={dropout}, corrupt={corrupt} must lie in [0, 1)")
    if cohort < 3:
        raise PlanError(f"cohort={cohort}: a sum over fewer than 3 clients hides nobody")


def _at_least(population: int, marked: int, drawn: int, least: int) -> float:
    """P(a sample without replacement of `drawn` has `least` or more of the `marked`)."""
    if least <= 0:
        return 1.0
    total = _log_choose(population, drawn)
    return math.fsum(
        math.exp(_log_choose(marked, hit) + _log_choose(population - marked, drawn - hit) - total)
        for hit in range(max(least, drawn - (population - marked)), min(marked, drawn) + 1)
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
