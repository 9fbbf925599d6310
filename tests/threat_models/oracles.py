"""Slow, independent ways to the same figures."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array


def optimum_over_all_guessers(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """The largest P[v or more right] over every (epsilon, delta)-DP map from coins to r guesses: one linear programme.

    x[s, t] = P[T = t | S = s]; for every pair of neighbours s, s' sum_t (x[s, t] - e^eps x[s', t])_+ <= delta.
    """
    coins = list(itertools.product((-1, 1), repeat=m))
    guesses = [
        tuple(sign[places.index(i)] if i in places else 0 for i in range(m))
        for places in itertools.combinations(range(m), r)
        for sign in itertools.product((-1, 1), repeat=r)
    ]
    pairs = [(i, j) for i, s in enumerate(coins) for j, u in enumerate(coins) if sum(a != b for a, b in zip(s, u)) == 1]
    n, g, p = len(coins), len(guesses), len(pairs)
    gain = np.zeros(n * g + p * g)
    for i, s in enumerate(coins):
        for k, t in enumerate(guesses):
            gain[i * g + k] = -(sum(a == b for a, b in zip(s, t)) >= v) / n
    rows, columns, values, right = [], [], [], []
    row = 0
    for q, (i, j) in enumerate(pairs):
        for k in range(g):  # x[i] - e x[j] - slack <= 0
            rows += [row] * 3
            columns += [i * g + k, j * g + k, n * g + q * g + k]
            values += [1.0, -math.exp(epsilon), -1.0]
            right.append(0.0)
            row += 1
        rows += [row] * g
        columns += [n * g + q * g + k for k in range(g)]
        values += [1.0] * g
        right.append(delta)
        row += 1
    unequal = coo_array((values, (rows, columns)), shape=(row, len(gain)))
    equal = coo_array((np.ones(n * g), (np.repeat(np.arange(n), g), np.arange(n * g))), shape=(n, len(gain)))
    found = linprog(gain, A_ub=unequal, b_ub=right, A_eq=equal, b_eq=np.ones(n), method="highs")
    return -float(found.fun)


def optimum_over_counts(m: int, r: int, v: int, epsilon: float, delta: float) -> tuple[float, np.ndarray]:
    """The same, symmetrised: over the distribution Y of the number of right guesses; and a Y that reaches it."""
    size, e = r + 1, math.exp(epsilon)
    gain = np.zeros(size + 2 * r)
    gain[v:size] = -1.0
    unequal, right = [], []
    for j in range(r):
        for side in (0, 1):
            line = np.zeros(len(gain))
            up, down = j + 1, r - j
            line[j + 1], line[j] = (up, -e * down) if side == 0 else (-e * up, down)
            line[size + 2 * j + side] = -1.0
            unequal.append(line)
            right.append(0.0)
    total = np.zeros(len(gain))
    total[size:] = 1 / m
    unequal.append(total)
    right.append(delta)
    equal = np.zeros((1, len(gain)))
    equal[0, :size] = 1
    found = linprog(gain, A_ub=np.array(unequal), b_ub=right, A_eq=equal, b_eq=[1.0], method="highs")
    return -float(found.fun), np.clip(found.x[:size], 0, None)


def brute_force_tpr(scores: np.ndarray, members: np.ndarray, fpr: float) -> float:
    """The best TPR over every threshold, one at a time."""
    best = 0.0
    for threshold in [*np.unique(scores), np.inf]:
        called = scores >= threshold
        if called[~members].mean() <= fpr:
            best = max(best, float(called[members].mean()))
    return best


def brute_force_auc(scores: np.ndarray, members: np.ndarray) -> float:
    """Every pair compared."""
    inside, outside = scores[members][:, None], scores[~members][None]
    return float(((inside > outside) + 0.5 * (inside == outside)).mean())
