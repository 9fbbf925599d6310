"""AES-256-GCM against Wycheproof, and everything that must not open."""

from __future__ import annotations

import pytest

from framp_private.crypto.sealed import TAG_BYTES, decrypt, encrypt, seal, unseal
from framp_private.errors import CryptoError
from framp_private.randomness import Entropy
from tests.vectors.wycheproof import cases, raw

KEY = bytes(range(32))


def test_nist_gcm_test_cases_13_and_14() -> None:
    """McGrew and Viega's cases for 256-bit keys, as in NIST's submission of GCM."""
    key, nonce = bytes(32), bytes(12)
    assert encrypt(key, nonce, b"", b"") == raw("530f8afbc74536b9a963b4f1c4cb738b")
    assert encrypt(key, nonce, bytes(16), b"") == raw(
        "cea7403d4d606b6e074ec5d3baf39d18" + "d0d1c8a799996bf0265b98b5d48ab919"
    )


def test_wycheproof() -> None:
    """Keys of 256 bits, nonces of 96 and tags of 128 are all there is here; others are refused."""
    found, opened, refused = cases("aes_gcm"), 0, 0
    assert len(found) == 316
    for group, case in found:
        key, nonce, ciphertext = raw(case["key"]), raw(case["iv"]), raw(case["ct"]) + raw(case["tag"])
        ours = (group["keySize"], group["ivSize"], group["tagSize"]) == (256, 96, 128)
        if ours and case["result"] == "valid":
            assert decrypt(key, nonce, ciphertext, raw(case["aad"])) == raw(case["msg"])
            assert encrypt(key, nonce, raw(case["msg"]), raw(case["aad"])) == ciphertext
            opened += 1
        else:
            with pytest.raises(CryptoError):
                decrypt(key, nonce, ciphertext, raw(case["aad"]))
            refused += 1
    assert opened > 30 and refused > 60


def test_it_opens_with_the_same_key_and_associated_bytes_only() -> None:
    sealed = seal(KEY, b"a share", b"round 3", Entropy())
    assert unseal(KEY, sealed, b"round 3") == b"a share"
    assert len(sealed) == len(b"a share") + 12 + TAG_BYTES
    assert sealed != seal(KEY, b"a share", b"round 3", Entropy())
    messages = set()
    for key, data, associated in [
        (bytes(32), sealed, b"round 3"),
        (KEY, sealed, b"round 4"),
        (KEY, sealed, b""),
        (KEY, sealed + b"\0", b"round 3"),
        (KEY, sealed[:-1], b"round 3"),
        (KEY, b"", b"round 3"),
        (KEY, sealed[:12], b"round 3"),
        (KEY[:31], sealed, b"round 3"),
        (KEY, sealed[1:], b"round 3"),
    ]:
        with pytest.raises(CryptoError) as failure:
            unseal(key, data, associated)
        messages.add(str(failure.value))
    assert messages == {"a sealed message did not open"}  # nothing tells which of them it was


@pytest.mark.parametrize("bit", range(0, 8 * 35, 3))
def test_a_flipped_bit_does_not_open(bit: int) -> None:
    sealed = bytearray(seal(KEY, b"a share", b"round 3", Entropy()))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CryptoError):
        unseal(KEY, bytes(sealed), b"round 3")
