"""Ed25519 against the vectors of RFC 8032, section 7.1, and Wycheproof; and the rules of key files."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from framp_private.crypto import keys
from framp_private.crypto.keys import Identity, PublicIdentity, ed25519_public, ed25519_sign, ed25519_signed
from framp_private.errors import CryptoError
from framp_private.randomness import Entropy, SeededEntropy
from tests.vectors.wycheproof import cases, raw

RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    assert ed25519_public(raw(secret)) == raw(public)
    assert ed25519_sign(raw(secret), raw(message)) == raw(signature)
    assert ed25519_signed(raw(public), raw(message), raw(signature))


@pytest.mark.parametrize("place", range(0, 512, 37))
def test_a_flipped_bit_anywhere_is_refused(place: int) -> None:
    _, public, message, signature = (raw(text) for text in RFC_8032[2])
    bad = bytearray(signature)
    bad[place // 8] ^= 1 << place % 8
    assert not ed25519_signed(public, message, bytes(bad))
    assert not ed25519_signed(public, message + b"\x00", signature)
    other = bytearray(public)
    other[place % 32] ^= 1
    assert not ed25519_signed(bytes(other), message, signature)


def test_wycheproof() -> None:
    found = cases("ed25519")
    assert len(found) == 151
    for group, case in found:
        holds = ed25519_signed(raw(group["publicKey"]["pk"]), raw(case["msg"]), raw(case["sig"]))
        assert holds == (case["result"] == "valid"), case


def test_a_signature_for_one_purpose_is_worth_nothing_for_another() -> None:
    made = Identity.new(Entropy())
    signature = made.sign("ledger row", b"7")
    assert made.public.signed("ledger row", b"7", signature)
    assert not made.public.signed("ledger receipt", b"7", signature)
    assert not made.public.signed("ledger row7", b"", signature) and not made.public.signed(
        "ledger ro", b"w7", signature
    )
    assert not Identity.new(Entropy()).public.signed("ledger row", b"7", signature)
    assert made.sign("ledger row", b"7") == signature  # a resent message is the same message


def test_a_key_stays_in_its_owners_file(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "a.key"
    made = Identity.of_file(path, Entropy())
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert Identity.of_file(path, Entropy()).public == made.public
    assert list(path.parent.iterdir()) == [path]
    for refused in (pickle.dumps, lambda key: __import__("copy").deepcopy(key)):
        with pytest.raises(TypeError, match="never serialised"):
            refused(made)
    secret = path.read_text().strip()
    assert secret not in repr(made) and secret not in str(made.public)
    path.chmod(0o640)
    with pytest.raises(CryptoError, match="others than its owner"):
        Identity.of_file(path, Entropy())


@pytest.mark.parametrize("text", ["", "zz" * 32, "00" * 31, "00" * 33])
def test_a_damaged_key_file_is_refused_and_not_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(CryptoError):
        Identity.of_file(path, Entropy())
    assert path.read_text() == text


def test_keys_are_never_seeded_and_have_their_length() -> None:
    with pytest.raises(CryptoError, match="seeded"):
        Identity.new(SeededEntropy(1))
    for length in (0, 31, 33):
        with pytest.raises(CryptoError):
            Identity(bytes(length))
        with pytest.raises(CryptoError):
            PublicIdentity(bytes(length))
    assert Identity.new(Entropy()).public != Identity.new(Entropy()).public


def test_points_of_small_order_are_refused_in_every_spelling() -> None:
    """By the curve's own arithmetic: eight times the point is the neutral one, of each y that is listed."""
    p, d = 2**255 - 19, -121665 * pow(121666, -1, 2**255 - 19) % (2**255 - 19)

    def root(y: int) -> int | None:
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        if x * x % p != square:
            x = x * pow(2, (p - 1) // 4, p) % p
        return x if x * x % p == square else None

    def doubled(point: tuple[int, int]) -> tuple[int, int]:
        x, y = point
        t = d * x * x * y * y % p
        return 2 * x * y * pow(1 + t, -1, p) % p, (y * y + x * x) * pow(1 - t, -1, p) % p

    for y in keys._SMALL_ORDER:
        x = root(y)
        assert x is not None
        point = (x, y)
        for _ in range(3):
            point = doubled(point)
        assert point == (0, 1)
        for spelled in {y, y + p if y + p < 2**255 else y}:
            for sign in (0, 1):
                with pytest.raises(CryptoError):
                    PublicIdentity((spelled | sign << 255).to_bytes(32, "little"))
    for _ in range(50):
        assert Identity.new(Entropy()).public.key
