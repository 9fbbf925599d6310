"""Who is who, and what whole clients are like: re-identification (A10), properties (A8, E5), side channels (A12)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from threat_models.errors import NotResolvable


def rematch(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """A10: (n,) for each row of `after` the row of `before` that it is closest to by cosine.

    Rows are descriptors, masks, prototypes or deltas of one round each under pseudonyms that change between rounds.
    Near 1 of n right without defence; 1/n under fresh noise that hides them. Cost: one product.
    """

    def unit(rows: np.ndarray) -> np.ndarray:
        rows = rows - np.mean(np.r_[before, after], 0)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30))

    return np.asarray((unit(after) @ unit(before).T).argmax(1))


def property_scores(known: np.ndarray, has_it: np.ndarray, asked: np.ndarray, *, strength: float = 1.0) -> np.ndarray:
    """A8, E5: (m,) log odds that clients have a property, by logistic regression on clients where it is known.

    Source: Ateniese et al. 2015; Melis et al., arXiv 1805.04049, section 5. Cost: one fit. Record-level DP does not
    stop it, since a property of a client is no record; client-level DP does.

    Args:
        known: (n, d) descriptors, masks or prototypes of auxiliary clients. has_it: (n,) bool. asked: (m, d).

    Raises:
        NotResolvable: all auxiliary clients are alike.
    """
    from sklearn.linear_model import LogisticRegression

    if has_it.all() or not has_it.any():
        raise NotResolvable("all auxiliary clients have the property, or none has: nothing can be learned from them")
    centre, spread = known.mean(0), np.maximum(known.std(0), 1e-9)
    model = LogisticRegression(C=strength, max_iter=2000).fit((known - centre) / spread, has_it)
    return np.asarray(model.decision_function((asked - centre) / spread))


def leaked_samples(accuracy: float, first: float, second: float) -> float:
    """n_leaked: with how many direct samples somebody would guess a ratio as well as the attack did.

    ln(4 w (1 - w)) / ln(rho) with rho = max(min(a0, a1) / max(a0, a1), min(1 - a0, 1 - a1) / max(1 - a0, 1 - a1))
    (Suri and Evans, arXiv 2106.03699): comparable between properties, as an accuracy is not.

    Args:
        accuracy: w of the attack, in [0.5, 1). first, second: the two ratios a0, a1 it told apart, in (0, 1).
    """
    if accuracy <= 0.5:
        return 0.0
    low, high = min(first, second), max(first, second)
    rho = max(low / high, (1 - high) / (1 - low))
    return math.log(4 * accuracy * (1 - min(accuracy, 1 - 1e-9))) / math.log(rho)


def size_leak(
    sizes: np.ndarray, hidden: np.ndarray, groups: np.ndarray, *, shuffles: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """A12: (rank correlation of a size with a hidden number within groups, p-value by shuffling within them).

    Groups are what a size may follow, public budgets say. Unlike a table of patterns it sees a size that is different
    for every client.

    Args:
        sizes, hidden: (n,) numbers. groups: (n,) labels.

    Raises:
        NotResolvable: no group has three clients, or nothing hidden differs within one.
    """
    rng, kept = np.random.default_rng(seed), [np.flatnonzero(groups == g) for g in np.unique(groups)]
    kept = [rows for rows in kept if len(rows) >= 3 and np.ptp(hidden[rows]) > 0]
    if not kept:
        raise NotResolvable("no three clients of one budget hold different amounts: a size could not say which")

    def ranks(values: np.ndarray) -> list[np.ndarray]:
        return [rankdata(values[rows]) - (len(rows) + 1) / 2 for rows in kept]

    first, second = ranks(sizes), ranks(hidden)
    scale = math.sqrt(sum(float(r @ r) for r in first) * sum(float(r @ r) for r in second))

    def correlation(parts: Sequence[np.ndarray]) -> float:
        return abs(sum(float(a @ b) for a, b in zip(first, parts, strict=True))) / scale if scale > 0 else 0.0

    found = correlation(second)
    draws = [correlation([rng.permutation(part) for part in second]) for _ in range(shuffles)]
    return found, (1 + sum(draw >= found - 1e-12 for draw in draws)) / (1 + shuffles)
