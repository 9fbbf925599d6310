"""A client's part in the protocols that its protections make trips for, and what it refuses there.

What a protocol holds between the messages of one round is made of secrets. A value is masked with it once: for the
request that it was briefed with, in the round that its keys are of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from framp_private.errors import ProtocolError
from framp_private.federated.federation import Federation
from framp_private.federated.messages import Briefed, Trip
from framp_private.federated.pullback import Pullback
from framp_private.federated.server import sample_cohort
from framp_private.protections.base import Channel, Interactive, Member, Pin

Secret = Mapping[str, bytes]
Pins = Mapping[Channel, Pin]
"""Of encrypted sums, by the channel whose trips they make."""
NO_PINS: Pins = MappingProxyType({})


def carriers(federation: Federation) -> dict[Channel, Interactive]:
    """The protocols of a federation, by the channel whose trips they make."""
    found = {channel: federation.plan.protection(channel).carrier for channel in federation.channels}
    return {
        channel: carrier
        for channel, carrier in found.items()
        if isinstance(carrier, Interactive) and federation.seat_of(channel) == channel
    }


def of_cohort(federation: Federation, member: Member, round_index: int) -> Member:
    """The member with the roster of a round's cohort, which everybody can work out.

    Raises:
        ProtocolError: the round does not exist, or the client is not in its cohort.
    """
    if not 0 <= round_index < federation.rounds:
        raise ProtocolError(f"round={round_index} must lie in 0 .. {federation.rounds - 1}")
    roster = {name: member.roster[name] for name in sample_cohort(federation, round_index) if name in member.roster}
    if member.name not in roster:
        raise ProtocolError(f"client {member.name!r} is not in the cohort of round {round_index}")
    return replace(member, roster=roster)


def asked_alike(federation: Federation, request: bytes) -> bytes:
    """What all clients of a round are asked, and sign for: the request, or nothing where each has its own."""
    return request if federation.pullback is Pullback.CLIENT else b""


def answer_trip(
    federation: Federation, member: Member, message: Trip, secret: Secret, fresh: bool, pins: Pins = NO_PINS
) -> tuple[bytes, Secret]:
    """The reply to a message of a protocol's own, which releases nothing by itself, and what is held then.

    Raises:
        ProtocolError: another federation, round, cohort or channel, or what the protocol refuses.
        ReleaseLost: this client answered the round before.
    """
    carrier = carriers(federation).get(message.channel)  # type: ignore[call-overload]
    if message.federation != federation.digest or carrier is None:
        raise ProtocolError(f"no protocol on channel={message.channel!r} of this federation was agreed on")
    there, held = of_cohort(federation, member, message.round_index), secret.get(message.channel, b"")
    there = replace(there, pin=pins.get(message.channel))  # type: ignore[call-overload]
    reply, held = carrier.answer(message.body, held, there, federation.cohort, message.round_index, fresh)
    return reply, {**secret, message.channel: held}


def take_briefs(
    federation: Federation,
    member: Member | None,
    message: Briefed | None,
    round_index: int,
    secret: Secret,
    pins: Pins = NO_PINS,
) -> Secret:
    """What is held once a request for values has come with all that its protocols send along, and with nothing else.

    Raises:
        ProtocolError: a brief is missing, of no protocol or of another round, or the protocol refuses it.
    """
    wanted, briefs = carriers(federation), message.briefs if message is not None else {}
    if set(briefs) != set(wanted):
        raise ProtocolError(f"a request came with briefs for {sorted(briefs)}, and takes them for {sorted(wanted)}")
    if message is None or not wanted:
        return secret
    if member is None:
        raise ProtocolError("a secure sum takes an identity and a roster, and this client has none")
    there = of_cohort(federation, member, round_index)
    held = dict(secret)
    for channel, carrier in wanted.items():
        held[channel] = carrier.receive(
            briefs[channel],
            asked_alike(federation, message.request),
            secret.get(channel, b""),
            replace(there, pin=pins.get(channel)),
            federation.cohort,
            round_index,
        )
    return held
