"""The best of a secret number of runs: what it costs to release that one alone, and how the number is drawn.

K repetitions, K drawn at random and kept secret. Each draws a setting from a fixed public list, uniformly and by
itself, and runs it on the private data; the repetition that comes first in some total order of the outputs is
released, and the others never are (Papernot and Steinke 2022, "Hyperparameter tuning with Renyi differential privacy",
ICLR, arXiv 2110.03620). K has a truncated negative binomial distribution of a shape eta >= 0 and a gamma in (0, 1],

    P(K = k) = (1 - gamma)^k / (gamma^-eta - 1) * product over l < k of (l + eta) / (l + 1),   k >= 1,

which is geometric at eta = 1 and, in the limit, logarithmic at eta = 0; or it is Poisson, shape = infinity, and may be
0: then nothing but what is public can be released. `mean` fixes gamma.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

import attrs
import mpmath
import numpy as np
from dp_accounting import DpEvent

from framp_private.errors import PrivacyParameterError
from framp_private.privacy.discrete import decided
from framp_private.randomness import Entropy

_DIGITS = 50


@attrs.frozen
class SelectionDpEvent(DpEvent):  # type: ignore[misc]
    """The release of the best of K runs, each of a setting drawn uniformly from a public list.

    Args:
        candidates: for each setting, what a whole run of it releases.
        mean: of K, finite and at least 1.
        shape: of K: 0 logarithmic, 1 geometric, infinity Poisson, any other negative binomial.

    Raises:
        PrivacyParameterError: no candidates, one that is no event, or a mean or shape outside its range.
    """

    candidates: tuple[DpEvent, ...] = attrs.field(converter=tuple)
    mean: float
    shape: float

    def __attrs_post_init__(self) -> None:
        if not self.candidates or not all(isinstance(each, DpEvent) for each in self.candidates):
            raise PrivacyParameterError(
                f"candidates={self.candidates!r} must be one event or more: give what a run of each setting releases"
            )
        _check_repetitions(self.mean, self.shape)


def renyi_of_best(orders: Sequence[float], base_rdp: Sequence[float], mean: float, shape: float) -> np.ndarray:
    """(len(orders),) RDP of the best of K repetitions of a base mechanism with `base_rdp` at `orders`.

    Epsilon'(a) = epsilon(a) + ln(mean) / (a - 1) + c, where c depends on the shape (ibid., theorems 2 and 6):

    - finite: (1 + eta) times the least (1 - 1 / b) epsilon(b) + ln(1 / gamma) / b over orders b >= 1;
    - Poisson: mean * delta, where the base mechanism is (ln(1 + 1 / (a - 1)), delta)-private.

    RDP grows with the order, so a bound at one order holds at all below it; infinite where none is known.

    Args:
        orders: increasing, finite, at least 1.
        base_rdp: at each order, at least 0; infinite where unknown. Of several candidates the largest at each order:
            the index that is drawn does not depend on the data, and e^((a - 1) divergence) of index and output
            together is the mean of the candidates'.

    Raises:
        PrivacyParameterError: mean, shape, orders or RDP outside their ranges.
    """
    _check_repetitions(mean, shape)
    order, base = np.asarray(orders, float), np.asarray(base_rdp, float)
    ordered = order.ndim == 1 and len(order) > 0 and bool((np.diff(order) > 0).all())
    if not ordered or not 1 <= order[0] <= order[-1] < math.inf:
        raise PrivacyParameterError(f"orders={orders} must increase, be finite and at least 1")
    if base.shape != order.shape or np.isnan(base).any():
        raise PrivacyParameterError(
            f"base_rdp of shape {base.shape} with {np.isnan(base).sum()} NaN must hold a number for each of the "
            f"{len(order)} orders, infinity where none is known"
        )
    base = _from_above(np.maximum(base, 0.0))
    found, above = np.full(len(order), math.inf), order > 1
    choice = _poisson_choice if math.isinf(shape) else _binomial_choice
    extra = choice(order[above], base[above], mean, shape)
    found[above] = base[above] + math.log(mean) / (order[above] - 1) + extra
    return _from_above(found)


def draw_repetitions(mean: float, shape: float, entropy: Entropy) -> int:
    """K, at least 1, or at least 0 where the shape is infinite (Poisson).

    Guarantees: exactly distributed, from `entropy` alone: the inverse of the distribution function at a uniform number
    that gets as many bits as it takes, so nothing goes into any delta. A finite shape's gamma is a float64 power of e
    whose mean is at most `mean` and within a few units of its last place. Takes K steps.

    Raises:
        PrivacyParameterError: mean or shape outside its range.
    """
    _check_repetitions(mean, shape)
    word = int.from_bytes(entropy.bytes(8), "big")
    return decided(word, entropy, lambda uniform, digits: _quantile(uniform, digits, mean, shape))


def _check_repetitions(mean: float, shape: float) -> None:
    if not _is_number(mean) or not 1 <= mean < math.inf:
        raise PrivacyParameterError(f"mean={mean} must be a finite number of at least 1: so many runs are expected")
    if not _is_number(shape) or not shape >= 0:
        raise PrivacyParameterError(
            f"shape={shape} must be at least 0: 0 is logarithmic, 1 geometric, infinity Poisson, any other negative "
            "binomial"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _from_above(bound: np.ndarray) -> np.ndarray:
    """At each order the least bound of those at it and above."""
    return np.minimum.accumulate(bound[::-1])[::-1]


def _binomial_choice(order: np.ndarray, base: np.ndarray, mean: float, shape: float) -> float:
    """The constant of theorem 2; at order 1 the term is ln(1 / gamma), whatever the mechanism."""
    log = _log_inverse_gamma(mean, shape)
    terms = (1 - 1 / order) * base + log / order
    return (1 + shape) * min(log, float(terms.min(initial=math.inf)))


def _poisson_choice(order: np.ndarray, base: np.ndarray, mean: float, shape: float) -> np.ndarray:
    """(n,) mean * delta of theorem 6.

    Delta from RDP is the least of Canonne, Kamath and Steinke 2020, proposition 12, and of the bound on the total
    variation by Bretagnolle and Huber 1979, sqrt(1 - e^-epsilon(b)), over all orders b.
    """
    del shape
    small = np.log1p(1 / (order - 1))
    by_order = (order - 1) * (base + np.log1p(-1 / order) - small[:, None]) - np.log(order)
    with np.errstate(divide="ignore"):
        by_variation = np.log(-np.expm1(-base)) / 2
    least = np.minimum(by_order, by_variation).min(axis=1, initial=0.0)
    found: np.ndarray = mean * np.exp(least)
    return found


@lru_cache(maxsize=256)
def _log_inverse_gamma(mean: float, shape: float) -> float:
    """ln(1 / gamma): the largest float64 at which E K is at most `mean`, so that rounding makes nothing too cheap."""
    low, high = 0.0, 2 * math.log(mean)  # E K >= (e^s - 1) / s >= e^(s / 2)
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _mean(middle, shape) <= mean else (low, middle)
    return low


def _mean(log: float, shape: float) -> mpmath.mpf:
    """E K at gamma = e^-log: eta (1 - gamma) / (gamma (1 - gamma^eta)), or its limit at eta = 0."""
    with mpmath.workdps(_DIGITS):
        wide = mpmath.expm1(log)
        return wide / log if shape == 0 else shape * wide / -mpmath.expm1(-mpmath.mpf(shape) * log)


def _quantile(uniform: Fraction, digits: int, mean: float, shape: float) -> int:
    """The least k with P(K <= k) > `uniform`, in so many digits; some far k where no sum is as large."""
    with mpmath.workdps(digits + 10):
        target, masses = mpmath.mpf(uniform.numerator) / uniform.denominator, _masses(mean, shape)
        k, total = next(masses)
        while total <= target:
            k, mass = next(masses)
            if total + mass == total:
                break
            total += mass
        return k


def _masses(mean: float, shape: float) -> Iterator[tuple[int, mpmath.mpf]]:
    """k and P(K = k) from the first k on, in the digits of whoever asks."""
    if math.isinf(shape):
        k, mass = 0, mpmath.exp(-mpmath.mpf(mean))
        while True:
            yield k, mass
            k, mass = k + 1, mass * mean / (k + 1)
    log, eta = mpmath.mpf(_log_inverse_gamma(mean, shape)), mpmath.mpf(shape)
    rest = -mpmath.expm1(-log)
    first = mpmath.mpf(1) if log == 0 else rest / log if eta == 0 else rest * eta / mpmath.expm1(eta * log)
    k, mass = 1, first
    while True:
        yield k, mass
        k, mass = k + 1, mass * rest * (k + eta) / (k + 1)
