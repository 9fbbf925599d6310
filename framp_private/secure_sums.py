"""`secure_sum`: the whole protocol around a sum, on plain arrays, in this process.

>>> import numpy as np
>>> from framp_private import secure_sum
>>> from framp_private.protections import SecAgg
>>> values = {"a": np.array([0.25, -0.5]), "b": np.array([0.5, 0.5]), "c": np.array([0.0, 0.75])}
>>> secure_sum(values, SecAgg()).value.round(4).tolist()
[0.75, 0.75]
>>> secure_sum(values, SecAgg(), drop={"b": "masked"}).count
2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from framp_private.crypto.keys import Identity
from framp_private.errors import PlanError, ProtocolError
from framp_private.protections.base import Member, Protection, Total, plain_lift
from framp_private.protections.secagg import SecAgg
from framp_private.protections.secagg.client import answer, masked, receive
from framp_private.protections.secagg.messages import Delivery as Sealed
from framp_private.protections.secagg.messages import Masked
from framp_private.protections.secagg.server import Gathering
from framp_private.protections.secagg.state import State
from framp_private.randomness import Entropy
from framp_private.transcript import Delivery, Transcript
from framp_private.wire import decode, encode

Stage = Literal["keys", "shares", "masked", "unmask"]
STAGES: tuple[Stage, ...] = ("keys", "shares", "masked", "unmask")
CHANNEL = "values"


def secure_sum(
    values: Mapping[str, np.ndarray],
    protection: Protection,
    *,
    drop: Mapping[str, Stage] | None = None,
    transcript: Transcript | None = None,
) -> Total:
    """The sum of the clients' values, as the server learns it under a protection.

    Args:
        values: by client, arrays of one shape. drop: client -> the stage before which it vanishes.
        transcript: takes every message that travels.

    Raises:
        BelowThreshold: too few clients survive; nothing is opened.
        ProtocolError: shapes differ, or a value that is not finite or beyond the protection's bound.
        PlanError: `drop` names an unknown client or stage.
    """
    gone = dict(drop or {})
    shapes = {np.shape(value) for value in values.values()}
    if len(shapes) != 1:
        raise ProtocolError(f"values have shapes {sorted(map(str, shapes))}: a sum takes arrays of one shape")
    if not set(gone) <= set(values) or not set(gone.values()) <= set(STAGES):
        raise PlanError(f"drop={gone}: clients are {', '.join(values)}, stages {', '.join(STAGES)}")
    flat = {name: np.ravel(value) for name, value in values.items()}
    clients = _Clients(flat, protection, gone, transcript)
    total = _masked_sum(clients, protection) if isinstance(protection, SecAgg) else _one_trip(clients, protection)
    return Total(total.value.reshape(shapes.pop()), total.count, total.measurements)


def _one_trip(clients: _Clients, protection: Protection) -> Total:
    size = len(next(iter(clients.values.values())))
    session = protection.open(list(clients.values), size, plain_lift, clients.nothing)
    for name, payload in clients.trip("masked", dict.fromkeys(clients.values, b"")):
        session.add(name, payload)
    return session.close(clients.nothing)


def _masked_sum(clients: _Clients, protection: SecAgg) -> Total:
    ring, size = protection.ring(len(clients.values)), len(next(iter(clients.values.values())))
    roster = {name: member.identity.public for name, member in clients.members.items()}
    gathering = Gathering(list(clients.values), protection.terms(len(roster)), roster, clients.run, 0)
    gathering.collect_keys(lambda requests: clients.trip("keys", requests))
    gathering.collect_shares(lambda requests: clients.trip("shares", requests))
    asked = {name: delivery for name in clients.values if (delivery := gathering.delivery(name))}
    for name, reply in clients.trip("masked", asked):
        gathering.add(name, CHANNEL, decode(reply, Masked).values[CHANNEL], size, ring)
    totals, survivors = gathering.open(lambda requests: clients.trip("unmask", requests), {CHANNEL: ring})
    return Total(ring.decode(totals[CHANNEL]), len(survivors))


class _Clients:
    """All clients, each with keys of its own, and the wire between them and the server."""

    def __init__(
        self,
        values: Mapping[str, np.ndarray],
        protection: Protection,
        gone: Mapping[str, Stage],
        transcript: Transcript | None,
    ) -> None:
        self.values, self._protection, self._gone, self._transcript = values, protection, gone, transcript
        self._entropy, self._trip = Entropy(), 0
        self.run = self._entropy.bytes(32)
        identities = {name: Identity.new(self._entropy) for name in values}
        roster = {name: identity.public for name, identity in identities.items()}
        self.members = {
            name: Member(name, identity, roster, self.run, self._entropy) for name, identity in identities.items()
        }
        self._states: dict[str, State] = {}
        if transcript is not None:
            transcript.begin("secure-sum")

    def nothing(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """For protections that need no trips of their own."""
        return iter(())

    def trip(self, stage: Stage, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Delivers, and yields the replies of clients that have not vanished."""
        trip, self._trip = self._trip, self._trip + 1
        for name in requests:
            self._carry(Delivery(trip, "down", name, requests[name]))
            vanished = name in self._gone and STAGES.index(self._gone[name]) <= STAGES.index(stage)
            if not vanished:
                reply = self._reply(name, stage, requests[name])
                self._carry(Delivery(trip, "up", name, reply))
                yield name, reply

    def _reply(self, name: str, stage: Stage, request: bytes) -> bytes:
        protection, member = self._protection, self.members[name]
        if not isinstance(protection, SecAgg):
            return protection.protect(self.values[name].astype(np.float32), self._entropy)
        terms = protection.terms(len(self.values))
        if stage == "masked":
            state = receive(decode(request, Sealed), b"", self._states[name], member, terms)
            self._states[name] = state
            return encode(
                Masked({CHANNEL: masked(self.values[name], CHANNEL, protection.ring(len(self.values)), state)})
            )
        reply, self._states[name] = answer(request, self._states.get(name), member, terms)
        return reply

    def _carry(self, delivery: Delivery) -> None:
        if self._transcript is not None and delivery.data:
            self._transcript.write(delivery)
