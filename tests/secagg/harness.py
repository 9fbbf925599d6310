"""One round of secure aggregation, taken apart: every client's state is in reach, and every message can be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from framp_private.crypto.keys import Identity
from framp_private.crypto.ring import Ring
from framp_private.protections import SecAgg
from framp_private.protections.base import Member
from framp_private.protections.secagg.client import answer, masked, receive
from framp_private.protections.secagg.messages import (
    CohortRequest,
    ConfirmRequest,
    Delivery,
    KeysRequest,
    SampleRequest,
    SharesRequest,
    UnmaskRequest,
)
from framp_private.protections.secagg.server import Gathering
from framp_private.protections.secagg.state import State, Terms
from framp_private.randomness import Entropy
from framp_private.wire import decode

Change = Callable[[str, str, bytes], bytes]
"""(stage, client, message) -> what is delivered instead."""
STAGES = ("keys", "neighbours", "shares", "masked", "confirm", "sample", "unmask")
KINDS = {
    "keys": KeysRequest,
    "neighbours": CohortRequest,
    "shares": SharesRequest,
    "confirm": ConfirmRequest,
    "sample": SampleRequest,
    "unmask": UnmaskRequest,
}


def stage_of(request: bytes) -> str:
    """The stage that a server's message belongs to."""
    message = decode(request, *KINDS.values())
    return next(stage for stage, kind in KINDS.items() if isinstance(message, kind))


def unchanged(stage: str, client: str, message: bytes) -> bytes:
    return message


@dataclass
class Round:
    """values by client; `down` and `up` change messages on their way; `drop` silences clients from a stage on."""

    values: dict[str, np.ndarray]
    protection: SecAgg = field(default_factory=SecAgg)
    drop: Mapping[str, str] = field(default_factory=dict)
    down: Change = unchanged
    up: Change = unchanged
    index: int = 0
    run: bytes = b"r" * 32
    identities: dict[str, Identity] = field(default_factory=dict)
    asked: Callable[[str], bytes] = lambda client: b"the model"
    given: Terms | None = None
    states: dict[str, State] = field(default_factory=dict)
    sent: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    vectors: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.values:
            self.identities.setdefault(name, Identity.new(Entropy()))
        roster = {name: self.identities[name].public for name in self.values}
        self.members = {name: Member(name, self.identities[name], roster, self.run, Entropy()) for name in self.values}
        self.gathering = Gathering(list(self.values), self.terms, roster, self.run, self.index, b"the model")

    @property
    def terms(self) -> Terms:
        return self.given or self.protection.terms(len(self.values))

    @property
    def ring(self) -> Ring:
        return self.protection.ring(len(self.values))

    @property
    def size(self) -> int:
        return len(next(iter(self.values.values())))

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name in requests:
            stage = stage_of(requests[name])
            request = self.down(stage, name, requests[name])
            self.sent.append((stage, "down", name, request))
            if name in self.drop and STAGES.index(self.drop[name]) <= STAGES.index(stage):
                continue
            reply, self.states[name] = answer(request, self.states.get(name), self.members[name], self.terms)
            reply = self.up(stage, name, reply)
            self.sent.append((stage, "up", name, reply))
            yield name, reply

    def until_masked(self) -> Round:
        self.gathering.collect_keys(self.exchange)
        self.gathering.collect_shares(self.exchange)
        for name in self.values:
            data = self.gathering.delivery(name)
            if not data:
                continue
            data = self.down("masked", name, data)
            self.sent.append(("masked", "down", name, data))
            if name in self.drop and STAGES.index(self.drop[name]) <= STAGES.index("masked"):
                continue
            state = receive(decode(data, Delivery), self.asked(name), self.states[name], self.members[name], self.terms)
            vector = masked(self.values[name], "update", self.ring, state)
            self.states[name] = state
            vector = self.up("masked", name, vector)
            self.sent.append(("masked", "up", name, vector))
            self.vectors[name] = vector
            self.gathering.add(name, "update", vector, self.size, self.ring)
        return self

    def opened(self) -> tuple[np.ndarray, tuple[str, ...]]:
        totals, survivors = self.gathering.open(self.exchange, {"update": self.ring})
        return totals["update"], survivors

    def total(self) -> tuple[np.ndarray, tuple[str, ...]]:
        return self.until_masked().opened()

    def plain(self, clients: tuple[str, ...]) -> np.ndarray:
        """The plain sum of the quantised values, in Python's integers."""
        ring = self.ring
        rows = [ring.centred(ring.encode(self.values[name])).tolist() for name in clients]
        return np.array([sum(column) for column in zip(*rows, strict=True)], dtype=object)


def values_of(n: int, size: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"client-{i:03d}" if n > 100 else f"client-{i:02d}": rng.uniform(-1, 1, size) for i in range(n)}
