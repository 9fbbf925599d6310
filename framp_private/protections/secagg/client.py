"""The client's half of secure aggregation: what it answers at each stage, and what it refuses.

Each stage is a function of a message, the state that the stage before left, and the client's keys. A stage is taken
once: a client that has shared does not share again, and one that has opened opens nothing more. The server is not
trusted with anything here: it chooses which messages arrive, and the worst that it achieves is that the round fails.
What it says of others counts only with their signatures.
"""

from __future__ import annotations

import hashlib
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
from framp_private.protections.secagg import cohort
from framp_private.protections.secagg.graph import bitmap, draw_places
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
    SharePair,
    Shares,
    SharesRequest,
    SignedKeys,
    UnmaskRequest,
)
from framp_private.protections.secagg.planning import sample_size
from framp_private.protections.secagg.state import State, Terms
from framp_private.protections.secagg.statements import (
    CONFIRM,
    bits,
    commitment,
    pair_seed,
    round_context,
    self_seed,
)
from framp_private.wire import decode, encode

Stage = KeysRequest | CohortRequest | SharesRequest | ConfirmRequest | SampleRequest | UnmaskRequest


def answer(
    message: bytes, state: State | None, member: Member, terms: Terms, fresh: bool = True
) -> tuple[bytes, State]:
    """Any stage but `masked`, which the request for values is part of; `fresh` if this round was not answered yet.

    Raises:
        WireError: the bytes are no such message. ProtocolError, CryptoError: see the stages.
        ReleaseLost: keys were asked for in a round that was answered.
    """
    kinds = (KeysRequest, CohortRequest, SharesRequest, ConfirmRequest, SampleRequest, UnmaskRequest)
    request = cast(Stage, decode(message, *kinds))
    if isinstance(request, KeysRequest):
        if not fresh:
            raise ReleaseLost("this round was answered before: its values are in no second sum")
        return begin(request, member, terms)
    if state is None:
        raise ProtocolError("a round of secure aggregation begins with keys")
    if isinstance(request, CohortRequest):
        return draw_neighbours(request, state, member, terms)
    if isinstance(request, SharesRequest):
        return share_secrets(request, state, member, terms)
    if isinstance(request, ConfirmRequest):
        return confirm(request, state, member, terms)
    if isinstance(request, SampleRequest):
        return draw_sample(request, state, member, terms)
    return unmask(request, state, member, terms)


def begin(request: KeysRequest, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `keys`: fresh keys for this round, signed.

    Raises:
        ProtocolError: another cohort than was planned, one that is too small, or a roster of another size.
    """
    if request.planned != terms.planned or request.planned < terms.minimum or request.round_index < 0:
        raise ProtocolError(
            f"a cohort of {request.planned} was planned for round {request.round_index}: this client agreed to "
            f"{terms.planned}, and takes part from {terms.minimum} on"
        )
    if (
        len(member.roster) != terms.planned
        or len({identity.key for identity in member.roster.values()}) != terms.planned
    ):
        raise ProtocolError(f"the roster does not hold {terms.planned} distinct keys, one for each planned member")
    state = State(
        "keys",
        round_context(member.run, request.round_index),
        draw_secret(member.entropy),
        AgreementKey.new(member.entropy).secret,
        index=cohort.place_of(member),
    )
    return encode(cohort.own_keys(state, member)), state


def draw_neighbours(request: CohortRequest, state: State, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `neighbours`: who this client shares with, drawn from its own randomness among those whose keys came.

    Raises:
        ProtocolError: the graph is complete, or keys of too few came.
    """
    _taken(state, "keys")
    if terms.complete:
        raise ProtocolError("on the complete graph nobody draws neighbours")
    others = cohort.others(request.root, request.present, state, terms)
    drawn = bitmap(draw_places(others, terms.neighbours, member.entropy), terms.planned)
    moved = replace(state, stage="neighbours", root=request.root, present=request.present, drawn=drawn)
    return encode(Neighbours(drawn)), moved


def share_secrets(request: SharesRequest, state: State, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `shares`: checks whose keys came, and seals a pair of shares for every neighbour that it drew.

    Raises:
        ProtocolError: keys not signed by their rostered owners, not under the committed root, of others than were
            drawn, or too few. CryptoError: a key of low order.
    """
    if terms.complete:
        _taken(state, "keys")
        others = cohort.others(request.root, request.present, state, terms)
        state = replace(state, root=request.root, present=request.present, drawn=bitmap(others, terms.planned))
    else:
        _taken(state, "neighbours")
    peers, order = cohort.checked_peers(request, state, member, terms), tuple(member.roster)
    seed = draw_secret(member.entropy)
    near = np.flatnonzero(bits(state.drawn, terms.planned)).tolist()
    points = [place + 1 for place in (*near, state.index)]
    seeds = share(seed, terms.threshold, points, member.entropy)
    keys = share(state.mask_secret, terms.threshold, points, member.entropy)
    pairs = {point - 1: SharePair(seeds[point], keys[point]).packed for point in points}
    sealing, masking = AgreementKey(state.seal_secret), AgreementKey(state.mask_secret)
    for peer in peers.values():  # a key that cannot be agreed with is found before anything is spent
        masking.agree(peer.mask_key)
    sealed = {
        place: seal(
            _sealing_key(sealing, peers[place], state.context, member.name, order[place]),
            pairs[place],
            state.root,
            member.entropy,
        )
        for place in near
    }
    moved = replace(
        state,
        stage="shares",
        peers={place: request.entries[place] for place in peers},
        seed=seed,
        held={state.index: pairs[state.index]},
    )
    return encode(Shares(sealed, commitment(seed))), moved


def receive(delivery: Delivery, asked: bytes, state: State, member: Member, terms: Terms) -> State:
    """Stage `masked`, first part: opens the shares that neighbours sealed for this client.

    A share that does not open is done without: its sender may have sealed it wrong, and others hold more of them.

    Args:
        asked: the request for values, which all clients must have seen alike.

    Raises:
        ProtocolError: shares of others than neighbours, or too few of this client's went out. CryptoError: most of
            those that came do not open.
    """
    _taken(state, "shares")
    shared, drawn = bits(delivery.shared, terms.planned), bits(state.drawn, terms.planned)
    near = int((shared & drawn).sum()) + 1
    if not set(delivery.sealed) <= set(state.peers) or near < terms.threshold or not shared[state.index]:
        raise ProtocolError("shares came from strangers, or from too few neighbours: the round is not used")
    sealing, held, order = AgreementKey(state.seal_secret), dict(state.held), tuple(member.roster)
    for place, sealed in delivery.sealed.items():
        if shared[place] and (pair := _unsealed(sealed, place, order[place], sealing, state, member)) is not None:
            held[place] = pair
    # one cheat seals wrong; that most do, or too few on the complete graph, is another round's delivery
    if 2 * (len(held) - 1) < len(delivery.sealed) or (terms.complete and len(held) < terms.threshold):
        raise CryptoError("sealed messages did not open")
    return replace(state, stage="masked", held=held, shared=delivery.shared, asked=hashlib.sha256(asked).digest())


def masked(values: np.ndarray, channel: str, ring: Ring, state: State) -> bytes:
    """Stage `masked`, second part: the quantised values of one channel under this client's masks, packed.

    Raises:
        ProtocolError: a value that is not finite or beyond the ring's bound.
    """
    _taken(state, "masked")
    total = ring.encode(values)
    anchored = cohort.anchored(state)
    add_mask(total, self_seed(state.seed, anchored, channel))
    key, shared = (
        AgreementKey(state.mask_secret),
        np.unpackbits(np.frombuffer(state.shared, np.uint8), bitorder="little"),
    )
    for place in state.peers:
        if shared[place]:
            seed = pair_seed(key.agree(state.keys(place).mask_key), anchored, channel)
            add_mask(total, seed, 1 if state.index < place else -1)
    total &= total.dtype.type(ring.mask)
    return pack(total, ring.bits)


def confirm(request: ConfirmRequest, state: State, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `confirm`: signs who is in the sum and who is out, once, if both fit what this client saw.

    Raises:
        ProtocolError: a set that this client must not sign.
    """
    _taken(state, "masked")
    active, dropped = bits(request.active, terms.planned), bits(request.dropped, terms.planned)
    if (active & dropped).any() or not active[state.index]:
        raise ProtocolError("the sets of active and dropped clients overlap, or leave this client out")
    if not np.array_equal(active | dropped, bits(state.shared, terms.planned)):
        raise ProtocolError("the active and the dropped are not those who shared")
    near = bits(state.drawn, terms.planned)
    if int((active & near).sum()) + 1 < terms.threshold or int(active.sum()) < terms.survivors:
        raise ProtocolError("too few clients are active for this client to go on")
    moved = replace(state, stage="confirm", active=request.active, dropped=request.dropped)
    return encode(Confirmation(member.identity.sign(CONFIRM, cohort.sets(moved)))), moved


def draw_sample(request: SampleRequest, state: State, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `sample`: whose confirmations this client wants to see, drawn after the server committed to all of them.

    Raises:
        ProtocolError: the graph is complete, where all are seen.
    """
    _taken(state, "confirm")
    if terms.complete or len(request.root) != 32:
        raise ProtocolError("on the complete graph all confirmations are seen, and elsewhere a root of 32 bytes")
    places = np.flatnonzero(bits(state.active, terms.planned)).tolist()
    size, _ = sample_size(len(places), terms.survivors, terms.planned)
    drawn = bitmap(draw_places(places, size, member.entropy), terms.planned)
    return encode(Sample(drawn)), replace(state, stage="sample", signed=request.root, sample=drawn)


def unmask(request: UnmaskRequest, state: State, member: Member, terms: Terms) -> tuple[bytes, State]:
    """Stage `unmask`: with enough signatures on the very same sum, one share for each neighbour.

    Raises:
        ProtocolError: fewer valid signatures than the threshold, of this client's neighbourhood, or than the quorum,
            of all or of its sample.
    """
    _taken(state, "confirm" if terms.complete else "sample")
    if not cohort.confirmed(request, state, member, terms):
        raise ProtocolError("too few members confirmed the same sum: nothing is opened")
    active = bits(state.active, terms.planned)
    seeds = {place: state.pair(place).seed for place in state.held if active[place]}
    keys = {place: state.pair(place).key for place in state.held if not active[place]}
    return encode(Opened(seeds, keys)), State("unmask", state.context, b"", b"")


def _taken(state: State, stage: str) -> None:
    if state.stage != stage:
        raise ProtocolError(f"a message for the stage after {stage!r} came after {state.stage!r}: each is taken once")


def _sealing_key(own: AgreementKey, peer: SignedKeys, context: bytes, sender: str, receiver: str) -> bytes:
    return derive(own.agree(peer.seal_key), "secagg share", context, sender.encode(), receiver.encode())


def _unsealed(sealed: bytes, sender: int, name: str, own: AgreementKey, state: State, member: Member) -> bytes | None:
    """A pair of shares, packed, or None for one that does not open."""
    try:
        pair = unseal(_sealing_key(own, state.keys(sender), state.context, name, member.name), sealed, state.root)
        SharePair.of(pair)
    except (CryptoError, WireError):
        return None
    return pair
