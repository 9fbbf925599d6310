"""Mechanisms whose privacy is known exactly, as scores of canaries and the coins that decided which were in."""

from __future__ import annotations

import math

import numpy as np

from tests.threat_models.oracles import optimum_over_counts
from threat_models.auditing.gaussian import mu_of

Scored = tuple[np.ndarray, np.ndarray]


def randomised_response(rng: np.random.Generator, m: int, epsilon: float) -> Scored:
    """Exactly epsilon-DP, and scores whose size says nothing."""
    coins = rng.random(m) < 0.5
    told = np.where(rng.random(m) < 1 / (1 + math.exp(-epsilon)), coins, ~coins)
    return np.where(told, 1.0, -1.0) * rng.random(m), coins


def gaussian(rng: np.random.Generator, m: int, epsilon: float, delta: float = 1e-5) -> Scored:
    coins = rng.random(m) < 0.5
    return coins + rng.normal(size=m) / mu_of(epsilon, delta), coins


def laplace(rng: np.random.Generator, m: int, epsilon: float) -> Scored:
    coins = rng.random(m) < 0.5
    return coins + rng.laplace(scale=1 / epsilon, size=m), coins


class Extremal:
    """The (epsilon, delta)-DP mechanism that makes v or more of r guesses right as often as any can.

    It draws how many are right from the optimum of the linear programme, and which they are evenly. What it abstains on
    has scores near zero that say nothing.
    """

    def __init__(self, m: int, r: int, v: int, epsilon: float, delta: float) -> None:
        counts = optimum_over_counts(m, r, v, epsilon, delta)[1]
        self.m, self.r, self.chances = m, r, counts / counts.sum()

    def right(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """(size,) numbers of right guesses."""
        return rng.choice(self.r + 1, size, p=self.chances)

    def scored(self, rng: np.random.Generator) -> Scored:
        coins = rng.random(self.m) < 0.5
        guessed = rng.permutation(self.m)[: self.r]
        right = np.arange(self.r) < self.right(rng, 1)[0]
        scores = 0.1 * rng.uniform(-1, 1, self.m)
        signs = np.where(coins[guessed] == right, 1.0, -1.0)
        scores[guessed] = signs * (1 + rng.random(self.r))
        return scores, coins


TIGHT = [
    # epsilon, m, and the intervals of one-run, f-DP and parametric bounds
    (4.0, 3000, (1.2, 2.4), (1.8, 3.3), (3.2, 4.2)),
    (1.0, 10_000, (0.25, 0.70), (0.40, 0.80), (0.65, 1.05)),
]
