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

Maps are from places in the planned cohort, in the order of the roster, and so are bitmaps. Every field of every message
is public or sealed: no value, no key, no seed in the clear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from framp_private.crypto.agreement import KEY_BYTES
from framp_private.crypto.keys import SIGNATURE_BYTES
from framp_private.crypto.shamir import SECRET_BYTES
from framp_private.errors import WireError

PACKED_BYTES = 2 * KEY_BYTES + SIGNATURE_BYTES


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

    @property
    def packed(self) -> bytes:
        """A leaf of the tree over all keys: 128 bytes, one after the other."""
        return self.mask_key + self.seal_key + self.signature

    @classmethod
    def of(cls, packed: bytes) -> SignedKeys:
        """The inverse; raises `WireError` for another length."""
        if len(packed) != PACKED_BYTES:
            raise WireError(f"keys take {PACKED_BYTES} bytes, not {len(packed)}")
        return cls(packed[:KEY_BYTES], packed[KEY_BYTES : 2 * KEY_BYTES], packed[2 * KEY_BYTES :])


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
    """The commitment, and out of it the keys of this client's neighbours.

    entries: packed `SignedKeys`, of those it drew and those that drew it. own, proofs: that this client's keys and each
    neighbour's are under the root; empty on the complete graph, where all that are under it are shown.
    """

    root: bytes
    present: bytes
    own: bytes
    entries: Mapping[int, bytes]
    proofs: Mapping[int, bytes]


@dataclass(frozen=True)
class Shares:
    """sealed: a packed `SharePair` for each neighbour that was drawn. commitment: to this client's own seed."""

    sealed: Mapping[int, bytes]
    commitment: bytes


@dataclass(frozen=True)
class SharePair:
    """Shares of the sender's seed and of its mask key: the receiver opens one of them at most."""

    seed: bytes
    key: bytes

    @property
    def packed(self) -> bytes:
        """64 bytes, one after the other."""
        return self.seed + self.key

    @classmethod
    def of(cls, packed: bytes) -> SharePair:
        """The inverse; raises `WireError` for another length."""
        if len(packed) != 2 * SECRET_BYTES:
            raise WireError(f"two shares take {2 * SECRET_BYTES} bytes, not {len(packed)}")
        return cls(packed[:SECRET_BYTES], packed[SECRET_BYTES:])


@dataclass(frozen=True)
class Delivery:
    """sealed: by sender, the `SharePair` for the receiver. shared: bitmap of all who sent shares; others are out."""

    sealed: Mapping[int, bytes]
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
    """signatures: of the receiver's neighbourhood and of its sample, or of all. proofs: of the sample's."""

    signatures: Mapping[int, bytes]
    proofs: Mapping[int, bytes]


@dataclass(frozen=True)
class Opened:
    """seeds: shares of the seeds of active neighbours. keys: shares of the mask keys of dropped ones."""

    seeds: Mapping[int, bytes]
    keys: Mapping[int, bytes]
