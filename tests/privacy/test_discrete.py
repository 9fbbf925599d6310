"""The discrete Gaussian against its own formula, and its exact path against arithmetic with many digits."""

from __future__ import annotations

import math
from collections import Counter

import mpmath
import numpy as np
import pytest
from scipy.stats import chi2

from framp_private.errors import PrivacyParameterError
from framp_private.privacy import discrete
from framp_private.privacy.discrete import discrete_gaussian
from framp_private.randomness import Entropy, Keystream

ALPHA = 1e-6


def exact_probabilities(sigma: float, reach: int) -> np.ndarray:
    weights = [mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * mpmath.mpf(sigma) ** 2)) for x in range(-reach, reach + 1)]
    total = mpmath.nsum(lambda x: mpmath.exp(-(x**2) / (2 * mpmath.mpf(sigma) ** 2)), [-mpmath.inf, mpmath.inf])
    return np.array([float(w / total) for w in weights])


def surprise(values: np.ndarray, sigma: float) -> float:
    """p-value of a chi-square test with cells of at least 50 expected values."""
    reach = math.ceil(8 * sigma) + 2
    expected = exact_probabilities(sigma, reach) * len(values)
    counted = Counter(values.tolist())
    cells, e, o = [], 0.0, 0
    for place, x in enumerate(range(-reach, reach + 1)):
        e, o = e + expected[place], o + counted[x]
        if e >= 50:
            cells.append((e, o))
            e, o = 0.0, 0
    cells[-1] = (cells[-1][0] + e, cells[-1][1] + o)
    statistic = sum((o - e) ** 2 / e for e, o in cells)
    return float(chi2.sf(statistic, len(cells) - 1))


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 1.5, 3.7, 12.0])
def test_every_value_has_its_probability(sigma: float) -> None:
    values = discrete_gaussian(60_000, sigma, Entropy())
    assert values.dtype == np.int64 and surprise(values, sigma) > ALPHA


@pytest.mark.parametrize("sigma", [1.0, 3.7, 12.0])
def test_wrong_scales_are_rejected(sigma: float) -> None:
    values = discrete_gaussian(60_000, sigma, Entropy())
    for wrong in (2 / 3, 3 / 2):
        assert surprise(values, sigma * wrong) < ALPHA


@pytest.mark.parametrize("sigma", [1e3, 1e6, discrete.LARGEST])
def test_large_scales_have_the_variance_of_the_real_one(sigma: float) -> None:
    values = discrete_gaussian(50_000, sigma, Entropy()).astype(float)
    assert abs(values.mean()) < 5.2 * sigma / math.sqrt(len(values))
    assert abs(values.var() / sigma**2 - 1) < 5.2 * math.sqrt(2 / len(values))


class Bits(Entropy):
    """Draws given bits first, then zeros."""

    def __init__(self, *words: int) -> None:
        self._words = list(words)

    def bytes(self, count: int) -> bytes:
        assert count == 8
        return (self._words.pop(0) if self._words else 0).to_bytes(8, "big")

    def keystream(self) -> Keystream:
        raise AssertionError("not here")


@pytest.mark.parametrize("scale", [1, 2, 17, 1000])
@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_next_to_a_boundary_the_floor_is_decided_exactly(scale: int, size: int) -> None:
    """U = exp(-size / scale) is where floor(-scale ln U) jumps: words on either side of it, and the one that holds it."""
    with mpmath.workdps(80):
        boundary = mpmath.exp(-mpmath.mpf(size) / scale) * mpmath.mpf(2) ** 64
        word = int(mpmath.floor(boundary))
        rest = int(mpmath.floor((boundary - word) * mpmath.mpf(2) ** 64))
    cases = {word - 1: size, word + 1: size - 1}
    for at, expected in cases.items():
        assert discrete._exact_floor(at, scale, Bits()) == expected
        assert discrete.geometric(np.array([at], np.uint64), scale, Bits())[0] == expected
    assert discrete._exact_floor(word, scale, Bits(max(rest - 5, 0))) == size
    assert discrete._exact_floor(word, scale, Bits(min(rest + 5, 2**64 - 1))) == size - 1


@pytest.mark.parametrize("size", [0, 1, 3, 9])
def test_next_to_a_boundary_acceptance_is_decided_exactly(size: int) -> None:
    sigma, scale = 2.5, 3
    with mpmath.workdps(80):
        square = mpmath.mpf(sigma) ** 2
        boundary = mpmath.exp(-((size - square / scale) ** 2) / (2 * square)) * mpmath.mpf(2) ** 64
        word = int(mpmath.floor(boundary))
    for at, expected in ((word - 1, True), (word + 1, False)):
        assert discrete._exact_below(at, size, sigma, scale, Bits()) is expected
        found = discrete._bernoulli(np.array([at], np.uint64), np.array([size]), sigma, scale, Bits())
        assert bool(found[0]) is expected


def test_a_word_of_zeros_takes_more_bits() -> None:
    far = discrete._exact_floor(0, 10, Bits(1 << 60))
    assert far in (471, 470)  # -10 ln 2^-68, from below or above


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 2.0**25])
def test_scales_out_of_range_are_refused(sigma: float) -> None:
    with pytest.raises(PrivacyParameterError, match="sigma"):
        discrete_gaussian(1, sigma, Entropy())


def test_counts() -> None:
    for count in (0, 1, 5, 1000):
        assert discrete_gaussian(count, 1.0, Entropy()).shape == (count,)
