"""The server's half of secure aggregation: it relays keys and shares, adds masked vectors, and takes the masks off.

It learns the sum over the clients whose vectors arrived, who they are, and nothing else. What it keeps is one vector
for each channel, and the shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from framp_private.crypto.agreement import AgreementKey
from framp_private.crypto.keys import PublicIdentity
from framp_private.crypto.prg import add_mask
from framp_private.crypto.ring import Ring, unpack
from framp_private.crypto.shamir import recover
from framp_private.errors import BelowThreshold, ProtocolError
from framp_private.protections.base import Exchange, Meeting, Session, Total
from framp_private.protections.secagg.graph import MerkleTree, connected, neighbourhood
from framp_private.protections.secagg.messages import (
    Confirmation,
    ConfirmRequest,
    Delivery,
    KeyEntry,
    KeysRequest,
    Opened,
    Shares,
    SharesRequest,
    SignedKeys,
    UnmaskRequest,
)
from framp_private.protections.secagg.state import Terms
from framp_private.protections.secagg.statements import (
    KEYS,
    commitment,
    pair_seed,
    round_context,
    self_seed,
    stated_keys,
)
from framp_private.wire import decode, encode


class Gathering:
    """One round of one cohort. Call `collect_keys`, `collect_shares`, `add` for each vector that arrives, then `open`.

    Args:
        roster: pinned keys by client. run, round_index: what the round belongs to.
    """

    def __init__(
        self,
        cohort: Sequence[str],
        terms: Terms,
        roster: Mapping[str, PublicIdentity],
        run: bytes,
        round_index: int,
    ) -> None:
        self._cohort, self._terms, self._roster = tuple(cohort), terms, roster
        self._round_index, self._context = round_index, round_context(run, round_index)
        self._entries: dict[str, KeyEntry] = {}
        self._keys: dict[str, SignedKeys] = {}
        self._tree = MerkleTree([b""])
        self._near: dict[str, tuple[str, ...]] = {}
        self._shares: dict[str, Shares] = {}
        self._totals: dict[str, np.ndarray] = {}
        self._arrived: dict[str, set[str]] = {}
        self.rings: dict[str, Ring] = {}
        self._result: tuple[dict[str, np.ndarray], tuple[str, ...]] | None = None

    def collect_keys(self, exchange: Exchange) -> None:
        """Trip `keys`. Raises `BelowThreshold` if too few answer, `ProtocolError` for keys that are not signed."""
        request = encode(KeysRequest(self._round_index, len(self._cohort)))
        for client, reply in exchange(dict.fromkeys(self._cohort, request)):
            keys = decode(reply, SignedKeys, max_bytes=1024)
            stated = stated_keys(self._context, client, keys.mask_key, keys.seal_key)
            if not self._roster[client].signed(KEYS, stated, keys.signature):
                raise ProtocolError(f"the keys of client {client!r} are not signed with its identity")
            self._keys[client] = keys
        present = [client for client in self._cohort if client in self._keys]
        self._enough(len(present), "sent keys")
        self._entries = {
            client: KeyEntry(client, index, encode(self._keys[client])) for index, client in enumerate(present)
        }
        self._tree = MerkleTree([encode(entry) for entry in self._entries.values()])
        for client, entry in self._entries.items():
            near = neighbourhood(self._tree.root, len(present), self._terms.neighbours, entry.index)
            self._near[client] = tuple(present[index] for index in near)

    def collect_shares(self, exchange: Exchange) -> None:
        """Trip `shares`. Raises `BelowThreshold`, or `ProtocolError` for shares to others than the neighbours."""
        for client, reply in exchange({client: self._shares_request(client) for client in self._entries}):
            shares = decode(reply, Shares)
            if set(shares.sealed) != set(self._near[client]) or len(shares.commitment) != 32:
                raise ProtocolError(f"client {client!r} shared with others than its neighbours")
            self._shares[client] = shares
        self._enough(len(self._shares), "sent shares")
        for client in self._shares:
            self._enough(1 + sum(other in self._shares for other in self._near[client]), f"near {client!r} sent shares")

    def delivery(self, client: str) -> bytes:
        """What comes to a client with the request for its values; empty for one that is out already."""
        if client not in self._shares:
            return b""
        senders = [other for other in self._near[client] if other in self._shares]
        return encode(Delivery({other: self._shares[other].sealed[client] for other in senders}))

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
        """Trips `confirm` and `unmask`: the sum of each channel as ring integers, and whose values are in it.

        Raises:
            BelowThreshold: too few survive, all in all or in a neighbourhood, or the survivors' graph falls apart.
            ProtocolError: what was opened does not fit what was promised.
        """
        active = [client for client in self._shares if all(client in self._arrived.get(c, set()) for c in rings)]
        if any(client not in active for arrived in self._arrived.values() for client in arrived):
            raise ProtocolError("a client sent a value on some channels and not on others")
        dropped = [client for client in self._shares if client not in active]
        self._enough(len(active), "sent values", self._terms.survivors)
        self._check_graph(active)
        confirmed = self._confirm(exchange, active, dropped)
        seeds, keys = self._opened(exchange, confirmed, active, dropped)
        for channel, ring in rings.items():
            self._take_off(self._totals[channel], channel, ring, seeds, keys)
        return {channel: self._totals[channel] for channel in rings}, tuple(active)

    def _shares_request(self, client: str) -> bytes:
        near, index = self._near[client], self._entries[client].index
        return encode(
            SharesRequest(
                self._tree.root,
                len(self._entries),
                index,
                self._tree.proof(index),
                {other: encode(self._entries[other]) for other in near},
                {other: self._tree.proof(self._entries[other].index) for other in near},
            )
        )

    def _confirm(self, exchange: Exchange, active: Sequence[str], dropped: Sequence[str]) -> dict[str, bytes]:
        request = encode(ConfirmRequest(self._bitmap(active), self._bitmap(dropped)))
        confirmed = {
            client: decode(reply, Confirmation, max_bytes=1024).signature
            for client, reply in exchange(dict.fromkeys(active, request))
        }
        self._enough(len(confirmed), "confirmed")
        return confirmed

    def _opened(
        self, exchange: Exchange, confirmed: Mapping[str, bytes], active: Sequence[str], dropped: Sequence[str]
    ) -> tuple[dict[str, bytes], dict[str, AgreementKey]]:
        requests = {
            client: encode(UnmaskRequest({o: confirmed[o] for o in (client, *self._near[client]) if o in confirmed}))
            for client in confirmed
        }
        seeds: dict[str, dict[int, bytes]] = {client: {} for client in active}
        keys: dict[str, dict[int, bytes]] = {client: {} for client in dropped}
        for client, reply in exchange(requests):
            opened, point = decode(reply, Opened), self._entries[client].index + 1
            allowed = {client, *self._near[client]}
            for shares, found in ((opened.seeds, seeds), (opened.keys, keys)):
                if not set(shares) <= allowed & set(found):
                    raise ProtocolError(f"client {client!r} opened what it was not asked for")
                for other, value in shares.items():
                    found[other][point] = value
        return (
            {client: self._seed(client, shares) for client, shares in seeds.items()},
            {client: self._key(client, shares) for client, shares in keys.items()},
        )

    def _seed(self, client: str, shares: Mapping[int, bytes]) -> bytes:
        self._enough(len(shares), f"near {client!r} opened")
        seed = recover(shares, self._terms.threshold)
        if commitment(seed) != self._shares[client].commitment:
            raise ProtocolError(f"what was opened for client {client!r} does not fit its commitment: nothing is opened")
        return seed

    def _key(self, client: str, shares: Mapping[int, bytes]) -> AgreementKey:
        self._enough(len(shares), f"near {client!r} opened")
        key = AgreementKey(recover(shares, self._terms.threshold))
        if key.public != self._keys[client].mask_key:
            raise ProtocolError(f"what was opened for client {client!r} does not fit its key: nothing is opened")
        return key

    def _take_off(
        self,
        total: np.ndarray,
        channel: str,
        ring: Ring,
        seeds: Mapping[str, bytes],
        keys: Mapping[str, AgreementKey],
    ) -> None:
        for seed in seeds.values():
            add_mask(total, self_seed(seed, self._context, channel), -1)
        for gone, key in keys.items():
            for other in self._near[gone]:
                if other in seeds:
                    agreed = key.agree(self._keys[other].mask_key)
                    # what `other` added is taken off: it adds for a neighbour with a larger index
                    sign = -1 if self._entries[other].index < self._entries[gone].index else 1
                    add_mask(total, pair_seed(agreed, self._context, channel), sign)
        total &= total.dtype.type(ring.mask)

    def _check_graph(self, active: Sequence[str]) -> None:
        staying = set(active)
        for client in active:
            self._enough(1 + sum(other in staying for other in self._near[client]), f"near {client!r} sent values")
        indices = [self._entries[client].index for client in active]
        if not connected(self._tree.root, len(self._entries), self._terms.neighbours, indices):
            raise BelowThreshold("the survivors' graph falls apart: a sum of each part would be opened by itself")

    def _enough(self, count: int, what: str, least: int = 0) -> None:
        least = max(least, self._terms.threshold)
        if count < least:
            raise BelowThreshold(f"{count} clients {what}, {least} are needed: nothing is opened; repeat the round")

    def _bitmap(self, clients: Iterable[str]) -> bytes:
        flags = np.zeros(len(self._entries), bool)
        for client in clients:
            flags[self._entries[client].index] = True
        return np.packbits(flags, bitorder="little").tobytes()


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
