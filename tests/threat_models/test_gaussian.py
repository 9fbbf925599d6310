"""Conversions of Gaussian differential privacy against 50-digit arithmetic and another library, and the ceilings."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant

from threat_models.auditing import gaussian
from threat_models.errors import AuditError


@pytest.mark.parametrize("seed", range(40))
def test_delta_against_fifty_digits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mu, epsilon = float(rng.uniform(0.05, 6)), float(rng.uniform(0, 20))
    with mpmath.workdps(50):
        exact = mpmath.ncdf(mpmath.mpf(mu) / 2 - epsilon / mpmath.mpf(mu)) - mpmath.exp(epsilon) * mpmath.ncdf(
            -mpmath.mpf(mu) / 2 - epsilon / mpmath.mpf(mu)
        )
    assert gaussian.delta_of(epsilon, mu) == pytest.approx(float(exact), rel=1e-6, abs=1e-14)


@pytest.mark.parametrize(
    ("epsilon", "mu", "noise"), [(1, 0.2681, 3.7306), (2, 0.5016, 1.9938), (4, 0.9249, 1.0812), (8, 1.666, 0.6002)]
)
def test_known_pairs(epsilon: float, mu: float, noise: float) -> None:
    assert gaussian.mu_of(epsilon, 1e-5) == pytest.approx(mu, abs=5e-5 if mu < 1.6 else 5e-4)
    assert 1 / gaussian.mu_of(epsilon, 1e-5) == pytest.approx(noise, abs=5e-5)
    assert gaussian.epsilon_of(gaussian.mu_of(epsilon, 1e-5), 1e-5) == pytest.approx(epsilon, abs=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_epsilon_against_dp_accounting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise, count, delta = float(rng.uniform(0.8, 6)), int(rng.integers(1, 12)), float(10 ** rng.uniform(-8, -3))
    theirs = PLDAccountant(value_discretization_interval=1e-4).compose(GaussianDpEvent(noise), count).get_epsilon(delta)
    assert gaussian.epsilon_of(math.sqrt(count) / noise, delta) == pytest.approx(theirs, abs=2e-3)


def test_ceilings() -> None:
    found = [gaussian.auc_ceiling(gaussian.mu_of(epsilon, 1e-5)) for epsilon in (1, 2, 4, 8)]
    assert found == pytest.approx([0.575, 0.639, 0.743, 0.881], abs=5e-4)
    assert gaussian.tpr_ceiling(0.01, 0.0) == pytest.approx(0.01)
    fine = np.linspace(0, 1, 200_001)
    for epsilon, delta in ((0.0, 0.0), (0.5, 1e-3), (3.0, 0.1)):
        area = np.trapezoid(gaussian.tpr_ceiling_dp(fine, epsilon, delta), fine)
        assert gaussian.auc_ceiling_dp(epsilon, delta) == pytest.approx(area, abs=1e-5)
    # a mechanism that is mu-GDP keeps under the curve of each of its (epsilon, delta)
    mu = 1.3
    for epsilon in (0.2, 1.0, 4.0):
        assert all(
            gaussian.tpr_ceiling(x, mu)
            <= float(gaussian.tpr_ceiling_dp(x, epsilon, gaussian.delta_of(epsilon, mu))) + 1e-12
            for x in fine[1:-1:4000]
        )


def test_what_has_no_answer_is_refused() -> None:
    for delta in (0.0, 1.0, -1e-5):
        with pytest.raises(AuditError, match="delta"):
            gaussian.epsilon_of(1.0, delta)
    with pytest.raises(AuditError, match="epsilon"):
        gaussian.mu_of(-1.0, 1e-5)
    assert gaussian.epsilon_of(0.0, 1e-5) == 0.0
    assert gaussian.epsilon_of(math.inf, 1e-5) == math.inf
