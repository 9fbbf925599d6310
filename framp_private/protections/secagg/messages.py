"""The messages of secure aggregation, in the order in which they travel.

::

    trip      server -> client                         client -> server
    keys      KeysRequest                              SignedKeys          fresh public keys, signed
    shares    SharesRequest: root, neighbours' keys    Shares              sealed shares for each neighbour
    masked    Delivery: sealed shares (with the        a masked vector for each channel
              request for the values themselves)
    confirm   ConfirmRequest: who is in, who is out    Confirmation        a signature on exactly that
    unmask    UnmaskRequest: neighbours' signatures    Opened              one share for each neighbour

Maps are from client names. Every field of every message is public or sealed: no value, no key, no seed in the clear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class KeysRequest:
    """round_index: of the run. planned: how many clients were asked."""

    round_index: int
    planned: int


@dataclass(frozen=True)
class SignedKeys:
    """mask_key, seal_key: X25519, for this round alone. signature: Ed25519, over run, round and both."""

    mask_key: bytes
    seal_key: bytes
    signature: bytes


@dataclass(frozen=True)
class SharesRequest:
    """Whose keys came: the root of a Merkle tree over all of them, and the entries of this client's neighbours.

    count: entries in the tree. index: this client's. entries, proofs: by neighbour; an entry is a `KeyEntry`.
    own: this client's proof.
    """

    root: bytes
    count: int
    index: int
    own: bytes
    entries: Mapping[str, bytes]
    proofs: Mapping[str, bytes]


@dataclass(frozen=True)
class KeyEntry:
    """One leaf of the tree."""

    client: str
    index: int
    keys: bytes


@dataclass(frozen=True)
class Shares:
    """sealed: by neighbour, a `SharePair`. commitment: to this client's own seed."""

    sealed: Mapping[str, bytes]
    commitment: bytes


@dataclass(frozen=True)
class SharePair:
    """Shares of the sender's seed and of its mask key: the receiver opens one of them at most."""

    seed: bytes
    key: bytes


@dataclass(frozen=True)
class Delivery:
    """sealed: by sender, the `SharePair` for the receiver; whoever is missing has dropped out."""

    sealed: Mapping[str, bytes]


@dataclass(frozen=True)
class ConfirmRequest:
    """Bitmaps over the tree's indices: whose masked vectors arrived, and who sent shares and then nothing."""

    active: bytes
    dropped: bytes


@dataclass(frozen=True)
class Confirmation:
    """signature: over run, round, root, request, active and dropped."""

    signature: bytes


@dataclass(frozen=True)
class UnmaskRequest:
    """signatures: of the receiver's neighbourhood, by client."""

    signatures: Mapping[str, bytes]


@dataclass(frozen=True)
class Opened:
    """seeds: shares of the seeds of active neighbours. keys: shares of the mask keys of dropped ones."""

    seeds: Mapping[str, bytes]
    keys: Mapping[str, bytes]
