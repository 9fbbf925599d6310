"""What a client knows in secure aggregation: the terms it agreed to, and what it holds during one round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from framp_private.protections.secagg.messages import KeyEntry, SharePair, SignedKeys
from framp_private.wire import decode, encode


@dataclass(frozen=True)
class Terms:
    """What all agreed on before: public, and the same at every client and at the server.

    neighbours: k, even, or one less than the cohort. threshold: shares that open, of k + 1. minimum: planned cohort.
    survivors: active clients, all in all, below which nothing is opened.
    """

    neighbours: int
    threshold: int
    minimum: int
    survivors: int = 0


@dataclass(frozen=True)
class State:
    """What a client holds during one round. It is made of secrets, and forgotten with the round.

    stage: the last one taken. context: run and round. mask_secret, seal_secret: this round's X25519 keys. root, index,
    count: of the tree. peers: neighbours' `KeyEntry`s. seed: masks this client's vector. held: `SharePair`s by sender,
    its own among them. asked: hash of the request for values. active, dropped: bitmaps that were confirmed.
    """

    stage: str
    context: bytes
    mask_secret: bytes = field(repr=False)
    seal_secret: bytes = field(repr=False)
    root: bytes = b""
    index: int = -1
    count: int = 0
    peers: Mapping[str, bytes] = field(default_factory=dict)
    seed: bytes = field(default=b"", repr=False)
    held: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    asked: bytes = b""
    active: bytes = b""
    dropped: bytes = b""

    def peer(self, name: str) -> KeyEntry:
        """A neighbour's entry in the tree."""
        return decode(self.peers[name], KeyEntry)

    def keys(self, name: str) -> SignedKeys:
        """A neighbour's public keys."""
        return decode(self.peer(name).keys, SignedKeys)

    def pair(self, name: str) -> SharePair:
        """What a client shared with this one."""
        return decode(self.held[name], SharePair)

    def to_bytes(self) -> bytes:
        """For the next message of the same round; never for a disk that outlives it."""
        return encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> State | None:
        """The inverse; None where there is no round."""
        return decode(data, cls) if data else None
