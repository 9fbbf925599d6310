"""The Skellam distribution: the difference of two Poisson variables, whose sums are Skellam again.

Noise in shares has the distribution of noise from one source, exactly, so that what is accounted is what is there
(Agarwal, Kairouz and Liu 2021, "The Skellam mechanism for differentially private federated learning", arXiv
2110.04995). P(k) = e^-mu I_k(mu) for variance mu.

Sampling is rejection from a discrete Laplace distribution, like `privacy/discrete.py`'s: P is log-concave, so its ratio
to the proposal has one peak. A decision that float64 cannot make for sure is made in as many digits as it takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import attrs
import mpmath
import numpy as np
from dp_accounting import DpEvent
from scipy.special import ive

from framp_private.errors import PrivacyParameterError
from framp_private.privacy.discrete import decided, from_laplace
from framp_private.randomness import Entropy

LARGEST = 2.0**29
"""Variances up to this, a deviation of 23,000: the scaled Bessel function of float64 ends at 2^30."""

_GUARD = 2.0**-34
"""Far above the error of the scaled Bessel function in float64 (Amos 1986: some 10^-14 at moderate orders)."""


@attrs.frozen
class SkellamDpEvent(DpEvent):  # type: ignore[misc]
    """One release of integers with Skellam noise on each: l2, l1 bound how far neighbours' integers lie apart."""

    variance: float
    l2: float
    l1: float


def renyi(event: SkellamDpEvent, orders: Sequence[float]) -> np.ndarray:
    """(len(orders),) RDP (ibid., theorem 3.5), for integer orders; infinite at others.

    alpha l2^2 / (2 mu) + min(((2 alpha - 1) l2^2 + 6 l1) / (4 mu^2), 3 l1 / (2 mu)).
    """
    alpha, mu = np.asarray(orders, float), event.variance
    extra = np.minimum(((2 * alpha - 1) * event.l2**2 + 6 * event.l1) / (4 * mu**2), 3 * event.l1 / (2 * mu))
    found: np.ndarray = np.where(alpha == np.floor(alpha), alpha * event.l2**2 / (2 * mu) + extra, math.inf)
    return found


def skellam(count: int, variance: float, entropy: Entropy) -> np.ndarray:
    """(count,) int64 independent Skellam values of the given variance in (0, 2^29].

    Guarantees: exactly distributed, from `entropy` alone.

    Raises:
        PrivacyParameterError: variance outside its range.
    """
    if not 0 < variance <= LARGEST:
        raise PrivacyParameterError(f"variance={variance} must lie in (0, 2^29]: choose another scale for the integers")
    scale = math.floor(math.sqrt(variance)) + 1
    return from_laplace(count, scale, lambda words, sizes: _bernoulli(words, sizes, variance, scale, entropy), entropy)


def _bernoulli(words: np.ndarray, sizes: np.ndarray, variance: float, scale: int, entropy: Entropy) -> np.ndarray:
    """(n,) True with probability P(x) e^(x / scale) / M, where M is a little above the largest such value."""
    most = _peak(variance, scale)
    with np.errstate(divide="ignore", over="ignore"):
        logarithm = np.log(ive(sizes, variance)) + sizes / scale - most
    probability = np.exp(logarithm)
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-64
    accepted: np.ndarray = uniform < probability
    # far out the Bessel function underflows: there, too, the decision is made exactly
    unclear = np.abs(uniform - probability) < _GUARD * (1 + np.abs(logarithm)) * np.maximum(probability, 2.0**-20)
    for place in np.flatnonzero(unclear | ~np.isfinite(logarithm)):
        accepted[place] = _exact_below(int(words[place]), int(sizes[place]), variance, scale, most, entropy)
    return accepted


@lru_cache(maxsize=256)
def _peak(variance: float, scale: int) -> float:
    """The largest ln P(k) + k / scale over k >= 0, and a margin far above its error: M need not be tight."""

    def height(k: int) -> float:
        return float(np.log(ive(k, variance))) + k / scale

    low, high = 0, 4 * scale + 16
    while high - low > 2:
        third = (high - low) // 3
        left, right = low + third, high - third
        if height(left) < height(right):
            low = left
        else:
            high = right
    return max(height(k) for k in range(max(0, low - 4), high + 5)) + 2.0**-20


def _exact_below(word: int, size: int, variance: float, scale: int, most: float, entropy: Entropy) -> bool:
    """Whether the uniform whose first 64 bits are `word` lies below the acceptance probability."""

    def below(uniform: Fraction, digits: int) -> int:
        with mpmath.workdps(digits + 30):
            exponent = Fraction(size, scale) - Fraction(most) - Fraction(variance)
            threshold = mpmath.besseli(size, variance) * mpmath.exp(_real(exponent))
            return int(_real(uniform) < threshold)

    return bool(decided(word, entropy, below))


def _real(value: Fraction) -> mpmath.mpf:
    return mpmath.mpf(value.numerator) / value.denominator
