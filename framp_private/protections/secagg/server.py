"""The server's half of secure aggregation: it relays keys and shares, adds masked vectors, and takes the masks off.

It learns the sum over the clients whose vectors arrived, who they are, and nothing else. What it keeps is one vector
for each channel, and the shares. A client whose message cannot be used is out of the round like one that sent none, and
wrong shares among enough right ones are decoded away, so that one bad client costs nobody else anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from framp_private.crypto.agreement import AgreementKey
from framp_private.crypto.keys import PublicIdentity
from framp_private.crypto.prg import add_mask
from framp_private.crypto.ring import Ring, unpack
from framp_private.crypto.shamir import recover_checked
from framp_private.errors import BelowThreshold, CryptoError, ProtocolError, WireError
from framp_private.protections.base import Exchange, Lazy, Meeting, Session, Total
from framp_private.protections.secagg.graph import MerkleTree, bitmap
from framp_private.protections.secagg.messages import (
    CohortRequest,
    Confirmation,
    ConfirmRequest,
    Delivery,
    KeysRequest,
    Neighbours,
    Opened,
    Sample,
    SampleRequest,
    Shares,
    SharesRequest,
    SignedKeys,
    UnmaskRequest,
)
from framp_private.protections.secagg.state import Terms
from framp_private.protections.secagg.statements import (
    CONFIRM,
    KEYS,
    anchor,
    bits,
    commitment,
    pair_seed,
    round_context,
    self_seed,
    stated_keys,
    stated_sets,
)
from framp_private.wire import decode, encode

Kind = TypeVar("Kind")


class Gathering:
    """One round of one cohort. Call `collect_keys`, `collect_shares`, `add` for each vector that arrives, then `open`.

    Args:
        roster: pinned keys by client. run, round_index: what the round belongs to. asked: the request for values, the
            same for all.
    """

    def __init__(
        self,
        cohort: Sequence[str],
        terms: Terms,
        roster: Mapping[str, PublicIdentity],
        run: bytes,
        round_index: int,
        asked: bytes = b"",
    ) -> None:
        self._cohort, self._terms, self._roster = tuple(cohort), terms, roster
        self._places = {client: place for place, client in enumerate(self._cohort)}
        self._round_index, self._context = round_index, round_context(run, round_index)
        self._asked = hashlib.sha256(asked).digest()
        self._keys: dict[str, SignedKeys] = {}
        self._leaves: dict[str, bytes] = {}
        self._tree = MerkleTree([b""])
        self._present = b""
        self._drawn: dict[str, frozenset[str]] = {}
        self._drawn_by: dict[str, set[str]] = {}
        self._shares: dict[str, Shares] = {}
        self._totals: dict[str, np.ndarray] = {}
        self._arrived: dict[str, set[str]] = {}
        self.rings: dict[str, Ring] = {}
        self._result: tuple[dict[str, np.ndarray], tuple[str, ...]] | None = None

    @property
    def anchored(self) -> bytes:
        """What masks and confirmations of this round stand on."""
        return anchor(self._context, self._tree.root, self._present, self._asked)

    def peers(self, client: str) -> frozenset[str]:
        """All neighbours of a client: those it drew and those that drew it."""
        return self._drawn[client] | self._drawn_by[client]

    def collect_keys(self, exchange: Exchange) -> None:
        """Trip `keys`, and on a sparse graph `neighbours`. Raises `BelowThreshold` if too few answer."""
        request = encode(KeysRequest(self._round_index, len(self._cohort)))
        for client, reply in exchange(dict.fromkeys(self._cohort, request)):
            keys = _read(reply, SignedKeys, 1024)
            if keys is not None and self._owned(client, keys):
                self._keys[client] = keys
        self._enough(len(self._keys), "sent keys", self._terms.present)
        self._leaves = {client: keys.packed for client, keys in self._keys.items()}
        self._tree = MerkleTree([self._leaves.get(client, b"") for client in self._cohort])
        self._present = self._bitmap(self._keys)
        if self._terms.complete:
            everybody = frozenset(self._keys)
            self._drawn = {client: everybody - {client} for client in self._keys}
        else:
            self._collect_neighbours(exchange)
        self._drawn_by = {client: set() for client in self._keys}
        for client, near in self._drawn.items():
            for other in near:
                self._drawn_by[other].add(client)

    def _collect_neighbours(self, exchange: Exchange) -> None:
        request = encode(CohortRequest(self._tree.root, self._present))
        for client, reply in exchange(dict.fromkeys(self._keys, request)):
            drawn = self._named(_read(reply, Neighbours), lambda found: found.drawn)
            fits = client in self._keys and len(drawn) == self._terms.neighbours and client not in drawn
            if fits and drawn <= self._keys.keys():
                self._drawn[client] = frozenset(drawn)
        self._drawn |= {client: frozenset() for client in self._keys if client not in self._drawn}

    def collect_shares(self, exchange: Exchange) -> None:
        """Trip `shares`. Raises `BelowThreshold` if too few send them, all in all or in a neighbourhood."""
        asked = [client for client in self._keys if self._drawn[client]]
        for client, reply in exchange(Lazy(asked, self._shares_request)):
            shares = _read(reply, Shares)
            wanted = {self._places[other] for other in self._drawn.get(client, ())}
            if shares is not None and set(shares.sealed) == wanted and len(shares.commitment) == 32:
                self._shares[client] = shares
        self._enough(len(self._shares), "sent shares", self._terms.survivors)
        self._check_neighbourhoods(self._shares, "sent shares")

    def delivery(self, client: str) -> bytes:
        """What comes to a client with the request for its values; empty for one that is out already."""
        if client not in self._shares:
            return b""
        place = self._places[client]
        senders = [other for other in self._drawn_by[client] if other in self._shares]
        sealed = {self._places[other]: self._shares[other].sealed[place] for other in senders}
        return encode(Delivery(sealed, self._bitmap(self._shares)))

    def add(self, client: str, channel: str, payload: bytes, size: int, ring: Ring) -> None:
        """Adds one client's masked vector of `size` values.

        Raises:
            ProtocolError: the client is not awaited. CryptoError: not so many values.
        """
        arrived = self._arrived.setdefault(channel, set())
        if client not in self._shares or client in arrived:
            raise ProtocolError(f"client {client!r} is not awaited in this round: it is no member or sent twice")
        value = unpack(payload, size, ring.bits)
        total = self._totals.setdefault(channel, np.zeros(size, ring.dtype))
        total += value
        arrived.add(client)

    def result(self, exchange: Exchange) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """What `open` gives for all channels in `rings`, opened once."""
        if self._result is None:
            self._result = self.open(exchange, self.rings)
        return self._result

    def open(self, exchange: Exchange, rings: Mapping[str, Ring]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Trips `confirm`, on a sparse graph `sample`, and `unmask`: each channel's sum as ring integers, over whom.

        Raises:
            BelowThreshold: too few survive, all in all or in a neighbourhood, or their shares are not enough.
            ProtocolError: a client sent a value on one channel and not on another.
        """
        active = [client for client in self._shares if all(client in self._arrived.get(c, set()) for c in rings)]
        if any(client not in set(active) for arrived in self._arrived.values() for client in arrived):
            raise ProtocolError("a client sent a value on some channels and not on others")
        staying = set(active)
        dropped = [client for client in self._shares if client not in staying]
        self._enough(len(active), "sent values", self._terms.survivors)
        self._check_neighbourhoods(active, "sent values")
        confirmed = self._confirm(exchange, active, dropped)
        seeds, keys = self._opened(exchange, self._unmask_requests(exchange, confirmed), active, dropped)
        for channel, ring in rings.items():
            self._take_off(self._totals[channel], channel, ring, seeds, keys)
        return {channel: self._totals[channel] for channel in rings}, tuple(
            client for client in self._cohort if client in staying
        )

    def _owned(self, client: str, keys: SignedKeys) -> bool:
        """Whether a member's keys are signed with its identity, and are none that fail with everybody."""
        known = self._roster.get(client)
        stated = stated_keys(self._context, client, keys.mask_key, keys.seal_key)
        if known is None or client not in self._places or not known.signed(KEYS, stated, keys.signature):
            return False
        probe = AgreementKey(bytes([1]) * 32)
        try:
            probe.agree(keys.mask_key), probe.agree(keys.seal_key)  # low order fails here
        except CryptoError:
            return False
        return True

    def _shares_request(self, client: str) -> bytes:
        near = {self._places[other]: other for other in self.peers(client)}
        own, proofs = b"", dict[int, bytes]()
        if not self._terms.complete:
            own, proofs = self._tree.proof(self._places[client]), {place: self._tree.proof(place) for place in near}
        entries = {place: self._leaves[other] for place, other in near.items()}
        return encode(SharesRequest(self._tree.root, self._present, own, entries, proofs))

    def _confirm(self, exchange: Exchange, active: Sequence[str], dropped: Sequence[str]) -> dict[str, bytes]:
        sets = self._bitmap(active), self._bitmap(dropped)
        statement, confirmed, staying = stated_sets(self.anchored, *sets), {}, set(active)
        for client, reply in exchange(dict.fromkeys(active, encode(ConfirmRequest(*sets)))):
            found = _read(reply, Confirmation, 1024)
            signed = found is not None and self._roster[client].signed(CONFIRM, statement, found.signature)
            if found is not None and signed and client in staying:
                confirmed[client] = found.signature
        self._enough(len(confirmed), "confirmed", self._terms.survivors)
        return confirmed

    def _unmask_requests(self, exchange: Exchange, confirmed: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """What each client that confirmed is shown: all signatures, or its neighbours' and those that it drew."""
        signatures = {self._places[client]: signature for client, signature in confirmed.items()}
        if self._terms.complete:
            return dict.fromkeys(confirmed, encode(UnmaskRequest(signatures, {})))
        tree = MerkleTree([confirmed.get(client, b"") for client in self._cohort])
        drawn = {
            client: self._named(_read(reply, Sample), lambda sample: sample.drawn)
            for client, reply in exchange(dict.fromkeys(confirmed, encode(SampleRequest(tree.root))))
            if client in confirmed
        }

        def made(client: str) -> bytes:
            shown = (drawn[client] | self._drawn[client] | {client}) & confirmed.keys()
            proofs = {self._places[other]: tree.proof(self._places[other]) for other in drawn[client]}
            return encode(UnmaskRequest({self._places[other]: confirmed[other] for other in shown}, proofs))

        return Lazy(drawn, made)

    def _opened(
        self, exchange: Exchange, requests: Mapping[str, bytes], active: Sequence[str], dropped: Sequence[str]
    ) -> tuple[dict[str, bytes], dict[str, AgreementKey]]:
        seeds: dict[str, dict[int, bytes]] = {client: {} for client in active}
        keys: dict[str, dict[int, bytes]] = {client: {} for client in dropped}
        for client, reply in exchange(requests):
            opened = _read(reply, Opened)
            if opened is None or client not in requests:
                continue
            point, allowed = self._places[client] + 1, {client, *self._drawn_by[client]}
            for shares, found in ((opened.seeds, seeds), (opened.keys, keys)):
                for other in allowed & set(found):
                    if self._places[other] in shares:
                        found[other][point] = shares[self._places[other]]
        return (
            {client: self._seed(client, shares) for client, shares in seeds.items()},
            {client: self._key(client, shares) for client, shares in keys.items() if self._explains(client, seeds)},
        )

    def _explains(self, client: str, seeds: Collection[str]) -> bool:
        """Whether a dropped client's key is needed: it left masks in the sum with those of its neighbours who stay."""
        return bool(self.peers(client) & set(seeds))

    def _seed(self, client: str, shares: Mapping[int, bytes]) -> bytes:
        known = self._shares[client].commitment
        return self._recovered(shares, lambda seed: commitment(seed) == known)

    def _key(self, client: str, shares: Mapping[int, bytes]) -> AgreementKey:
        known = self._keys[client].mask_key
        return AgreementKey(self._recovered(shares, lambda secret: AgreementKey(secret).public == known))

    def _recovered(self, shares: Mapping[int, bytes], fits: Callable[[bytes], bool]) -> bytes:
        """A secret that fits what was promised, in spite of some wrong shares. Names nobody: who lied is not known."""
        self._enough(len(shares), "near a client opened")
        found = recover_checked(shares, self._terms.threshold, fits)
        if found is None:
            raise BelowThreshold("what was opened does not fit what was promised: nothing is opened; repeat the round")
        return found

    def _take_off(
        self,
        total: np.ndarray,
        channel: str,
        ring: Ring,
        seeds: Mapping[str, bytes],
        keys: Mapping[str, AgreementKey],
    ) -> None:
        anchored = self.anchored
        for seed in seeds.values():
            add_mask(total, self_seed(seed, anchored, channel), -1)
        for gone, key in keys.items():
            for other in self.peers(gone) & seeds.keys():
                agreed = key.agree(self._keys[other].mask_key)
                # what `other` added is taken off: it adds for a neighbour at a later place
                sign = -1 if self._places[other] < self._places[gone] else 1
                add_mask(total, pair_seed(agreed, anchored, channel), sign)
        total &= total.dtype.type(ring.mask)

    def _check_neighbourhoods(self, staying: Collection[str], what: str) -> None:
        there = set(staying)
        for client in staying:
            self._enough(1 + len(self._drawn[client] & there), f"near {client!r} {what}")

    def _enough(self, count: int, what: str, least: int = 0) -> None:
        least = max(least, self._terms.threshold)
        if count < least:
            raise BelowThreshold(f"{count} clients {what}, {least} are needed: nothing is opened; repeat the round")

    def _bitmap(self, clients: Iterable[str]) -> bytes:
        return bitmap([self._places[client] for client in clients], len(self._cohort))

    def _named(self, message: Any, packed: Callable[[Any], bytes]) -> set[str]:
        """The clients that a reply's bitmap names; nobody if it cannot be read."""
        try:
            flags = bits(packed(message), len(self._cohort)) if message is not None else np.zeros(0, bool)
        except ProtocolError:
            return set()
        return {self._cohort[place] for place in np.flatnonzero(flags)}


def _read(reply: bytes, kind: type[Kind], max_bytes: int = 1 << 31) -> Kind | None:
    """A client's message, None for what is none: that client is out."""
    try:
        return decode(reply, kind, max_bytes=max_bytes)
    except WireError:
        return None


class MaskedSum(Session):
    """One channel of a gathering: its slice of what all channels of one protocol open together."""

    def __init__(self, gathering: Gathering, meeting: Meeting, size: int, ring: Ring) -> None:
        self._gathering, self._meeting, self._size, self._ring = gathering, meeting, size, ring
        gathering.rings[meeting.channel] = ring

    def brief(self, client: str) -> bytes | None:
        """The shares that neighbours sealed for a client."""
        return self._gathering.delivery(client) or None

    def add(self, client: str, payload: bytes) -> None:
        """Adds a masked vector."""
        self._gathering.add(client, self._meeting.channel, payload, self._size, self._ring)

    def close(self, exchange: Exchange) -> Total:
        """The sum of this channel; the first one to close opens all."""
        del exchange
        totals, survivors = self._gathering.result(self._meeting.exchange)
        return Total(self._ring.decode(totals[self._meeting.channel]), len(survivors))
