"""Quantising, headroom, packing and masks, each against slow naive code."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from framp_private.crypto.prg import CHUNK_BYTES, add_mask, mask
from framp_private.crypto.ring import MOST_BITS, Ring, headroom, pack, unpack
from framp_private.errors import CryptoError, PrivacyParameterError, ProtocolError
from framp_private.randomness import Keystream
from tests.vectors.wycheproof import raw

NIST_KEY = raw("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
NIST_COUNTER = raw("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
PLAIN = raw(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
CIPHER = raw(
    "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
    "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
)


def test_the_keystream_is_nist_sp_800_38a_f_5_5() -> None:
    stream = bytearray(64)
    Keystream(NIST_KEY, NIST_COUNTER).fill(stream)
    assert bytes(a ^ b for a, b in zip(stream, PLAIN, strict=True)) == CIPHER


@pytest.mark.parametrize("bits", [32, 20, 7])
def test_masks_are_the_keystream_cut_to_the_ring(bits: int) -> None:
    """AES-256 of the counter blocks 0 and 1, one block at a time: little-endian words, lowest bits."""
    encryptor = Cipher(algorithms.AES(NIST_KEY), modes.ECB()).encryptor()
    stream = b"".join(encryptor.update(block.to_bytes(16, "big")) for block in range(2))
    words = [int.from_bytes(stream[at : at + 4], "little") % 2**bits for at in range(0, 32, 4)]
    assert mask(NIST_KEY, 8, bits).tolist() == words


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("count", [0, 1, 7, CHUNK_BYTES // 8, CHUNK_BYTES // 4 + 3])
def test_masks_add_up_and_cancel(dtype: type, count: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**32, count).astype(dtype)
    masked = values.copy()
    add_mask(masked, NIST_KEY)
    stream = bytearray(masked.nbytes)
    Keystream(NIST_KEY, bytes(16)).fill(stream)
    np.testing.assert_array_equal(masked, values + np.frombuffer(stream, dtype))
    add_mask(masked, NIST_KEY, -1)
    np.testing.assert_array_equal(masked, values)


@pytest.mark.parametrize("bits", [2, 8, 20, 31, 32, 33, 48, 62])
def test_masks_are_uniform(bits: int) -> None:
    """The top four bits (all of two) of 16,384 values: chi-square with 15 degrees, rejected at 1e-6 above 58.6."""
    top = min(bits, 4)
    seen = Counter((mask(bytes(31) + bytes([bits]), 16384, bits) >> np.uint64(bits - top)).tolist())
    expected = 16384 / 2**top
    assert max(seen) < 2**top
    assert sum((seen[value] - expected) ** 2 / expected for value in range(2**top)) < 58.6


@pytest.mark.parametrize("bad", [(b"", np.uint32, 1), (bytes(31), np.uint32, 1), (bytes(32), np.int64, 1)])
def test_bad_mask_requests_are_refused(bad: tuple[bytes, type, int]) -> None:
    with pytest.raises(CryptoError):
        add_mask(np.zeros(3, bad[1]), bad[0], bad[2])
    with pytest.raises(CryptoError):
        add_mask(np.zeros(3, np.uint32), bytes(32), 2)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, MOST_BITS), st.integers(0, 70), st.randoms(use_true_random=False))
def test_packing_equals_writing_bits_one_by_one(bits: int, count: int, random: object) -> None:
    values = [random.getrandbits(bits) for _ in range(count)]  # type: ignore[attr-defined]
    dtype = np.uint32 if bits <= 32 else np.uint64
    data = pack(np.array(values, dtype), bits)
    whole = sum(value << (place * bits) for place, value in enumerate(values))
    assert data == whole.to_bytes(-(-count * bits // 8), "little")
    again = unpack(data, count, bits)
    assert again.dtype == dtype and again.tolist() == values


def test_twenty_bits_travel_in_two_and_a_half_bytes() -> None:
    assert len(pack(np.zeros(10**5, np.uint32), 20)) == 250_000


@pytest.mark.parametrize("count", [1, 3, 9])
def test_data_that_packing_would_not_make_is_refused(count: int) -> None:
    data = pack(np.full(count, 2**20 - 1, np.uint32), 20)
    for bad in (data[:-1], data + b"\0", b""):
        with pytest.raises(CryptoError, match="do not hold"):
            unpack(bad, count, 20)
    with pytest.raises(CryptoError, match="behind the last"):
        unpack(data[:-1] + b"\xff", count, 20)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.floats(1e-3, 1e3), st.floats(1e-5, 1.0), st.randoms(use_true_random=False))
def test_the_sum_of_a_cohort_at_its_bounds_does_not_wrap(
    cohort: int, bound: float, share: float, random: object
) -> None:
    ring = Ring.fitting(cohort, bound, bound * share)
    assert ring.step <= bound * share * (1 + 1e-12)
    assert ring.levels * ring.step == pytest.approx(bound)
    for values in (
        [bound] * cohort,
        [-bound] * cohort,
        [random.uniform(-bound, bound) for _ in range(cohort)],  # type: ignore[attr-defined]
    ):
        total = np.zeros(1, np.uint64)
        exact = 0
        for value in values:
            exact += round(Fraction(value) / Fraction(ring.step))
            total += ring.encode(np.array([value])).astype(np.uint64)
        total &= np.uint64(ring.mask)
        assert ring.centred(total.astype(ring.dtype))[0] == pytest.approx(exact, abs=cohort * 1e-6)
    assert cohort * ring.levels <= 2 ** (ring.bits - 1) - 1
    assert ring.bits == 2 or cohort * ring.levels > 2 ** (ring.bits - 2) - 1  # and no bit is wasted


@pytest.mark.parametrize("cohort", [1, 2, 3, 60, 1000])
@pytest.mark.parametrize("levels", [1, 2, 10**4, 2**20 - 1, 2**20])
def test_headroom_is_the_least_that_does_not_wrap(cohort: int, levels: int) -> None:
    bits = headroom(cohort, levels)
    assert cohort * levels <= 2 ** (bits - 1) - 1 or bits == 2
    assert cohort * levels > 2 ** (bits - 2) - 1


def test_rounding_is_to_the_nearest_and_the_error_at_most_half_a_step() -> None:
    ring = Ring.fitting(5, 1.0, 1e-4)
    values = np.random.default_rng(1).uniform(-1, 1, 1000)
    back = ring.decode(ring.encode(values))
    assert np.abs(back - values).max() <= ring.step / 2 * (1 + 1e-9)
    assert ring.bits == 17 and ring.dtype is np.uint32


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.0001, -1.0001, 1e300])
def test_values_that_do_not_fit_are_refused(bad: float) -> None:
    with pytest.raises(ProtocolError, match="to be summed"):
        Ring.fitting(5, 1.0, 1e-4).encode(np.array([0.0, bad]))


@pytest.mark.parametrize(
    ("cohort", "bound", "step"),
    [
        (0, 1.0, 0.1),
        (3, 0.0, 0.1),
        (3, math.inf, 0.1),
        (3, math.nan, 0.1),
        (3, 1.0, 0.0),
        (3, 1.0, 2.0),
        (3, 1.0, math.nan),
    ],
)
def test_rings_without_a_meaning_are_refused(cohort: int, bound: float, step: float) -> None:
    with pytest.raises(PrivacyParameterError):
        Ring.fitting(cohort, bound, step)


def test_a_ring_wider_than_the_integers_is_refused() -> None:
    with pytest.raises(PrivacyParameterError, match="bits"):
        Ring.fitting(10**6, 1.0, 1e-15)
