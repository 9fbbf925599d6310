"""The epsilon of sampled Gaussian releases: against another library, against Monte Carlo, and where it must refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant

from framp_private import load_setup, make_config
from threat_models import metrics
from threat_models.auditing import claims_check
from threat_models.auditing.composition import ApproximateDp, Release, auc, epsilon, power
from threat_models.auditing.gaussian import auc_ceiling, auc_ceiling_dp, epsilon_of, tpr_ceiling, tpr_ceiling_dp
from threat_models.claims import PrivacyClaim
from threat_models.errors import AuditError


@pytest.mark.parametrize(
    ("z", "q", "count"), [(1.1, 0.25, 60), (0.8, 0.2, 120), (5.0, 0.01, 3000), (0.6, 0.1, 20), (3.0, 0.5, 100)]
)
def test_sampled_releases_against_dp_accounting(z: float, q: float, count: int) -> None:
    theirs = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    theirs.compose(PoissonSampledDpEvent(q, GaussianDpEvent(z)), count)
    assert epsilon([Release(z, q, count)], 1e-5) == pytest.approx(theirs.get_epsilon(1e-5), rel=2e-3)


@pytest.mark.parametrize(("z", "count"), [(1.0, 1), (2.0, 30), (8.0, 100)])
def test_without_sampling_it_is_gaussian_dp(z: float, count: int) -> None:
    assert epsilon([Release(z, 1.0, count)], 1e-5) == pytest.approx(epsilon_of(math.sqrt(count) / z, 1e-5), rel=2e-4)
    both = [Release(z, 1.0, count), Release(3.0, 1.0, 2)]
    assert epsilon(both, 1e-5) == pytest.approx(epsilon_of(math.sqrt(count / z**2 + 2 / 9), 1e-5), rel=2e-4)


def test_sampled_releases_against_monte_carlo() -> None:
    z, q, steps, draws = 1.0, 0.3, 5, 400_000
    rng = np.random.default_rng(0)
    x = z * rng.normal(size=(draws, steps)) + (rng.random((draws, steps)) < q)
    losses = np.log1p(q * np.expm1((2 * x - 1) / (2 * z * z))).sum(1)
    at = epsilon([Release(z, q, steps)], 0.01)
    spent = np.clip(-np.expm1(at - losses), 0, None)
    assert spent.mean() == pytest.approx(0.01, abs=4 * spent.std() / math.sqrt(draws))


def test_the_best_test_of_a_gaussian_is_known() -> None:
    for mu in (0.3, 1.0, 2.5):
        releases = [Release(2 / mu, 1.0, 4)]
        assert auc(releases) == pytest.approx(auc_ceiling(mu), abs=1e-4)
        for fpr in (1e-3, 0.05, 0.5):
            assert power(releases, fpr) == pytest.approx(tpr_ceiling(fpr, mu), abs=2e-4)


def test_the_best_test_of_sampled_releases_against_drawn_ones() -> None:
    z, q, steps, draws = 1.2, 0.3, 8, 200_000
    rng = np.random.default_rng(1)
    out = z * rng.normal(size=(draws, steps))
    inside = z * rng.normal(size=(draws, steps)) + (rng.random((draws, steps)) < q)
    scores = np.concatenate([np.log1p(q * np.expm1((2 * x - 1) / (2 * z * z))).sum(1) for x in (inside, out)])
    releases, members = [Release(z, q, steps)], np.arange(2 * draws) < draws
    assert metrics.auc(scores, members).value == pytest.approx(auc(releases), abs=0.004)
    assert metrics.tpr_at_fpr(scores, members, 0.05).value == pytest.approx(power(releases, 0.05), abs=0.006)
    assert auc(releases) < auc_ceiling(math.sqrt(steps) / z) - 0.1  # what sampling takes off


@pytest.mark.parametrize("preset", ["adult-private", "cifar10-private"])
def test_a_preset_s_claim_is_a_little_over_the_exact_one_and_never_under(preset: str, data_root) -> None:
    setup = load_setup(make_config(preset=preset), data_root=data_root)
    exact = epsilon(claims_check.releases_of(setup.federation), 1e-5)
    assert 7.8 < exact <= 8.001
    claim = PrivacyClaim(8.0, 1e-5, "record", "add/remove", "other", "this run alone")
    assert claims_check.check_claim(setup.federation, claim) == []
    less = PrivacyClaim(0.95 * exact, 1e-5, "record", "add/remove", "other", "this run alone")
    assert claims_check.check_claim(setup.federation, less)


def test_a_sample_of_clients_is_one_release_of_all_channels() -> None:
    config = make_config(
        preset="digits-client-private", assignments={"cohorts": "poisson", "clients_per_round": 30, "rounds": 10}
    )
    federation = load_setup(config).federation
    (release,) = claims_check.releases_of(federation)
    assert release.q == 0.3 and release.count == 10
    assert epsilon([release], 1e-5) == pytest.approx(8.0, abs=0.15)


def test_claims_beyond_the_grid_or_at_no_delta_are_found() -> None:
    from tests import private

    federation = private.federation(noise_multiplier=0.15, sampling_probability=0.5, rounds=30)
    small = PrivacyClaim(8.0, 1e-5, "record", "add/remove", "other", "this run alone")
    assert claims_check.check_claim(federation, small)
    whole = private.federation()
    assert claims_check.check_claim(whole, PrivacyClaim(50.0, 0.0, "record", "add/remove", "other", "this run alone"))
    other = PrivacyClaim(50.0, 1e-5, "record", "replace-one", "other", "this run alone")
    assert [finding.words for finding in claims_check.check_claim(whole, other)]


@pytest.mark.parametrize("bad", [(0.0, 0.5, 1), (1.0, 0.0, 1), (1.0, 1.1, 1), (math.nan, 0.5, 1), (1.0, 0.5, -1)])
def test_what_is_out_of_range_is_refused(bad) -> None:
    with pytest.raises(AuditError, match="z > 0"):
        epsilon([Release(*bad)], 1e-5)


@pytest.mark.parametrize("releases", [[Release(0.1, 1.0, 50)], [Release(0.05, 1.0, 2)], [Release(0.3, 0.25, 100)]])
def test_more_than_the_grid_holds_is_infinite_and_tells_all(releases) -> None:
    assert math.isinf(epsilon(releases, 1e-5)) and auc(releases) == 1.0 and power(releases, 0.01) == 1.0


@pytest.mark.parametrize("mu", [3.0, 5.0, 9.0, 10.0, 12.0, 15.0])
def test_nothing_wraps_around(mu: float) -> None:
    releases = [Release(2 / mu, 1.0, 4)]
    assert auc_ceiling(mu) - 1e-3 <= auc(releases) <= 1.0
    assert tpr_ceiling(0.01, mu) - 1e-3 <= power(releases, 0.01) <= 1.0


@pytest.mark.parametrize(("at", "delta"), [(0.5, 1e-3), (1.0, 1e-5), (2.0, 1e-2)])
def test_of_a_mechanism_that_is_only_dp_the_worst_is_taken(at: float, delta: float) -> None:
    releases = [ApproximateDp(at, delta)]
    assert auc(releases) == pytest.approx(auc_ceiling_dp(at, delta), abs=2e-4)
    for fpr in (0.01, 0.2, 0.6):
        assert power(releases, fpr) == pytest.approx(float(tpr_ceiling_dp(fpr, at, delta)), abs=1e-3)
    both = [*releases, Release(2.0, 1.0, 1)]
    assert auc(both) > max(auc(releases), auc([Release(2.0, 1.0, 1)]))
