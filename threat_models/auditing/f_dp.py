"""One-run lower bound for a Gaussian trade-off curve (Mahloujifar et al., arXiv 2410.22235, algorithm 1).

Tighter than `one_run`, and only for mechanisms whose trade-off curve is Gaussian: on Laplace noise it is false.
"""

from __future__ import annotations

import math

from scipy.special import ndtr, ndtri

from threat_models.auditing.gaussian import epsilon_of, require_declared
from threat_models.errors import AuditError


def rejects(m: int, r: int, v: int, mu: float, alpha: float) -> bool:
    """Whether v of r right guesses over m canaries have probability under alpha for every mu-GDP mechanism."""
    found, held = alpha * v / m, alpha * (r - v) / m
    for right in range(v - 1, -1, -1):
        if found + held > r / m:
            return True
        after = max(held, float(ndtr(ndtri(found) - mu)) if 0 < found < 1 else (0.0 if found <= 0 else 1.0))
        found += right / (r - right) * (after - held)
        held = after
    return found + held > r / m


def lower_bound_mu(m: int, r: int, v: int, *, alpha: float) -> float:
    """The largest mu that is rejected, 0 if none is.

    Raises:
        AuditError: counts that do not fit.
    """
    if not 0 <= v <= r <= m or not 0 < alpha < 1:
        raise AuditError(f"m={m}, r={r}, v={v}, alpha={alpha}: 0 <= v <= r <= m and 0 < alpha < 1")
    if r == 0 or not rejects(m, r, v, 0.0, alpha):
        return 0.0
    low, high = 0.0, 1.0
    while high < 40 and rejects(m, r, v, high, alpha):
        low, high = high, 2 * high
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if rejects(m, r, v, middle, alpha) else (low, middle)
    return low


def lower_bound(m: int, r: int, v: int, *, declared: str, delta: float, alpha: float) -> float:
    """The epsilon at delta of the largest rejected mu.

    Raises:
        NotApplicable: a mechanism that is not declared Gaussian. AuditError: counts that do not fit.
    """
    require_declared(declared)
    mu = lower_bound_mu(m, r, v, alpha=alpha)
    return epsilon_of(mu, delta) if math.isfinite(mu) else math.inf
