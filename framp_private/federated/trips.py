"""The server's part in the protocols that protections make trips for: how their messages travel with a round's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from framp_private.crypto.keys import PublicIdentity
from framp_private.federated.federation import Federation
from framp_private.federated.key_holder import encrypted_sums
from framp_private.federated.messages import Briefed, Trip, TripReply
from framp_private.federated.seats import asked_alike
from framp_private.federated.server import sample_cohort
from framp_private.protections.base import Channel, Exchange, Lazy, Meeting, Pin, Session
from framp_private.protections.homomorphic.server import fetched
from framp_private.wire import decode, encode


def briefed(
    federation: Federation, requests: Mapping[str, bytes], sessions: Mapping[Channel, Session]
) -> Mapping[str, bytes]:
    """The requests of a round with what its protocols send along, one brief for channels that share one.

    Who is out of a protocol already is not asked.
    """
    leading = {name: session for name, session in sessions.items() if federation.seat_of(name) == name}

    def made(client: str) -> bytes:
        found = {channel: session.brief(client) for channel, session in leading.items()}
        given: dict[str, bytes] = {channel: brief for channel, brief in found.items() if brief}
        return encode(Briefed(requests[client], given)) if given else requests[client]

    asked = [name for name in requests if all(each.brief(name) is not None for each in leading.values())]
    return Lazy(asked, made)


def meetings(
    federation: Federation,
    round_index: int,
    channels: Sequence[Channel],
    roster: Mapping[str, PublicIdentity],
    exchange: Exchange,
    pins: Mapping[Channel, Pin],
    requests: Mapping[str, bytes],
) -> dict[Channel, Meeting]:
    """Each channel's place in a round, for protections that make trips of their own.

    requests: what each client is asked; where all are asked the same, their protocols stand on it.
    """
    asked = asked_alike(federation, requests[next(iter(requests))]) if federation.secure and len(requests) else b""
    shared: dict[Any, Any] = {}
    return {
        channel: Meeting(
            channel,
            federation.digest,
            round_index,
            roster,
            _trips(federation, round_index, federation.seat_of(channel), exchange),
            shared,
            pins.get(federation.seat_of(channel)),
            asked,
        )
        for channel in channels
    }


def with_contexts(
    federation: Federation,
    round_index: int,
    roster: Mapping[str, PublicIdentity],
    exchange: Exchange,
    pins: Mapping[Channel, Pin],
) -> Mapping[Channel, Pin]:
    """What is pinned of encrypted sums, with the public key itself from who holds it, so that it travels once.

    Raises:
        BelowThreshold: nobody who holds a key answers. CryptoError: another key than the pinned one.
    """
    found = dict(pins)
    for channel, carrier in encrypted_sums(federation).items():
        trips = _trips(federation, round_index, channel, exchange)
        meeting = Meeting(channel, federation.digest, round_index, roster, trips, {}, pins.get(channel))
        cohort = sample_cohort(federation, round_index)
        context = fetched(meeting, carrier.key_holder == "clients", cohort)
        found[channel] = replace(pins[channel], public=context)
    return found


def _trips(federation: Federation, round_index: int, channel: Channel, exchange: Exchange) -> Exchange:
    """An exchange of a protocol's own messages, each in a `Trip`."""

    def exchanged(requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        def made(name: str) -> bytes:
            return encode(Trip(federation.digest, round_index, channel, requests[name]))

        for name, reply in exchange(Lazy(requests, made)):
            yield name, decode(reply, TripReply).body

    return exchanged
