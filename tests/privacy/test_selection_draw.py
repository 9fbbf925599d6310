"""How many runs there are: the draw against scipy's distributions, and its bits."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from framp_private.privacy.selection import _quantile, draw_repetitions
from framp_private.randomness import Entropy
from tests.privacy.selection_oracle import SHAPES, mean_of


def probabilities(mean: float, shape: float, reach: int) -> np.ndarray:
    """P(K = k) for k = 0 .. reach, by scipy's distributions."""
    k = np.arange(reach + 1)
    if shape == math.inf:
        return np.array(stats.poisson.pmf(k, mean))
    if mean == 1:
        return (k == 1).astype(float)
    gamma = brentq(lambda g: float(mean_of(mpmath.mpf(g), shape)) - mean, 1e-9, 1 - 1e-12, xtol=1e-15)
    if shape == 0:
        return np.array(stats.logser.pmf(k, 1 - gamma))
    found = np.array(stats.nbinom.pmf(k, shape, gamma)) / -math.expm1(shape * math.log(gamma))
    found[0] = 0
    return found


def cells(masses: np.ndarray, least: float) -> list[slice]:
    """Neighbouring values of K, together until they weigh `least`."""
    found, start = [], 0
    for stop in range(1, len(masses) + 1):
        if masses[start:stop].sum() >= least and masses[stop:].sum() >= least:
            found.append(slice(start, stop))
            start = stop
    return [*found, slice(start, len(masses))]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_number_of_runs_has_the_declared_distribution_and_no_other(shape: float) -> None:
    """n = 8,000, mean 4; chi-square at alpha = 1e-6 over cells that expect 40 or more, and the mean within 5 standard
    errors (alarms falsely once in 1.7e6). Each wrong one is missed with probability below 1e-8.
    """
    mean, reach, n = 4.0, 2000, 8000
    drawn = np.array([draw_repetitions(mean, shape, Entropy()) for _ in range(n)])
    assert drawn.min() >= (0 if shape == math.inf else 1)
    truth, k = probabilities(mean, shape, reach), np.arange(reach + 1)
    groups = cells(truth, 40 / n)
    counts = np.array([((drawn >= group.start) & (drawn < group.stop)).sum() for group in groups])
    assert counts.sum() == n

    def fits(masses: np.ndarray) -> float:
        expected = np.maximum([masses[group].sum() for group in groups], 1e-12)
        return float(stats.chisquare(counts, expected / expected.sum() * n).pvalue)

    assert fits(truth) > 1e-6
    wrong = [(mean, other) for other in SHAPES if other != shape] + [(0.7 * mean, shape), (1.4 * mean, shape)]
    for pair in wrong:
        assert fits(probabilities(*pair, reach)) < 1e-6
    assert (truth * k).sum() == pytest.approx(mean)
    deviation = math.sqrt((truth * k**2).sum() - mean**2)
    assert abs(drawn.mean() - mean) < 5 * deviation / math.sqrt(n)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [1, 1.01, 4, 60])
def test_the_draw_inverts_the_distribution_function(mean: float, shape: float) -> None:
    cumulated = np.cumsum(probabilities(mean, shape, 5000))
    for k in (0, 1, 2, 3, 10, 100):
        low = cumulated[k - 1] if k else 0.0
        if cumulated[k] - low > 1e-9:
            for part in (0.01, 0.5, 0.99):
                assert _quantile(Fraction(low + part * (cumulated[k] - low)), 60, mean, shape) == k


class Scripted(Entropy):
    """Gives out words that were written beforehand."""

    def __init__(self, *words: int) -> None:
        self.words = list(words)

    def bytes(self, count: int) -> bytes:
        return self.words.pop(0).to_bytes(count, "big")


def test_a_draw_on_an_edge_takes_as_many_bits_as_it_needs() -> None:
    """Geometric of mean 2: P(K = 1) is a half to within rounding, so the first 64 bits cannot decide there."""
    half = 1 << 63
    assert draw_repetitions(2.0, 1, Scripted(half - 2)) == 1
    assert draw_repetitions(2.0, 1, Scripted(half + 2**14)) == 2
    edge = Scripted(0, half)
    assert draw_repetitions(2.0, 1, edge) == 1 and not edge.words
    last = Scripted(2**64 - 1, half)  # a uniform number just below 1
    assert draw_repetitions(2.0, 1, last) > 60 and not last.words
    assert draw_repetitions(3.0, math.inf, Scripted(1)) == 0
