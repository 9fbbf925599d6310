"""Messages that only the holder of a key can read or make: AES-256-GCM (NIST SP 800-38D)."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from framp_private.errors import CryptoError
from framp_private.randomness import Entropy

KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16


def seal(key: bytes, message: bytes, associated: bytes, entropy: Entropy) -> bytes:
    """Nonce, ciphertext and tag: 28 bytes more than the message.

    Args:
        key: 32 bytes, for few messages only: nonces are random, and must not repeat. associated: bytes that must be
            the same when it is opened, and do not travel.
    """
    nonce = entropy.bytes(NONCE_BYTES)
    return nonce + encrypt(key, nonce, message, associated)


def unseal(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    """The message; raises `CryptoError`, which says no more, for what this key did not seal with these bytes."""
    return decrypt(key, sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)


def encrypt(key: bytes, nonce: bytes, message: bytes, associated: bytes) -> bytes:
    """Ciphertext and tag under a nonce that must be new for this key. Raises `CryptoError` for wrong lengths."""
    _check(key, nonce)
    return AESGCM(key).encrypt(nonce, message, associated)


def decrypt(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """The inverse of `encrypt`; raises `CryptoError`."""
    _check(key, nonce)
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, associated)
    except (InvalidTag, ValueError) as error:
        raise CryptoError("a sealed message did not open") from error


def _check(key: bytes, nonce: bytes) -> None:
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise CryptoError("a sealed message did not open")
