"""Lower bounds on epsilon from one run (Steinke, Nasr and Jagielski, arXiv 2305.08846), and the sharp version.

Of m canaries each is in with a fair coin of its own. The auditor guesses r of the coins, abstains on the rest, and
v guesses are right. Under (epsilon, 0)-DP, v is at most W ~ Bin(r, q) with q = e^eps / (1 + e^eps). With
b = P[W = .], f(v) = P[W >= v], F(v) = P[W <= v], the probability of v or more right guesses is at most

    published   f(v) + 2 m delta max_{1 <= i <= v} (f(v - i) - f(v)) / i
    sharp       max( f(v) (1 + delta (m/v) F(v-1)/b(v)),  f(v) + delta (m/(v+1)) (1 - f(v)) f(v+1)/b(v+1) )

The sharp one is attained: by symmetry only Y_j = P[j right] matters, and M is (epsilon, delta)-DP exactly if

    1/m sum_{j<r} [(j+1) Y_{j+1} - e^eps (r-j) Y_j]_+ + [(r-j) Y_j - e^eps (j+1) Y_{j+1}]_+  <=  delta.

Maximising P[W >= v] under it is a linear programme whose optimum spends all of delta at one k. Both terms over k,
F(k-1) / (k b(k)) for k <= v and f(k) / (k b(k)) for k > v, are monotone because b is log-concave, so k = v and
k = v + 1 are best, and the bound takes constant time. Tests hold it against the linear programme.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import bdtr, bdtrc
from scipy.stats import binom

from threat_models.errors import AuditError

PValue = Callable[[int, int, int, float, float], float]
"""(m, r, v, epsilon, delta) -> the largest probability, over (epsilon, delta)-DP mechanisms, of v or more right."""

_TOP = 60.0


def _check(m: int, r: int, v: int, delta: float) -> None:
    if not (0 <= v <= r <= m and m >= 1) or not 0 <= delta < 1:
        raise AuditError(f"m={m}, r={r}, v={v}, delta={delta}: 0 <= v <= r <= m, m >= 1, 0 <= delta < 1")


def published(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """The published p-value (theorem 5.2 there), as the tools of the field compute it."""
    _check(m, r, v, delta)
    if v == 0:
        return 1.0
    q = _q(epsilon)
    at_least = float(binom.sf(v - 1, r, q))
    if delta == 0:
        return at_least
    steps = np.arange(1, v + 1)
    slopes = (binom.sf(v - steps - 1, r, q) - at_least) / steps
    return float(min(1.0, at_least + 2 * m * delta * max(0.0, slopes.max())))


def sharp(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """The largest probability that any (epsilon, delta)-DP mechanism reaches; see the module."""
    _check(m, r, v, delta)
    if v == 0:
        return 1.0
    q = _q(epsilon)
    at_least = float(bdtrc(v - 1, r, q))
    if delta == 0:
        return at_least
    low = at_least + delta * (m / v) * float(bdtr(v - 1, r, q)) * _tail_over_point(v, r, q)
    high = at_least
    if v < r:
        high += min(1.0, delta * (m / (v + 1)) * _tail_over_point(v + 1, r, q)) * (1 - at_least)
    return min(1.0, max(low, high))


def lower_bound(
    m: int, r: int, v: int, *, delta: float, alpha: float, p_value: PValue = sharp, tolerance: float = 1e-9
) -> float:
    """sup{epsilon : p < alpha}: epsilon is larger with confidence 1 - alpha; 0 where the guesses show nothing.

    Args:
        m: canaries. r: guesses, fixed before any score was seen. v: right ones. delta: of the claim. alpha: in (0, 1).

    Raises:
        AuditError: counts that do not fit, alpha or delta out of range.
    """
    if not 0 < alpha < 1:
        raise AuditError(f"alpha={alpha} must lie in (0, 1)")
    _check(m, r, v, delta)
    if p_value(m, r, v, 0.0, delta) >= alpha:
        return 0.0
    low, high = 0.0, 1.0
    while high < _TOP and p_value(m, r, v, high, delta) < alpha:
        low, high = high, 2 * high
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(m, r, v, middle, delta) < alpha else (low, middle)
    return low


def reach(r: int, alpha: float, *, m: int | None = None, delta: float = 0.0) -> float:
    """The bound if all of r guesses are right: no outcome can show more. At delta = 0: -ln(alpha^(-1/r) - 1)."""
    if r < 1:
        return 0.0
    if delta == 0:
        return max(0.0, -math.log(math.expm1(-math.log(alpha) / r)))
    return lower_bound(m or r, r, r, delta=delta, alpha=alpha)


def guesses_needed(epsilon: float, alpha: float) -> int:
    """The least r whose reach passes epsilon: ln(alpha) / ln(q)."""
    return math.ceil(math.log(alpha) / -math.log1p(math.exp(-epsilon)))


def right_guesses(scores: np.ndarray, included: np.ndarray, r: int) -> int:
    """How many of r guesses are right: the r/2 highest scores are guessed in, the r/2 lowest out (r even or odd).

    Ties are in an order drawn apart from the coins, so that canaries which come in some order gain nothing by it.

    Args:
        scores: (m,) finite. included: (m,) bool coins.

    Raises:
        AuditError: a score that is not finite, shapes that differ, or r > m.
    """
    scores, included = np.asarray(scores, float), np.asarray(included, bool)
    if scores.shape != included.shape or scores.ndim != 1 or not np.isfinite(scores).all():
        raise AuditError("scores and coins must be two vectors of one length, and every score finite")
    if not 0 <= r <= len(scores):
        raise AuditError(f"r={r} guesses must lie in 0 .. {len(scores)}, the number of canaries")
    drawn = np.random.default_rng(len(scores)).permutation(len(scores))
    order = drawn[np.argsort(scores[drawn], kind="stable")]
    highest, lowest = order[len(order) - (r + 1) // 2 :], order[: r // 2]
    return int(included[highest].sum() + (~included[lowest]).sum())


def _q(epsilon: float) -> float:
    return 1 / (1 + math.exp(-epsilon))


def _log_pmf(k: int, r: int, q: float) -> float:
    choose = math.lgamma(r + 1) - math.lgamma(k + 1) - math.lgamma(r - k + 1)
    return choose + (k * math.log(q) if k else 0.0) + ((r - k) * math.log1p(-q) if r > k and q < 1 else 0.0)


def _tail_over_point(k: int, r: int, q: float) -> float:
    """P[W >= k] / P[W = k], or a little more where both are too small to be divided."""
    tail, point = float(bdtrc(k - 1, r, q)), math.exp(_log_pmf(k, r, q))
    if point > 1e-290:
        return tail / point
    ratio = (r - k) / (k + 1) * q / (1 - q) if q < 1 else math.inf
    return 1 / (1 - ratio) if ratio < 1 else math.inf
