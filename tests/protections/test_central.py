"""Noise of a trusted server under a clip that adapts (Andrew et al. 2021)."""

from __future__ import annotations

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent
from scipy.stats import kstest

from framp_private.errors import PrivacyParameterError, ProtocolError
from framp_private.protections import AdaptiveClip, CentralGaussian, PlainSum
from framp_private.protections.base import plain_lift
from framp_private.protections.central import RANGE, WITHIN
from framp_private.randomness import Entropy

ALPHA = 1e-6


def nothing(requests):  # noqa: ANN001, ANN201
    return iter(())


def total_of(protection: CentralGaussian, values: list[np.ndarray]):  # noqa: ANN201
    names = [f"c{i}" for i in range(len(values))]
    session = protection.open(names, len(values[0]), plain_lift, nothing)
    for name, value in zip(names, values, strict=True):
        session.add(name, protection.protect(value, Entropy()))
    return session.close(nothing)


def test_values_and_signs_are_noised_at_the_scale_that_makes_both_one_release_of_multiplier_z() -> None:
    z, s, clip = 2.0, 1.3, 1.5
    protection = CentralGaussian(clip, z, adaptive=AdaptiveClip(deviation=s))
    declared = clip / (1 / z**2 - 1 / (2 * s) ** 2) ** 0.5
    assert protection.deviation == pytest.approx(declared)
    values = [np.zeros(12_000, np.float32)]
    noise = total_of(protection, values).value
    assert kstest(noise / declared, "norm").pvalue > ALPHA
    for wrong in (2 / 3, 3 / 2):
        assert kstest(noise / (wrong * declared), "norm").pvalue < ALPHA
    signs = np.array([total_of(protection, [np.zeros(1, np.float32)]).measurements[WITHIN] for _ in range(3_000)])
    assert kstest((signs - 0.5) / s, "norm").pvalue > ALPHA
    for wrong in (2 / 3, 3 / 2):
        assert kstest((signs - 0.5) / (wrong * s), "norm").pvalue < ALPHA


@pytest.mark.parametrize("norm", [0.0, 0.3, 1.5, 40.0, np.nan])
def test_one_client_moves_values_and_signs_by_no_more_than_the_event_says(norm: float) -> None:
    """In units of their noise, the joint move is at most 1 / z; a full contribution reaches it."""
    z, s, clip = 1.7, 1.1, 1.5
    protection = CentralGaussian(clip, z, adaptive=AdaptiveClip(deviation=s))
    sent = PlainSum().reveal(protection.protect(np.array([norm, 0.0], np.float32), Entropy())).astype(np.float64)
    moved = np.hypot(np.linalg.norm(sent[:-1]) / protection.deviation, sent[-1] / s)
    assert moved <= 1 / z * (1 + 1e-6)
    if norm >= clip:
        assert moved == pytest.approx(1 / z, rel=1e-4)
    assert protection.event(["a"], 2).mechanism == GaussianDpEvent(z)
    assert protection.event(["a"], 2).noise_values == 3


@pytest.mark.parametrize("start", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
def test_the_clip_comes_to_the_quantile_of_the_norms(start: float, quantile: float) -> None:
    rng = np.random.default_rng(7)
    protection = CentralGaussian(start, 0.5, adaptive=AdaptiveClip(quantile, 0.3, 1.0))
    clip, reached, norms = protection.starting_clip, [], np.linspace(1, 3, 60)
    for index in range(200):
        values = [(norm * v / np.linalg.norm(v)).astype(np.float32) for norm, v in zip(norms, rng.normal(size=(60, 3)))]
        clip = protection.after(clip, total_of(protection.at(clip), values), 60)
        reached += [clip] if index >= 140 else []
    assert np.mean(reached) == pytest.approx(np.quantile(norms, quantile), rel=0.06)


def test_the_clip_cannot_run_away() -> None:
    clip = AdaptiveClip(0.5, 100.0, 1.0)
    assert clip.after(1.0, 1e9, 10, 1.0) == pytest.approx(1 / RANGE)
    assert clip.after(1.0, -1e9, 10, 1.0) == pytest.approx(RANGE)


@pytest.mark.parametrize(
    "numbers",
    [(0, 0.2, 5), (1, 0.2, 5), (np.nan, 0.2, 5), (0.5, 0, 5), (0.5, np.inf, 5), (0.5, 0.2, 0), (0.5, 0.2, np.inf)],
)
def test_parameters_outside_their_range_are_refused(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(PrivacyParameterError, match=r"quantile|must be a finite real number"):
        AdaptiveClip(*numbers)


def test_signs_with_less_noise_than_both_may_cost_are_refused() -> None:
    with pytest.raises(PrivacyParameterError, match="half the noise_multiplier"):
        CentralGaussian(1.0, 2.0, adaptive=AdaptiveClip(deviation=1.0))
    CentralGaussian(1.0, 2.0, adaptive=AdaptiveClip(deviation=1.01))


@pytest.mark.parametrize("sign", [0.0, 0.4999, -0.6, 30.0])
def test_a_client_that_sends_another_sign_is_refused(sign: float) -> None:
    protection = CentralGaussian(1.0, 1.0, adaptive=AdaptiveClip())
    payload = PlainSum().protect(np.array([0.1, sign], np.float32), Entropy())
    with pytest.raises(ProtocolError, match="half a unit"):
        protection.open(["a"], 1, plain_lift, nothing).add("a", payload)


def test_a_later_clip_bounds_what_is_sent_and_what_is_taken() -> None:
    protection = CentralGaussian(1.0, 1.0, adaptive=AdaptiveClip())
    large = np.array([3.0, 0.0], np.float32)
    wide = protection.at(2.5)
    assert np.linalg.norm(wide.reveal(wide.protect(large, Entropy()))) == pytest.approx(2.5, rel=1e-4)
    with pytest.raises(ProtocolError, match="above clip_norm"):
        protection.reveal(wide.protect(large, Entropy()))
    assert CentralGaussian(1.0, 1.0).at(2.5).clip_norm == 1.0
