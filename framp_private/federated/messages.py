"""The messages of the protocol, and which of their bytes belong to which channel.

::

    enrolment   EnrolRequest  -> EnrolReply     the descriptor, once
    round       TrainRequest  -> TrainReply     pullback on the server: values and coded mask down, values up
                PhiRequest    -> TrainReply     pullback on the client: phi down, a contribution up
    protocols   Trip          -> TripReply      what a protection sends before and after the values travel

Upload fields hold what a protection made of a value, or nothing. The uplink reuses the downlink's mask, so it
carries none. Every message travels in an `Envelope`, beside the client's ledger head (`federated/witness.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from framp_private.wire import decode


@dataclass(frozen=True)
class EnrolRequest:
    """Asks for the descriptor. federation: digest of the public facts."""

    federation: bytes
    CHANNELS: ClassVar[Mapping[str, str]] = {}


@dataclass(frozen=True)
class EnrolReply:
    """descriptor: protected, sent once in a client's life."""

    descriptor: bytes
    CHANNELS: ClassVar[Mapping[str, str]] = {"descriptor": "descriptor"}


@dataclass(frozen=True)
class TrainRequest:
    """A submodel to train.

    values: (k + n_fixed,) float32 in the order of the set bits of the mask. mask: coded (models/mask_coding.py).
    prototypes: (n_classes, feature_dim) float32, empty without alignment. present: (n_classes,) uint8.
    """

    federation: bytes
    round_index: int
    values: np.ndarray
    mask: bytes
    prototypes: np.ndarray
    present: np.ndarray
    CHANNELS: ClassVar[Mapping[str, str]] = {
        "values": "update",
        "mask": "update",
        "prototypes": "prototypes",
        "present": "prototypes",
    }


@dataclass(frozen=True)
class PhiRequest:
    """phi: (n_phi,) float32, equal for all clients. first, second: moments for the ranking, or empty. Rest as above.

    clip: the bound on a contribution in this round where it adapts, else 0.
    """

    federation: bytes
    round_index: int
    phi: np.ndarray
    first: np.ndarray
    second: np.ndarray
    prototypes: np.ndarray
    present: np.ndarray
    clip: float
    CHANNELS: ClassVar[Mapping[str, str]] = {
        "phi": "update",
        "first": "update",
        "second": "update",
        "prototypes": "prototypes",
        "present": "prototypes",
    }


@dataclass(frozen=True)
class TrainReply:
    """update, prototypes, metrics: protected values, empty on a channel that is not in use."""

    federation: bytes
    round_index: int
    update: bytes
    prototypes: bytes
    metrics: bytes
    CHANNELS: ClassVar[Mapping[str, str]] = {"update": "update", "prototypes": "prototypes", "metrics": "metrics"}


@dataclass(frozen=True)
class Trip:
    """body: a message of a protection's own protocol. channel: whose protection; several may share one."""

    federation: bytes
    round_index: int
    channel: str
    body: bytes


@dataclass(frozen=True)
class TripReply:
    """body: the protocol's answer."""

    body: bytes


@dataclass(frozen=True)
class Briefed:
    """request: equal for all clients of a cohort. briefs: by channel, what a protection's protocol sends along."""

    request: bytes
    briefs: Mapping[str, bytes]


@dataclass(frozen=True)
class SignedHead:
    """A client's ledger head. signature: the client's, or in a receipt the server's; no rows if none is known."""

    owner: str
    rows: int
    hash: bytes
    signature: bytes


@dataclass(frozen=True)
class Envelope:
    """message: any of the above, or nothing. The rest is a `SignedHead` of the client that it comes from or goes to.

    On its way up it is left empty where the receipt that came down is of the head that the client still has.
    """

    message: bytes
    rows: int
    hash: bytes
    signature: bytes

    def head(self, owner: str) -> SignedHead:
        """Whose ledger it is about."""
        return SignedHead(owner, self.rows, self.hash, self.signature)


Request = EnrolRequest | TrainRequest | PhiRequest
Reply = EnrolReply | TrainReply


def read_request(data: bytes) -> Request | Trip | Briefed:
    """Decodes what a client receives; raises `WireError`."""
    return cast(Request | Trip | Briefed, decode(data, EnrolRequest, TrainRequest, PhiRequest, Trip, Briefed))


def bytes_by_channel(data: bytes) -> dict[str, int]:
    """How many of a message's bytes carry each channel's values; the rest (headers, digests, keys) is `protocol`."""
    leaves = (Trip, TripReply, EnrolRequest, EnrolReply, TrainRequest, PhiRequest, TrainReply)
    inner, outer = data, 0
    message: object = decode(data, Envelope, Briefed, *leaves)
    if isinstance(message, Envelope):
        inner = message.message
        if not inner:
            return {"protocol": len(data)}
        message = decode(inner, Briefed, *leaves)
    if isinstance(message, Briefed):
        inner = message.request
        message = decode(inner, *leaves)
    outer = len(data) - len(inner)
    if isinstance(message, Trip | TripReply):
        return {"protocol": len(data)}
    sizes: dict[str, int] = {}
    for field, channel in message.CHANNELS.items():  # type: ignore[attr-defined]
        value = getattr(message, field)
        sizes[channel] = sizes.get(channel, 0) + (value.nbytes if isinstance(value, np.ndarray) else len(value))
    sizes["protocol"] = len(inner) - sum(sizes.values()) + outer
    return sizes
