"""Calibration is the inverse of accounting."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from dp_accounting import GaussianDpEvent

from framp_private.errors import PrivacyParameterError
from framp_private.privacy import accounting
from framp_private.privacy.calibrate import TOLERANCE, Releases, _refine, calibrate
from framp_private.privacy.events import Budget, leaves

CHANNELS = {
    "update": Releases(120, 0.7, 0.2, noise_values=1000),
    "prototypes": Releases(30, 0.25, noise_values=650),
    "descriptor": Releases(1, 0.05),
}


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 8.0])
@pytest.mark.parametrize("channels", [CHANNELS, {"update": CHANNELS["update"]}, {"descriptor": CHANNELS["descriptor"]}])
def test_the_whole_plan_costs_what_was_asked_for_and_no_more(epsilon: float, channels: dict[str, Releases]) -> None:
    found = calibrate(Budget(epsilon, 1e-5), channels)
    counts: Counter[str] = Counter()
    for name, each in channels.items():
        counts += leaves(each.event(found.multipliers[name]), each.count)
    spent = accounting.epsilon(counts, "add/remove", 1e-5, sum(c.count * c.noise_values for c in channels.values()))
    assert epsilon * (1 - 2 * TOLERANCE) <= spent <= epsilon
    assert found.epsilon == pytest.approx(spent, abs=1e-9)


def test_shares_are_of_squared_mu() -> None:
    """For Gaussian releases alone mu^2 = count / z^2, and shares of it are exact."""
    found = calibrate(Budget(2.0, 1e-6), {"a": Releases(4, 3.0), "b": Releases(25, 1.0)}).multipliers
    mu_a, mu_b = math.sqrt(4) / found["a"], math.sqrt(25) / found["b"]
    assert mu_a**2 / mu_b**2 == pytest.approx(3.0)


def test_channel_epsilons_do_not_add_up_and_each_is_below_the_whole() -> None:
    found = calibrate(Budget(4.0, 1e-5), CHANNELS)
    assert sum(found.channel_epsilons.values()) > found.epsilon
    assert max(found.channel_epsilons.values()) < found.epsilon


def test_more_privacy_takes_more_noise() -> None:
    loose, tight = (calibrate(Budget(e, 1e-5), CHANNELS).multipliers for e in (8.0, 1.0))
    assert all(tight[name] > loose[name] for name in CHANNELS)


def test_a_single_gaussian_is_the_exact_one() -> None:
    (multiplier,) = calibrate(Budget(1.0, 1e-5), {"x": Releases(1, 1.0)}).multipliers.values()
    assert accounting.epsilon(leaves(GaussianDpEvent(multiplier)), "add/remove", 1e-5) <= 1.0
    assert multiplier == pytest.approx(3.73, rel=0.01)  # Balle and Wang 2018, analytic Gaussian at (1, 1e-5)


@pytest.mark.parametrize(
    "bad",
    [{"count": 0}, {"sampling": 0.0}, {"sampling": 1.5}, {"share": 0.0}, {"share": math.inf}, {"share": math.nan}],
)
def test_releases_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(PrivacyParameterError):
        Releases(**{"count": 1, "share": 1.0, **bad})  # type: ignore[arg-type]
    with pytest.raises(PrivacyParameterError, match="no channel"):
        calibrate(Budget(1.0, 1e-5), {})


def test_beyond_the_accountant_s_grid_what_is_known_to_be_within_the_limit_is_taken() -> None:
    assert _refine(lambda mu: mu**1.3 if mu < 4 else math.inf, 10.0, 2.0) == 2.0
    assert _refine(lambda mu: mu**1.3, 10.0, 2.0) == pytest.approx(10 ** (1 / 1.3), rel=1e-3)
