"""The client's half of secure aggregation: what it answers at each stage, and what it refuses.

Each stage is a function of a message, the state that the stage before left, and the client's keys. A stage is taken
once: a client that has shared does not share again, and one that has opened opens nothing more. The server is not
trusted with anything here: it chooses which messages arrive, and the worst that it achieves is that the round fails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from framp_private.crypto.agreement import AgreementKey, derive
from framp_private.crypto.keys import Identity, PublicIdentity
from framp_private.crypto.prg import add_mask
from framp_private.crypto.ring import Ring, pack
from framp_private.crypto.sealed import seal, unseal
from framp_private.crypto.shamir import draw_secret, share
from framp_private.errors import CryptoError, ProtocolError, WireError
from framp_private.protections.secagg.graph import neighbourhood, proven
from framp_private.protections.secagg.messages import (
    Confirmation,
    ConfirmRequest,
    Delivery,
    KeyEntry,
    KeysRequest,
    Opened,
    SharePair,
    Shares,
    SharesRequest,
    SignedKeys,
    UnmaskRequest,
)
from framp_private.randomness import Entropy
from framp_private.wire import decode, encode

Stage = KeysRequest | SharesRequest | ConfirmRequest | UnmaskRequest
KEYS, CONFIRM = "secagg keys", "secagg confirmation"


@dataclass(frozen=True)
class Terms:
    """What all agreed on before: public, and the same at every client and at the server.

    neighbours: k, even, or one less than the cohort. threshold: shares that open, of k + 1. minimum: planned cohort.
    """

    neighbours: int
    threshold: int
    minimum: int


@dataclass(frozen=True, eq=False)
class Member:
    """One client in one run. run: 32 bytes that name it. roster: everybody's pinned key."""

    name: str
    identity: Identity
    roster: Mapping[str, PublicIdentity]
    run: bytes
    entropy: Entropy


@dataclass(frozen=True, eq=False)
class State:
    """What a client holds during one round; it is forgotten with it and never stored.

    stage: the last one taken. context: run and round. mask_key, seal_key: this round's. root, index, count: of the
    tree. peers: neighbours' keys and indices. seed: masks this client's vector. held: shares by sender, its own among
    them. asked: hash of the request for values. active, dropped: bitmaps that were confirmed.
    """

    stage: str
    context: bytes
    mask_key: AgreementKey
    seal_key: AgreementKey
    root: bytes = b""
    index: int = -1
    count: int = 0
    peers: Mapping[str, KeyEntry] = field(default_factory=dict)
    seed: bytes = b""
    held: Mapping[str, SharePair] = field(default_factory=dict)
    asked: bytes = b""
    active: bytes = b""
    dropped: bytes = b""


def answer(message: bytes, state: State | None, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Any stage but `masked`, which the request for values is part of.

    Raises:
        WireError: the bytes are no such message. ProtocolError, CryptoError: see the stages.
    """
    request = cast(Stage, decode(message, KeysRequest, SharesRequest, ConfirmRequest, UnmaskRequest))
    if isinstance(request, KeysRequest):
        return begin(request, member, terms)
    if state is None:
        raise ProtocolError("a round of secure aggregation begins with keys")
    if isinstance(request, SharesRequest):
        return share_secrets(request, state, member, terms)
    if isinstance(request, ConfirmRequest):
        return confirm(request, state, member, terms)
    return unmask(request, state, member, terms)


def begin(request: KeysRequest, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `keys`: fresh keys for this round, signed. Raises `ProtocolError` for a cohort that is too small."""
    if request.planned < max(terms.minimum, terms.threshold):
        raise ProtocolError(
            f"a cohort of {request.planned} was planned, and this client takes part from {terms.minimum} on"
        )
    if request.round_index < 0:
        raise ProtocolError(f"round={request.round_index} must be at least 0")
    context = round_context(member.run, request.round_index)
    mask_key, seal_key = AgreementKey(draw_secret(member.entropy)), AgreementKey.new(member.entropy)
    signature = member.identity.sign(KEYS, stated_keys(context, member.name, mask_key.public, seal_key.public))
    keys = SignedKeys(mask_key.public, seal_key.public, signature)
    return encode(keys), State("keys", context, mask_key, seal_key)


def share_secrets(request: SharesRequest, state: State, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `shares`: checks whose keys came, and seals a pair of shares for every neighbour.

    Raises:
        ProtocolError: keys not signed by a rostered client, other neighbours than the graph gives, or too few.
        CryptoError: a key of low order.
    """
    _taken(state, "keys")
    peers = _checked_peers(request, state, member, terms)
    seed = draw_secret(member.entropy)
    points = [peers[name].index + 1 for name in peers] + [request.index + 1]
    seeds = share(seed, terms.threshold, points, member.entropy)
    keys = share(state.mask_key.secret, terms.threshold, points, member.entropy)
    sealed = {}
    for name, entry in peers.items():
        pair = encode(SharePair(seeds[entry.index + 1], keys[entry.index + 1]))
        key = _sealing_key(state, entry, member.name, name)
        sealed[name] = seal(key, pair, request.root, member.entropy)
    own = SharePair(seeds[request.index + 1], keys[request.index + 1])
    moved = replace(
        state,
        stage="shares",
        root=request.root,
        index=request.index,
        count=request.count,
        peers=peers,
        seed=seed,
        held={member.name: own},
    )
    return encode(Shares(sealed, commitment(seed))), moved


def receive(delivery: Delivery, asked: bytes, state: State, member: Member, terms: Terms) -> State:
    """Stage `masked`, first part: opens the shares that neighbours sealed for this client.

    Args:
        asked: the request for values, which all clients must have seen alike.

    Raises:
        ProtocolError: shares from others than neighbours, or too few. CryptoError: one that does not open.
    """
    _taken(state, "shares")
    if not set(delivery.sealed) <= set(state.peers):
        raise ProtocolError("shares came from clients that are no neighbours: the round is not used")
    if len(delivery.sealed) + 1 < terms.threshold:
        raise ProtocolError(
            f"{len(delivery.sealed)} neighbours shared, fewer than the threshold: the round is not used"
        )
    held = dict(state.held)
    for name, sealed in delivery.sealed.items():
        key = _sealing_key(state, state.peers[name], name, member.name)
        try:
            held[name] = decode(unseal(key, sealed, state.root), SharePair, max_bytes=256)
        except WireError as error:
            raise CryptoError("a sealed message did not open") from error
    return replace(state, stage="masked", held=held, asked=hashlib.sha256(asked).digest())


def masked(values: np.ndarray, channel: str, ring: Ring, state: State) -> bytes:
    """Stage `masked`, second part: the quantised values of one channel under this client's masks, packed.

    Raises:
        ProtocolError: a value that is not finite or beyond the ring's bound.
    """
    _taken(state, "masked")
    total = ring.encode(values)
    add_mask(total, self_seed(state.seed, state.context, channel))
    for name in state.held:
        entry = state.peers.get(name)
        if entry is not None:
            agreed = state.mask_key.agree(_keys(entry).mask_key)
            sign = 1 if state.index < entry.index else -1
            add_mask(total, pair_seed(agreed, state.context, channel), sign)
    total &= total.dtype.type(ring.mask)
    return pack(total, ring.bits)


def confirm(request: ConfirmRequest, state: State, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `confirm`: signs who is in the sum and who is out, once, if both fit what this client saw.

    Raises:
        ProtocolError: a set that this client must not sign.
    """
    _taken(state, "masked")
    active, dropped = bits(request.active, state.count), bits(request.dropped, state.count)
    near = {state.index, *(state.peers[name].index for name in state.held if name != member.name)}
    if (active & dropped).any() or not active[state.index]:
        raise ProtocolError("the sets of active and dropped clients overlap, or leave this client out")
    if not all(active[index] or dropped[index] for index in near):
        raise ProtocolError("a neighbour that shared is neither active nor dropped")
    if sum(bool(active[index]) for index in near) < terms.threshold:
        raise ProtocolError("too few clients are active for this client to go on")
    signature = member.identity.sign(CONFIRM, stated_sets(state, request.active, request.dropped))
    return encode(Confirmation(signature)), replace(
        state, stage="confirm", active=request.active, dropped=request.dropped
    )


def unmask(request: UnmaskRequest, state: State, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `unmask`: with signatures of its neighbourhood on the very same sets, one share for each neighbour.

    Raises:
        ProtocolError: fewer valid signatures than the threshold.
    """
    _taken(state, "confirm")
    message = stated_sets(state, state.active, state.dropped)
    near = {member.name, *(name for name in state.held if name != member.name)}
    valid = sum(
        name in near and member.roster[name].signed(CONFIRM, message, signature)
        for name, signature in request.signatures.items()
    )
    if valid < terms.threshold:
        raise ProtocolError("too few neighbours confirmed the same sets: nothing is opened")
    active = bits(state.active, state.count)
    index_of = {name: state.index if name == member.name else state.peers[name].index for name in near}
    seeds = {name: state.held[name].seed for name in near if active[index_of[name]]}
    keys = {name: state.held[name].key for name in near if not active[index_of[name]]}
    done = State("unmask", state.context, state.mask_key, state.seal_key)
    return encode(Opened(seeds, keys)), done


def round_context(run: bytes, round_index: int) -> bytes:
    """What ties every key and signature to one round of one run."""
    return hashlib.sha256(b"secagg round" + len(run).to_bytes(4, "big") + run + round_index.to_bytes(8, "big")).digest()


def stated_keys(context: bytes, name: str, mask_key: bytes, seal_key: bytes) -> bytes:
    """What a client signs with its keys."""
    return context + mask_key + seal_key + name.encode()


def stated_sets(state: State, active: bytes, dropped: bytes) -> bytes:
    """What a client signs before it opens anything: round, all keys, what was asked, and who is in and out."""
    sizes = len(active).to_bytes(4, "big") + len(dropped).to_bytes(4, "big")
    return state.context + state.root + state.asked + sizes + active + dropped


def commitment(seed: bytes) -> bytes:
    """Hides a seed of 32 random bytes, and fits no other."""
    return hashlib.sha256(b"secagg seed" + seed).digest()


def self_seed(seed: bytes, context: bytes, channel: str) -> bytes:
    """Of the mask that is removed by opening a surviving client's seed."""
    return derive(seed, "secagg self mask", context, channel.encode())


def pair_seed(agreed: bytes, context: bytes, channel: str) -> bytes:
    """Of the mask that two neighbours add and subtract."""
    return derive(agreed, "secagg pair mask", context, channel.encode())


def bits(packed: bytes, count: int) -> np.ndarray:
    """(count,) bool of a bitmap. Raises `ProtocolError` for another length, or bits behind the last."""
    if len(packed) != -(-count // 8):
        raise ProtocolError("a bitmap has another length than the cohort")
    found = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").astype(bool)
    if found[count:].any():
        raise ProtocolError("a bitmap names clients that are not there")
    return found[:count]


def _taken(state: State, stage: str) -> None:
    if state.stage != stage:
        raise ProtocolError(f"a message for the stage after {stage!r} came after {state.stage!r}: each is taken once")


def _keys(entry: KeyEntry) -> SignedKeys:
    return decode(entry.keys, SignedKeys, max_bytes=1024)


def _sealing_key(state: State, entry: KeyEntry, sender: str, receiver: str) -> bytes:
    agreed = state.seal_key.agree(_keys(entry).seal_key)
    return derive(agreed, "secagg share", state.context, sender.encode(), receiver.encode())


def _checked_peers(request: SharesRequest, state: State, member: Member, terms: Terms) -> dict[str, KeyEntry]:
    refused: Callable[[str], ProtocolError] = lambda why: ProtocolError(f"{why}: the round is not used")  # noqa: E731
    if not terms.threshold <= request.count <= len(member.roster) or len(request.root) != 32:
        raise refused(f"keys of {request.count} clients came, which this client does not take part with")
    signed = SignedKeys(
        state.mask_key.public,
        state.seal_key.public,
        member.identity.sign(
            KEYS, stated_keys(state.context, member.name, state.mask_key.public, state.seal_key.public)
        ),
    )
    own = encode(KeyEntry(member.name, request.index, encode(signed)))
    if not proven(request.root, request.count, request.index, own, request.own):
        raise refused("this client's own keys are not among those that came")
    wanted = neighbourhood(request.root, request.count, terms.neighbours, request.index)
    peers: dict[str, KeyEntry] = {}
    seen = {state.mask_key.public, state.seal_key.public}
    for name, data in request.entries.items():
        entry = decode(data, KeyEntry, max_bytes=4096)
        keys = _keys(entry)
        known = member.roster.get(name)
        stated = stated_keys(state.context, name, keys.mask_key, keys.seal_key)
        if entry.client != name or known is None or not known.signed(KEYS, stated, keys.signature):
            raise refused("keys are not signed by a client of the roster")
        if not proven(request.root, request.count, entry.index, data, request.proofs.get(name, b"")):
            raise refused("keys are not among those that all clients see")
        if keys.mask_key in seen or keys.seal_key in seen:
            raise refused("two clients have the same keys")
        seen |= {keys.mask_key, keys.seal_key}
        peers[name] = entry
    if tuple(sorted(entry.index for entry in peers.values())) != wanted or member.name in peers:
        raise refused("the neighbours are not those that the graph gives")
    return peers
