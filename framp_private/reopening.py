"""What the server opened, from a transcript: its half of the protocols again, on the replies that it received.

A server's own code is run, and asks for nothing that it did not ask for then; so what comes out is what it saw, to the
last bit, and a transcript that was altered does not open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from framp_private.crypto.keys import PublicIdentity
from framp_private.errors import BelowThreshold, PlanError
from framp_private.federated.federation import Federation
from framp_private.federated.messages import Briefed, PhiRequest, Request, TrainReply, Trip, TripReply, read_request
from framp_private.federated.server import ServerState, protection, sample_cohort, value_sizes
from framp_private.federated.trips import meetings, with_contexts
from framp_private.protections.base import Channel, Pin, plain_lift
from framp_private.transcript import Delivery
from framp_private.wire import decode

Totals = Mapping[tuple[int, Channel], np.ndarray]


def reopened_totals(federation: Federation, log: Iterable[tuple[str, Delivery]]) -> Totals:
    """(round, channel) -> (size,) float64 the sum that was opened; rounds that opened nothing are left out.

    Args:
        federation: that of the run, with its parties. log: all of `read_transcript`.

    Raises:
        PlanError: values are not summed as they are (a pullback on the server), or the parties are not known.
        FrampError: what the server's code raises on replies that were altered.
    """
    noised = any(federation.plan.protection(channel).noises_total for channel in federation.channels)
    if federation.parties is None or federation.pullback.value != "client" or noised:
        raise PlanError(
            "totals are opened again of a run whose parties are known, with pullback='client' and no noise of the "
            "server's own, which would be drawn anew"
        )
    rounds: dict[int, list[Delivery]] = {}
    for phase, delivery in log:
        if phase.startswith("round-"):
            rounds.setdefault(int(phase.removeprefix("round-")), []).append(delivery)
    pins: Mapping[Channel, Pin] = {channel: Pin(digest) for channel, digest in federation.parties.pins.items()}
    found: dict[tuple[int, Channel], np.ndarray] = {}
    for index, deliveries in sorted(rounds.items()):
        replies = _Replies(deliveries)
        try:
            pins = with_contexts(federation, index, replies.roster(federation), replies.exchange, pins)
            found |= {(index, channel): value for channel, value in _opened(federation, index, replies, pins).items()}
        except BelowThreshold:
            continue
    return found


def _opened(
    federation: Federation, index: int, replies: _Replies, pins: Mapping[Channel, Pin]
) -> dict[Channel, np.ndarray]:
    channels: list[Channel] = [channel for channel in ("update", "prototypes") if channel in federation.channels]
    cohort = sample_cohort(federation, index)
    asked = dict.fromkeys(cohort, replies.request)
    state = ServerState.initial(federation)
    sizes, roster = value_sizes(federation), replies.roster(federation)
    places = meetings(federation, index, channels, roster, replies.exchange, pins, asked)
    sessions = {
        channel: protection(federation, state, channel).open(
            cohort, sizes[channel], plain_lift, replies.exchange, places[channel]
        )
        for channel in channels
    }
    for client, reply in replies.values:
        for channel, session in sessions.items():
            session.add(client, getattr(reply, channel))
    return {channel: session.close(replies.exchange).value for channel, session in sessions.items()}


class _Replies:
    """What came back in one round: to a protocol's own messages in the order in which they came, and the values."""

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        self.values: list[tuple[str, TrainReply]] = []
        self.request = b""
        self._trips: dict[str, deque[bytes]] = {}
        for delivery in deliveries:
            body = delivery.message
            if not body:
                continue
            if delivery.direction == "down":
                self._note(body)
                continue
            message: object = decode(body, TripReply, TrainReply)
            if isinstance(message, TrainReply):
                self.values.append((delivery.client, message))
            else:
                self._trips.setdefault(delivery.client, deque()).append(body)

    def _note(self, body: bytes) -> None:
        message: Request | Trip | Briefed = read_request(body)
        inner = message.request if isinstance(message, Briefed) else body
        if isinstance(read_request(inner), PhiRequest):
            self.request = inner

    @staticmethod
    def roster(federation: Federation) -> dict[str, PublicIdentity]:
        """Everybody's public key."""
        assert federation.parties is not None
        return {name: PublicIdentity(key) for name, key in federation.parties.roster.items()}

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """The next reply of each party that is asked; one that has none left was silent."""
        for name in requests:
            if self._trips.get(name):
                yield name, self._trips[name].popleft()
