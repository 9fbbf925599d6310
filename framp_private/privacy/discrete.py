"""The discrete Gaussian on the integers, exactly: P(x) proportional to exp(-x^2 / (2 sigma^2)).

Rejection from a discrete Laplace distribution (Canonne, Kamath and Steinke 2020, "The discrete Gaussian for
differential privacy", algorithms 2 and 3). Every decision compares a uniform number with a logarithm or an exponential.
It is taken in float64 where the comparison is clear, which is nearly always; where the two are closer than the rounding
could be off, the uniform gets more bits and the comparison is made in as many digits as it takes. So the
distribution is exact, not close: no rounding error goes into any delta.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np

from framp_private.errors import PrivacyParameterError
from framp_private.randomness import Entropy

_BITS = 64
_GUARD = 2.0**-44
"""Far above the relative error of the float64 evaluations below, which is a few times 2^-52."""

Accepts = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(uniform words, sizes of proposals) -> which of them stay."""

LARGEST = 2.0**24
"""sigma up to this keeps every intermediate value well inside float64's integers."""


def discrete_gaussian(count: int, sigma: float, entropy: Entropy) -> np.ndarray:
    """(count,) int64 independent discrete Gaussian values with parameter sigma in (0, 2^24].

    Guarantees: exactly distributed, from `entropy` alone. The variance is at most sigma^2 (ibid., corollary 9).

    Raises:
        PrivacyParameterError: sigma outside its range.
    """
    if not 0 < sigma <= LARGEST:
        raise PrivacyParameterError(f"sigma={sigma} must lie in (0, 2^24]: choose another scale for the integers")
    scale = math.floor(sigma) + 1
    return from_laplace(count, scale, lambda words, sizes: _bernoulli(words, sizes, sigma, scale, entropy), entropy)


def from_laplace(count: int, scale: int, accepts: Accepts, entropy: Entropy) -> np.ndarray:
    """(count,) int64 by rejection from P(x) proportional to exp(-|x| / scale): a proposal stays where `accepts` it."""
    found: list[np.ndarray] = []
    missing = count
    while missing > 0:
        proposals = missing + missing // 2 + 16
        sizes = geometric(words_of(proposals, entropy), scale, entropy)
        negative = words_of(proposals, entropy) >> np.uint64(63) == 1
        keep = ~(negative & (sizes == 0))
        sizes, negative = sizes[keep], negative[keep]
        keep = accepts(words_of(len(sizes), entropy), sizes)
        made = np.where(negative[keep], -sizes[keep], sizes[keep])[:missing]
        found.append(made)
        missing -= len(made)
    return np.concatenate([np.zeros(0, np.int64), *found])


def geometric(words: np.ndarray, scale: int, entropy: Entropy) -> np.ndarray:
    """(n,) floor(-scale ln U): P(x) proportional to exp(-x / scale) on 0, 1, 2, ..."""
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-_BITS
    value = -scale * np.log(uniform)
    size = np.floor(value)
    slack = _GUARD * (scale + value) + scale / (words.astype(np.float64) + 0.5)  # rounding, and the word's own width
    unclear = (value - size < slack) | (size + 1 - value < slack)
    for place in np.flatnonzero(unclear):
        size[place] = _exact_floor(int(words[place]), scale, entropy)
    whole: np.ndarray = size.astype(np.int64)
    return whole


def _bernoulli(words: np.ndarray, sizes: np.ndarray, sigma: float, scale: int, entropy: Entropy) -> np.ndarray:
    """(n,) True with probability exp(-(x - sigma^2 / scale)^2 / (2 sigma^2)), exactly."""
    exponent = (sizes - sigma**2 / scale) ** 2 / (2 * sigma**2)
    probability = np.exp(-exponent)
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-_BITS
    accepted = uniform < probability
    # x - sigma^2 / scale may cancel: its error is relative to x, not to the difference
    error = (np.abs(sizes) + sigma) * np.sqrt(2 * exponent) / sigma + exponent + 1
    unclear = np.abs(uniform - probability) < _GUARD * error * probability + 2.0 ** -(_BITS - 1)
    for place in np.flatnonzero(unclear):
        accepted[place] = _exact_below(int(words[place]), int(sizes[place]), sigma, scale, entropy)
    return accepted


def _exact_floor(word: int, scale: int, entropy: Entropy) -> int:
    """floor(-scale ln U) for the uniform whose first 64 bits are `word`, with as many more bits as it takes."""

    def floor_of(uniform: Fraction, digits: int) -> int:
        return math.floor(-scale * _decimal(uniform, digits).ln())

    return decided(word, entropy, floor_of)


def _exact_below(word: int, size: int, sigma: float, scale: int, entropy: Entropy) -> bool:
    """Whether that uniform lies below the acceptance probability."""
    square = Fraction(sigma) ** 2
    exponent = (size - square / scale) ** 2 / (2 * square)

    def below(uniform: Fraction, digits: int) -> int:
        return int(_decimal(uniform, digits) < (-_decimal(exponent, digits)).exp())

    return bool(decided(word, entropy, below))


def decided(word: int, entropy: Entropy, of: Callable[[Fraction, int], int]) -> int:
    """The value of a monotone function of U once both ends of what is known of U agree on it."""
    bits = _BITS
    while True:
        with decimal.localcontext() as context:
            context.prec = digits = bits // 3 + 30
            ends = [of(Fraction(2 * word + 1 + sign, 2 ** (bits + 1)), digits) for sign in (-1, 1) if word or sign > 0]
            if word and ends[0] == ends[1]:
                return ends[0]
        word, bits = word << _BITS | int.from_bytes(entropy.bytes(_BITS // 8), "big"), bits + _BITS


def _decimal(value: Fraction, digits: int) -> Decimal:
    del digits  # the context's precision
    return Decimal(value.numerator) / Decimal(value.denominator)


def words_of(count: int, entropy: Entropy) -> np.ndarray:
    """(count,) uint64 uniform words, from `entropy`."""
    buffer = bytearray(8 * count)
    if count:
        entropy.keystream().fill(buffer)
    return np.frombuffer(buffer, dtype="<u8")
