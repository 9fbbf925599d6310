"""Skellam noise against its probabilities, its cost against exact divergences, and both under a secure sum."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent
from scipy import stats

from framp_private import secure_sum
from framp_private.errors import PrivacyParameterError
from framp_private.privacy import accounting
from framp_private.privacy.events import Event, from_row, leaves, to_row
from framp_private.privacy.ledger import Ledger
from framp_private.privacy.skellam import SkellamDpEvent, _exact_below, _peak, renyi, skellam
from framp_private.protections import DistributedGaussian, DistributedSkellam, SecAgg
from framp_private.randomness import Entropy
from tests.secagg.harness import values_of


def pmf(variance: float, reach: int) -> np.ndarray:
    """P(k) for k in -reach .. reach, in 30 digits."""
    with mpmath.workdps(30):
        side = [float(mpmath.besseli(k, variance) * mpmath.exp(-variance)) for k in range(reach + 1)]
    return np.array([*side[:0:-1], *side])


@pytest.mark.parametrize("variance", [0.3, 4.0, 50.0])
def test_samples_have_the_exact_probabilities_and_no_others(variance: float) -> None:
    """Chi-square at alpha = 1e-6, n = 200,000; a variance 5 % off is rejected."""
    reach = math.ceil(3 * variance**0.5) + 1
    found = skellam(200_000, variance, Entropy())
    counts = np.array([(found == k).sum() for k in range(-reach, reach + 1)])

    def fits(assumed: float) -> float:
        expected = pmf(assumed, reach) * len(found)
        rest = len(found) - expected.sum()
        return float(stats.chisquare([*counts, len(found) - counts.sum()], [*expected, rest]).pvalue)

    assert fits(variance) > 1e-6
    for wrong in (0.95, 1.05):
        assert fits(variance * wrong) < 1e-6


@pytest.mark.parametrize("variance", [1e5, 5e8])
def test_wide_samples_are_nearly_gaussian(variance: float) -> None:
    found = skellam(100_000, variance, Entropy()) / math.sqrt(variance)
    assert stats.kstest(found, "norm").pvalue > 1e-6
    for wrong in (2 / 3, 3 / 2):
        assert stats.kstest(found / wrong, "norm").pvalue < 1e-6


def test_sums_of_shares_are_skellam_again() -> None:
    """Chi-square at alpha = 1e-6 of a sum of five shares against one source of five times the variance."""
    found = sum(skellam(200_000, 0.8, Entropy()) for _ in range(5))
    counts = np.array([(found == k).sum() for k in range(-6, 7)])
    expected = pmf(4.0, 6) * len(found)
    pair = ([*counts, len(found) - counts.sum()], [*expected, len(found) - expected.sum()])
    assert stats.chisquare(*pair).pvalue > 1e-6


@pytest.mark.parametrize("variance", [0.5, 30.0, 1e4])
def test_exact_decisions_agree_with_float64_wherever_that_is_clear(variance: float) -> None:
    rng, scale = np.random.default_rng(0), math.floor(math.sqrt(variance)) + 1
    most = _peak(variance, scale)
    for _ in range(60):
        size, word = int(rng.geometric(1 / (2 * scale))), int(rng.integers(0, 2**64, dtype=np.uint64))
        with mpmath.workdps(40):
            exact = mpmath.besseli(size, variance) * mpmath.exp(mpmath.mpf(size) / scale - variance - most)
        assert 0 < exact <= 1
        if abs(float(exact) - word / 2**64) > 1e-9:
            assert _exact_below(word, size, variance, scale, most, Entropy()) == (word / 2**64 < float(exact))


def divergence(variance: float, shift: int, alpha: int) -> float:
    """The Renyi divergence of order alpha between Skellam variables a shift apart, summed in 40 digits."""
    with mpmath.workdps(40):
        reach = int(12 * math.sqrt(variance)) + 4 * abs(shift) * alpha + 40
        density = [mpmath.besseli(k, variance) * mpmath.exp(-variance) for k in range(reach + abs(shift) + 1)]
        total = mpmath.fsum(
            density[abs(k - shift)] ** alpha * density[abs(k)] ** (1 - alpha) for k in range(-reach, reach + 1)
        )
        return float(mpmath.log(total) / (alpha - 1))


@pytest.mark.parametrize("variance", [2.0, 10.0, 60.0])
@pytest.mark.parametrize("shift", [1, 3])
@pytest.mark.parametrize("alpha", [2, 5, 16])
def test_the_bound_is_never_below_the_exact_divergence(variance: float, shift: int, alpha: int) -> None:
    """The oracle knows nothing of the theorem; the bound is within a tenth of it where the noise is wide."""
    (bound,) = renyi(SkellamDpEvent(variance, shift, shift), [alpha])
    exact = divergence(variance, shift, alpha)
    assert exact <= bound
    if variance == 60 and 3 * alpha * shift <= variance:
        assert bound < 1.1 * exact


def test_it_costs_a_little_more_than_a_gaussian_and_the_same_in_the_limit() -> None:
    orders = accounting.ORDERS
    for variance, close in ((100.0, 1.2), (1e8, 1.0001)):
        l2 = math.sqrt(variance) / 3
        ratio = renyi(SkellamDpEvent(variance, l2, l2), orders)[:30] / (np.array(orders[:30]) * l2**2 / (2 * variance))
        assert (ratio >= 1).all() and ratio.max() < close
    assert np.isinf(renyi(SkellamDpEvent(1.0, 1.0, 1.0), [1.5])[0])


def test_the_ledger_knows_the_event_and_prices_it() -> None:
    event = SkellamDpEvent(900.0, 10.0, 30.0)
    assert from_row(to_row(event)) == event
    ledger = Ledger.open(None, unit="client", relation="add/remove")
    for index in range(20):
        ledger.spend(Event(event, "client"), f"round {index}")
    spent = ledger.epsilon(1e-5)
    gaussian = accounting.epsilon(leaves(GaussianDpEvent(3.0), 20), "add/remove", 1e-5)
    assert gaussian < spent < 1.25 * gaussian
    assert math.isinf(accounting.epsilon(leaves(event), "replace-one", 1e-5))
    for bad in (SkellamDpEvent(math.inf, 1.0, 1.0), SkellamDpEvent(1.0, -1.0, 1.0), SkellamDpEvent(1.0, 1.0, math.nan)):
        with pytest.raises(PrivacyParameterError):
            leaves(bad)
    for variance in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(PrivacyParameterError):
            skellam(3, variance, Entropy())


MADE = DistributedSkellam(1.0, 0.7, SecAgg(survivors=0.7))


@pytest.mark.parametrize("gone", [0, 2])
def test_the_opened_noise_has_the_declared_scale_at_the_least_survivors(gone: int) -> None:
    """KS at alpha = 1e-6 with n = 10,000."""
    values = {name: value * 1e-3 for name, value in values_of(8, 10_000).items()}
    drop = dict.fromkeys(list(values)[:gone], "masked")
    total = secure_sum(values, MADE, drop=drop)  # type: ignore[arg-type]
    noise = total.value - sum(value for name, value in values.items() if name not in drop)
    deviation = MADE.grid(10_000) * MADE.share_deviation(10_000, 8) * math.sqrt(8 - gone)
    assert stats.kstest(noise / deviation, "norm").pvalue > 1e-6
    for wrong in (2 / 3, 3 / 2):
        assert stats.kstest(noise / (deviation * wrong), "norm").pvalue < 1e-6


def test_shares_that_no_sampler_can_draw_are_refused_before_anything_is_spent() -> None:
    for kind in (DistributedSkellam, DistributedGaussian):
        with pytest.raises(PrivacyParameterError, match="lower fineness"):
            kind(1.0, 20.0, SecAgg(), fineness=1e5).check(20, True, 10_000)
        kind(1.0, 20.0, SecAgg()).check(20, True, 100)


def test_the_claim_covers_what_is_there() -> None:
    names = [str(place) for place in range(8)]
    event = MADE.event(names, 400)
    assert event.unit == "client" and event.mechanism.variance == pytest.approx((0.7 / MADE.grid(400)) ** 2)
    assert event.mechanism.l2 == MADE.bound(400) and event.mechanism.l1 <= 20 * MADE.bound(400) + 1e-9
    least = accounting.epsilon(leaves(GaussianDpEvent(0.7)), "add/remove", 1e-5)
    assert least < accounting.epsilon(leaves(event.mechanism), "add/remove", 1e-5) < 1.2 * least
