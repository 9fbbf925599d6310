"""Noise: from the operating system, of the right scale, with a tail that reaches as far as it says."""

from __future__ import annotations

import math
import os
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from framp_private.privacy import noise
from framp_private.privacy.noise import REACH, TAIL, add_gaussian, on_grid, standard_gaussian
from framp_private.privacy.sampling import poisson_sample
from framp_private.randomness import Entropy, Keystream, SeededEntropy, Streams

ALPHA = 1e-6
"""False-alarm rate of each statistical test below."""


def test_the_keystream_is_aes_256_ctr() -> None:
    """NIST SP 800-38A, F.5.5: CTR-AES256.Encrypt, so that ciphertext xor plaintext is the keystream."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
    cipher = bytes.fromhex("601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5")
    buffer = bytearray(32)
    Keystream(key, counter).fill(buffer)
    assert bytes(buffer) == bytes(a ^ b for a, b in zip(plain, cipher, strict=True))


def test_a_keystream_goes_on_over_long_and_short_buffers() -> None:
    whole, parts = bytearray(3 << 20), b""
    Keystream(bytes(32), bytes(16)).fill(whole)
    stream = Keystream(bytes(32), bytes(16))
    for size in (1, 15, (1 << 20) + 7, (2 << 20) - 23):
        piece = bytearray(size)
        stream.fill(piece)
        parts += bytes(piece)
    assert parts == bytes(whole)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 65_535, 65_536, 65_537, 200_001])
def test_any_count_is_filled(count: int) -> None:
    made = standard_gaussian(count, Entropy())
    assert made.shape == (count,) and made.dtype == torch.float64
    assert torch.isfinite(made).all() and len(made.unique()) == count


def test_the_scale_is_accepted_and_wrong_ones_rejected() -> None:
    made = standard_gaussian(20_000, Entropy()).numpy()
    assert kstest(made, "norm").pvalue > ALPHA
    for wrong in (2 / 3, 3 / 2):
        assert kstest(made * wrong, "norm").pvalue < ALPHA


def test_pairs_are_independent() -> None:
    """The two values of one transform, and neighbours: correlations of values and of squares within 5.2 deviations."""
    made = standard_gaussian(1 << 17, Entropy()).numpy()
    half = len(made) // 4
    pairs = [
        (made[:half], made[2 * half : 3 * half]),
        (made[:-1], made[1:]),
        (made[:half] ** 2, made[half : 2 * half] ** 2),
    ]
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 5.2 / math.sqrt(len(a))


class Zeros(Entropy):
    """Draws nothing but zero bits: the far end of the tail."""

    def bytes(self, count: int) -> bytes:
        return bytes(count)

    def keystream(self) -> Keystream:
        class Nothing:
            def fill(self, buffer: bytearray) -> None:
                buffer[:] = bytes(len(buffer))

        return Nothing()  # type: ignore[return-value]


def test_the_tail_reaches_thirteen_deviations() -> None:
    made = standard_gaussian(2, Zeros())
    assert float(made.abs().max()) == pytest.approx(REACH, rel=1e-12) and REACH > 13
    assert math.exp(-(REACH**2) / 2) == pytest.approx(TAIL, rel=1e-9)


def test_two_draws_differ_and_forks_differ() -> None:
    assert not torch.equal(standard_gaussian(8, Entropy()), standard_gaussian(8, Entropy()))
    entropy, (read, write) = Entropy(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, entropy.bytes(16))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 16) != entropy.bytes(16)


def test_entropy_cannot_be_seeded_or_stored_and_its_seeded_twin_says_so() -> None:
    with pytest.raises(TypeError):
        Entropy(7)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="never serialised"):
        pickle.dumps(Entropy())
    assert not Entropy().seeded and SeededEntropy(1).seeded
    assert torch.equal(standard_gaussian(5, SeededEntropy(1)), standard_gaussian(5, SeededEntropy(1)))


def test_noise_moves_no_global_generator_and_ignores_seeds() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    with Streams(0).as_torch_default():
        first = standard_gaussian(4, Entropy())
    with Streams(0).as_torch_default():
        second = standard_gaussian(4, Entropy())
    assert not torch.equal(first, second)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_failing_source_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(count: int) -> bytes:
        raise OSError("no randomness")

    monkeypatch.setattr(os, "urandom", broken)
    with pytest.raises(OSError, match="no randomness"):
        standard_gaussian(3, Entropy())


def test_added_noise_is_rounded_once_and_keeps_the_shape() -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    noised = add_gaussian(value, 1e-12, Entropy())
    assert noised.dtype == np.float32
    np.testing.assert_array_equal(noised, value + (noised - value))
    np.testing.assert_allclose(noised, value, atol=1e-9)


@pytest.mark.parametrize("probability", [0.02, 0.3, 0.9])
def test_poisson_samples_have_independent_members(probability: float) -> None:
    """Sizes are binomial (chi-square of their variance) and each record is in its share, at alpha = 1e-6."""
    n, draws = 200, 2_000
    members = np.zeros((draws, n))
    for row in members:
        row[poisson_sample(n, probability, Entropy()).numpy()] = 1
    spread = math.sqrt(probability * (1 - probability))
    assert abs(members.mean() - probability) < 4.9 * spread / math.sqrt(members.size)
    ratio = members.sum(1).var(ddof=1) / (n * probability * (1 - probability))
    assert abs(ratio - 1) < 5.5 * math.sqrt(2 / draws)
    assert np.abs(members.mean(0) - probability).max() < 6.0 * spread / math.sqrt(draws)


def test_poisson_samples_of_nothing_and_of_everything() -> None:
    assert len(poisson_sample(0, 0.5, Entropy())) == 0
    assert poisson_sample(3, 1.0, Entropy()).tolist() == [0, 1, 2]
    sizes = [len(poisson_sample(3, 0.2, Entropy())) for _ in range(200)]
    assert 0 in sizes and max(sizes) > 0


def test_the_constants_of_the_tail_belong_together() -> None:
    assert noise.TAIL == 2.0**-126


@pytest.mark.parametrize("deviation", [1e-6, 0.3, 1.0, 7.0, 1e9])
def test_noised_values_lie_on_a_grid_that_everybody_knows(deviation: float) -> None:
    """About deviation 2^-16 apart, whatever the values were, and no further from the exact ones than half of it."""
    grid = 2.0 ** (math.floor(math.log2(deviation)) - 16)
    values = np.random.default_rng(0).normal(size=2000).astype(np.float32) * 3 * deviation
    noised = add_gaussian(values, deviation, Entropy()).astype(np.float64) / grid
    assert (noised == np.round(noised)).all()
    exact = torch.linspace(-5, 5, 1001, dtype=torch.float64) * deviation
    assert float((on_grid(exact.clone(), deviation) - exact).abs().max()) <= grid / 2
