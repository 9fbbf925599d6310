"""All clients in this process, every message as wire bytes.

The clients are real: what they hold between requests is their `ClientState`, and what they see is what was sent. The
engine counts the bytes it carries, can write them to a transcript, and can drop clients on a schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from framp_private.federated.client import Client, ClientState
from framp_private.randomness import Streams
from framp_private.transcript import Delivery, Traffic, Transcript

Drops = Callable[[str, int], bool]
"""(client, round) -> whether it stays silent in that round; enrolment is round -1."""


def nobody_drops(client: str, round_index: int) -> bool:
    """Every client answers."""
    del client, round_index
    return False


@dataclass(frozen=True)
class RandomDrops:
    """A seeded schedule: each client is silent in each round with probability `rate`; all answer at enrolment."""

    rate: float
    streams: Streams

    def __call__(self, client: str, round_index: int) -> bool:
        """Whether this client drops out of this round."""
        return round_index >= 0 and self.streams.child(client, round_index).numpy().random() < self.rate


class InProcess:
    """An engine: `exchange` has the signature that rounds and protections ask for.

    `states`, `traffic` and `round_index` (-1 during enrolment) are what a checkpoint needs to go on.
    """

    def __init__(
        self, clients: Mapping[str, Client], *, drops: Drops = nobody_drops, transcript: Transcript | None = None
    ) -> None:
        self._clients, self._drops, self._transcript = clients, drops, transcript
        self.states = dict.fromkeys(clients, ClientState.new())
        self.traffic = Traffic()
        self.round_index = -1
        self._trip = 0

    def begin(self, round_index: int) -> None:
        """Starts a round: the drop schedule and the transcript's file follow it."""
        self.round_index, self._trip = round_index, 0
        if self._transcript is not None:
            self._transcript.begin("enrolment" if round_index < 0 else f"round-{round_index:06d}")

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Delivers each request, in order, and yields the reply as soon as it is there."""
        trip, self._trip = self._trip, self._trip + 1
        for name in requests:
            request = requests[name]
            self._carry(Delivery(trip, "down", name, request))
            if self._drops(name, self.round_index):
                continue
            reply, self.states[name] = self._clients[name].handle(request, self.states[name])
            self._carry(Delivery(trip, "up", name, reply))
            yield name, reply

    def _carry(self, delivery: Delivery) -> None:
        self.traffic.add(delivery.direction, delivery.data)
        if self._transcript is not None:
            self._transcript.write(delivery)
