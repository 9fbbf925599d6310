"""X25519 and HKDF against RFC 7748, RFC 5869 and Wycheproof; one key for one purpose."""

from __future__ import annotations

import itertools
import pickle

import pytest

from framp_private.crypto.agreement import LONGEST, AgreementKey, derive, hkdf
from framp_private.errors import CryptoError
from framp_private.randomness import Entropy, SeededEntropy
from tests.vectors.wycheproof import cases, raw

ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
RFC_5869 = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        "0b" * 22,
        "",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


def test_rfc_7748_section_6_1() -> None:
    alice, bob = AgreementKey(raw(ALICE)), AgreementKey(raw(BOB))
    assert (alice.public, bob.public) == (raw(ALICE_PUBLIC), raw(BOB_PUBLIC))
    assert alice.agree(bob.public) == bob.agree(alice.public) == raw(SHARED)


@pytest.mark.parametrize(("ikm", "salt", "info", "okm"), RFC_5869)
def test_rfc_5869_appendix_a(ikm: str, salt: str, info: str, okm: str) -> None:
    assert hkdf(raw(ikm), raw(salt), raw(info), len(okm) // 2) == raw(okm)


LOW_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
"""All points of order 1, 2, 4 and 8 and their non-canonical forms (RFC 7748, section 6.1, and its security section)."""


@pytest.mark.parametrize("public", [*LOW_ORDER, "", "00" * 31, BOB_PUBLIC + "00"])
def test_keys_of_low_order_or_wrong_length_are_refused(public: str) -> None:
    with pytest.raises(CryptoError):
        AgreementKey(raw(ALICE)).agree(raw(public))


def test_wycheproof_x25519() -> None:
    """What Wycheproof calls acceptable is refused where the shared secret is zero, and must agree elsewhere."""
    found, refused = cases("x25519"), 0
    assert len(found) == 518
    for _, case in found:
        key = AgreementKey(raw(case["private"]))
        if "ZeroSharedSecret" in case["flags"]:
            with pytest.raises(CryptoError):
                key.agree(raw(case["public"]))
            refused += 1
        else:
            assert key.agree(raw(case["public"])) == raw(case["shared"]), case
    assert refused == 31


def test_wycheproof_hkdf() -> None:
    found, refused = cases("hkdf_sha256"), 0
    assert len(found) == 86
    for _, case in found:
        given = (raw(case["ikm"]), raw(case["salt"]), raw(case["info"]), case["size"])
        if case["result"] == "valid":
            assert hkdf(*given) == raw(case["okm"]), case
        else:
            with pytest.raises(CryptoError):
                hkdf(*given)
            refused += 1
    assert refused == 3


@pytest.mark.parametrize("size", [0, -1, LONGEST + 1])
def test_sizes_without_an_output_are_refused(size: int) -> None:
    with pytest.raises(CryptoError, match="size"):
        derive(bytes(32), "mask", size=size)


def test_every_purpose_and_context_gives_a_key_of_its_own() -> None:
    secret = bytes(range(32))
    asked = [
        ("mask",),
        ("mas", b"k"),
        ("mask", b""),
        ("mask", b"", b""),
        ("mask", b"ab", b"c"),
        ("mask", b"a", b"bc"),
        ("mask", b"abc"),
        ("seal", b"abc"),
        ("maskabc",),
    ]
    keys = [derive(secret, *parts) for parts in asked]  # type: ignore[arg-type]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)
    for a, b in itertools.combinations(keys, 2):
        assert sum(x == y for x, y in zip(a, b, strict=True)) < 8
    assert derive(secret, "mask", b"ab", b"c") == derive(secret, "mask", b"ab", b"c")
    assert derive(secret, "mask", size=64)[:32] == derive(secret, "mask")


def test_private_keys_are_never_seeded_nor_serialised() -> None:
    with pytest.raises(CryptoError, match="seeded"):
        AgreementKey.new(SeededEntropy(0))
    made = AgreementKey.new(Entropy())
    with pytest.raises(TypeError, match="never serialised"):
        pickle.dumps(made)
    assert made.secret.hex() not in repr(made)
    for length in (0, 31, 33):
        with pytest.raises(CryptoError):
            AgreementKey(bytes(length))
