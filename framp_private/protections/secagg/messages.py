"""The messages of secure aggregation, in the order in which they travel.

::

    trip        server -> client                         client -> server
    keys        KeysRequest                              SignedKeys          fresh public keys, signed
    neighbours  CohortRequest: root over all keys        Neighbours          whom this client drew      [sparse graph]
    shares      SharesRequest: root, neighbours' keys    Shares              sealed shares for each neighbour
    masked      Delivery: sealed shares (with the        a masked vector for each channel
                request for the values themselves)
    confirm     ConfirmRequest: who is in, who is out    Confirmation        a signature on exactly that
    sample      SampleRequest: root over signatures      Sample              whose it will check       [sparse graph]
    unmask      UnmaskRequest: signatures                Opened              one share for each neighbour

Maps are from client names; bitmaps are over places in the planned cohort, in the order of the roster. Every field of
every message is public or sealed: no value, no key, no seed in the clear.
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
class CohortRequest:
    """The server's commitment to all keys, before anybody draws: a Merkle root, and a bitmap of whose keys came."""

    root: bytes
    present: bytes


@dataclass(frozen=True)
class Neighbours:
    """drawn: bitmap of the places that this client shares its secrets with."""

    drawn: bytes


@dataclass(frozen=True)
class SharesRequest:
    """The commitment, and out of it the entries of this client's neighbours.

    own: this client's proof. entries, proofs: by neighbour, those it drew and those that drew it; an entry is a
    `KeyEntry`.
    """

    root: bytes
    present: bytes
    own: bytes
    entries: Mapping[str, bytes]
    proofs: Mapping[str, bytes]


@dataclass(frozen=True)
class KeyEntry:
    """One leaf of the tree, at the client's place in the cohort."""

    client: str
    index: int
    keys: bytes


@dataclass(frozen=True)
class Shares:
    """sealed: a `SharePair` for each neighbour that was drawn. commitment: to this client's own seed."""

    sealed: Mapping[str, bytes]
    commitment: bytes


@dataclass(frozen=True)
class SharePair:
    """Shares of the sender's seed and of its mask key: the receiver opens one of them at most."""

    seed: bytes
    key: bytes


@dataclass(frozen=True)
class Delivery:
    """sealed: by sender, the `SharePair` for the receiver. shared: bitmap of all who sent shares; others are out."""

    sealed: Mapping[str, bytes]
    shared: bytes


@dataclass(frozen=True)
class ConfirmRequest:
    """Bitmaps: whose masked vectors arrived, and who sent shares and then nothing."""

    active: bytes
    dropped: bytes


@dataclass(frozen=True)
class Confirmation:
    """signature: over run, round, all keys, request, active and dropped."""

    signature: bytes


@dataclass(frozen=True)
class SampleRequest:
    """root: of a Merkle tree over all confirmations, at their places, empty where none came."""

    root: bytes


@dataclass(frozen=True)
class Sample:
    """drawn: bitmap of places whose confirmations this client wants to see."""

    drawn: bytes


@dataclass(frozen=True)
class UnmaskRequest:
    """signatures: by client, of the receiver's neighbourhood and of its sample, or of all. proofs: of the sample's."""

    signatures: Mapping[str, bytes]
    proofs: Mapping[str, bytes]


@dataclass(frozen=True)
class Opened:
    """seeds: shares of the seeds of active neighbours. keys: shares of the mask keys of dropped ones."""

    seeds: Mapping[str, bytes]
    keys: Mapping[str, bytes]
