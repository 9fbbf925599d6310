"""How many neighbours and which threshold a cohort needs (Bell et al. 2020, section 4 and theorem 3.10).

Neighbourhoods are random samples, so the numbers of corrupt and of dropped members in one are hypergeometric. Three
things must not happen to any client:

- *privacy*: `threshold` or more of its neighbourhood are corrupt, who then open what they like;
- *completeness*: fewer than `threshold` of its neighbourhood survive, and the round fails;
- *separation*: the graph of honest survivors falls apart, so that parts of the cohort are summed by themselves. On a
  circle that takes k / 2 neighbours in a row who are all corrupt or gone.

Each is bounded by the sum over all clients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from framp_private.errors import PlanError


@dataclass(frozen=True)
class Failure:
    """Upper bounds on the probability of each failure, for the whole cohort and one round."""

    privacy: float
    completeness: float
    separation: float


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
    bad, gone = math.floor(corrupt * cohort), math.floor(dropout * cohort)
    others = cohort - 1
    size = min(neighbours, others)
    privacy = (
        cohort * _at_least(others, min(bad, others), size, threshold) if size < others else float(bad >= threshold)
    )
    lost = size + 1 - threshold + 1  # the client itself survives, or nobody asks for its seed
    completeness = (
        cohort * _at_least(others, min(gone, others), size, lost - 0)
        if size < others
        else float(cohort - gone < threshold)
    )
    row = size // 2
    removed = min(bad + gone, others)
    separation = cohort * _at_least(others, removed, row, row) if size < others else 0.0
    return Failure(min(1.0, privacy), min(1.0, completeness), min(1.0, separation))


def design(
    cohort: int,
    *,
    threshold: float = 0.6,
    dropout: float = 0.2,
    corrupt: float = 0.1,
    complete_to: int = 64,
    privacy_bits: int = 40,
    completeness_bits: int = 20,
) -> Design:
    """The fewest neighbours with which each failure stays below its bound; the complete graph for small cohorts.

    Args:
        threshold: share of a neighbourhood that opens, in [0.5, 1). privacy_bits, completeness_bits: a failure of
            privacy or separation has probability at most 2^-privacy_bits, one of completeness 2^-completeness_bits.

    Raises:
        PlanError: no graph will do: more drop out than the threshold allows, or more are corrupt.
    """
    check(threshold, dropout, corrupt, cohort)
    if cohort <= complete_to:
        opening = math.floor(threshold * cohort) + 1
        return Design(cohort, cohort - 1, opening, failure(cohort, cohort - 1, opening, dropout, corrupt))
    for neighbours in [*range(8, cohort - 1, 2), cohort - 1]:
        opening = math.floor(threshold * (neighbours + 1)) + 1
        found = failure(cohort, neighbours, opening, dropout, corrupt)
        private = max(found.privacy, found.separation) <= 2.0**-privacy_bits
        split = 2 * opening > neighbours + 1 + math.floor(corrupt * (neighbours + 1))
        if private and split and found.completeness <= 2.0**-completeness_bits:
            return Design(cohort, neighbours, opening, found)
    raise PlanError(
        f"threshold={threshold} with dropout={dropout} and corrupt={corrupt} of {cohort} clients: no neighbour graph "
        "keeps all failures rare; choose a threshold between the corrupt share and the share that stays"
    )


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
    """P(a sample without replacement of `drawn` has `least` or more of the `marked`), exactly, as a float."""
    if least <= 0:
        return 1.0
    total = math.comb(population, drawn)
    hits = sum(
        math.comb(marked, hit) * math.comb(population - marked, drawn - hit)
        for hit in range(least, min(marked, drawn) + 1)
        if drawn - hit <= population - marked
    )
    return hits / total
