"""Planted bugs on the real code path, each caught by a check of the audit; the code as it is passes all of them.

A check is a function of a federation, a client and its records; a mutant is a patch under which some check must find
something. Statistical checks have alpha = 1e-3, or 1e-6 where the test runs once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from framp_private.federated import client as client_module
from framp_private.federated import dp_sgd, per_sample, prototypes
from framp_private.models import book_keeping
from framp_private.privacy import accounting, noise
from framp_private.privacy.events import leaves
from framp_private.privacy.noise import standard_gaussian
from framp_private.protections import LocalGaussian
from framp_private.protections import gaussian as gaussian_module
from tests import private
from threat_models.auditing import claims_check, noise_check, replay_checks
from threat_models.auditing.replay import Finding
from threat_models.claims import PrivacyClaim

NAME = "client-00"
DATA = private.DATASET.clients[NAME]
Patch = Callable[[pytest.MonkeyPatch], None]


def made(**changes):
    """z C < 1, so that a variance in the place of a deviation is too little noise."""
    return private.federation(**{"clip_norm": 0.4, "noise_multiplier": 1.1, **changes})


def scale() -> list[Finding]:
    return noise_check.check_scale(made(), NAME, DATA, alpha=1e-6)  # noise is fresh in every run of this test


def neighbours() -> list[Finding]:
    return replay_checks.check_neighbours(made(), NAME, DATA)


def everywhere() -> list[Finding]:
    return replay_checks.check_noise(made(), NAME, DATA)


def sampled() -> list[Finding]:
    made_to_sample = made(sampling_probability=0.3)
    return [
        *replay_checks.check_sampling(made_to_sample, NAME, DATA),
        *replay_checks.check_neighbours(made_to_sample, NAME, DATA),
    ]


def claimed() -> list[Finding]:
    federation = made()
    spent = accounting.epsilon(_planned(federation), "add/remove", 1e-5)
    return claims_check.check_claim(
        federation, PrivacyClaim(spent, 1e-5, "record", "add/remove", "gaussian", "this run alone")
    )


def _planned(federation):
    from collections import Counter

    total = Counter()
    for event, count in federation.planned(NAME):
        for leaf, times in leaves(event.mechanism, count).items():
            total[leaf] += times
    return total


CHECKS = {"scale": scale, "neighbours": neighbours, "everywhere": everywhere, "sampled": sampled, "claimed": claimed}


@pytest.mark.parametrize("check", list(CHECKS))
def test_the_code_as_it_is_passes(check: str) -> None:
    assert CHECKS[check]() == []


# -- noise of the wrong size


def scaled(factor: float) -> Patch:
    def patch(monkeypatch) -> None:
        def wrong(count, entropy):
            return standard_gaussian(count, entropy) * factor

        monkeypatch.setattr(per_sample, "standard_gaussian", wrong)
        monkeypatch.setattr(noise, "standard_gaussian", wrong)

    return patch


def variance_for_deviation(monkeypatch) -> None:
    real = per_sample.standard_gaussian
    monkeypatch.setattr(per_sample, "standard_gaussian", lambda count, entropy: real(count, entropy) * (0.4 * 1.1))


def variance_of_sums(monkeypatch) -> None:
    wrong = property(lambda self: (self.clip_norm * self.noise_multiplier / 4) ** 2)
    monkeypatch.setattr(LocalGaussian, "deviation", wrong)


# -- noise that is not fresh


def reused_each_round(monkeypatch) -> None:
    kept = {}

    def wrong(count, entropy):
        if count not in kept:
            kept[count] = standard_gaussian(count, entropy)
        return kept[count].clone()

    monkeypatch.setattr(per_sample, "standard_gaussian", wrong)


def same_on_all_clients(monkeypatch) -> None:
    def wrong(count, entropy):
        return torch.from_numpy(np.random.default_rng(7).normal(size=count))

    monkeypatch.setattr(per_sample, "standard_gaussian", wrong)
    monkeypatch.setattr(noise, "standard_gaussian", wrong)


# -- sensitivity


def noise_before_clip(monkeypatch) -> None:
    real = per_sample.MaskedOptimizer.noisy_gradient

    def wrong(self, loss, mode, *more):
        self._factors = torch.ones_like
        gradient = real(self, loss, mode, *more)
        norm = float(gradient.norm()) * self.expected_batch_size
        return gradient.mul_(min(1.0, 40 * self.max_grad_norm / max(norm, 1e-12)))

    monkeypatch.setattr(per_sample.MaskedOptimizer, "noisy_gradient", wrong)


def clip_of_the_batch(monkeypatch) -> None:
    real = per_sample._SUMS["bookkeeping"]

    def wrong(network, loss, mask, factors):
        total = real(network, loss, mask, torch.ones_like)
        return total * min(1.0, DATA.n_train * 0.4 / max(float(total.norm()), 1e-12))

    monkeypatch.setitem(per_sample._SUMS, "bookkeeping", wrong)
    untried(monkeypatch)


def untried(monkeypatch) -> None:
    """What is tried on made-up records before a run would notice, and take another way: so it is off."""
    monkeypatch.setattr(per_sample, "found", lambda *given: "bookkeeping")


def clip_of_each_layer(monkeypatch) -> None:
    def wrong(calls, tensors, mask, factors):
        total = torch.zeros(tensors.total)
        for name, call in calls.items():
            total += book_keeping.clipped_sum({name: call}, tensors, mask, factors)
        return total

    monkeypatch.setattr(per_sample, "clipped_sum", wrong)
    untried(monkeypatch)


def replaced_for_removed(monkeypatch) -> None:
    """A bound that suits an average of replaced records: half of what a sum of removed ones moves by."""
    monkeypatch.setattr(per_sample, "clip_factors", lambda squared, clip: 2 * _clip_factors(squared, clip))


_clip_factors = per_sample.clip_factors


def actual_batch(monkeypatch) -> None:
    real = per_sample.MaskedOptimizer.noisy_gradient

    def wrong(self, loss, mode, *more):
        sizes = []

        def counted(module):
            found = loss(module)
            sizes.append(len(found))
            return found

        gradient = real(self, None if loss is None else counted, mode, *more)
        return gradient * (self.expected_batch_size / max(1, sum(sizes)))

    monkeypatch.setattr(per_sample.MaskedOptimizer, "noisy_gradient", wrong)


def actual_class_counts(monkeypatch) -> None:
    real = prototypes.local_prototypes

    def wrong(network, data, rows, weighting, bound=None):
        value = real(network, data, rows, weighting, bound).reshape(network.n_classes, -1)
        counts = value[:, -1:] / bound.count_weight
        return (value * DATA.n_train / np.maximum(counts, 1)).reshape(-1)

    monkeypatch.setattr(client_module, "local_prototypes", wrong)


def features_take_the_whole_bound(monkeypatch) -> None:
    monkeypatch.setattr(prototypes.PrototypeBound, "feature_norm", property(lambda self: self.clip_norm))


def not_finite_passes(monkeypatch) -> None:
    def wrong(squared_norms, clip_norm):
        return (clip_norm / squared_norms.sqrt().clamp(min=1e-300)).clamp(max=1.0).nan_to_num(1.0)

    monkeypatch.setattr(per_sample, "clip_factors", wrong)
    monkeypatch.setattr(book_keeping, "_clean", lambda *values: None)


# -- values without noise


def counts_without_noise(monkeypatch) -> None:
    real = LocalGaussian.protect

    def wrong(self, value, entropy, seat=None):
        noised = self.inner.reveal(real(self, value, entropy, seat)).reshape(value.shape).copy()
        width = private.federation().network.feature_dim + 1
        if value.size % width == 0 and value.size > width:
            noised[width - 1 :: width] = value[width - 1 :: width]
        return self.inner.protect(noised, entropy, seat)

    monkeypatch.setattr(LocalGaussian, "protect", wrong)


def noise_on_part_of_the_mask(monkeypatch) -> None:
    real = per_sample.MaskedOptimizer.add_noise

    def wrong(self):
        real(self)
        half = self._network.n_parameters // 2
        self._network.gradient[half:] = self._clipped[half:]

    monkeypatch.setattr(per_sample.MaskedOptimizer, "add_noise", wrong)


def missing_classes_skipped(monkeypatch) -> None:
    real = gaussian_module.add_gaussian

    def wrong(value, deviation, entropy):
        return np.where(value == 0, 0, real(value, deviation, entropy)).astype(np.float32)

    monkeypatch.setattr(gaussian_module, "add_gaussian", wrong)


def half_precision(monkeypatch) -> None:
    real = gaussian_module.add_gaussian

    def wrong(value, deviation, entropy):
        return real(value, deviation, entropy).astype(np.float16).astype(np.float32)

    monkeypatch.setattr(gaussian_module, "add_gaussian", wrong)


# -- sampling and accounting


def shuffled_batches(monkeypatch) -> None:
    def wrong(n, probability, entropy):
        order = np.argsort(np.frombuffer(entropy.bytes(8 * n), dtype="<u8"), kind="stable")
        return torch.from_numpy(np.sort(order[: round(probability * n)]))

    monkeypatch.setattr(dp_sgd, "poisson_sample", wrong)


def empty_batches_skipped(monkeypatch) -> None:
    real = per_sample.MaskedOptimizer.noisy_gradient

    def wrong(self, loss, mode, *more):
        return self._network.gradient.zero_() if loss is None else real(self, loss, mode, *more)

    monkeypatch.setattr(per_sample.MaskedOptimizer, "noisy_gradient", wrong)


def delta_ignored(monkeypatch) -> None:
    real = accounting.epsilon
    monkeypatch.setattr(accounting, "epsilon", lambda events, relation, delta: real(events, relation, 0.05))


def rounds_not_composed(monkeypatch) -> None:
    real = accounting.epsilon
    monkeypatch.setattr(
        accounting, "epsilon", lambda events, relation, delta: real(dict.fromkeys(events, 1), relation, delta)
    )


MUTANTS: dict[str, tuple[Patch, str]] = {
    "noise halved": (scaled(0.5), "scale"),
    "noise quartered": (scaled(0.25), "scale"),
    "no noise": (scaled(0.0), "scale"),
    "variance for deviation": (variance_for_deviation, "scale"),
    "variance for deviation, on sums": (variance_of_sums, "scale"),
    "noise added once and reused": (reused_each_round, "everywhere"),
    "same seed on all clients": (same_on_all_clients, "everywhere"),
    "noise before clip": (noise_before_clip, "neighbours"),
    "clip of the batch": (clip_of_the_batch, "neighbours"),
    "clip of each layer": (clip_of_each_layer, "neighbours"),
    "sensitivity of half the size": (replaced_for_removed, "neighbours"),
    "division by the actual batch": (actual_batch, "neighbours"),
    "division by the actual class count": (actual_class_counts, "neighbours"),
    "features take the whole bound": (features_take_the_whole_bound, "neighbours"),
    "NaN bypasses clipping": (not_finite_passes, "neighbours"),
    "class counts without noise": (counts_without_noise, "everywhere"),
    "noise on part of the mask": (noise_on_part_of_the_mask, "everywhere"),
    "missing classes skipped": (missing_classes_skipped, "everywhere"),
    "half precision": (half_precision, "everywhere"),
    "shuffled, accounted as Poisson": (shuffled_batches, "sampled"),
    "empty batches skipped": (empty_batches_skipped, "neighbours"),
    "delta ignored": (delta_ignored, "claimed"),
    "rounds not composed": (rounds_not_composed, "claimed"),
}


@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_every_planted_bug_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, check = MUTANTS[mutant]
    patch(monkeypatch)
    assert CHECKS[check](), f"{mutant} was not seen by {check}"


def test_a_claim_for_another_unit_is_seen() -> None:
    claim = PrivacyClaim(100.0, 1e-5, "client", "add/remove", "gaussian", "this run alone")
    assert [finding.check for finding in claims_check.check_claim(made(), claim)] == ["claim"]


@pytest.mark.parametrize("change", [{"noise_multiplier": 0.3}, {"clip_norm": 3.0}])
def test_other_settings_pass_too(change) -> None:
    federation = made(**change)
    assert noise_check.check_scale(federation, NAME, DATA, alpha=1e-6) == []
    assert replay_checks.check_neighbours(federation, NAME, DATA) == []


def test_the_exact_epsilon_of_gaussian_releases_is_the_ledger_s() -> None:
    federation = made()
    mu = claims_check.gdp_of(federation)
    assert mu is not None and math.isfinite(mu)
    spent = accounting.epsilon(_planned(federation), "add/remove", 1e-5)
    assert claims_check.epsilon_of(mu, 1e-5) == pytest.approx(spent, rel=0.01)
    assert (
        claims_check.gdp_of(replace(federation, trainer=replace(federation.trainer, sampling_probability=0.5))) is None
    )


def test_noise_is_found_missing_under_sampling_too(monkeypatch) -> None:
    """Amplification makes a claim small, not noise: the mechanism is looked at on whole batches."""
    federation = made(sampling_probability=0.25)
    whole = replay_checks.mechanism(federation)
    assert noise_check.check_scale(whole, NAME, DATA, alpha=1e-6) == []
    assert replay_checks.check_noise(whole, NAME, DATA) == []
    scaled(0.3)(monkeypatch)
    assert noise_check.check_scale(whole, NAME, DATA, alpha=1e-6)


@pytest.mark.parametrize("clip_norm", [0.4, 50.0])
def test_sampling_is_seen_whether_records_are_clipped_or_not(clip_norm: float, monkeypatch) -> None:
    federation = made(sampling_probability=0.3, clip_norm=clip_norm)
    assert replay_checks.check_sampling(federation, NAME, DATA) == []
    shuffled_batches(monkeypatch)
    assert replay_checks.check_sampling(federation, NAME, DATA)


def test_a_sampled_run_whose_rounds_are_not_composed_is_seen() -> None:
    federation = made(sampling_probability=0.25, noise_multiplier=1.1)
    spent = accounting.epsilon(_planned(federation), "add/remove", 1e-5)
    claim = PrivacyClaim(spent, 1e-5, "record", "add/remove", "other", "this run alone")
    assert claims_check.check_claim(federation, claim) == []
    assert claims_check.check_claim(federation, replace(claim, epsilon=0.97 * spent))


def test_smaller_budgets_and_the_public_factor_of_fiarse_raise_no_alarm() -> None:
    federation = private.federation(budgets=(0.5, 0.25), clip_norm=0.4, noise_multiplier=1.1, fiarse=True)
    whole = replay_checks.mechanism(federation)
    assert replay_checks.check_neighbours(federation, NAME, DATA) == []
    assert replay_checks.check_noise(whole, NAME, DATA) == []
    assert noise_check.check_scale(whole, NAME, DATA, alpha=1e-6) == []
