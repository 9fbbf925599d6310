"""The messages of encrypted sums, in the order in which they travel.

::

    trip      from -> to              there                                   back
    context   server -> key holder    ContextRequest                          Context: the public key, with parameters
    offer     server -> client        ContextOffer: its hash                  ContextKnown
    context   server -> client        Context, to those who do not know it    ContextKnown
    values    server -> client        Encrypt (with the request for values)   EncryptedValue for each channel
    open      server -> key holder    OpenRequest: all of them                OpenedSum

Where clients hold the key, the first and the last trip go to one of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from framp_private.errors import CryptoError
from framp_private.protections.base import Channel

KEY_HOLDER = "key-holder"
"""The name of the party that can decrypt, among the names of clients."""
SIGNED = "encrypted value"
"""Label of a client's signature."""


@dataclass(frozen=True)
class ContextRequest:
    """Asks for the public context."""


@dataclass(frozen=True)
class Context:
    """context: parameters and public key, as TenSEAL writes them."""

    context: bytes


@dataclass(frozen=True)
class ContextOffer:
    """digest: SHA-256 of a `Context`'s bytes."""

    digest: bytes


@dataclass(frozen=True)
class ContextKnown:
    """known: whether this client has the context that was offered."""

    known: bool


@dataclass(frozen=True)
class Encrypt:
    """digest: of the context to encrypt under."""

    digest: bytes


@dataclass(frozen=True)
class EncryptedValue:
    """ciphertexts: framed. asked: SHA-256 of the request answered. signature: the client's, over `stated`."""

    ciphertexts: bytes
    asked: bytes
    signature: bytes


@dataclass(frozen=True)
class OpenRequest:
    """channel: of the values. size: numbers in each. values: by client, its `EncryptedValue`."""

    channel: str
    size: int
    values: Mapping[str, bytes]


@dataclass(frozen=True)
class OpenedSum:
    """units: (size,) int64, what was summed, in the protection's units."""

    units: np.ndarray


@dataclass(frozen=True)
class Record:
    """What was opened last on a channel: round_index, hash of the request, the reply; count: of decryptions so far."""

    round_index: int
    asked: bytes
    reply: bytes
    count: int


@dataclass(frozen=True)
class Held:
    """What a client keeps for encrypted sums. asked: hash of the request that its next value answers.

    context: the public one; not a secret, and the same in every round. opened: `Record`s by channel, where clients hold
    the key.
    """

    context: bytes
    asked: bytes
    opened: Mapping[str, bytes]


def stated(run: bytes, round_index: int, channel: Channel | str, digest: bytes, value: EncryptedValue) -> bytes:
    """What a client signs: one ciphertext vector, for one request, round and channel of one run, under one key."""
    place = len(run).to_bytes(4, "big") + run + round_index.to_bytes(8, "big") + channel.encode()
    parts = (place, digest, value.asked, value.ciphertexts)
    return b"".join(hashlib.sha256(part).digest() for part in parts)


def framed(ciphertexts: list[bytes]) -> bytes:
    """Ciphertexts one after the other, each behind its length."""
    return b"".join(len(each).to_bytes(4, "big") + each for each in ciphertexts)


def unframed(data: bytes, count: int) -> list[bytes]:
    """The inverse. Raises `CryptoError` unless there are exactly `count`."""
    found: list[bytes] = []
    at = 0
    while at < len(data) and len(found) < count:
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : end])
        at = end
    if at != len(data) or len(found) != count:
        raise CryptoError("a ciphertext is refused")
    return found
