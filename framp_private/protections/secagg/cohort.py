"""What a client checks of its cohort: whose keys it is shown, and how many members really confirmed a sum.

Places are those of the planned cohort, in the order of the roster that was pinned, so that a place stands for one name
and a name for one place: no entry counts twice, whatever the server makes up.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from framp_private.crypto.agreement import AgreementKey
from framp_private.errors import ProtocolError
from framp_private.protections.base import Member
from framp_private.protections.secagg.graph import HASH_BYTES, MerkleTree, proven
from framp_private.protections.secagg.messages import SharesRequest, SignedKeys, UnmaskRequest
from framp_private.protections.secagg.planning import sample_size
from framp_private.protections.secagg.state import State, Terms
from framp_private.protections.secagg.statements import CONFIRM, KEYS, anchor, bits, stated_keys, stated_sets


def place_of(member: Member) -> int:
    """A client's own place."""
    return next(place for place, name in enumerate(member.roster) if name == member.name)


def own_keys(state: State, member: Member) -> SignedKeys:
    """This round's keys and their signature, which is the same each time."""
    mask_key, seal_key = AgreementKey(state.mask_secret).public, AgreementKey(state.seal_secret).public
    signature = member.identity.sign(KEYS, stated_keys(state.context, member.name, mask_key, seal_key))
    return SignedKeys(mask_key, seal_key, signature)


def others(root: bytes, present: bytes, state: State, terms: Terms) -> list[int]:
    """Places of all others whose keys came, by the server's word; they are held to it when they are drawn.

    Raises:
        ProtocolError: too few, this client is not among them, or a root of another length.
    """
    there = bits(present, terms.planned)
    count = int(there.sum())
    if count < terms.present or not there[state.index] or len(root) != HASH_BYTES:
        raise ProtocolError(f"keys of {count} clients came, {terms.present} are needed: the round is not used")
    there[state.index] = False
    return [int(place) for place in np.flatnonzero(there)]


def checked_peers(request: SharesRequest, state: State, member: Member, terms: Terms) -> Mapping[int, SignedKeys]:
    """The neighbours' keys: of all that this client drew, and of those who say that they drew it, by place.

    Raises:
        ProtocolError: whatever does not fit, with one sentence. WireError: an entry of another length.
    """
    own = own_keys(state, member)
    there, order = bits(state.present, terms.planned), tuple(member.roster)
    fits = (request.root, request.present) == (state.root, state.present)
    fits &= len(request.entries) <= terms.most_peers and state.index not in request.entries
    fits = fits and _under_root(request, own, state, terms)
    peers: dict[int, SignedKeys] = {}
    seen = {own.mask_key, own.seal_key}
    for place, packed in request.entries.items() if fits else ():
        keys = SignedKeys.of(packed)
        fits = fits and place < terms.planned and bool(there[place])
        fits = fits and member.roster[order[place]].signed(
            KEYS, stated_keys(state.context, order[place], keys.mask_key, keys.seal_key), keys.signature
        )
        fits &= not {keys.mask_key, keys.seal_key} & seen
        seen |= {keys.mask_key, keys.seal_key}
        peers[place] = keys
    drawn = set(np.flatnonzero(bits(state.drawn, terms.planned)).tolist())
    if not fits or not drawn <= set(peers):
        raise ProtocolError("keys are not signed, not those of this client's neighbours, or not seen by all: refused")
    return peers


def _under_root(request: SharesRequest, own: SignedKeys, state: State, terms: Terms) -> bool:
    """Whether what is shown, and this client's own keys, are what the server committed to.

    On the complete graph all keys under the root are shown, so that the client works out the root itself.
    """
    if terms.complete:
        leaves = {**request.entries, state.index: own.packed}
        found = MerkleTree([leaves.get(place, b"") for place in range(terms.planned)]).root
        return not request.own and not request.proofs and found == state.root
    return proven(state.root, terms.planned, state.index, own.packed, request.own) and all(
        proven(state.root, terms.planned, place, packed, request.proofs.get(place, b""))
        for place, packed in request.entries.items()
    )


def anchored(state: State) -> bytes:
    """What this client's masks and confirmation stand on."""
    return anchor(state.context, state.root, state.present, state.asked)


def sets(state: State) -> bytes:
    """What it signs."""
    return stated_sets(anchored(state), state.active, state.dropped)


def confirmed(request: UnmaskRequest, state: State, member: Member, terms: Terms) -> bool:
    """Whether enough distinct pinned members signed this client's own sum: of its neighbourhood, and of the cohort.

    On the complete graph every signature is looked at. On a sparse one those of the neighbourhood are, and those of a
    sample that the client drew after the server had committed to all; what is no valid leaf of that commitment is none.
    """
    order, statement = tuple(member.roster), sets(state)
    active = bits(state.active, terms.planned)

    @cache
    def valid(place: int) -> bool:
        signature = request.signatures.get(place)
        known = member.roster[order[place]]
        return bool(active[place]) and signature is not None and known.signed(CONFIRM, statement, signature)

    near = {state.index, *np.flatnonzero(bits(state.drawn, terms.planned)).tolist()}
    if terms.complete:
        signed = [place for place in range(terms.planned) if valid(place)]
        return len(signed) >= terms.survivors and len(near & set(signed)) >= terms.threshold
    if sum(valid(place) for place in near) < terms.threshold:
        return False
    size, least = sample_size(int(active.sum()), terms.survivors, terms.planned)
    drawn = np.flatnonzero(bits(state.sample, terms.planned)).tolist()
    held = 0
    for place in drawn:
        leaf, proof = request.signatures.get(place, b""), request.proofs.get(place, b"")
        held += proven(state.signed, terms.planned, place, leaf, proof) and valid(place)
    return len(drawn) == size and held >= least
