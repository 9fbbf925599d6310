"""One round of an encrypted sum, taken apart: every message can be changed on its way, and any subset asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from framp_private.crypto.homomorphic import KeyPair, Parameters, new_keys
from framp_private.crypto.keys import Identity
from framp_private.protections.base import Meeting, Member, Pin, Seat, Session, Total, plain_lift
from framp_private.protections.homomorphic import EncryptedSum
from framp_private.protections.homomorphic.messages import KEY_HOLDER, Context, ContextRequest, OpenRequest
from framp_private.protections.homomorphic.opening import open_once
from framp_private.randomness import Entropy
from framp_private.wire import decode, encode

Change = Callable[[str, bytes], bytes]


@lru_cache(maxsize=8)
def keys_for(parameters: Parameters) -> KeyPair:
    return new_keys(parameters)


def unchanged(name: str, message: bytes) -> bytes:
    return message


@dataclass
class Round:
    """values by client; `down` and `up` change messages; `silent` clients answer nothing."""

    values: Mapping[str, np.ndarray]
    protection: EncryptedSum
    down: Change = unchanged
    up: Change = unchanged
    silent: tuple[str, ...] = ()
    index: int = 0
    run: bytes = b"r" * 32
    records: dict[str, bytes] = field(default_factory=dict)
    identities: dict[str, Identity] = field(default_factory=dict)
    held: dict[str, bytes] = field(default_factory=dict)
    asked: Callable[[str], bytes] = lambda client: b"the model"
    sent: list[tuple[str, str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in self.values:
            self.identities.setdefault(name, Identity.new(Entropy()))
        pair = keys_for(self.protection.parameters(len(self.values)))
        self.key = Pin(hashlib.sha256(pair.public).digest(), pair.public, pair.secret)
        public = Pin(self.key.digest)
        roster = {name: self.identities[name].public for name in self.values}
        clients_hold = self.protection.key_holder == "clients"
        self.members = {
            name: Member(name, self.identities[name], roster, self.run, Entropy(), self.key if clients_hold else public)
            for name in self.values
        }
        self.meeting = Meeting("prototypes", self.run, self.index, roster, self.exchange, {}, public, b"the model")

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def size(self) -> int:
        return len(next(iter(self.values.values())))

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name in requests:
            request = self.down(name, requests[name])
            self.sent.append(("down", name, request))
            if name in self.silent:
                continue
            reply = self.holder(request) if name == KEY_HOLDER else self.client(name, request)
            reply = self.up(name, reply)
            self.sent.append(("up", name, reply))
            yield name, reply

    def holder(self, request: bytes) -> bytes:
        if isinstance(decode(request, ContextRequest, OpenRequest), ContextRequest):
            return encode(Context(self.key.public))
        member = next(iter(self.members.values()))
        reply, self.records = open_once(
            self.protection, request, self.records, self.key, member.roster, self.run, self.n, self.index, Entropy()
        )
        return reply

    def client(self, name: str, request: bytes) -> bytes:
        reply, self.held[name] = self.protection.answer(
            request, self.held.get(name, b""), self.members[name], self.n, self.index, True
        )
        return reply

    def opened(self) -> Session:
        return self.protection.open(list(self.values), self.size, plain_lift, self.exchange, self.meeting)

    def value(self, name: str, brief: bytes) -> bytes:
        asked, member = self.asked(name), self.members[name]
        self.held[name] = self.protection.receive(
            self.down(name, brief), asked, self.held.get(name, b""), member, self.n, self.index
        )
        seat = Seat("prototypes", self.n, self.held[name], asked, self.index, member)
        made = self.protection.protect(self.values[name], Entropy(), seat)
        self.sent.append(("up", name, made))
        return made

    def gathered(self, leave_out: tuple[str, ...] = ()) -> Session:
        session = self.opened()
        for name in self.values:
            brief = session.brief(name)
            if brief is not None and name not in leave_out and name not in self.silent:
                session.add(name, self.up(name, self.value(name, brief)))
        return session

    def total(self, leave_out: tuple[str, ...] = ()) -> Total:
        return self.gathered(leave_out).close(self.exchange)


def values_of(n: int, size: int = 7, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"client-{i:02d}": rng.uniform(-1, 1, size) for i in range(n)}
