"""Shared secrets between two parties, and keys for one purpose each: X25519 (RFC 7748, section 5), HKDF (RFC 5869).

A shared secret is never used as it is: `derive` makes of it one key for each purpose and context, and none of them
tells anything of another.
"""

from __future__ import annotations

from typing import NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from framp_private.errors import CryptoError
from framp_private.randomness import Entropy

KEY_BYTES = 32
LONGEST = 255 * 32
"""Most bytes that one derivation gives."""


class AgreementKey:
    """An X25519 key pair; `secret` is what may be shared among neighbours, and is shown to nobody else."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise CryptoError("a private key must be 32 bytes")
        self.secret = secret
        self._key = X25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def new(cls, entropy: Entropy) -> AgreementKey:
        """A fresh one. Raises `CryptoError` for a seeded source."""
        if entropy.seeded:
            raise CryptoError("keys are drawn from the operating system, never from a seeded source")
        return cls(entropy.bytes(KEY_BYTES))

    def agree(self, peer: bytes) -> bytes:
        """32 bytes that both sides have in common.

        Raises:
            CryptoError: a peer's key of another length, or of low order, with which anybody would have them in common.
        """
        if len(peer) != KEY_BYTES:
            raise CryptoError("a public key must be 32 bytes")
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError as error:
            raise CryptoError("a public key is refused") from error

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is never serialised")

    def __repr__(self) -> str:
        return f"AgreementKey({self.public.hex()[:16]}...)"


def derive(secret: bytes, purpose: str, *context: bytes, size: int = KEY_BYTES) -> bytes:
    """`size` bytes for one purpose and context: HKDF-SHA256 without salt.

    Purpose and context are framed by their lengths, so that no two of them give the same input.
    """
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (f"framp-private {purpose}".encode(), *context))
    return hkdf(secret, b"", info, size)


def hkdf(secret: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """HKDF-SHA256, extract and expand. Raises `CryptoError` outside 1 .. `LONGEST` bytes."""
    if not 0 < size <= LONGEST:
        raise CryptoError(f"size={size} bytes must lie in 1 .. {LONGEST}")
    return HKDF(hashes.SHA256(), size, salt or None, info).derive(secret)
