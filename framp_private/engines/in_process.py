"""All clients in this process, every message as wire bytes.

Clients may answer side by side on several threads. Each one's arithmetic stays on one thread, so the order of
every floating-point sum, and with it the outcome, is the same for any number of them.

The clients are real: what they hold between requests is their `ClientState`, and what they see is what was sent. The
engine counts the bytes it carries, can write them to a transcript, and can drop clients on a schedule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from framp_private.errors import ReleaseLost
from framp_private.federated.client import ClientState
from framp_private.randomness import Streams
from framp_private.transcript import Delivery, Traffic, Transcript

Drops = Callable[[str, int], bool]
"""(client, round) -> whether it stays silent in that round; enrolment is round -1."""

Answer = Callable[[], bytes | None]
"""Waits for a client's reply; None if it has none to give."""


class Handler(Protocol):
    """A client as an engine sees it."""

    def handle(self, request: bytes, state: ClientState) -> tuple[bytes, ClientState]:
        """Answers one request."""


class Party(Protocol):
    """Somebody who is no client, as an engine sees it; what it must remember it keeps by itself."""

    def handle(self, request: bytes) -> bytes:
        """Answers one request."""


Store = Callable[[str, ClientState], None]
"""Puts a client's state on its disk, before the reply that goes with it is delivered."""


def keep_nothing(client: str, state: ClientState) -> None:
    """For clients whose replies can be made again."""
    del client, state


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
        self,
        clients: Mapping[str, Handler],
        *,
        drops: Drops = nobody_drops,
        transcript: Transcript | None = None,
        threads: int = 1,
        store: Store = keep_nothing,
        parties: Mapping[str, Party] | None = None,
    ) -> None:
        self._threads, self._store, self._parties = threads, store, dict(parties or {})
        self._clients, self._drops, self._transcript = clients, drops, transcript
        self.states = dict.fromkeys(clients, ClientState.new())
        self.traffic = Traffic()
        self.round_index = -1
        self._trip = 0

    def begin(self, round_index: int, name: str | None = None) -> None:
        """Starts a round: the drop schedule and the transcript's file follow it."""
        self.round_index, self._trip = round_index, 0
        if self._transcript is not None:
            self._transcript.begin(name or ("enrolment" if round_index < 0 else f"round-{round_index:06d}"))

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Delivers each request and yields the replies, in the order of the requests."""
        trip, self._trip = self._trip, self._trip + 1
        for name, request, answer in self._answers(requests):
            self._carry(Delivery(trip, "down", name, request))
            if answer is None:
                continue
            reply = answer()
            if reply is None:
                continue
            self._carry(Delivery(trip, "up", name, reply))
            yield name, reply

    def _answers(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes, Answer | None]]:
        """Each client's request and the call that waits for its answer, at most `threads` of them under way."""
        if self._threads == 1:
            for name in requests:
                request = requests[name]
                silent = self._silent(name)
                yield name, request, None if silent else partial(self._handle, name, request)
            return
        with ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting: deque[tuple[str, bytes, Answer | None]] = deque()
            for name in requests:
                request = requests[name]
                silent = self._silent(name)
                waiting.append((name, request, None if silent else pool.submit(self._handle, name, request).result))
                if len(waiting) > self._threads:
                    yield waiting.popleft()
            yield from waiting

    def _silent(self, name: str) -> bool:
        """Parties that are no clients do not drop out by schedule."""
        return name not in self._parties and self._drops(name, self.round_index)

    def _handle(self, name: str, request: bytes) -> bytes | None:
        """The client keeps what it answered even if the round breaks off before its reply is read.

        One whose release was spent before a crash and then lost has nothing to send: it counts as dropped out.
        """
        if name in self._parties:
            return self._parties[name].handle(request)
        try:
            reply, state = self._clients[name].handle(request, self.states[name])
        except ReleaseLost:
            return None
        self._store(name, state)
        self.states[name] = state
        return reply

    def _carry(self, delivery: Delivery) -> None:
        self.traffic.add(delivery.direction, delivery.data)
        if self._transcript is not None:
            self._transcript.write(delivery)
