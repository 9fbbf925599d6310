"""The party that holds the key of encrypted sums: neither server nor client, with a disk of its own.

It answers two messages, `ContextRequest` with the public key and `OpenRequest` with a sum that its rules allow. What it
opened is on its disk before the reply leaves, and is read from there before the next, so that neither a restart, nor
two requests at once, nor a second holder over the same disk opens two sums of one round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Protocol, cast

from framp_private.crypto.homomorphic import new_keys
from framp_private.crypto.keys import PublicIdentity
from framp_private.crypto.secret_files import secret_of_file
from framp_private.errors import ProtocolError
from framp_private.federated.federation import Federation
from framp_private.federated.messages import Trip, TripReply
from framp_private.federated.seats import Pins
from framp_private.federated.server import sample_cohort
from framp_private.protections.base import Channel, Pin
from framp_private.protections.homomorphic import EncryptedSum
from framp_private.protections.homomorphic.messages import Context, ContextRequest, OpenRequest
from framp_private.protections.homomorphic.opening import open_once
from framp_private.randomness import Entropy
from framp_private.wire import decode, encode


@dataclass(frozen=True)
class Keys:
    """What is in a key file: a context with its secret key, and without."""

    secret: bytes
    public: bytes


@dataclass(frozen=True)
class Opened:
    """By channel: of a key, the `Opened` under it; and in that, of the values, the `Record` of the last sum."""

    by_channel: Mapping[str, bytes]


def encrypted_sums(federation: Federation) -> dict[Channel, EncryptedSum]:
    """The encrypted sums of a federation, by the channel whose trips they make."""
    found: dict[Channel, EncryptedSum] = {}
    for channel in federation.channels:
        carrier = federation.plan.protection(channel).carrier
        if isinstance(carrier, EncryptedSum) and federation.seat_of(channel) == channel:
            found[channel] = carrier
    return found


def new_pins(federation: Federation, folder: Path | None) -> dict[Channel, Pin]:
    """A key for each encrypted sum, from files in `folder` or fresh, with what everybody pins of it."""
    pins: dict[Channel, Pin] = {}
    for channel, carrier in encrypted_sums(federation).items():

        def made(carrier: EncryptedSum = carrier) -> bytes:
            pair = new_keys(carrier.parameters(federation.cohort))
            return encode(Keys(pair.secret, pair.public))

        keys = decode(made() if folder is None else secret_of_file(folder / f"{channel}.context", made), Keys)
        pins[channel] = Pin(hashlib.sha256(keys.public).digest(), keys.public, keys.secret)
    return pins


def pins_of_clients(federation: Federation, pins: Pins) -> dict[Channel, Pin]:
    """What clients pin: the hash, and the key as well where they hold it."""
    held = {channel for channel, carrier in encrypted_sums(federation).items() if carrier.key_holder == "clients"}
    return {channel: pin if channel in held else Pin(pin.digest) for channel, pin in pins.items()}


class Store(Protocol):
    """Where a key holder records what it opened."""

    def update(self, change: Callable[[bytes], tuple[bytes, bytes]]) -> bytes:
        """Gives `change` what is recorded, nothing at first; records the first of what it makes and returns the second.

        Nobody else reads or writes in between, and the record is durable before this returns.
        """


class InMemory:
    """A record that lasts as long as the process."""

    def __init__(self) -> None:
        self._data, self._lock = b"", Lock()

    def update(self, change: Callable[[bytes], tuple[bytes, bytes]]) -> bytes:
        """See `Store.update`."""
        with self._lock:
            self._data, reply = change(self._data)
            return reply


class KeyHolder:
    """Holds the keys in `pins`, and records in `store` what it opens. roster: every client's public key."""

    def __init__(
        self,
        federation: Federation,
        pins: Pins,
        roster: Mapping[str, PublicIdentity],
        entropy: Entropy,
        store: Store,
    ) -> None:
        self._federation, self._pins, self._roster = federation, pins, roster
        self._entropy, self._store = entropy, store

    def handle(self, request: bytes) -> bytes:
        """Answers one request.

        Raises:
            WireError: the bytes are no such message. ProtocolError: another federation or round, or a channel whose
            key is not here. See also `open_once`.
        """
        trip, federation = decode(request, Trip), self._federation
        carrier = encrypted_sums(federation).get(trip.channel)  # type: ignore[call-overload]
        if trip.federation != federation.digest or carrier is None or carrier.key_holder != "party":
            raise ProtocolError(f"no key for channel={trip.channel!r} of this federation is held here")
        pin = self._pins[cast(Channel, trip.channel)]
        if isinstance(decode(trip.body, ContextRequest, OpenRequest), ContextRequest):
            return encode(TripReply(encode(Context(pin.public))))
        if not 0 <= trip.round_index < federation.rounds:
            raise ProtocolError(f"round={trip.round_index} must lie in 0 .. {federation.rounds - 1}")
        return encode(TripReply(self._store.update(lambda saved: self._open(trip, carrier, pin, saved))))

    def _open(self, trip: Trip, carrier: EncryptedSum, pin: Pin, saved: bytes) -> tuple[bytes, bytes]:
        """What to record, and the sum; see `open_once`."""
        federation = self._federation
        opened = dict(decode(saved, Opened).by_channel) if saved else {}
        before = opened.get(trip.channel, b"")
        reply, records = open_once(
            carrier,
            trip.body,
            decode(before, Opened).by_channel if before else {},
            pin,
            {name: self._roster[name] for name in sample_cohort(federation, trip.round_index) if name in self._roster},
            federation.digest,
            federation.cohort,
            trip.round_index,
            self._entropy,
        )
        return encode(Opened({**opened, trip.channel: encode(Opened(records))})), reply
