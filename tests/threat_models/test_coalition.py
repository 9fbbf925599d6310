"""What coalitions learn: exact where the protection gives nothing, uniform where it holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from framp_private import secure_sum
from framp_private.protections import DistributedGaussian, SecAgg
from framp_private.randomness import Entropy
from threat_models.attacks import coalition
from threat_models.auditing import parametric
from threat_models.errors import NotResolvable

VALUES = {f"c{i}": np.random.default_rng(i).uniform(-1, 1, 300) for i in range(5)}


def test_d1_all_but_one_recover_the_last_to_the_step() -> None:
    protection = SecAgg(step=1e-6)
    total = secure_sum(VALUES, protection).value
    colluders = {name: value for name, value in VALUES.items() if name != "c0"}
    found = coalition.leave_one_out(total, colluders, 5)
    assert np.abs(found - VALUES["c0"]).max() <= 5 * 1e-6
    with pytest.raises(NotResolvable, match="sum over 2"):
        coalition.leave_one_out(total, dict(list(colluders.items())[:3]), 5)


def test_d1_what_is_masked_is_uniform_and_what_is_not_is_seen() -> None:
    rng = np.random.default_rng(1)
    masked = rng.integers(0, 2**20, 40_000, dtype=np.uint64)
    assert coalition.uniform(masked, 20) > 1e-6
    assert coalition.uniform(masked // 2, 20) < 1e-6
    values = (rng.normal(size=40_000) * 1e4).astype(np.int64) % 2**20
    assert coalition.uniform(values.astype(np.uint64), 20) < 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_d3_the_key_follows_from_an_exact_decryption_and_not_from_a_rounded_one(seed: int) -> None:
    n, q = 16, 12289
    rng = np.random.default_rng(seed)
    key = rng.integers(-1, 2, n)
    c1, error = rng.integers(0, q, n), rng.integers(-3, 4, n)
    message = rng.integers(-200, 200, n)

    def times(a, b):
        found = np.zeros(n, object)
        for i in range(n):
            for j in range(n):
                sign = 1 if i + j < n else -1
                found[(i + j) % n] += sign * int(a[i]) * int(b[j])
        return found % q

    c0 = (message + error - times(c1, key)) % q
    exact = (c0 + times(c1, key)) % q
    found = coalition.key_from_feedback(c0, c1, exact, q)
    assert (found == key % q).all()
    rounded = np.array([round(int(value if value < q / 2 else value - q) / 16) * 16 for value in exact]) % q
    assert (coalition.key_from_feedback(c0, c1, rounded, q) != key % q).any()


def test_d4_colluders_take_their_noise_away() -> None:
    assert coalition.remaining_noise(1.0, 10, 0) == 1.0
    assert coalition.remaining_noise(1.0, 10, 9) == pytest.approx(0.316, abs=1e-3)
    rng = np.random.default_rng(2)
    shares = rng.normal(size=(10, 20_000)) / 10**0.5
    assert shares[3:].sum(0).std() == pytest.approx(coalition.remaining_noise(1.0, 10, 3), rel=0.02)
    assert coalition.remaining_noise(1.0, 5, 5) == 0.0


@pytest.mark.parametrize(("colluding", "told"), [(2, False), (4, True), (6, True)])
def test_d4_a_claim_holds_at_the_colluders_it_names_and_not_at_more(colluding: int, told: bool) -> None:
    """The real shares of the least survivors, without those that are given away, against the claimed multiplier."""
    size, z, clients = 4000, 1.2, 12
    protection = DistributedGaussian(1.0, z, SecAgg(survivors=0.75), colluding=2)
    honest = protection.inner.least_survivors(clients) - colluding
    rng, mu = np.random.default_rng(3), []
    for _ in range(5):
        noise = sum(protection.share(size, clients, Entropy()) for _ in range(honest)) * protection.grid(size)
        coins = rng.random(size) < 0.5
        mu.append((noise + coins, coins))
    scores, coins = (np.concatenate(parts) for parts in zip(*mu, strict=True))
    assert (parametric.mu_lower(scores, coins, alpha=1e-6) > 1 / z) is told


def test_d5_two_sums_that_differ_in_one_client_differ_by_it() -> None:
    whole = sum(VALUES.values())
    np.testing.assert_allclose(coalition.difference(whole, whole - VALUES["c3"]), VALUES["c3"], atol=1e-12)


def test_d6_sybils_measure_the_generator_around_a_descriptor() -> None:
    torch.manual_seed(0)
    made = nn.Linear(4, 9)
    steps = 0.1 * torch.eye(4)
    with torch.no_grad():
        found = coalition.sybil_descriptors(made, torch.rand(4), steps)
    np.testing.assert_allclose(found, made.weight.detach().numpy().T, atol=1e-5)
    with torch.no_grad():
        noisy = coalition.sybil_descriptors(lambda v: made(v) + torch.randn(9), torch.rand(4), steps)
    assert np.abs(noisy - made.weight.detach().numpy().T).max() > 1
