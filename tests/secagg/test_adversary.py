"""Bad parties: each ends in one typed error, nothing is opened, honest clients stay as they were, the next round works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from framp_private.crypto.agreement import AgreementKey
from framp_private.crypto.keys import Identity
from framp_private.crypto.prg import add_mask
from framp_private.crypto.ring import unpack
from framp_private.crypto.shamir import recover
from framp_private.errors import BelowThreshold, CryptoError, ProtocolError, WireError
from framp_private.protections import SecAgg
from framp_private.protections.secagg import client as half
from framp_private.protections.secagg.client import answer
from framp_private.protections.secagg.graph import MerkleTree
from framp_private.protections.secagg.messages import (
    Confirmation,
    ConfirmRequest,
    Delivery,
    KeysRequest,
    Opened,
    SharePair,
    Shares,
    SharesRequest,
    SignedKeys,
    UnmaskRequest,
)
from framp_private.protections.secagg.statements import KEYS, pair_seed, round_context, self_seed, stated_keys
from framp_private.randomness import Entropy
from framp_private.wire import decode, encode
from tests.secagg.harness import Round, values_of

VICTIM = "client-00"
REFUSALS = (ProtocolError, CryptoError, WireError)


def edited(kind: type, **changes: object) -> Callable[[bytes], bytes]:
    return lambda data: encode(replace(decode(data, kind), **changes))


def flipped(data: bytes) -> bytes:
    bad = bytearray(data)
    bad[len(bad) // 2] ^= 4
    return bytes(bad)


def first(mapping: dict[int, bytes], change: Callable[[bytes], bytes]) -> dict[int, bytes]:
    name = next(iter(mapping))
    return {**mapping, name: change(mapping[name])}


def inside(kind: type, field: str, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Changes the first entry of a mapping in a message."""
    return lambda data: encode(
        replace(decode(data, kind), **{field: first(dict(getattr(decode(data, kind), field)), change)})
    )


def low_order(data: bytes) -> bytes:
    return encode(replace(decode(data, SignedKeys), mask_key=bytes(32)))


def swapped_identity(data: bytes) -> bytes:
    """The first peer's keys, of the server's own making, signed with a key of its own."""
    stranger, key = Identity.new(Entropy()), AgreementKey.new(Entropy())
    context = round_context(b"r" * 32, 0)
    signature = stranger.sign(KEYS, stated_keys(context, "client-01", key.public, key.public[::-1]))
    return SignedKeys(key.public, key.public[::-1], signature).packed


def moved(to: int) -> Callable[[bytes], bytes]:
    """The first peer's keys at another place."""

    def change(data: bytes) -> bytes:
        message = decode(data, SharesRequest)
        place, *_ = message.entries
        rest = {other: keys for other, keys in message.entries.items() if other not in (place, to)}
        return encode(replace(message, entries={**rest, to: message.entries[place]}))

    return change


def fewer(kind: type, field: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        message = decode(data, kind)
        kept = dict(list(getattr(message, field).items())[:-1])
        return encode(replace(message, **{field: kept}))

    return change


DOWN: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "keys: garbage": ("keys", lambda data: b"\0" * 40),
    "keys: truncated": ("keys", lambda data: data[:-1]),
    "keys: a smaller cohort": ("keys", edited(KeysRequest, planned=2)),
    "keys: a larger cohort": ("keys", edited(KeysRequest, planned=8)),
    "keys: negative round": ("keys", edited(KeysRequest, round_index=-1)),
    "shares: bit flipped": ("shares", flipped),
    "shares: another root": ("shares", edited(SharesRequest, root=bytes(32))),
    "shares: short root": ("shares", edited(SharesRequest, root=b"")),
    "shares: keys of too few": ("shares", edited(SharesRequest, present=b"\x07")),
    "shares: keys of others alone": ("shares", edited(SharesRequest, present=b"\x7e")),
    "shares: one more than was planned": ("shares", edited(SharesRequest, present=b"\xff")),
    "shares: a short bitmap": ("shares", edited(SharesRequest, present=b"")),
    "shares: a proof where none is taken": ("shares", edited(SharesRequest, own=bytes(96))),
    "shares: proofs where none are taken": ("shares", edited(SharesRequest, proofs={1: bytes(96)})),
    "shares: a peer's key swapped": ("shares", inside(SharesRequest, "entries", swapped_identity)),
    "shares: a peer at another place": ("shares", moved(6)),
    "shares: a peer at no place": ("shares", moved(99)),
    "shares: a peer at the client's own place": ("shares", moved(0)),
    "shares: a peer's keys cut": ("shares", inside(SharesRequest, "entries", lambda keys: keys[:-1])),
    "shares: a peer's keys changed": ("shares", inside(SharesRequest, "entries", flipped)),
    "shares: a peer left out": ("shares", fewer(SharesRequest, "entries")),
    "shares: nobody": ("shares", edited(SharesRequest, entries={})),
    "masked: shares of a stranger": ("masked", edited(Delivery, sealed={99: b"x" * 60})),
    "masked: shares that do not open": (
        "masked",
        lambda data: encode(
            replace(decode(data, Delivery), sealed=dict.fromkeys(decode(data, Delivery).sealed, b"x" * 60))
        ),
    ),
    "masked: no shares": ("masked", edited(Delivery, sealed={})),
    "masked: too few shared": ("masked", edited(Delivery, shared=b"\x07")),
    "masked: the client itself did not share": ("masked", edited(Delivery, shared=b"\x7e")),
    "masked: a short bitmap": ("masked", edited(Delivery, shared=b"")),
    "confirm: active and dropped overlap": ("confirm", edited(ConfirmRequest, dropped=b"\x02")),
    "confirm: the client itself left out": ("confirm", edited(ConfirmRequest, active=b"\x7e")),
    "confirm: a neighbour in neither": ("confirm", edited(ConfirmRequest, active=b"\x3f")),
    "confirm: one who never shared": ("confirm", edited(ConfirmRequest, dropped=b"\x80")),
    "confirm: too few active": ("confirm", edited(ConfirmRequest, active=b"\x03", dropped=b"\x7c")),
    "confirm: short bitmap": ("confirm", edited(ConfirmRequest, active=b"")),
    "confirm: bits behind the last": ("confirm", edited(ConfirmRequest, active=b"\xff")),
    "unmask: no signatures": ("unmask", edited(UnmaskRequest, signatures={})),
    "unmask: too few signatures": ("unmask", lambda data: keep(data, 3)),
    "unmask: a forged signature and none to spare": ("unmask", lambda data: forged(keep(data, 4))),
    "unmask: one signature under many names": (
        "unmask",
        lambda data: encode(
            UnmaskRequest(
                dict.fromkeys(
                    decode(data, UnmaskRequest).signatures,
                    next(iter(decode(data, UnmaskRequest).signatures.values())),
                ),
                {},
            )
        ),
    ),
}


def keep(data: bytes, count: int) -> bytes:
    return encode(UnmaskRequest(dict(list(decode(data, UnmaskRequest).signatures.items())[:count]), {}))


def forged(data: bytes) -> bytes:
    return encode(UnmaskRequest(first(dict(decode(data, UnmaskRequest).signatures), flipped), {}))


@pytest.mark.parametrize("name", DOWN)
def test_a_bad_message_from_the_server_is_refused_and_changes_nothing(name: str) -> None:
    """To one client of seven, whose threshold is 4. What it held stays as it was, so the true message still goes through."""
    stage, change = DOWN[name]
    case = Round(values_of(7))
    assert case.terms.threshold == case.terms.survivors == 4

    def down(at: str, client: str, message: bytes) -> bytes:
        if client == VICTIM and at == stage:
            before = case.states.get(VICTIM)
            kept = before.to_bytes() if before is not None else b""
            with pytest.raises(REFUSALS):
                bad = change(message)
                assert bad != message
                if stage == "masked":
                    assert before is not None
                    half.receive(decode(bad, Delivery), b"the model", before, case.members[VICTIM], case.terms)
                else:
                    answer(bad, before, case.members[VICTIM], case.terms)
            assert before is None or before.to_bytes() == kept
        return message

    case.down = down
    total, survivors = case.total()
    assert len(survivors) == 7 and (case.ring.centred(total) == case.plain(survivors)).all()


OUT, STAYS, VOID = "goes on without it", "goes on with its vector", "opens nothing"
UP: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "keys: forged signature": ("keys", edited(SignedKeys, signature=bytes(64)), OUT),
    "keys: missing signature": ("keys", edited(SignedKeys, signature=b""), OUT),
    "keys: low order": ("keys", low_order, OUT),
    "keys: truncated": ("keys", lambda data: data[:-2], OUT),
    "shares: one left out": ("shares", fewer(Shares, "sealed"), OUT),
    "shares: short commitment": ("shares", edited(Shares, commitment=b""), OUT),
    "shares: garbage": ("shares", lambda data: b"garbage", OUT),
    "shares: one that does not open": ("shares", inside(Shares, "sealed", flipped), STAYS),
    "shares: an empty one": ("shares", inside(Shares, "sealed", lambda data: b""), STAYS),
    "shares: another commitment": ("shares", edited(Shares, commitment=bytes(32)), VOID),
    "confirm: not a signature": ("confirm", lambda data: data[:-1], STAYS),
    "confirm: of something else": ("confirm", edited(Confirmation, signature=bytes(64)), STAYS),
    "unmask: garbage": ("unmask", lambda data: b"", STAYS),
    "unmask: shares of a stranger": ("unmask", edited(Opened, seeds={99: bytes(32)}), STAYS),
    "unmask: keys of the active": ("unmask", lambda data: encode(Opened({}, decode(data, Opened).seeds)), STAYS),
    "unmask: no field element": ("unmask", inside(Opened, "seeds", lambda data: b"\xff" * 32), STAYS),
    "unmask: a short share": ("unmask", inside(Opened, "seeds", lambda data: b"x"), STAYS),
    "unmask: a wrong share": ("unmask", inside(Opened, "seeds", lambda data: bytes(32)), STAYS),
}


@pytest.mark.parametrize("name", UP)
def test_a_bad_message_from_a_client_costs_the_others_nothing(name: str) -> None:
    """The round is exact without the cheat or, where its vector was in already, with it; no error names anybody else."""
    stage, change, then = UP[name]
    case = Round(values_of(7))
    case.up = lambda at, client, data: change(data) if (at, client) == (stage, VICTIM) else data
    if then == VOID:
        with pytest.raises(BelowThreshold) as refusal:
            case.total()
        assert "client-" not in str(refusal.value)
    else:
        total, survivors = case.total()
        assert survivors == tuple(name for name in case.values if then == STAYS or name != VICTIM)
        assert (case.ring.centred(total) == case.plain(survivors)).all()
    again = Round(case.values, index=1, identities=case.identities)
    total, survivors = again.total()
    assert (again.ring.centred(total) == again.plain(survivors)).all()


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_vector_of_another_size_is_refused(change: Callable[[bytes], bytes]) -> None:
    case = Round(values_of(7))
    case.up = lambda at, client, data: change(data) if (at, client) == ("masked", VICTIM) else data
    with pytest.raises(CryptoError):
        case.total()


@pytest.mark.parametrize(("n", "liars"), [(20, 1), (20, 4), (21, 4), (64, 14)])
def test_as_many_wrong_shares_as_can_be_decoded_change_nothing_and_one_more_opens_nothing(n: int, liars: int) -> None:
    """Half of what lies beyond the threshold, whoever the liars are: they lie about every share that they hold."""

    def lying(count: int) -> Round:
        case = Round(values_of(n))
        names = list(case.values)[-count:]
        wrong = {name: bytes([place + 1]) * 32 for place, name in enumerate(case.values)}

        def up(stage: str, client: str, data: bytes) -> bytes:
            if stage != "unmask" or client not in names:
                return data
            return encode(Opened(dict.fromkeys(decode(data, Opened).seeds, wrong[client]), {}))

        case.up = up
        return case

    assert liars <= (n - Round(values_of(n)).terms.threshold) // 2
    case = lying(liars)
    total, survivors = case.total()
    assert len(survivors) == n and (case.ring.centred(total) == case.plain(survivors)).all()
    # the first to answer are looked at first: where all that are needed happen to be right, liars do not matter
    beyond = lying(n - Round(values_of(n)).terms.threshold + 1)
    with pytest.raises(BelowThreshold) as refusal:
        beyond.total()
    assert "client-" not in str(refusal.value)


def test_every_stage_is_taken_once_and_in_its_order() -> None:
    """All later requests to a client at any stage, replayed: whatever does not come next is refused."""
    case = Round(values_of(5))
    case.total()
    requests = {stage: data for stage, way, name, data in case.sent if way == "down" and name == VICTIM}
    member, terms = case.members[VICTIM], case.terms
    for upto in range(1, 4):
        fresh = Round(case.values, identities=case.identities)
        fresh.gathering.collect_keys(fresh.exchange)
        if upto > 1:
            fresh.gathering.collect_shares(fresh.exchange)
        state = fresh.states[VICTIM]
        for stage in ("shares", "confirm", "unmask"):
            if (upto, stage) != (1, "shares"):
                with pytest.raises(REFUSALS):
                    answer(requests[stage], state, member, terms)
    done = case.states[VICTIM]
    for stage in ("shares", "confirm", "unmask"):  # two unmask requests among them
        with pytest.raises(ProtocolError):
            answer(requests[stage], done, member, terms)
    for stage in ("shares", "confirm", "unmask"):
        with pytest.raises(ProtocolError, match="begins with keys"):
            answer(requests[stage], None, member, terms)


def test_after_unmasking_a_client_holds_no_secret_of_the_round() -> None:
    case = Round(values_of(5))
    case.total()
    for state in case.states.values():
        assert (state.mask_secret, state.seal_secret, state.seed, state.held, state.peers) == (b"", b"", b"", {}, {})


def test_a_message_of_another_round_or_run_is_refused() -> None:
    first_round, second = Round(values_of(5)), Round(values_of(5))
    second = Round(first_round.values, index=1, identities=first_round.identities)
    for case in (first_round, second):
        case.gathering.collect_keys(case.exchange)
    second.gathering.collect_shares(second.exchange)
    request = next(d for s, way, n, d in second.sent if (s, way, n) == ("shares", "down", VICTIM))
    with pytest.raises(REFUSALS):
        answer(request, first_round.states[VICTIM], first_round.members[VICTIM], first_round.terms)
    other = Round(first_round.values, run=b"s" * 32, identities=first_round.identities)
    other.gathering.collect_keys(other.exchange)
    keys = {n: d for s, way, n, d in first_round.sent if (s, way) == ("keys", "up")}
    entries = {place: decode(keys[name], SignedKeys).packed for place, name in enumerate(first_round.values)}
    tree = MerkleTree(list(entries.values()))
    replayed = SharesRequest(tree.root, b"\x1f", b"", {place: entry for place, entry in entries.items() if place}, {})
    with pytest.raises(ProtocolError):
        answer(encode(replayed), other.states[VICTIM], other.members[VICTIM], other.terms)


# What colluding parties can take off a victim's masked vector.


def taken_off(case: Round, corrupt: list[str], *, opened: bool) -> np.ndarray:
    """The victim's vector without the masks that some clients' secrets, and what was opened, explain."""
    ring, places = case.ring, case.gathering._places
    left = unpack(case.vectors[VICTIM], case.size, ring.bits)
    keys = case.gathering._keys
    anchored = case.gathering.anchored
    for name in corrupt:
        agreed = AgreementKey(case.states[name].mask_secret).agree(keys[VICTIM].mask_key)
        sign = 1 if places[VICTIM] < places[name] else -1
        add_mask(left, pair_seed(agreed, anchored, "update"), -sign)
    shares = {places[name] + 1: share_of(case, name) for name in corrupt}  # type: ignore[attr-defined]
    if opened:
        shares = {places[n] + 1: share_of(case, n) for n in case.held_before}  # type: ignore[attr-defined]
    if len(shares) >= case.terms.threshold:
        seed = recover(shares, case.terms.threshold)
        add_mask(left, self_seed(seed, anchored, "update"), -1)
    left &= left.dtype.type(ring.mask)
    return left


def share_of(case: Round, name: str) -> bytes:
    """What a client holds of the victim's seed."""
    return SharePair.of(case.held_before[name][0]).seed  # type: ignore[attr-defined]


def with_secrets(n: int, size: int) -> Round:
    case = Round(values_of(n, size), SecAgg(ring_bits=16, step=1e-3)).until_masked()
    case.held_before = {name: state.held for name, state in case.states.items()}  # type: ignore[attr-defined]
    return case


def uniform(values: np.ndarray, bits: int) -> bool:
    """Chi-square over 16 bins at alpha = 1e-6 (58.6): a sanity check, no proof."""
    counts = np.bincount(values.astype(np.int64) >> (bits - 4), minlength=16)
    return float(((counts - len(values) / 16) ** 2 / (len(values) / 16)).sum()) < 58.6


def test_with_one_client_less_than_the_threshold_the_vector_stays_unexplained() -> None:
    case = with_secrets(10, 4096)
    corrupt = list(case.values)[1 : case.terms.threshold]
    assert len(corrupt) == case.terms.threshold - 1
    for opened in (False, True):  # even once the victim's own seed has been opened
        assert uniform(taken_off(case, corrupt, opened=opened), case.ring.bits)
    expected = case.ring.encode(case.values[VICTIM])
    assert not uniform(expected, case.ring.bits)  # and the check can tell the two apart


def test_with_all_but_the_victim_the_vector_is_explained_exactly() -> None:
    """What shows that the test above works."""
    case = with_secrets(10, 4096)
    left = taken_off(case, list(case.values)[1:], opened=True)
    assert (left == case.ring.encode(case.values[VICTIM])).all()


def test_who_survives_a_round_and_drops_out_of_the_next_keeps_the_first_closed() -> None:
    """The mask key that is opened in round 1 explains nothing of round 0, whose own one was never opened."""
    case = Round(values_of(5, 2048), SecAgg(ring_bits=16, step=1e-3))
    case.total()
    second = Round(case.values, case.protection, {VICTIM: "masked"}, index=1, identities=case.identities)
    second.total()
    shares = {
        second.gathering._places[name] + 1: decode(data, Opened).keys[0]
        for stage, way, name, data in second.sent
        if (stage, way) == ("unmask", "up")
    }
    key = AgreementKey(recover(shares, second.terms.threshold))
    assert key.public == second.gathering._keys[VICTIM].mask_key != case.gathering._keys[VICTIM].mask_key
    left = unpack(case.vectors[VICTIM], case.size, 16)
    seeds = {
        case.gathering._places[n] + 1: decode(d, Opened).seeds[0]
        for s, way, n, d in case.sent
        if (s, way) == ("unmask", "up")
    }
    anchored = case.gathering.anchored
    add_mask(left, self_seed(recover(seeds, case.terms.threshold), anchored, "update"), -1)
    for name in list(case.values)[1:]:
        agreed = key.agree(case.gathering._keys[name].mask_key)
        sign = 1 if case.gathering._places[VICTIM] < case.gathering._places[name] else -1
        add_mask(left, pair_seed(agreed, anchored, "update"), -sign)
    left &= left.dtype.type(case.ring.mask)
    assert uniform(left, 16)
    assert not case.gathering._keys.keys() - second.gathering._keys.keys()


def test_no_share_of_both_kinds_is_opened_for_anybody() -> None:
    case = Round(values_of(7), drop={"client-03": "masked", "client-05": "unmask"})
    case.total()
    for stage, way, _, data in case.sent:
        if (stage, way) == ("unmask", "up"):
            opened = decode(data, Opened)
            assert not set(opened.seeds) & set(opened.keys)
            assert set(opened.keys) == {3}


def test_no_secret_and_no_value_is_in_any_message() -> None:
    case = Round(values_of(6, 400))
    case.until_masked()
    secrets = [case.identities[name]._secret for name in case.values]
    for name, state in case.states.items():
        secrets += [state.mask_secret, state.seal_secret, state.seed]
        secrets += [part for n in state.held for part in (state.pair(n).seed, state.pair(n).key)]
        exact, quantised = case.values[name], case.ring.encode(case.values[name])
        secrets += [exact[:2].tobytes(), exact.astype(np.float32)[:4].tobytes(), quantised[:4].tobytes()]
    for _, _, _, data in case.sent:
        assert not any(secret in data for secret in secrets)
