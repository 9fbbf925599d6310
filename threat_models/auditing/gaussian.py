"""Gaussian differential privacy (Dong, Roth and Su, arXiv 1905.02383): conversions, and what no attack can beat.

A mechanism is mu-GDP if telling neighbours apart is no easier than telling N(0, 1) from N(mu, 1). A Gaussian mechanism
of noise multiplier z is 1/z-GDP, and T of them are sqrt(T)/z-GDP.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

from threat_models.errors import AuditError, NotApplicable


def require_declared(mechanism: str) -> None:
    """Raises `NotApplicable` unless a mechanism is declared Gaussian: on Laplace noise what follows would be false."""
    if mechanism != "gaussian":
        raise NotApplicable(f"mechanism={mechanism!r} is not declared Gaussian: use the estimators that assume nothing")


def delta_of(epsilon: float, mu: float) -> float:
    """delta(epsilon) of mu-GDP: Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu) (corollary 1 there)."""
    if mu <= 0:
        return 0.0
    first = log_ndtr(mu / 2 - epsilon / mu)
    second = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(np.exp(first) * -np.expm1(second - first)) if second < first else 0.0


def epsilon_of(mu: float, delta: float) -> float:
    """The least epsilon >= 0 at which mu-GDP is (epsilon, delta)-DP; 0 for mu <= 0, infinite for infinite mu.

    Raises:
        AuditError: delta outside (0, 1).
    """
    if not 0 < delta < 1:
        raise AuditError(f"delta={delta} must lie in (0, 1): a Gaussian mechanism has no epsilon at delta = 0")
    if math.isinf(mu):
        return math.inf
    if mu <= 0 or delta_of(0.0, mu) <= delta:
        return 0.0
    top = mu * mu / 2 + mu * math.sqrt(2 * math.log(2 / delta)) + 1
    return float(brentq(lambda e: delta_of(e, mu) - delta, 0.0, top, xtol=1e-12))


def mu_of(epsilon: float, delta: float) -> float:
    """The largest mu whose GDP curve passes under (epsilon, delta)."""
    if epsilon < 0 or not 0 < delta < 1:
        raise AuditError(f"epsilon={epsilon}, delta={delta}: epsilon is at least 0 and delta lies in (0, 1)")
    top = 1.0
    while delta_of(epsilon, top) < delta:
        top *= 2
    return float(brentq(lambda mu: delta_of(epsilon, mu) - delta, 1e-12, top, xtol=1e-13))


def auc_ceiling(mu: float) -> float:
    """The largest AUC of any membership test against mu-GDP: Phi(mu / sqrt 2)."""
    return float(ndtr(mu / math.sqrt(2)))


def tpr_ceiling(fpr: float, mu: float) -> float:
    """The largest TPR at an FPR against mu-GDP: Phi(Phi^-1(fpr) + mu)."""
    return float(ndtr(ndtri(fpr) + mu))


def tpr_ceiling_dp(fpr: float | np.ndarray, epsilon: float, delta: float) -> np.ndarray:
    """The largest TPR at an FPR under (epsilon, delta)-DP (Kairouz, Oh and Viswanath, arXiv 1311.0776, theorem 2.1)."""
    fpr = np.asarray(fpr, float)
    one, two = np.exp(epsilon) * fpr + delta, 1 - np.exp(-epsilon) * np.maximum(1 - fpr - delta, 0.0)
    return np.asarray(np.minimum(np.minimum(one, two), 1.0))


def auc_ceiling_dp(epsilon: float, delta: float) -> float:
    """The area under that curve, which is straight between its corners."""
    corner = (1 - delta) / (1 + math.exp(epsilon))
    fpr = np.unique(np.clip([0.0, corner, 1 - delta, 1.0], 0, 1))
    return float(np.trapezoid(tpr_ceiling_dp(fpr, epsilon, delta), fpr))
