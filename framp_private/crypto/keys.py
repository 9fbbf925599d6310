"""Ed25519 identities: who signed a row, a key or a message (RFC 8032, section 5.1).

Every signature is over a label and the message, so that what was signed for one purpose is worth nothing for another.
Private keys come from `Entropy` and are stored in files that only their owner may read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from framp_private.crypto.secret_files import secret_of_file
from framp_private.errors import CryptoError
from framp_private.randomness import Entropy

KEY_BYTES = 32
SIGNATURE_BYTES = 64
_FIELD = 2**255 - 19
_EIGHTH = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _EIGHTH, _FIELD - _EIGHTH})
"""The y of all points of order 1, 2, 4 and 8, whichever sign and spelling they come with."""


class Identity:
    """An Ed25519 key pair. It can be written to its owner's file and nowhere else."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise CryptoError("a private key must be 32 bytes")
        self._secret = secret
        self._key = Ed25519PrivateKey.from_private_bytes(secret)  # kept: making it costs as much as signing
        self.public = PublicIdentity(self._key.public_key().public_bytes_raw())

    @classmethod
    def new(cls, entropy: Entropy) -> Identity:
        """A fresh one. Raises `CryptoError` for a seeded source, whose keys anybody could draw again."""
        if entropy.seeded:
            raise CryptoError("keys are drawn from the operating system, never from a seeded source")
        return cls(entropy.bytes(KEY_BYTES))

    @classmethod
    def of_file(cls, path: Path, entropy: Entropy) -> Identity:
        """The identity in a file of its owner, made with mode 0600 if there is none.

        Raises:
            CryptoError: the file is no key, or others than its owner may read it.
        """
        text = secret_of_file(path, lambda: cls.new(entropy)._secret.hex().encode() + b"\n")
        try:
            return cls(bytes.fromhex(text.decode().strip()))
        except ValueError as error:
            raise CryptoError(f"{path} holds no private key") from error

    def sign(self, label: str, message: bytes) -> bytes:
        """64 bytes: this identity's signature on a message for one purpose. Signing again gives the same bytes."""
        return self._key.sign(_labelled(label, message))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is never serialised: it stays in its owner's file")

    def __repr__(self) -> str:
        return f"Identity({self.public.key.hex()[:16]}...)"


@dataclass(frozen=True)
class PublicIdentity:
    """The public half: 32 bytes.

    Raises:
        CryptoError: another length, or a point of small order, under which one signature holds for many messages
            (RFC 8032, section 8.9; Brendel et al. 2021, "The provable security of Ed25519").
    """

    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise CryptoError("a public key must be 32 bytes")
        if (int.from_bytes(self.key, "little") & (2**255 - 1)) % _FIELD in _SMALL_ORDER:
            raise CryptoError("a public key is refused")

    def signed(self, label: str, message: bytes, signature: bytes) -> bool:
        """Whether the signature is this identity's, on this message, for this purpose."""
        return ed25519_signed(self.key, _labelled(label, message), signature)


def ed25519_public(secret: bytes) -> bytes:
    """32 bytes: the public key of 32 secret bytes."""
    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def ed25519_sign(secret: bytes, message: bytes) -> bytes:
    """64 bytes, without a label: for vectors alone; messages are signed by `Identity.sign`."""
    return Ed25519PrivateKey.from_private_bytes(secret).sign(message)


def ed25519_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature without a label holds; False for anything malformed."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _labelled(label: str, message: bytes) -> bytes:
    """No two pairs of label and message give the same bytes."""
    name = f"framp-private {label}".encode()
    return len(name).to_bytes(2, "big") + name + message
