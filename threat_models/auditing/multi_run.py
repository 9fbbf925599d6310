"""Lower bounds from independent trials of a test: Clopper-Pearson on both error rates, and its Gaussian reading.

The threshold that turns scores into decisions is fixed before the scores are seen.
"""

from __future__ import annotations

import math

from scipy.special import ndtri
from scipy.stats import beta

from threat_models.auditing.gaussian import epsilon_of, require_declared
from threat_models.errors import AuditError


def clopper_pearson(hits: int, trials: int, alpha: float) -> tuple[float, float]:
    """The two-sided exact interval of a rate with confidence 1 - alpha (Clopper and Pearson 1934).

    Raises:
        AuditError: no trials, or more hits than trials.
    """
    if trials < 1 or not 0 <= hits <= trials or not 0 < alpha < 1:
        raise AuditError(
            f"hits={hits}, trials={trials}, alpha={alpha}: 0 <= hits <= trials, trials >= 1, 0 < alpha < 1"
        )
    low = 0.0 if hits == 0 else float(beta.ppf(alpha / 2, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - alpha / 2, hits + 1, trials - hits))
    return low, high


def _error_rates(fp: int, n_out: int, fn: int, n_in: int, alpha: float) -> tuple[float, float]:
    """Upper limits of the false positive and false negative rate that hold together with confidence 1 - alpha."""
    return clopper_pearson(fp, n_out, alpha)[1], clopper_pearson(fn, n_in, alpha)[1]


def lower_bound(fp: int, n_out: int, fn: int, n_in: int, *, delta: float, alpha: float) -> float:
    """epsilon from the error rates of one test (Jagielski et al., arXiv 2006.07709, section 4.2); no assumption.

    Args:
        fp: of n_out trials without the record, how many the test called in. fn: of n_in with it, how many out.
    """
    fpr, fnr = _error_rates(fp, n_out, fn, n_in, alpha)
    sides = [(1 - fnr - delta) / fpr, (1 - fpr - delta) / fnr]
    return max(0.0, *(math.log(side) if side > 0 else 0.0 for side in sides))


def lower_bound_gaussian(
    fp: int, n_out: int, fn: int, n_in: int, *, declared: str, delta: float, alpha: float
) -> float:
    """epsilon of mu = Phi^-1(1 - fpr) - Phi^-1(fnr) (Nasr et al., arXiv 2302.07956); for Gaussian trade-offs alone.

    Raises:
        NotApplicable: a mechanism that is not declared Gaussian.
    """
    require_declared(declared)
    fpr, fnr = _error_rates(fp, n_out, fn, n_in, alpha)
    if fpr >= 1 or fnr >= 1:
        return 0.0
    return epsilon_of(float(-ndtri(fpr) - ndtri(fnr)), delta)


def reach(n: int, *, delta: float, alpha: float) -> float:
    """The bound of a perfect test with n trials on each side."""
    return lower_bound(0, n, 0, n, delta=delta, alpha=alpha)
