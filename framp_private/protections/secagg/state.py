"""What a client knows in secure aggregation: the terms it agreed to, and what it holds during one round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from framp_private.protections.secagg.messages import SharePair, SignedKeys
from framp_private.wire import decode, encode


@dataclass(frozen=True)
class Terms:
    """What all agreed on before: public, and the same at every client and at the server.

    planned: clients that a round asks. neighbours: k, with whom each shares; planned - 1 on the complete graph.
    threshold: shares that open a secret, of k + 1. minimum: planned cohort that a client takes part in, at least.
    survivors: distinct members that must have confirmed one sum before anything of it is opened; more than half of the
    cohort and its corrupt, so that a round has one sum. present: clients whose keys came, at least.
    """

    planned: int
    neighbours: int
    threshold: int
    minimum: int
    survivors: int
    present: int

    @property
    def complete(self) -> bool:
        """Whether everybody shares with everybody."""
        return self.neighbours >= self.planned - 1

    @property
    def most_peers(self) -> int:
        """Neighbours that a client deals with, at most: those it drew, and of those that drew it three times as many.

        As many as drew it are k in the mean, so that three times as many are the server's invention.
        """
        return self.planned - 1 if self.complete else 4 * self.neighbours


@dataclass(frozen=True)
class State:
    """What a client holds during one round. It is made of secrets, and forgotten with the round.

    stage: the last one taken. context: run and round. mask_secret, seal_secret: this round's X25519 keys. root: of the
    tree over all keys. present: bitmap of whose keys came. index: this client's place. drawn: bitmap of the neighbours
    it shared with. peers: packed `SignedKeys` of all neighbours. seed: masks this client's vector. held: packed
    `SharePair`s by sender, its own among them. shared: bitmap of who sent shares. asked: hash of the request for
    values. active, dropped: bitmaps that were confirmed. signed: root over the confirmations. sample: bitmap of those
    to be checked.
    """

    stage: str
    context: bytes
    mask_secret: bytes = field(repr=False)
    seal_secret: bytes = field(repr=False)
    root: bytes = b""
    present: bytes = b""
    index: int = -1
    drawn: bytes = b""
    peers: Mapping[int, bytes] = field(default_factory=dict)
    seed: bytes = field(default=b"", repr=False)
    held: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    shared: bytes = b""
    asked: bytes = b""
    active: bytes = b""
    dropped: bytes = b""
    signed: bytes = b""
    sample: bytes = b""

    def keys(self, place: int) -> SignedKeys:
        """A neighbour's public keys."""
        return SignedKeys.of(self.peers[place])

    def pair(self, place: int) -> SharePair:
        """What a client shared with this one."""
        return SharePair.of(self.held[place])

    def to_bytes(self) -> bytes:
        """For the next message of the same round; never for a disk that outlives it."""
        return encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> State | None:
        """The inverse; None where there is no round."""
        return decode(data, cls) if data else None
