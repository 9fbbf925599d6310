"""What the tests of selection share: shapes and means, and the theorems by loops in 40 digits."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

SHAPES = [0, 0.5, 1, 3, math.inf]
MEANS = [1, 1.3, 2, 5, 30]
ORDERS = [1.05, 1.2, 1.5, 2, 3, 4, 8, 16, 32, 128, 1024]
STEPS = SelfComposedDpEvent(PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0)), 500)


def in_digits(test: Callable[..., None]) -> Callable[..., None]:
    return mpmath.workdps(40)(test)


def mean_of(gamma: mpmath.mpf, shape: float) -> mpmath.mpf:
    if shape == 0:
        return (1 / gamma - 1) / mpmath.log(1 / gamma)
    return shape * (1 - gamma) / (gamma * (1 - gamma**shape))


def gamma_of(mean: float, shape: float) -> mpmath.mpf:
    low, high = mpmath.mpf(0), mpmath.mpf(1)
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_of(middle, shape) > mean else (low, middle)
    return high


def naive(orders: list[float], base: list[float], mean: float, shape: float) -> list[tuple[mpmath.mpf, ...]]:
    """For each order the terms of theorem 2 or 6, by loops: one run's, that of ln E K, and the choice's."""
    found = []
    for order, one in zip(orders, base, strict=True):
        if shape == math.inf:
            small, delta = mpmath.log(1 + 1 / mpmath.mpf(order - 1)), mpmath.mpf(1)
            for b, rdp in zip(orders, base, strict=True):
                by_order = mpmath.exp((b - 1) * (rdp - small)) / (b - 1) * (1 - 1 / mpmath.mpf(b)) ** b
                delta = min(delta, by_order)
                delta = min(delta, mpmath.sqrt(1 - mpmath.exp(-mpmath.mpf(rdp))))
            choice = mean * delta
        else:
            log = mpmath.log(1 / gamma_of(mean, shape)) if mean > 1 else mpmath.mpf(0)
            choice = log
            for b, rdp in zip(orders, base, strict=True):
                choice = min(choice, (1 - 1 / mpmath.mpf(b)) * rdp + log / b)
            choice *= 1 + shape
        found.append((mpmath.mpf(one), mpmath.log(mean) / (order - 1), choice))
    return found
