"""How many neighbours, which threshold and how many checked confirmations a cohort needs (Bell et al. 2020, section 5).

Each client draws k neighbours out of those whose keys came, after the server committed to the keys, so the numbers of
corrupt and of dropped members in a neighbourhood are hypergeometric, whatever the server does. It may leave out of the
commitment as many honest clients as drop out at most, and no corrupt one. Four things must not happen:

- *privacy*: `threshold` or more of a client's neighbourhood, itself included, are corrupt, who open what they like;
- *completeness*: fewer than `threshold` of a neighbourhood survive, and the round fails;
- *separation*: the honest survivors fall into two parts that share no mask, and each is summed by itself. A part of s
  clients needs all of its neighbours to be in it, corrupt or called dropped, and `threshold` of each neighbourhood in
  it or corrupt; the bound sums the smaller of the two chances over all parts that the server could look for;
- *sample*: a client that checks a sample of the confirmations takes a sum for one that enough members confirmed.

**Which server a figure is for.** A server that follows the protocol learns nothing from t - 1 corrupt members of a
neighbourhood of n. One that does not could tell some that a client is active and others that it dropped out: among n
that is stopped by 2 t > n + the corrupt, so it stands 2 t - n - 1 of them (`cheating`). On the complete graph that is a
client's neighbourhood. On a sparse one it is the cohort: nothing is opened before `quorum` members, of all, have
confirmed one and the same sum, so that a round has one sum and one view.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from framp_private.errors import PlanError

COMPLETE_TO = 64
"""Cohorts up to this size share with everybody."""
PRIVACY_BITS, COMPLETENESS_BITS = 40, 20
"""A failure of privacy, separation or sample has probability at most 2^-40 a round, one of completeness 2^-20."""


@dataclass(frozen=True)
class Failure:
    """Upper bounds on the probability of each failure, for the whole cohort and one round."""

    privacy: float
    completeness: float
    separation: float
    sample: float


@dataclass(frozen=True)
class Design:
    """A graph, and what it stands.

    neighbours: k, or cohort - 1 for the complete graph. threshold: shares that open, of k + 1. quorum: members that
    confirm a sum before it is opened. sample: confirmations that a client checks where all at the quorum's distance
    survive; all of them on the complete graph. honest_but_curious: corrupt members of a neighbourhood against a server
    that follows the protocol. cheating: corrupt members against one that does not, of the neighbourhood on the complete
    graph and of the cohort on a sparse one.
    """

    cohort: int
    neighbours: int
    threshold: int
    quorum: int
    sample: int
    honest_but_curious: int
    cheating: int
    failure: Failure


def count_of(share: float, cohort: int) -> int:
    """The most members that a share of a cohort is; what rounding adds to a whole number does not count."""
    return math.floor(share * cohort + 1e-9)


def quorum(cohort: int, corrupt: float) -> int:
    """The fewest members with which no two sums of a round are confirmed: 2 q > cohort + its corrupt."""
    return (cohort + count_of(corrupt, cohort)) // 2 + 1


def cheating(size: int, opening: int) -> int:
    """The most corrupt among `size` with whom a server that does not follow the protocol gets no two views opened."""
    return 2 * opening - size - 1


def failure(cohort: int, neighbours: int, threshold: int, dropout: float, corrupt: float) -> Failure:
    """What may go wrong with a given graph and threshold.

    Args:
        dropout, corrupt: largest shares of the cohort, in [0, 1), that drop out and that collude with the server.
    """
    bad, gone = count_of(corrupt, cohort), count_of(dropout, cohort)
    if neighbours >= cohort - 1:
        return Failure(float(bad >= threshold), float(cohort - gone < threshold), 0.0, 0.0)
    pool = cohort - gone
    honest, others = pool - bad, pool - 1
    private = honest * _at_least(others, bad, min(neighbours, others), threshold)
    complete = cohort * _at_least(cohort - 1, gone, neighbours, neighbours + 2 - threshold)
    # more honest keys make fewer of a neighbourhood corrupt, and leave the server more of them to call dropped
    separate = max(_separation(cohort, neighbours, threshold, size, bad, corrupt) for size in (pool, cohort))
    least = quorum(cohort, corrupt)
    size, valid = sample_size(pool, least, cohort)
    missed = cohort * _at_least(pool, least - 1, size, valid)
    return Failure(*(min(1.0, chance) for chance in (private, complete, separate, missed)))


@lru_cache(maxsize=256)
def design(cohort: int, *, threshold: float | None = None, dropout: float = 0.2, corrupt: float = 0.1) -> Design:
    """The fewest neighbours with which each failure stays below its bound; the complete graph for small cohorts.

    Args:
        threshold: share of a neighbourhood that opens, in [0.5, 1); None takes the largest with which rounds are
            complete, and on the complete graph the smallest that stands the corrupt share: (1 + corrupt) / 2.

    Raises:
        PlanError: no graph will do: more drop out than the threshold allows, or more are corrupt.
    """
    check(threshold, dropout, corrupt, cohort)
    for neighbours in _sizes(cohort):
        opening = _opening(cohort, neighbours, threshold, dropout, corrupt)
        found = failure(cohort, neighbours, opening, dropout, corrupt) if opening else None
        if found is not None and rare(found) and found.completeness <= 2.0**-COMPLETENESS_BITS:
            return designed(cohort, neighbours, opening, dropout, corrupt, found)
    raise PlanError(
        f"dropout={dropout} and corrupt={corrupt} of {cohort} clients, threshold={threshold}: no neighbour graph keeps "
        "all failures rare; choose a threshold between the corrupt share and the share that stays"
    )


def designed(cohort: int, neighbours: int, opening: int, dropout: float, corrupt: float, found: Failure) -> Design:
    """A graph with what it stands."""
    least = max(quorum(cohort, corrupt), opening)
    if neighbours >= cohort - 1:
        return Design(cohort, cohort - 1, opening, least, cohort, opening - 1, cheating(cohort, opening), found)
    pool = cohort - count_of(dropout, cohort)
    size, _ = sample_size(pool, least, cohort)
    return Design(cohort, neighbours, opening, least, size, opening - 1, cheating(cohort, least), found)


def rare(found: Failure) -> bool:
    """Whether nothing that would show a client's value happens more often than once in 2^40 rounds."""
    return max(found.privacy, found.separation, found.sample) <= 2.0**-PRIVACY_BITS


@lru_cache(maxsize=4096)
def sample_size(active: int, least: int, cohort: int) -> tuple[int, int]:
    """How many of the active clients' confirmations a client draws to check, and how many of those must hold.

    If fewer than `least` of them really confirmed, so many hold with probability at most 2^-40 in any client of the
    cohort. As many as hold lie halfway between what `least` would give and all. All are checked, and `least` must hold,
    where no sample is smaller.
    """
    size = 1
    while size < active:
        valid = math.ceil(size * (1 + least / active) / 2)
        if cohort * _at_least(active, least - 1, size, valid) <= 2.0**-PRIVACY_BITS:
            return size, valid
        size += max(1, size // 16)
    return active, least


def check(threshold: float | None, dropout: float, corrupt: float, cohort: int) -> None:
    """Raises `PlanError` unless 0.5 <= threshold < 1, shares are in [0, 1), and the cohort has 3 or more."""
    if threshold is not None and not 0.5 <= threshold < 1:
        raise PlanError(
            f"threshold={threshold} must lie in [0.5, 1): below, a server could open two views of one round"
        )
    if not 0 <= dropout < 1 or not 0 <= corrupt < 1:
        raise PlanError(f"dropout={dropout}, corrupt={corrupt} must lie in [0, 1)")
    if cohort < 3:
        raise PlanError(f"cohort={cohort}: a sum over fewer than 3 clients hides nobody")


def opening_of(size: int, threshold: float) -> int:
    """Shares that open a secret of a neighbourhood."""
    return math.floor(threshold * size + 1e-9) + 1


def _sizes(cohort: int) -> Iterator[int]:
    """Numbers of neighbours to try, fewest first."""
    if cohort > COMPLETE_TO:
        yield from range(8, cohort - 1, 2)
    yield cohort - 1


def _opening(cohort: int, neighbours: int, threshold: float | None, dropout: float, corrupt: float) -> int:
    """The threshold to try with so many neighbours; 0 if none will do."""
    size, whole = neighbours + 1, neighbours >= cohort - 1
    if whole:
        opening = opening_of(size, (1 + corrupt) / 2 if threshold is None else threshold)
        return opening if cheating(size, opening) >= count_of(corrupt, size) else 0
    if threshold is not None:
        return opening_of(size, threshold)
    gone = count_of(dropout, cohort)
    for opening in range(size, size // 2, -1):
        if cohort * _at_least(cohort - 1, gone, neighbours, neighbours + 2 - opening) <= 2.0**-COMPLETENESS_BITS:
            return opening
    return 0


def _separation(cohort: int, neighbours: int, threshold: int, pool: int, bad: int, corrupt: float) -> float:
    """See *separation* in the module; parts are counted by the smaller one, of up to half of the honest."""
    honest, neighbours = pool - bad, min(neighbours, pool - 1)
    part = np.arange(1, honest // 2 + 1)
    if not len(part):
        return 0.0
    near = _log_tails(pool - 1, np.minimum(part - 1 + bad, pool - 1), neighbours, threshold - 1)
    # who is called dropped is one choice for all, as it is signed: at most what the quorum leaves
    dropped = np.maximum(0, np.minimum(pool - max(quorum(cohort, corrupt), threshold), honest - 2 * part))
    inside = _log_tails(pool - 1, np.minimum(part - 1 + bad + dropped, pool - 1), neighbours, neighbours)
    choices = np.log(dropped + 1.0) + _log_choose(honest - part, np.minimum(dropped, (honest - part) // 2))
    chance = _log_choose(np.full_like(part, honest), part) + np.minimum(part * near, choices + part * inside)
    return float(np.exp(np.minimum(0.0, chance)).sum())


def _at_least(population: int, marked: int, drawn: int, least: int) -> float:
    """P(a sample without replacement of `drawn` has `least` or more of the `marked`)."""
    if least <= 0:
        return 1.0
    return math.exp(float(_log_tails(population, np.array([marked]), drawn, least)[0]))


def _log_tails(population: int, marked: np.ndarray, drawn: int, least: int) -> np.ndarray:
    """(n,) logarithms of the same for each number of marked ones, 0 .. population."""
    hit = np.arange(max(least, 0), drawn + 1)[None, :]
    there = marked[:, None]
    terms = _log_choose(there, hit) + _log_choose(population - there, drawn - hit)
    terms -= _log_choose(np.array(population), np.array(drawn))
    if not terms.size:
        return np.full(len(marked), -np.inf)
    most = terms.max(1)
    safe = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        found: np.ndarray = safe + np.log(np.exp(terms - safe[:, None]).sum(1))
    return np.asarray(np.minimum(found, 0.0))


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Logarithms of binomial coefficients; minus infinity where k lies outside 0 .. n."""
    fits = (k >= 0) & (k <= n)
    low = np.where(fits, k, 0)
    table = _log_factorials(int(np.max(n)))
    return np.where(fits, table[np.maximum(n, 0)] - table[low] - table[np.maximum(n - low, 0)], -np.inf)


@lru_cache(maxsize=32)
def _log_factorials(most: int) -> np.ndarray:
    found = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 2, dtype=np.float64)))])
    found.setflags(write=False)
    return found
