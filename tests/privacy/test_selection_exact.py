"""The cost of the best of several runs, against exact divergences of small mechanisms."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest

from framp_private.privacy.selection import renyi_of_best
from tests.privacy.selection_oracle import MEANS, ORDERS, SHAPES, gamma_of, in_digits, naive

Distribution = list[mpmath.mpf]


def response(epsilon: float) -> tuple[list[float], list[float]]:
    """Randomised response, whose better output is the second."""
    low = 1 / (1 + math.exp(epsilon))
    return [low, 1 - low], [1 - low, low]


MECHANISMS = [
    response(0.02),
    response(0.5),
    response(1.0),
    response(3.0),
    ([0.9999, 0.0001], [0.999995, 0.000005]),
    ([0.545, 0.0058, 0.4464, 0.0028], [0.3976, 0.0517, 0.0002, 0.5505]),
    ([0.223, 0.0002, 0.1, 0.6768], [0.665, 0.01, 0.109, 0.216]),
]
"""Pairs of output distributions under neighbours, in the order of the score."""


def generating(mean: float, shape: float) -> Callable[[mpmath.mpf], mpmath.mpf]:
    """E x^K."""
    if shape == math.inf:
        return lambda x: mpmath.exp(mean * (x - 1))
    gamma = gamma_of(mean, shape)
    if mean == 1:
        return lambda x: x
    if shape == 0:
        return lambda x: mpmath.log(1 - (1 - gamma) * x) / mpmath.log(gamma)
    return lambda x: ((1 - (1 - gamma) * x) ** -shape - 1) / (gamma**-shape - 1)


def exactly(masses: list[float]) -> Distribution:
    total = mpmath.fsum(masses)
    return [mpmath.mpf(mass) / total for mass in masses]


def best_of(masses: Distribution, mean: float, shape: float) -> Distribution:
    """P(the best of K outputs is y) = G(F(y)) - G(F(y-)), and P(K = 0) first where that can be."""
    at, below = generating(mean, shape), mpmath.mpf(0)
    found, before = [at(below)] if shape == math.inf else [], at(below)
    for place in range(len(masses)):
        below = mpmath.mpf(1) if place == len(masses) - 1 else below + masses[place]
        found.append(at(below) - before)
        before = at(below)
    assert abs(mpmath.fsum(found) - 1) < 1e-30 and min(found) > 0
    return found


def divergence(p: Distribution, q: Distribution, order: float) -> mpmath.mpf:
    """The larger of both directions."""
    a = mpmath.mpf(order)
    return max(
        mpmath.log(mpmath.fsum(x**a * y ** (1 - a) for x, y in zip(one, other, strict=True))) / (a - 1)
        for one, other in ((p, q), (q, p))
    )


def curve(p: Distribution, q: Distribution) -> list[float]:
    return [float(divergence(p, q, order)) for order in ORDERS]


@pytest.mark.parametrize("shape", SHAPES)
@in_digits
def test_the_bound_is_never_below_the_exact_divergence_and_no_term_can_be_left_out(shape: float) -> None:
    """One run's price, no ln E K, half of the choice's term, or a choice without the 1 of 1 + eta: each falls short."""
    short = dict.fromkeys(["one run", "no mean", "no choice", "less choice"], 0)
    for one, other in MECHANISMS:
        p, q = exactly(one), exactly(other)
        base = curve(p, q)
        for mean in MEANS:
            exact = np.array(curve(best_of(p, mean, shape), best_of(q, mean, shape)))
            assert (exact <= renyi_of_best(ORDERS, base, mean, shape) * (1 + 1e-9)).all()
            terms = np.array([[float(term) for term in row] for row in naive(ORDERS, base, mean, shape)])
            run, many, choice = terms.T
            less = choice / 2 if shape == math.inf else choice * shape / (1 + shape)
            wrong = [run, run + choice, run + many, run + many + less]
            for name, bound in zip(short, wrong, strict=True):
                short[name] += bool((exact > bound * (1 + 1e-9)).any())
    needed = {"one run", "no mean", "no choice"} | ({"less choice"} if shape in (0, 0.5, math.inf) else set())
    assert {name for name, times in short.items() if times} >= needed


@in_digits
def test_candidates_together_cost_no_more_than_the_largest_at_each_order() -> None:
    """(index, output) exactly, for three candidates; their average, and the second largest, would fall short."""
    distributions = [(exactly(one), exactly(other)) for one, other in MECHANISMS]
    average_short = second_short = 0
    for first in range(len(distributions) - 2):
        chosen = distributions[first : first + 3]
        curves = np.array([curve(p, q) for p, q in chosen])
        pair = [[mass / 3 for each in chosen for mass in each[side]] for side in (0, 1)]
        exact = np.array(curve(*pair))
        assert (exact <= curves.max(axis=0) * (1 + 1e-9)).all()
        average_short += bool((exact > curves.mean(axis=0) * (1 + 1e-9)).any())
        second_short += bool((exact > np.sort(curves, axis=0)[-2] * (1 + 1e-9)).any())
        order = np.random.default_rng(first).permutation(len(pair[0]))  # a score that mixes the candidates
        mixed = [[side[place] for place in order] for side in pair]
        for mean, shape in ((2, 0), (5, 1), (30, 3), (5, math.inf)):
            best = np.array(curve(best_of(mixed[0], mean, shape), best_of(mixed[1], mean, shape)))
            assert (best <= renyi_of_best(ORDERS, curves.max(axis=0), mean, shape) * (1 + 1e-9)).all()
    assert average_short and second_short
