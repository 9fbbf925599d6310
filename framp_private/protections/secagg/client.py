"""The client's half of secure aggregation: what it answers at each stage, and what it refuses.

Each stage is a function of a message, the state that the stage before left, and the client's keys. A stage is taken
once: a client that has shared does not share again, and one that has opened opens nothing more. The server is not
trusted with anything here: it chooses which messages arrive, and the worst that it achieves is that the round fails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from framp_private.crypto.agreement import AgreementKey, derive
from framp_private.crypto.prg import add_mask
from framp_private.crypto.ring import Ring, pack
from framp_private.crypto.sealed import seal, unseal
from framp_private.crypto.shamir import draw_secret, share
from framp_private.errors import CryptoError, ProtocolError, ReleaseLost, WireError
from framp_private.protections.base import Member
from framp_private.protections.secagg.graph import connected, neighbourhood, proven
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
from framp_private.protections.secagg.state import State, Terms
from framp_private.protections.secagg.statements import (
    CONFIRM,
    KEYS,
    bits,
    commitment,
    pair_seed,
    round_context,
    self_seed,
    stated_keys,
    stated_sets,
)
from framp_private.wire import decode, encode

Stage = KeysRequest | SharesRequest | ConfirmRequest | UnmaskRequest


def answer(
    message: bytes, state: State | None, member: Member, terms: Terms, fresh: bool = True
) -> tuple[bytes, State]:
    """Any stage but `masked`, which the request for values is part of; `fresh` if this round was not answered yet.

    Raises:
        WireError: the bytes are no such message. ProtocolError, CryptoError: see the stages.
        ReleaseLost: keys were asked for in a round that was answered.
    """
    request = cast(Stage, decode(message, KeysRequest, SharesRequest, ConfirmRequest, UnmaskRequest))
    if isinstance(request, KeysRequest):
        if not fresh:
            raise ReleaseLost("this round was answered before: its values are in no second sum")
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
    if request.planned < max(terms.minimum, terms.threshold) or request.round_index < 0:
        raise ProtocolError(
            f"a cohort of {request.planned} was planned for round {request.round_index}: this client takes part from "
            f"{terms.minimum} on"
        )
    state = State(
        "keys",
        round_context(member.run, request.round_index),
        draw_secret(member.entropy),
        AgreementKey.new(member.entropy).secret,
    )
    return encode(_own_keys(state, member)), state


def share_secrets(request: SharesRequest, state: State, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `shares`: checks whose keys came, and seals a pair of shares for every neighbour.

    Raises:
        ProtocolError: keys not signed by a rostered client, other neighbours than the graph gives, or too few.
        CryptoError: a key of low order.
    """
    _taken(state, "keys")
    peers = _checked_peers(request, state, member, terms)
    seed = draw_secret(member.entropy)
    points = {name: entry.index + 1 for name, entry in peers.items()} | {member.name: request.index + 1}
    seeds = share(seed, terms.threshold, list(points.values()), member.entropy)
    keys = share(state.mask_secret, terms.threshold, list(points.values()), member.entropy)
    pairs = {name: encode(SharePair(seeds[point], keys[point])) for name, point in points.items()}
    sealing, masking = AgreementKey(state.seal_secret), AgreementKey(state.mask_secret)
    for entry in peers.values():  # a key that cannot be agreed with is found before anything is spent
        masking.agree(decode(entry.keys, SignedKeys).mask_key)
    sealed = {
        name: seal(
            _sealing_key(sealing, entry, state.context, member.name, name), pairs[name], request.root, member.entropy
        )
        for name, entry in peers.items()
    }
    moved = replace(
        state,
        stage="shares",
        root=request.root,
        index=request.index,
        count=request.count,
        peers={name: request.entries[name] for name in peers},
        seed=seed,
        held={member.name: pairs[member.name]},
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
    if not set(delivery.sealed) <= set(state.peers) or len(delivery.sealed) + 1 < terms.threshold:
        raise ProtocolError("shares came from strangers, or from too few neighbours: the round is not used")
    sealing, held = AgreementKey(state.seal_secret), dict(state.held)
    for name, sealed in delivery.sealed.items():
        pair = unseal(_sealing_key(sealing, state.peer(name), state.context, name, member.name), sealed, state.root)
        try:
            decode(pair, SharePair, max_bytes=256)
        except WireError as error:
            raise CryptoError("a sealed message did not open") from error
        held[name] = pair
    return replace(state, stage="masked", held=held, asked=hashlib.sha256(asked).digest())


def masked(values: np.ndarray, channel: str, ring: Ring, state: State) -> bytes:
    """Stage `masked`, second part: the quantised values of one channel under this client's masks, packed.

    Raises:
        ProtocolError: a value that is not finite or beyond the ring's bound.
    """
    _taken(state, "masked")
    total = ring.encode(values)
    add_mask(total, self_seed(state.seed, state.context, channel))
    key = AgreementKey(state.mask_secret)
    for name in set(state.held) & set(state.peers):
        entry = state.peer(name)
        seed = pair_seed(key.agree(state.keys(name).mask_key), state.context, channel)
        add_mask(total, seed, 1 if state.index < entry.index else -1)
    total &= total.dtype.type(ring.mask)
    return pack(total, ring.bits)


def confirm(request: ConfirmRequest, state: State, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `confirm`: signs who is in the sum and who is out, once, if both fit what this client saw.

    Raises:
        ProtocolError: a set that this client must not sign.
    """
    _taken(state, "masked")
    active, dropped = bits(request.active, state.count), bits(request.dropped, state.count)
    near = _near(state, member).values()
    if (active & dropped).any() or not active[state.index]:
        raise ProtocolError("the sets of active and dropped clients overlap, or leave this client out")
    if not all(active[index] or dropped[index] for index in near):
        raise ProtocolError("a neighbour that shared is neither active nor dropped")
    if not connected(state.root, state.count, terms.neighbours, np.flatnonzero(active).tolist()):
        raise ProtocolError("the active clients' graph falls apart: parts of the cohort would be summed by themselves")
    if sum(bool(active[index]) for index in near) < terms.threshold or int(active.sum()) < terms.survivors:
        raise ProtocolError("too few clients are active for this client to go on")
    moved = replace(state, stage="confirm", active=request.active, dropped=request.dropped)
    return encode(Confirmation(member.identity.sign(CONFIRM, _sets(moved)))), moved


def unmask(request: UnmaskRequest, state: State, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `unmask`: with signatures of its neighbourhood on the very same sets, one share for each neighbour.

    Raises:
        ProtocolError: fewer valid signatures than the threshold.
    """
    _taken(state, "confirm")
    statement, near = _sets(state), _near(state, member)
    valid = sum(
        name in near and member.roster[name].signed(CONFIRM, statement, signature)
        for name, signature in request.signatures.items()
    )
    if valid < terms.threshold:
        raise ProtocolError("too few neighbours confirmed the same sets: nothing is opened")
    active = bits(state.active, state.count)
    seeds = {name: state.pair(name).seed for name, index in near.items() if active[index]}
    keys = {name: state.pair(name).key for name, index in near.items() if not active[index]}
    return encode(Opened(seeds, keys)), State("unmask", state.context, b"", b"")


def _taken(state: State, stage: str) -> None:
    if state.stage != stage:
        raise ProtocolError(f"a message for the stage after {stage!r} came after {state.stage!r}: each is taken once")


def _own_keys(state: State, member: Member) -> SignedKeys:
    """This round's keys and their signature, which is the same each time."""
    mask_key, seal_key = AgreementKey(state.mask_secret).public, AgreementKey(state.seal_secret).public
    signature = member.identity.sign(KEYS, stated_keys(state.context, member.name, mask_key, seal_key))
    return SignedKeys(mask_key, seal_key, signature)


def _near(state: State, member: Member) -> dict[str, int]:
    """Indices of the neighbours that shared with this client, and its own."""
    return {name: state.index if name == member.name else state.peer(name).index for name in state.held}


def _sets(state: State) -> bytes:
    return stated_sets(state.context, state.root, state.asked, state.active, state.dropped)


def _sealing_key(own: AgreementKey, peer: KeyEntry, context: bytes, sender: str, receiver: str) -> bytes:
    agreed = own.agree(decode(peer.keys, SignedKeys).seal_key)
    return derive(agreed, "secagg share", context, sender.encode(), receiver.encode())


def _checked_peers(request: SharesRequest, state: State, member: Member, terms: Terms) -> Mapping[str, KeyEntry]:
    """The neighbours' entries. Whatever does not fit is refused with one sentence."""
    if not terms.threshold <= request.count <= len(member.roster) or len(request.root) != 32:
        raise ProtocolError(f"keys of {request.count} clients came: the round is not used")
    own = _own_keys(state, member)
    leaf = encode(KeyEntry(member.name, request.index, encode(own)))
    peers: dict[str, KeyEntry] = {}
    seen = {own.mask_key, own.seal_key}
    fits = proven(request.root, request.count, request.index, leaf, request.own) and member.name not in request.entries
    for name, data in request.entries.items() if fits else ():
        entry = decode(data, KeyEntry, max_bytes=4096)
        keys = decode(entry.keys, SignedKeys, max_bytes=1024)
        known, stated = member.roster.get(name), stated_keys(state.context, name, keys.mask_key, keys.seal_key)
        fits &= entry.client == name and known is not None and known.signed(KEYS, stated, keys.signature)
        fits &= proven(request.root, request.count, entry.index, data, request.proofs.get(name, b""))
        fits &= not {keys.mask_key, keys.seal_key} & seen
        seen |= {keys.mask_key, keys.seal_key}
        peers[name] = entry
    order, seats = list(member.roster), {request.index: member.name} | {e.index: n for n, e in peers.items()}
    fits &= (ranks := [order.index(seats[index]) for index in sorted(seats) if seats[index] in order]) == sorted(ranks)
    wanted = neighbourhood(request.root, request.count, terms.neighbours, request.index) if fits else None
    if tuple(sorted(entry.index for entry in peers.values())) != wanted:
        raise ProtocolError("keys are not signed, not those of this client's neighbours, or not seen by all: refused")
    return peers
