"""A cohort of real client halves in one round of secure aggregation, for servers that send them anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from framp_private import Entropy, decode
from framp_private.crypto.keys import Identity
from framp_private.errors import FrampError
from framp_private.protections import SecAgg
from framp_private.protections.base import Member
from framp_private.protections.secagg.client import answer, masked, receive
from framp_private.protections.secagg.messages import Delivery
from framp_private.protections.secagg.server import Gathering
from framp_private.protections.secagg.state import State

CHANNEL = "update"
MODEL = b"the model"
SIZE = 4
"""Numbers that each client gives to a sum."""


class Cohort:
    """Clients with keys of their own. They answer or refuse; a refusal is silence, as for any server.

    Args:
        protection: the secure sum. n: planned cohort. asked: client -> the request that it is shown for its value.
        no_keys, no_shares: clients that are silent from the first stage on, or from the second.
    """

    def __init__(
        self,
        protection: SecAgg,
        n: int,
        *,
        seed: int,
        asked: Callable[[str], bytes] = lambda client: MODEL,
        no_keys: frozenset[str] = frozenset(),
        no_shares: frozenset[str] = frozenset(),
    ) -> None:
        self.names = tuple(f"member-{place:04d}" for place in range(n))
        self.protection, self.terms, self._asked = protection, protection.terms(n), asked
        self._no_keys, self._no_shares = no_keys, no_shares | no_keys
        entropy, rng = Entropy(), np.random.default_rng(seed)
        self.identities = {name: Identity.new(entropy) for name in self.names}
        self.roster = {name: each.public for name, each in self.identities.items()}
        self.run = entropy.bytes(32)
        self.members = {
            name: Member(name, each, self.roster, self.run, entropy) for name, each in self.identities.items()
        }
        bound = protection.bound
        self.values = {name: rng.uniform(-bound, bound, SIZE) for name in self.names}
        self.states: dict[str, State] = {}
        self.ring = protection.ring(n)

    def ask(self, name: str, message: bytes) -> bytes | None:
        """One client's reply to a message of the protocol; None where it refuses."""
        try:
            reply, self.states[name] = answer(message, self.states.get(name), self.members[name], self.terms)
        except FrampError:
            return None
        return reply

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """An engine over these clients."""
        for name in requests:
            keys = requests[name][6:].startswith(b"KeysRequest")
            if name in (self._no_keys if keys else self._no_shares):
                continue
            if (reply := self.ask(name, requests[name])) is not None:
                yield name, reply

    def send_values(self, server: Gathering) -> None:
        """Every client that has shared answers the request for its value."""
        for name in self.names:
            data = server.delivery(name)
            if not data:
                continue
            try:
                state = receive(
                    decode(data, Delivery), self._asked(name), self.states[name], self.members[name], self.terms
                )
                vector = masked(self.values[name], CHANNEL, self.ring, state)
            except FrampError:
                continue
            self.states[name] = state
            server.add(name, CHANNEL, vector, SIZE, self.ring)

    def plain(self, names: tuple[str, ...]) -> np.ndarray:
        """(SIZE,) int64 the sum of some clients' values in the ring's units, as the server must not see it."""
        rows = [self.ring.centred(self.ring.encode(self.values[name])) for name in names]
        return np.asarray(np.sum(rows, axis=0), np.int64)
