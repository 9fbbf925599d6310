"""From events to an epsilon: privacy loss distributions (PLD), and Renyi DP (RDP) as cross-check and filter.

- PLD (Meiser and Mohammadi 2018; Koskela et al. 2020; dp_accounting, pessimistic, grid 1e-4) composes events whose
  parameters were fixed before the first release.
- RDP (Mironov 2017; conversion of Canonne, Kamath and Steinke 2020, prop. 12) adds up order by order, so that a check
  costs the same however many releases there were, and holds as a filter where parameters were chosen on the way
  (Feldman and Zrnic 2021; Lecuyer 2021).

Both bounds are valid where both apply, so the smaller one is reported. Gaussian events are first merged into one,
exactly: noise multipliers z_j with counts n_j compose like one of multiplier (sum n_j / z_j^2)^(-1/2).
Identical histories share one cached PLD, whoever's they are.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent, NoOpDpEvent, SelfComposedDpEvent, UnsupportedEventError
from dp_accounting.pld import PLDAccountant
from dp_accounting.privacy_accountant import NeighboringRelation
from dp_accounting.rdp import RdpAccountant, compute_epsilon
from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS

from framp_private.privacy.events import Relation, event_of, leaves
from framp_private.privacy.noise import TAIL
from framp_private.privacy.selection import SelectionDpEvent, renyi_of_best
from framp_private.privacy.skellam import SkellamDpEvent, renyi

ORDERS = (*range(2, 65), *range(72, 257, 8), 320, 384, 512, 768, 1024)
"""Integer RDP orders: a run-time check adds these up."""

GRID = 1e-4
"""Width of a PLD's cells, in units of privacy loss; rounding is upwards."""

Leaves = Mapping[str, int]
_RELATIONS = {
    "add/remove": NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace-one": NeighboringRelation.REPLACE_ONE,
    "add/remove edge": NeighboringRelation.ADD_OR_REMOVE_ONE,
}


def epsilon(counts: Leaves, relation: Relation, delta: float, noise_values: int = 0) -> float:
    """Epsilon at `delta` of elementary events with their counts; infinite where there is no guarantee.

    For events that were fixed before the first release. `noise_values` float noise values were drawn in all: the mass
    tau = (1 + e^epsilon) * noise_values * TAIL of their cut tails is taken off delta first.
    """
    return _with_tails(
        lambda d: min(_pld_epsilon(counts, relation, d), _rdp_epsilon(counts, relation, d)), delta, noise_values
    )


def rdp_vector(counts: Leaves, relation: Relation) -> np.ndarray:
    """(len(ORDERS),) RDP of elementary events with their counts, at integer orders; infinite where unknown."""
    return _total(counts, relation, ORDERS)


def filter_epsilon(vector: np.ndarray, delta: float, noise_values: int = 0) -> float:
    """Epsilon at `delta` of an RDP vector at `ORDERS`: valid for events chosen on the way, too."""
    return _with_tails(lambda d: _convert(ORDERS, vector, d), delta, noise_values)


def _with_tails(at: Callable[[float], float], delta: float, noise_values: int) -> float:
    first = at(delta)
    if not noise_values or not math.isfinite(first):
        return first
    margin = first + 0.1
    tails = (1 + math.exp(min(margin, 700.0))) * noise_values * TAIL
    if tails >= delta:
        return math.inf
    second = at(delta - tails)
    return second if second <= margin else math.inf


def _pld_epsilon(counts: Leaves, relation: Relation, delta: float) -> float:
    return _pld(frozenset(counts.items()), relation, delta)


@lru_cache(maxsize=4096)
def _pld(counts: frozenset[tuple[str, int]], relation: Relation, delta: float) -> float:
    accountant = _composed(counts, relation)
    return math.inf if accountant is None else max(0.0, float(accountant.get_epsilon(delta)))


@lru_cache(maxsize=64)
def _composed(counts: frozenset[tuple[str, int]], relation: Relation) -> PLDAccountant | None:
    accountant = PLDAccountant(_RELATIONS[relation], GRID)
    try:
        for event, count in merged(dict(counts)):
            accountant.compose(SelfComposedDpEvent(event, count))
    except (UnsupportedEventError, NotImplementedError):
        return None
    return accountant


def merged(counts: Leaves) -> list[tuple[DpEvent, int]]:
    """Events with counts, all Gaussian ones replaced by the one they compose to."""
    precision, others = 0.0, []
    for leaf, count in sorted(counts.items()):
        event = event_of(leaf)
        if isinstance(event, GaussianDpEvent):
            precision += count / event.noise_multiplier**2 if event.noise_multiplier else math.inf
        elif not isinstance(event, NoOpDpEvent):
            others.append((event, count))
    return ([(GaussianDpEvent(precision**-0.5), 1)] if precision else []) + others


def _rdp_epsilon(counts: Leaves, relation: Relation, delta: float) -> float:
    orders = tuple(DEFAULT_RDP_ORDERS)
    return _convert(orders, _total(counts, relation, orders), delta)


def _total(counts: Leaves, relation: Relation, orders: tuple[float, ...]) -> np.ndarray:
    total = np.zeros(len(orders))
    for leaf, count in counts.items():
        total = total + count * _rdp(leaf, relation, orders)
    return total


def _convert(orders: tuple[float, ...], vector: np.ndarray, delta: float) -> float:
    if not np.isfinite(vector).any():
        return math.inf
    value, _ = compute_epsilon(orders, vector, delta)
    return max(0.0, float(value))


@lru_cache(maxsize=4096)
def _rdp(leaf: str, relation: Relation, orders: tuple[float, ...]) -> np.ndarray:
    event = event_of(leaf)
    if isinstance(event, SkellamDpEvent):  # its bound is for a shift, which replacing a unit is not
        return renyi(event, orders) if relation == "add/remove" else np.full(len(orders), math.inf)
    if isinstance(event, SelectionDpEvent):
        runs = [_total(leaves(candidate), relation, orders) for candidate in event.candidates]
        return renyi_of_best(orders, np.max(runs, axis=0), event.mean, event.shape)
    accountant, log = RdpAccountant(orders, _RELATIONS[relation]), logging.getLogger("absl")
    level = log.level
    try:
        log.setLevel(logging.ERROR)  # a fractional order that does not converge is left out, which is a valid bound
        accountant.compose(event)
    except UnsupportedEventError:
        return np.full(len(orders), math.inf)
    finally:
        log.setLevel(level)
    vector = np.array(accountant._rdp, dtype=float)
    vector.setflags(write=False)
    return vector
