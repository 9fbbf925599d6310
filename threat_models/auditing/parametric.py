"""White-box lower bound from one run of a Gaussian mechanism, with an exact confidence limit.

Canaries are orthogonal unit directions at the mechanism's sensitivity; a canary's score is the released vector's part
along it, N(0, s^2) without it and N(1, s^2) with it. So the pooled two-sample t statistic is noncentral t with
n1 + n0 - 2 degrees of freedom and noncentrality mu / sqrt(1/n1 + 1/n0), where mu = 1/s is the mechanism's GDP
parameter. The idea of reading mu off canary scores is Andrew et al.'s (arXiv 2302.03098); the exact limit replaces
their point estimate.

Where canaries are not orthogonal, those that are in act as more noise, and the bound gets lower, not false.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import anderson, kurtosis, nct, norm, shapiro, t

from threat_models.auditing.gaussian import epsilon_of, require_declared
from threat_models.errors import AuditError, NotApplicable

LEAST = 8
"""Canaries on each side below which no limit is given."""


def mu_lower(scores: np.ndarray, included: np.ndarray, *, alpha: float) -> float:
    """The lower confidence limit of mu, at least 0; infinite where the scores have no spread at all.

    Args:
        scores: (m,) finite. included: (m,) bool.

    Raises:
        AuditError: too few canaries on a side, or scores that are not finite.
    """
    inside, outside = _split(scores, included)
    n1, n0 = len(inside), len(outside)
    freedom = n1 + n0 - 2
    gap = float(inside.mean() - outside.mean())
    spread = math.sqrt((inside.var() * n1 + outside.var() * n0) / freedom)
    scale = math.sqrt(1 / n1 + 1 / n0)
    if spread <= 1e-9 * max(abs(gap), 1e-300):
        return math.inf if gap > 0 else 0.0
    return max(0.0, _noncentrality(gap / (spread * scale), freedom, alpha) * scale)


def lower_bound(scores: np.ndarray, included: np.ndarray, *, declared: str, delta: float, alpha: float) -> float:
    """The epsilon at delta of that mu.

    Raises:
        NotApplicable: as `require_gaussian`. AuditError: as `mu_lower`.
    """
    require_gaussian(scores, included, declared=declared)
    return epsilon_of(mu_lower(scores, included, alpha=alpha), delta)


def require_gaussian(scores: np.ndarray, included: np.ndarray, *, declared: str, alpha: float = 1e-3) -> None:
    """Refuses scores that are not Gaussian around the two means, or a mechanism that is not declared Gaussian.

    Two tests, each at half of alpha: Shapiro and Wilk's (1965), or of more than 5,000 scores Anderson and Darling's
    (1952), and one of the kurtosis, which sees tails. They see Laplace noise from some 400 scores on, and randomised
    response from some 1,000 on; of fewer the declaration is what counts.

    Raises:
        NotApplicable: the mechanism or its scores are not Gaussian.
    """
    require_declared(declared)
    inside, outside = _split(scores, included)
    residuals = np.concatenate([inside - inside.mean(), outside - outside.mean()])
    spread = residuals.std()
    if spread <= 1e-9 * max(np.abs(scores).max(), 1e-300):
        return  # no noise at all: nothing to test, and the bound is infinite
    count = len(residuals)
    tail = abs(float(kurtosis(residuals))) / math.sqrt(24 / count)
    if _p_of_shape(residuals / spread) < alpha / 2:
        raise NotApplicable("the scores are not Gaussian around their means: use the estimators that assume nothing")
    if tail > 2 * float(norm.isf(alpha / 4)):  # skewed in small samples, hence the factor
        raise NotApplicable("the scores have tails that no Gaussian has: use the estimators that assume nothing")


def _p_of_shape(residuals: np.ndarray) -> float:
    count = len(residuals)
    if count <= 5000:
        return float(shapiro(residuals).pvalue)
    statistic = float(anderson(residuals, "norm", method="interpolate").statistic)
    corrected = statistic * (1 + 0.75 / count + 2.25 / count**2)
    # Stephens (1974): P(A* > s) = exp(1.2937 - 5.709 s + 0.0186 s^2) for s >= 0.6
    if corrected < 0.6:
        return 1.0
    return math.exp(1.2937 - 5.709 * corrected + 0.0186 * corrected**2) if corrected < 10 else 0.0


def coverage(n1: int, n0: int, mu: float, *, alpha: float, draws: int = 5000, seed: int = 0) -> float:
    """The share of draws from the model in which the limit lies below mu; at least 1 - alpha up to chance."""
    rng = np.random.default_rng(seed)
    scale, freedom = math.sqrt(1 / n1 + 1 / n0), n1 + n0 - 2
    statistics = (mu / scale + rng.standard_normal(draws)) / np.sqrt(rng.chisquare(freedom, draws) / freedom)
    # the limit lies below mu exactly if the statistic is under the quantile at mu
    return float(np.mean(statistics <= _quantile(mu / scale, freedom, alpha)))


def _split(scores: np.ndarray, included: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, included = np.asarray(scores, float), np.asarray(included, bool)
    if scores.shape != included.shape or not np.isfinite(scores).all():
        raise AuditError("scores and coins must have one shape, and every score must be finite")
    inside, outside = scores[included], scores[~included]
    if min(len(inside), len(outside)) < LEAST:
        raise AuditError(f"{len(inside)} canaries in and {len(outside)} out: at least {LEAST} of each are needed")
    return inside, outside


def _noncentrality(statistic: float, freedom: int, alpha: float) -> float:
    """The lambda at which a noncentral t reaches the statistic with probability alpha."""
    guess = _normal_limit(statistic, freedom, alpha)
    if freedom > 150:  # the normal form is as good there, and the distribution itself takes milliseconds a value
        return guess
    if t.sf(statistic, freedom) >= alpha:
        return min(0.0, guess)

    def missing(noncentrality: float) -> float:
        return float(nct.sf(statistic, freedom, noncentrality)) - alpha

    low, high = max(0.0, guess - 1), max(guess + 1, 1.0)
    while low > 0 and not missing(low) < 0:
        low = max(0.0, low - 2)
    while high < guess + 60 and not missing(high) > 0:
        high += 2
    found = float(brentq(missing, low, high, xtol=1e-10)) if missing(low) < 0 < missing(high) else 0.0
    return found if np.isfinite(found) else 0.0  # where the distribution cannot be computed nothing is claimed


def _normal_limit(statistic: float, freedom: int, alpha: float) -> float:
    """Solves (t - lambda) / sqrt(1 + lambda^2 / 2 df) = z for lambda (Johnson and Welch 1940)."""
    z = float(norm.isf(alpha))
    shrink = 1 - z * z / (2 * freedom)
    root = z * math.sqrt(statistic * statistic / (2 * freedom) + shrink)
    return (statistic - root) / shrink


def _quantile(noncentrality: float, freedom: int, alpha: float) -> float:
    """The statistic whose limit is the given noncentrality: the inverse of `_noncentrality` in its first argument."""
    top = noncentrality + 10 * math.sqrt(1 + noncentrality**2 / (2 * freedom)) + 5
    return float(brentq(lambda x: _noncentrality(x, freedom, alpha) - noncentrality, noncentrality - 5, top))
