"""Servers that do not follow the protocol of secure sums and encrypted sums.

phantom survivors      one client less than a sum needs sends a value; the server counts members among the survivors
                       who never sent anything
chosen neighbourhood   a victim is told that keys came of the server's own clients alone (Bell et al. 2020, section 4)
split models           groups are asked with models of their own, and sums are opened over each (Pasquini, Francati and
                       Ateniese 2022, arXiv 2111.07380)
replaced context       an encrypted sum's key is replaced by one that the server can decrypt
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from framp_private import Entropy, encode
from framp_private.crypto.agreement import AgreementKey
from framp_private.crypto.homomorphic import new_keys
from framp_private.crypto.keys import Identity
from framp_private.crypto.ring import Ring, unpack
from framp_private.errors import FrampError
from framp_private.protections import SecAgg
from framp_private.protections.base import Member, Pin, Seat
from framp_private.protections.homomorphic import EncryptedSum
from framp_private.protections.homomorphic.messages import Context, ContextOffer, Encrypt
from framp_private.protections.secagg.graph import MerkleTree, bitmap
from framp_private.protections.secagg.messages import CohortRequest, Delivery, KeysRequest, SharesRequest, SignedKeys
from framp_private.protections.secagg.server import Gathering
from framp_private.protections.secagg.statements import KEYS, round_context, stated_keys
from framp_private.wire import decode
from threat_models.auditing.replay import Finding
from threat_models.protocol.cohort import CHANNEL, MODEL, Cohort


class _Greedy(Gathering):
    """Opens whatever it can: no count is too small for it, and it names survivors as it likes.

    phantoms: members whom it says to have shared, though they sent nothing.
    """

    phantoms: Sequence[str] = ()

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._vectors: dict[str, np.ndarray] = {}

    def add(self, client: str, channel: str, payload: bytes, size: int, ring: Ring) -> None:
        """Keeps every vector by itself."""
        super().add(client, channel, payload, size, ring)
        self._vectors[client] = unpack(payload, size, ring.bits).astype(ring.dtype)

    def delivery(self, client: str) -> bytes:
        """With the phantoms among those who shared."""
        made = super().delivery(client)
        if not made or not self.phantoms:
            return made
        return encode(replace(decode(made, Delivery), shared=self._bitmap([*self._shares, *self.phantoms])))

    def _enough(self, count: int, what: str, least: int = 0) -> None:
        """Never too few."""

    def grab(self, exchange: Any, active: Sequence[str], ring: Ring) -> np.ndarray | None:
        """The sum over those whose values came, with some called active and all others dropped; None if it fails."""
        out = [name for name in self._shares if name not in set(active)]
        try:
            confirmed = self._confirm(exchange, [*active, *self.phantoms], out)
            requests = self._unmask_requests(exchange, confirmed)
            seeds, keys = self._opened(exchange, requests, active, out)
            total = np.asarray(np.sum([self._vectors[name] for name in active], axis=0, dtype=ring.dtype))
            self._take_off(total, CHANNEL, ring, seeds, keys)
        except (FrampError, KeyError):
            return None
        return ring.centred(total)


def _greedy(cohort: Cohort, *, phantoms: Sequence[str] = ()) -> _Greedy:
    server = _Greedy(list(cohort.names), cohort.terms, cohort.roster, cohort.run, 0, MODEL)
    server.phantoms = phantoms
    server.collect_keys(cohort.exchange)
    server.collect_shares(cohort.exchange)
    return server


def phantom_survivors(protection: SecAgg, n: int, *, seed: int) -> list[Finding]:
    """A finding if a sum opens over fewer clients than the protection says."""
    terms, least = protection.terms(n), protection.least_survivors(n)
    names = np.random.default_rng(seed).permutation([f"member-{place:04d}" for place in range(n)]).tolist()
    present = max(terms.present, least)  # so many keys must come, or nobody goes on
    sending, phantoms = sorted(names[: least - 1]), names[present:]
    if not phantoms:
        return []
    cohort = Cohort(
        protection,
        n,
        seed=seed,
        no_keys=frozenset(phantoms),
        no_shares=frozenset(names[least - 1 : present]),
    )
    server = _greedy(cohort, phantoms=phantoms)
    cohort.send_values(server)
    opened = server.grab(cohort.exchange, sending, cohort.ring)
    if opened is None or (opened != cohort.plain(tuple(sending))).any():
        return []
    words = f"a sum over {least - 1} of {n} clients was opened, {least} are needed: others were only said to be there"
    return [Finding("phantom survivors", CHANNEL, words)]


def chosen_neighbourhood(protection: SecAgg, n: int, *, seed: int) -> list[Finding]:
    """A finding if a client shares its secrets with nobody but clients that the server controls."""
    rng = np.random.default_rng(seed)
    cohort = Cohort(protection, n, seed=seed)
    victim = int(rng.integers(n))
    others = [place for place in rng.permutation(n).tolist() if place != victim]
    bad = sorted(others[: max(2, cohort.terms.threshold - 1)])
    name = cohort.names[victim]
    reply = cohort.ask(name, encode(KeysRequest(0, n)))
    if reply is None:
        return []
    keys = {victim: decode(reply, SignedKeys), **{place: _keys_of(cohort, place) for place in bad}}
    tree = MerkleTree([keys[place].packed if place in keys else b"" for place in range(n)])
    present = bitmap(list(keys), n)
    if not cohort.terms.complete and cohort.ask(name, encode(CohortRequest(tree.root, present))) is None:
        return []
    entries = {place: keys[place].packed for place in bad}
    own, proofs = b"", dict[int, bytes]()
    if not cohort.terms.complete:
        own, proofs = tree.proof(victim), {place: tree.proof(place) for place in bad}
    if cohort.ask(name, encode(SharesRequest(tree.root, present, own, entries, proofs))) is None:
        return []
    words = f"a client of {n} shared its secrets with {len(bad)} clients that the server had chosen, and nobody else"
    return [Finding("chosen neighbourhood", CHANNEL, words)]


def _keys_of(cohort: Cohort, place: int) -> SignedKeys:
    """Keys of a client that works with the server, properly signed."""
    name, entropy = cohort.names[place], Entropy()
    mask, seal = AgreementKey.new(entropy).public, AgreementKey.new(entropy).public
    stated = stated_keys(round_context(cohort.run, 0), name, mask, seal)
    return SignedKeys(mask, seal, cohort.identities[name].sign(KEYS, stated))


def split_models(protection: SecAgg, n: int, *, seed: int) -> list[Finding]:
    """A finding if a sum opens over clients that saw different models, or two sums of one round do."""
    rng = np.random.default_rng(seed)
    parts = int(rng.integers(2, max(3, min(n // 2, 20))))
    names = [f"member-{place:04d}" for place in range(n)]
    groups = [sorted(group.tolist()) for group in np.array_split(rng.permutation(names), parts)]
    model = {name: b"crafted %d" % at for at, group in enumerate(groups) for name in group}
    mixed = Cohort(protection, n, seed=seed, asked=lambda client: model[client])
    server = _greedy(mixed)
    mixed.send_values(server)
    opened = server.grab(mixed.exchange, list(mixed.names), mixed.ring)
    if opened is not None and (opened == mixed.plain(mixed.names)).all():
        return [Finding("split models", CHANNEL, f"one sum was opened over clients that were shown {parts} models")]
    alike = Cohort(protection, n, seed=seed + 1)
    server = _greedy(alike)
    alike.send_values(server)
    for group in groups:
        opened = server.grab(alike.exchange, group, alike.ring)
        if opened is not None and 2 * len(group) <= n and (opened == alike.plain(tuple(group))).all():
            words = f"a sum was opened over {len(group)} of {n} clients, beside those of others"
            return [Finding("split models", CHANNEL, words)]
    return []


def replaced_context(protection: EncryptedSum, n: int, *, seed: int) -> list[Finding]:
    """A finding if a client encrypts under a key that is not the pinned one, however the server brings it."""
    del seed
    entropy, parameters = Entropy(), protection.parameters(n)
    pinned, own = new_keys(parameters).public, new_keys(parameters).public
    identity = Identity.new(entropy)
    roster = {"member": identity.public}
    member = Member("member", identity, roster, b"r" * 32, entropy, Pin(hashlib.sha256(pinned).digest()))
    ours, theirs = hashlib.sha256(own).digest(), hashlib.sha256(pinned).digest()
    ways: Mapping[str, Sequence[object]] = {
        "offered": (ContextOffer(ours), Context(own), Encrypt(ours)),
        "brought in its place": (ContextOffer(theirs), Context(own), Encrypt(theirs)),
        "changed for the value": (ContextOffer(theirs), Context(pinned), Encrypt(ours)),
    }
    for way, messages in ways.items():
        held = b""
        try:
            for message in messages[:-1]:
                _, held = protection.answer(encode(message), held, member, n, 0, True)
            held = protection.receive(encode(messages[-1]), MODEL, held, member, n, 0)
            seat = Seat("prototypes", n, held, MODEL, 0, member)
            replace(protection, beyond="clip").protect(np.zeros(4), entropy, seat)
        except FrampError:
            continue
        words = f"a client encrypts under a key of the server's own, {way}"
        return [Finding("replaced context", "prototypes", words)]
    return []
