"""Keys, ciphertexts and parameters of BFV and CKKS."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import sympy

from framp_private.crypto.homomorphic import Encryption, Parameters, batching_prime, new_keys
from framp_private.errors import CryptoError, PrivacyParameterError

BFV = Parameters("bfv", 4096, (38,), 38, plain_modulus=batching_prime(4096, 1_000_001))
CKKS = Parameters("ckks", 8192, (40, 40), 40, scale_bits=60)
KEYS = {BFV: new_keys(BFV), CKKS: new_keys(CKKS)}


def public(parameters: Parameters) -> Encryption:
    return Encryption(KEYS[parameters].public, parameters)


def secret(parameters: Parameters) -> Encryption:
    return Encryption(KEYS[parameters].secret, parameters, secret=True)


@pytest.mark.parametrize("size", [1, 5, 4096, 4097, 9000])
def test_bfv_sums_integers_exactly(size: int) -> None:
    values = np.random.default_rng(size).integers(-50_000, 50_001, (10, size))
    found = secret(BFV).decrypted_sum([public(BFV).encrypt(row) for row in values], size)
    assert (found == values.sum(0)).all()


def test_the_largest_sums_come_out_exactly_and_one_more_wraps() -> None:
    half = (BFV.plain_modulus - 1) // 2
    for sign in (1, -1):
        vectors = [public(BFV).encrypt(np.full(3, sign * half))]
        assert (secret(BFV).decrypted_sum(vectors, 3) == sign * half).all()
        more = [*vectors, public(BFV).encrypt(np.full(3, sign))]
        assert (secret(BFV).decrypted_sum(more, 3) == -sign * half).all()


def test_ckks_sums_reals_within_its_error() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, (20, 5000))
    found = secret(CKKS).decrypted_sum([public(CKKS).encrypt(row) for row in values], 5000)
    bound = 20 * CKKS.degree * (CKKS.fresh_error + 1) / 2**CKKS.scale_bits
    assert 0 < np.abs(found - values.sum(0)).max() < bound + 20 * 2**-40


def test_the_error_of_a_fresh_ciphertext_is_what_dividing_by_the_special_prime_leaves() -> None:
    """At a small scale the error shows: its deviation is that of rounding, sqrt((1 + 2 N / 3) / 12) a coefficient."""
    coarse = Parameters("ckks", 8192, (40, 40), 40, scale_bits=30)
    keys = new_keys(coarse)
    encryption, values = Encryption(keys.public, coarse), np.zeros(4096)
    decrypted = Encryption(keys.secret, coarse, secret=True)
    errors = [decrypted.decrypted_sum([encryption.encrypt(values)], 4096) for _ in range(8)]
    one = np.sqrt((1 + 2 * 8192 / 3) / 12 + 1 / 12) * np.sqrt(8192 / 2) / 2**30
    found = np.concatenate(errors).std()
    assert 0.9 * one < found < 1.1 * one
    assert one * 2**30 < coarse.fresh_error * 8192


@pytest.mark.parametrize(
    ("degree", "primes", "special"), [(4096, (54,), 56), (4096, (40, 40), 40), (8192, (60,) * 3, 60)]
)
def test_less_than_128_bits_of_security_are_refused(degree: int, primes: tuple[int, ...], special: int) -> None:
    with pytest.raises(PrivacyParameterError, match="128 bits"):
        Parameters("bfv", degree, primes, special)


@pytest.mark.parametrize(("primes", "special"), [((), 40), ((61,), 40), ((20,), 40), ((40,), 61)])
def test_primes_out_of_range_are_refused(primes: tuple[int, ...], special: int) -> None:
    with pytest.raises(PrivacyParameterError, match="each must have"):
        Parameters("bfv", 8192, primes, special)


@pytest.mark.parametrize("degree", [4096, 8192])
def test_batching_primes_are_the_next_ones(degree: int) -> None:
    for least in (2, 400_003, 1_032_193, 2**30 + 1, 2**41):
        found = batching_prime(degree, least)
        assert sympy.isprime(found) and found % (2 * degree) == 1 and found >= least
        between = range(least + (1 - least) % (2 * degree), found, 2 * degree)
        assert not any(sympy.isprime(other) for other in between)


def test_contexts_that_are_not_what_was_agreed_are_refused() -> None:
    other = Parameters("bfv", 4096, (38,), 38, plain_modulus=batching_prime(4096, 2_000_001))
    weaker = Parameters("bfv", 4096, (38,), 39, plain_modulus=BFV.plain_modulus)
    good = KEYS[BFV].public
    for data, parameters, private in (
        (good, other, False),
        (good, weaker, False),
        (good, BFV, True),
        (KEYS[BFV].secret, BFV, False),
        (KEYS[CKKS].public, BFV, False),
        (b"", BFV, False),
        (b"junk", BFV, False),
        (good[:-1000], BFV, False),
        (good + bytes(10**7), BFV, False),
    ):
        with pytest.raises(CryptoError, match=r"^an encryption context is refused$"):
            Encryption(data, parameters, secret=private)


def test_ciphertexts_that_are_not_what_was_agreed_are_refused() -> None:
    (good,) = public(BFV).encrypt(np.arange(10))
    foreign = Encryption(new_keys(CKKS).public, CKKS).encrypt(np.zeros(10))[0]
    (scaled,) = Encryption(KEYS[CKKS].public, Parameters("ckks", 8192, (40, 40), 40, scale_bits=50)).encrypt(
        np.zeros(10)
    )
    for data, size, parameters in (
        (good, 9, BFV),
        (good, 11, BFV),
        (good[:-1], 10, BFV),
        (b"", 10, BFV),
        (b"junk", 10, BFV),
        (bytes(len(good)), 10, BFV),
        (good + bytes(10**6), 10, BFV),
        (foreign, 10, BFV),
        (good, 10, CKKS),
        (scaled, 10, CKKS),
    ):
        with pytest.raises(CryptoError, match=r"^a ciphertext is refused$"):
            public(parameters).read(data, size)
    with pytest.raises(CryptoError):
        secret(BFV).decrypted_sum([[good, good]], 10)
    with pytest.raises(CryptoError):
        secret(BFV).decrypted_sum([], 10)


def test_equal_values_have_unequal_ciphertexts_and_the_public_context_opens_none() -> None:
    first, second = (public(BFV).encrypt(np.zeros(10))[0] for _ in range(2))
    assert first != second
    with pytest.raises(CryptoError):
        public(BFV).decrypted_sum([[first]], 10)


def test_no_bit_flipped_in_a_ciphertext_crashes_the_reader() -> None:
    rng = np.random.default_rng(3)
    (good,) = public(BFV).encrypt(np.arange(10))
    refused = 0
    for _ in range(300):
        changed = bytearray(good)
        changed[rng.integers(len(changed))] ^= 1 << int(rng.integers(8))
        try:
            public(BFV).read(bytes(changed), 10)
        except CryptoError:
            refused += 1
    assert refused  # what is read is refused by its signature


def unpacked(encryption: Encryption, ntt: bool) -> bytes:
    """A ciphertext of zeros in SEAL's own format, which is not compressed here, inside TenSEAL's message."""

    def header(compression: int, size: int) -> bytes:
        return struct.pack("<HBBBBHQ", 0xA15E, 16, version[0], version[1], compression, 0, size)

    def number(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + number(value >> 7)

    (real,) = encryption.encrypt(np.zeros(4096, np.int64))
    at = real.find(b"\x5e\xa1")
    version = real[at + 3], real[at + 4]
    level = encryption._context.seal_context().data.first_parms_id()
    values = np.ones(2 * 4096, "<u8").tobytes()
    array = struct.pack("<Q", len(values) // 8) + values
    array = header(0, 16 + len(array)) + array
    body = struct.pack("<4Q", *level) + bytes([ntt]) + struct.pack("<QQQd", 2, 4096, 1, 1.0)
    body += struct.pack("<Q", 1) + array
    sealed = header(0, 16 + len(body)) + body
    sizes = number(4096)
    return b"\x0a" + number(len(sizes)) + sizes + b"\x12" + number(len(sealed)) + sealed


def test_a_ciphertext_in_the_wrong_form_is_refused_where_it_is_read() -> None:
    """Addition would raise something of the library's own, at the key holder, for all clients."""
    public(BFV).read(unpacked(public(BFV), False), 4096)
    with pytest.raises(CryptoError, match=r"^a ciphertext is refused$"):
        public(BFV).read(unpacked(public(BFV), True), 4096)
