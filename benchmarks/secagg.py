"""Secure aggregation against its floor, and against Flower's own SecAgg+ functions where flwr is installed.

    python benchmarks/secagg.py [--values 1000000] [--repeats 5]

Same vectors, one run, interleaved; the fastest repeat counts. The floor of masking is what nothing can be faster than
with these primitives: the keystream of every mask and its addition. Flower's sharing and unmasking are its functions
`create_shares`, `combine_shares`, `pseudo_rand_gen` and `parameters_subtraction`, called as its workflow calls them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping

import numpy as np
from timing import Work, measure

from framp_private.crypto.agreement import AgreementKey
from framp_private.crypto.keys import Identity
from framp_private.crypto.prg import CHUNK_BYTES, add_mask
from framp_private.crypto.ring import pack
from framp_private.crypto.shamir import draw_secret, share
from framp_private.protections import SecAgg
from framp_private.protections.base import Member
from framp_private.protections.secagg.client import answer, masked, receive
from framp_private.protections.secagg.messages import Delivery
from framp_private.protections.secagg.planning import design
from framp_private.protections.secagg.server import Gathering
from framp_private.protections.secagg.state import State
from framp_private.randomness import Entropy, Keystream
from framp_private.secagg_costs import client_seconds
from framp_private.wire import decode

try:
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
    from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_subtraction
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
except ImportError:
    create_shares = None
CLIENTS, THRESHOLD, GONE = 50, 30, 5


def masking(values: int, neighbours: int) -> dict[str, Work]:
    target, seeds = np.zeros(values, np.uint32), [os.urandom(32) for _ in range(neighbours)]
    buffer = bytearray(CHUNK_BYTES)
    words, step = np.frombuffer(buffer, np.uint32), CHUNK_BYTES // 4

    def floor() -> None:
        for seed in seeds:
            stream = Keystream(seed, bytes(16))
            for at in range(0, values, step):
                stream.fill(buffer)
                part = target[at : at + step]
                part += words[: len(part)]

    def ours() -> None:
        for seed in seeds:
            add_mask(target, seed)

    def flower() -> None:
        total = [np.zeros(values, np.int64)]
        for seed in seeds:
            total = parameters_addition(total, pseudo_rand_gen(seed, 2**32, [(values,)]))

    found: dict[str, Work] = {"floor": floor, "ours": ours}
    return found | ({"flower": flower} if create_shares else {})


def sharing() -> dict[str, Work]:
    secret, points, entropy = draw_secret(Entropy()), range(1, CLIENTS + 1), Entropy()
    found: dict[str, Work] = {"ours": lambda: share(secret, THRESHOLD, points, entropy)}
    return found | ({"flower": lambda: create_shares(secret, THRESHOLD, CLIENTS)} if create_shares else {})


class Replay:
    """A round whose clients have answered everything; what is left is the server's work after the values arrived."""

    def __init__(self, values: int) -> None:
        protection, names = (
            SecAgg(threshold=0.59, corrupt=0.1, ring_bits=32),
            [f"client-{i:02d}" for i in range(CLIENTS)],
        )
        identities = {name: Identity.new(Entropy()) for name in names}
        roster = {name: identity.public for name, identity in identities.items()}
        self.members = {name: Member(name, identities[name], roster, b"run", Entropy()) for name in names}
        self.terms, self.ring, self.values = protection.terms(CLIENTS), protection.ring(CLIENTS), values
        self.states: dict[str, State] = {}
        self.replies: list[dict[str, bytes]] = []
        self.roster = roster
        self.gathering = Gathering(names, self.terms, roster, b"run", 0)
        self.gathering.collect_keys(self.exchange)
        self.gathering.collect_shares(self.exchange)
        for name in names[GONE:]:
            data = decode(self.gathering.delivery(name), Delivery)
            self.states[name] = receive(data, b"", self.states[name], self.members[name], self.terms)
            vector = masked(np.zeros(values), "update", self.ring, self.states[name])
            self.gathering.add(name, "update", vector, values, self.ring)
        self.total = self.gathering._totals["update"].copy()
        self.recording = True
        self.gathering.open(self.exchange, {"update": self.ring})
        self.recording = False

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Answers for real, and keeps the answers."""
        replies: dict[str, bytes] = {}
        for name in requests:
            member, state = self.members[name], self.states.get(name)
            replies[name], self.states[name] = answer(requests[name], state, member, self.terms)
        self.replies.append(replies)
        yield from replies.items()

    def unmask(self) -> None:
        """Shares together, masks off; signatures and relaying left out, as they are for Flower."""
        gathering = self.gathering
        gathering._totals["update"][:] = self.total
        active = list(self.members)[GONE:]
        trip = iter(self.replies[-1].items())
        asked = dict.fromkeys(self.replies[-1], b"")
        seeds, keys = gathering._opened(lambda requests: trip, asked, active, list(self.members)[:GONE])
        gathering._take_off(gathering._totals["update"], "update", self.ring, seeds, keys)
        assert not gathering._totals["update"].any()


def flower_unmask(values: int) -> Work:
    shares = create_shares(os.urandom(32), THRESHOLD, CLIENTS)[:THRESHOLD]
    agreed = [os.urandom(32) for _ in range(CLIENTS)]

    def work() -> None:
        total = [np.zeros(values, np.int64)]
        for place in range(CLIENTS):
            secret = combine_shares(shares)
            masks = [secret] if place >= GONE else agreed[GONE:]
            for seed in masks:
                total = parameters_subtraction(total, pseudo_rand_gen(seed, 2**32, [(values,)]))

    return work


def show(title: str, found: Mapping[str, float], base: str) -> None:
    print(title)
    for name, seconds in found.items():
        print(f"    {name:<8}{seconds * 1e3:11.2f} ms  {seconds / found[base]:8.2f} x")


def main() -> None:
    """Prints all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=10**6)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    found = measure(masking(arguments.values, 10), arguments.repeats)
    show(f"masking {arguments.values:,} 32-bit values for 10 neighbours", found, "floor")
    show(f"sharing a secret, {THRESHOLD} of {CLIENTS}", measure(sharing(), arguments.repeats), "ours")
    replay, small = Replay(arguments.values // 10), arguments.values // 10
    contenders: dict[str, Work] = {"ours": replay.unmask}
    if create_shares:
        contenders["flower"] = flower_unmask(small)
    title = f"server: {CLIENTS} clients, {GONE} of them gone, {small:,} values"
    show(title, measure(contenders, max(1, arguments.repeats // 2)), "ours")
    own, peer = AgreementKey.new(Entropy()), AgreementKey.new(Entropy())
    print(f"one agreement: {measure({'x': lambda: own.agree(peer.public)}, 20)['x'] * 1e6:.0f} microseconds")
    packed = len(pack(np.zeros(arguments.values, np.uint32), 20)) / arguments.values
    print(f"bytes a value on the wire, 20-bit ring: {packed:.2f}; Flower: 8.00")
    for cohort in (100, 10_000):
        made = design(cohort, dropout=0.1, corrupt=0.05)
        spent = sum(client_seconds(made, 10**5, 20).values())
        print(f"one client of {cohort:,}: k = {made.neighbours}, {spent * 1e3:.1f} ms for 100,000 values")


if __name__ == "__main__":
    main()
