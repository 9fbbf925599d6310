"""Noise in shares: the opened sum against the exact distribution, the least survivors, the cost, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, ZCDpEvent
from scipy.stats import kstest

from framp_private import secure_sum
from framp_private.errors import BelowThreshold, PlanError, PrivacyParameterError, ProtocolError
from framp_private.privacy import accounting
from framp_private.privacy.events import leaves
from framp_private.protections import DistributedGaussian, PlainSum, SecAgg
from framp_private.protections.distributed import conditional_rounding
from framp_private.randomness import Entropy
from tests.secagg.harness import Round, values_of

SIZE, CLIENTS = 10_000, 8
MADE = DistributedGaussian(1.0, 0.7, SecAgg(survivors=0.7))


def noise_of(made: DistributedGaussian, gone: int = 0, cohort: int = CLIENTS) -> np.ndarray:
    """What the opened sum holds beyond the clipped contributions of those whose values arrived."""
    values = {name: value * 1e-3 for name, value in values_of(cohort, SIZE).items()}
    drop = dict.fromkeys(list(values)[:gone], "masked")
    total = secure_sum(values, made, drop=drop)  # type: ignore[arg-type]
    assert total.count == cohort - gone
    return total.value - sum(value for name, value in values.items() if name not in drop)


def exact_deviation(made: DistributedGaussian, summed: int, cohort: int = CLIENTS) -> float:
    """Of a sum of so many shares: each has the declared variance, as a discrete Gaussian this wide has its parameter's."""
    return made.grid(SIZE) * made.share_deviation(SIZE, cohort) * math.sqrt(summed)


@pytest.mark.parametrize("gone", [0, 2])
def test_the_opened_noise_has_the_declared_scale_and_no_other(gone: int) -> None:
    """KS at alpha = 1e-6 with n = 10,000; two are the most who may go, so the least that survive are tested as well."""
    assert MADE.inner.least_survivors(CLIENTS) == 6
    noise = noise_of(MADE, gone) / exact_deviation(MADE, CLIENTS - gone)
    assert kstest(noise, "norm").pvalue > 1e-6
    for wrong in (2 / 3, 3 / 2):
        assert kstest(noise / wrong, "norm").pvalue < 1e-6


def test_the_least_survivors_less_the_colluding_carry_the_claimed_noise() -> None:
    """Five unknown shares of six survivors: exactly the multiplier that is claimed. No rounding hides a shortfall."""
    assert exact_deviation(MADE, 6 - MADE.colluding) == pytest.approx(0.7 * 1.0)
    two = DistributedGaussian(2.0, 0.7, SecAgg(survivors=0.7), colluding=2)
    assert exact_deviation(two, 6 - 2) == pytest.approx(1.4)


def test_with_one_survivor_less_nothing_is_opened_by_server_or_clients() -> None:
    with pytest.raises(BelowThreshold):
        noise_of(MADE, 3)
    terms = MADE.inner.terms(CLIENTS)
    assert (terms.threshold, terms.survivors) == (5, 6)
    case = Round(values_of(CLIENTS), MADE.inner, drop={f"client-{i:02d}": "masked" for i in range(3)})
    case.until_masked()
    case.gathering._terms = replace(case.gathering._terms, survivors=0)  # a server that would go on
    with pytest.raises(ProtocolError, match="too few clients are active"):
        case.opened()


def test_noise_is_fresh_and_independent_of_clients_and_sums() -> None:
    first, second = noise_of(MADE), noise_of(MADE)
    assert abs(np.corrcoef(first, second)[0, 1]) < 4.9 / math.sqrt(SIZE)
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 4.9 / math.sqrt(SIZE)


@pytest.mark.parametrize("multiplier", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("size", [1, 100, 10**5])
def test_the_cost_is_that_of_the_continuous_gaussian_within_a_percent(multiplier: float, size: int) -> None:
    """And never less: what rounding and the sum's distribution add is in the event."""
    made = DistributedGaussian(1.0, multiplier, SecAgg(survivors=0.5))
    event = made.event([str(i) for i in range(100)], size)
    assert isinstance(event.mechanism, ZCDpEvent) and (event.unit, event.relation) == ("client", "add/remove")
    rho = 1 / (2 * multiplier**2)
    assert rho <= event.mechanism.rho <= rho * 1.02
    spent = accounting.epsilon(leaves(event.mechanism), "add/remove", 1e-5)
    exact = accounting.epsilon(leaves(GaussianDpEvent(multiplier)), "add/remove", 1e-5)
    assert exact <= spent * (1 + 1e-9)


def test_a_coarse_grid_costs_what_it_should() -> None:
    """With steps as wide as the noise the sum is no discrete Gaussian any more, and the bound says so."""
    fine, coarse = (DistributedGaussian(1.0, 1.0, SecAgg(), fineness=f) for f in (100.0, 1.0))
    names = [str(i) for i in range(10)]
    costs = [made.event(names, 1000).mechanism.rho for made in (fine, coarse)]  # type: ignore[attr-defined]
    assert costs[1] > 1.2 * costs[0]
    narrow = DistributedGaussian(1.0, 0.01, SecAgg(), fineness=1.0)
    assert narrow.share_deviation(1000, 10) < 0.2
    assert narrow.event(names, 1000).mechanism.rho > 1.2 * 1 / (2 * 0.01**2)  # type: ignore[attr-defined]


def test_rounding_is_unbiased_and_stays_within_its_bound() -> None:
    made, rng = DistributedGaussian(1.0, 1.0, fineness=2.0), np.random.default_rng(0)
    value = rng.normal(size=400)
    value = value / np.linalg.norm(value) / made.grid(400)
    rows = np.array([conditional_rounding(value, made.bound(400), Entropy()) for _ in range(2000)])
    assert all(float(row @ row) <= made.bound(400) ** 2 for row in rows)
    assert np.abs(rows - value).max() < 1
    error = rows.mean(0) - value
    assert np.abs(error).max() < 4.9 * 0.5 / math.sqrt(2000) + 2e-3
    assert made.bound(400) < 400**0.5 * 2 + 400**0.5  # the conditional bound is the smaller one


def test_contributions_are_clipped_and_what_is_not_finite_counts_as_zero() -> None:
    quiet = DistributedGaussian(1.0, 1e-6, SecAgg())
    large = {name: np.full(4, 100.0) for name in values_of(3)}
    np.testing.assert_allclose(secure_sum(large, quiet).value, 3 * 0.5, rtol=1e-2)
    broken = {**large, "client-00": np.array([np.nan, 1.0, np.inf, 0.0])}
    np.testing.assert_allclose(secure_sum(broken, quiet).value, 2 * 0.5, rtol=1e-2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"clip_norm": 0.0},
        {"clip_norm": math.inf},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"colluding": 0},
        {"fineness": 0.5},
        {"fineness": math.inf},
    ],
)
def test_values_without_a_guarantee_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(PrivacyParameterError):
        DistributedGaussian(**{"clip_norm": 1.0, "noise_multiplier": 1.0, **arguments})  # type: ignore[arg-type]


def test_cohorts_without_an_unknown_share_are_refused() -> None:
    with pytest.raises(PlanError, match="no share of the noise is unknown"):
        DistributedGaussian(1.0, 1.0, SecAgg(), colluding=2).check(3, True)
    for share in (-0.1, 1.0):
        with pytest.raises(PlanError, match="survivors"):
            SecAgg(survivors=share)
    with pytest.raises(PlanError):
        DistributedGaussian(1.0, 1.0).reveal(b"")
    with pytest.raises(PlanError, match="round's keys"):
        DistributedGaussian(1.0, 1.0).protect(np.zeros(3), Entropy())
    assert PlainSum().carrier == PlainSum() and MADE.carrier == MADE.inner
