"""A server that does not follow the protocol: chosen neighbourhoods, phantom survivors, groups, models for some alone.

Each at cohorts of 7 to 1,000. Up to 100 all clients are real; at 1,000 the server's messages reach real victims and the
rest of the cohort is keys and signatures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from framp_private.crypto.agreement import AgreementKey
from framp_private.crypto.keys import Identity
from framp_private.errors import BelowThreshold, FrampError, ProtocolError
from framp_private.protections import SecAgg
from framp_private.protections.base import Member
from framp_private.protections.secagg.client import answer
from framp_private.protections.secagg.cohort import confirmed, sets
from framp_private.protections.secagg.graph import MerkleTree, bitmap
from framp_private.protections.secagg.messages import (
    CohortRequest,
    Confirmation,
    ConfirmRequest,
    KeysRequest,
    Neighbours,
    Opened,
    Sample,
    SampleRequest,
    SharesRequest,
    SignedKeys,
    UnmaskRequest,
)
from framp_private.protections.secagg.planning import sample_size
from framp_private.protections.secagg.server import Gathering
from framp_private.protections.secagg.state import State
from framp_private.protections.secagg.statements import CONFIRM, KEYS, bits, round_context, stated_keys
from framp_private.randomness import Entropy
from framp_private.wire import decode, encode
from tests.secagg.harness import Round, values_of

RUN = b"r" * 32


class Cohort:
    """A cohort of which only keys exist, and what a server can make of them."""

    def __init__(self, n: int, protection: SecAgg) -> None:
        self.names = [f"client-{place:04d}" for place in range(n)]
        self.identities = {name: Identity.new(Entropy()) for name in self.names}
        self.roster = {name: identity.public for name, identity in self.identities.items()}
        self.terms, self.context = protection.terms(n), round_context(RUN, 0)
        self.keys: dict[str, SignedKeys] = {}

    def member(self, name: str) -> Member:
        return Member(name, self.identities[name], self.roster, RUN, Entropy())

    def made_up(self, name: str) -> SignedKeys:
        """Keys of a corrupt client, properly signed."""
        mask, seal = AgreementKey.new(Entropy()).public, AgreementKey.new(Entropy()).public
        signature = self.identities[name].sign(KEYS, stated_keys(self.context, name, mask, seal))
        return SignedKeys(mask, seal, signature)

    def begun(self, name: str) -> State:
        reply, state = answer(encode(KeysRequest(0, len(self.names))), None, self.member(name), self.terms)
        self.keys[name] = decode(reply, SignedKeys)
        return state

    def tree(self) -> MerkleTree:
        return MerkleTree([self.leaf(name) for name in self.names])

    def leaf(self, name: str) -> bytes:
        return self.keys[name].packed if name in self.keys else b""

    def shares_request(self, present: Sequence[str], victim: str, shown: Sequence[str]) -> bytes:
        tree, place = self.tree(), self.names.index
        flags, entries = self.bitmap(present), {place(name): self.leaf(name) for name in shown}
        if self.terms.complete:
            return encode(SharesRequest(tree.root, flags, b"", entries, {}))
        proofs = {at: tree.proof(at) for at in entries}
        return encode(SharesRequest(tree.root, flags, tree.proof(place(victim)), entries, proofs))

    def bitmap(self, names: Sequence[str]) -> bytes:
        return bitmap([self.names.index(name) for name in names], len(self.names))


@pytest.mark.parametrize("n", [7, 20, 64, 100, 1000])
def test_a_server_cannot_choose_a_victims_neighbourhood(n: int) -> None:
    """It says that only the victim's keys and those of the corrupt came: the graph would be complete among them."""
    cohort = Cohort(n, SecAgg())
    corrupt = cohort.names[-max(1, n // 10) :]
    victim = cohort.names[0]
    state = cohort.begun(victim)
    cohort.keys |= {name: cohort.made_up(name) for name in corrupt}
    present = [victim, *corrupt]
    flags = bitmap([cohort.names.index(name) for name in present], n)
    if not cohort.terms.complete:
        with pytest.raises(ProtocolError, match="keys of"):
            answer(encode(CohortRequest(cohort.tree().root, flags)), state, cohort.member(victim), cohort.terms)
    with pytest.raises(ProtocolError):
        answer(cohort.shares_request(present, victim, corrupt), state, cohort.member(victim), cohort.terms)


@pytest.mark.parametrize("n", [100, 1000])
def test_what_a_client_drew_it_gets_or_it_shares_with_nobody(n: int) -> None:
    """Whether the server swaps those drawn for the corrupt, names phantoms, or shows one corrupt key at many places."""
    cohort = Cohort(n, SecAgg())
    victim, bad = cohort.names[0], max(1, n // 10)
    corrupt = cohort.names[-bad:]
    state = cohort.begun(victim)
    cohort.keys |= {name: cohort.made_up(name) for name in cohort.names[1:]}
    everybody = bitmap(range(n), n)
    reply, state = answer(
        encode(CohortRequest(cohort.tree().root, everybody)), state, cohort.member(victim), cohort.terms
    )
    drawn = [cohort.names[place] for place in np.flatnonzero(bits(decode(reply, Neighbours).drawn, n))]
    assert len(drawn) == cohort.terms.neighbours and victim not in drawn
    member, place = cohort.member(victim), cohort.names.index
    good = decode(cohort.shares_request(cohort.names, victim, drawn), SharesRequest)
    repeated = dict.fromkeys(good.entries, cohort.keys[corrupt[0]].packed)
    swapped = decode(cohort.shares_request(cohort.names, victim, [*corrupt, *drawn][: len(drawn)]), SharesRequest)
    crowd = decode(cohort.shares_request(cohort.names, victim, cohort.names[1:]), SharesRequest)
    bad_ones = [replace(good, entries=repeated), swapped, replace(good, entries=dict(list(good.entries.items())[1:]))]
    (at, proof), *others = good.proofs.items()
    forged = proof[:-1] + bytes([proof[-1] ^ 1])
    bad_ones += [replace(good, proofs=dict(others)), replace(good, proofs={**good.proofs, at: forged})]
    bad_ones += [replace(good, own=forged), replace(good, own=b"")]
    if n > cohort.terms.most_peers + 1:
        bad_ones.append(crowd)  # everybody says to have drawn the victim
    for request in bad_ones:
        with pytest.raises(ProtocolError, match="not those of this client's neighbours"):
            answer(encode(request), state, member, cohort.terms)
    _, moved = answer(encode(good), state, member, cohort.terms)
    assert moved.stage == "shares" and set(moved.peers) == {place(name) for name in drawn}
    with pytest.raises(ProtocolError):  # and it draws once
        answer(encode(CohortRequest(cohort.tree().root, everybody)), moved, member, cohort.terms)


def test_a_phantom_is_found_by_whoever_draws_it() -> None:
    """Keys that never came, called present: 5 % of them are met by a client that draws 72 in all but 3 % of cases."""
    n = 1000
    cohort = Cohort(n, SecAgg())
    victim = cohort.names[0]
    begun = cohort.begun(victim)
    there = cohort.names[: n - 50]
    cohort.keys |= {name: cohort.made_up(name) for name in there[1:]}
    everybody, met = bitmap(range(n), n), 0
    tree = cohort.tree()
    for _ in range(60):
        reply, state = answer(encode(CohortRequest(tree.root, everybody)), begun, cohort.member(victim), cohort.terms)
        drawn = np.flatnonzero(bits(decode(reply, Neighbours).drawn, n))
        met += bool((drawn >= n - 50).any())
    assert met >= 50  # P(fewer) < 10^-6
    phantoms = [cohort.names[place] for place in drawn if place >= n - 50]
    if phantoms:
        shown = [cohort.names[place] for place in drawn if place < n - 50]
        with pytest.raises(ProtocolError):
            answer(cohort.shares_request(cohort.names, victim, shown), state, cohort.member(victim), cohort.terms)


class Phantoms(Gathering):
    """Calls everybody active who sent keys, whether values came or not, and does not mind who confirms."""

    def _enough(self, count: int, what: str, least: int = 0) -> None:
        pass

    def open(self, exchange: Any, rings: Mapping[str, Any]) -> Any:
        everybody, least = list(self._shares), self._terms.threshold
        self._terms = replace(self._terms, threshold=1)
        confirmed_ = self._confirm(exchange, everybody, [])
        self.seen = self._unmask_requests(exchange, confirmed_)
        self._terms = replace(self._terms, threshold=least)
        return [reply for _, reply in exchange(self.seen)]


@pytest.mark.parametrize(("n", "survivors"), [(7, 0.0), (20, 0.0), (20, 0.8), (64, 0.7), (100, 0.75)])
def test_survivors_are_those_who_signed_and_not_those_whom_the_server_names(n: int, survivors: float) -> None:
    """One less than the least survivors send values and sign; the server calls all others active, too."""
    protection = SecAgg(survivors=survivors)
    least = protection.least_survivors(n)
    gone = dict.fromkeys(list(values_of(n))[least - 1 :], "masked")
    for count, opens in ((least - 1, False), (least, True)):
        drop = dict(list(gone.items())[count - least + 1 :])
        case = Round(values_of(n, 3), protection, drop)
        case.gathering = Phantoms(list(case.values), case.terms, case.gathering._roster, case.run, 0, b"the model")
        case.until_masked()
        try:
            opened = case.gathering.open(case.exchange, {})
        except FrampError:
            opened = []
        assert opens or not opened


def signers(cohort: Cohort, state: State, places: Sequence[int]) -> dict[int, bytes]:
    statement = sets(state)
    return {place: cohort.identities[cohort.names[place]].sign(CONFIRM, statement) for place in places}


@pytest.mark.parametrize("missing", [1, 100])
def test_a_sample_is_drawn_after_the_commitment_and_shows_that_too_few_confirmed(missing: int) -> None:
    """At 1,000: fewer than the quorum signed. However the server commits, no client of 40 takes its sample for enough."""
    n, protection = 1000, SecAgg()
    cohort, terms = Cohort(n, protection), protection.terms(n)
    victim, everybody = cohort.names[0], bitmap(range(n), n)
    drawn = bitmap(range(1, terms.neighbours + 1), n)
    state = State(
        "confirm", cohort.context, b"m" * 32, b"s" * 32, bytes(32), everybody, 0, drawn, {}, b"", {}, everybody,
        bytes(32), everybody, bytes(n // 8),
    )  # fmt: skip
    signed = signers(cohort, state, range(terms.survivors - missing))
    tree = MerkleTree([signed.get(place, b"") for place in range(n)])
    for _ in range(40):
        reply, moved = answer(encode(SampleRequest(tree.root)), state, cohort.member(victim), terms)
        asked = np.flatnonzero(bits(decode(reply, Sample).drawn, n)).tolist()
        assert len(asked) == sample_size(n, terms.survivors, n)[0] < n
        shown = UnmaskRequest(signed, {place: tree.proof(place) for place in asked})
        assert not confirmed(shown, moved, cohort.member(victim), terms)
    late = signers(cohort, state, range(n))  # signatures that were not committed to do not count
    assert not confirmed(replace(shown, signatures=late), moved, cohort.member(victim), terms)
    whole = MerkleTree([late[place] for place in range(n)])
    reply, moved = answer(encode(SampleRequest(whole.root)), state, cohort.member(victim), terms)
    asked = np.flatnonzero(bits(decode(reply, Sample).drawn, n)).tolist()
    proofs = {place: whole.proof(place) for place in asked}
    assert confirmed(UnmaskRequest(late, proofs), moved, cohort.member(victim), terms)
    fewer = {place: late[place] for place in asked if place > terms.neighbours}  # without the neighbourhood's own
    assert not confirmed(UnmaskRequest(fewer, proofs), moved, cohort.member(victim), terms)


class Groups(Gathering):
    """Tells each group of clients that all others dropped out, and opens a sum for each."""

    groups: list[list[str]]

    def _enough(self, count: int, what: str, least: int = 0) -> None:
        pass

    def sums(self, exchange: Any) -> Iterator[tuple[list[str], int]]:
        everybody = list(self._shares)
        for group in self.groups:
            out = [name for name in everybody if name not in group]
            try:
                confirmed_ = self._confirm(_forgiving(exchange), group, out)
                requests = self._unmask_requests(_forgiving(exchange), confirmed_)
                yield group, len([decode(reply, Opened) for _, reply in _forgiving(exchange)(requests)])
            except FrampError:
                yield group, 0


def _forgiving(exchange: Any) -> Any:
    """One client's refusal is silence."""

    def exchanged(requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name in requests:
            try:
                yield from exchange({name: requests[name]})
            except FrampError:
                continue

    return exchanged


@pytest.mark.parametrize("crafted", [False, True])
@pytest.mark.parametrize(("n", "parts"), [(7, 2), (20, 2), (20, 6), (64, 2), (64, 19), (100, 2), (100, 19)])
def test_one_round_has_one_sum_at_most(n: int, parts: int, crafted: bool) -> None:
    """The cohort in equal groups, each with a model of its own or all with the same: none opens unless it is a majority."""
    names = list(values_of(n))
    groups = [names[at::parts] for at in range(parts)]
    model = {
        name: f"model {at}".encode() if crafted else b"the model" for at, group in enumerate(groups) for name in group
    }
    case = Round(values_of(n, 3), SecAgg(), asked=lambda client: model[client])
    case.gathering = Groups(names, case.terms, case.gathering._roster, case.run, 0, b"the model")
    case.gathering.groups = groups
    case.until_masked()
    for group, opened in case.gathering.sums(case.exchange):
        assert not opened or len(group) >= case.terms.survivors > n / 2


@pytest.mark.parametrize("n", [7, 20, 64, 100])
def test_of_two_models_only_one_is_summed_over_those_who_saw_it(n: int) -> None:
    """A majority got the crafted model: its sum opens, over it alone; those who saw the other are not in it."""
    names = list(values_of(n))
    many = names[: SecAgg().least_survivors(n) + (n > 64) * 15]
    few = [name for name in names if name not in many]
    case = Round(values_of(n, 3), SecAgg(), asked=lambda client: b"crafted" if client in many else b"the model")
    case.gathering = Groups(names, case.terms, case.gathering._roster, case.run, 0, b"crafted")
    case.gathering.groups = [many, few]
    case.until_masked()
    opened = {len(group): count for group, count in case.gathering.sums(case.exchange)}
    assert opened.get(len(few), 0) == 0
    whole = Round(case.values, SecAgg(), asked=case.asked, identities=case.identities)
    with pytest.raises(FrampError):  # and never a sum over both
        whole.total()


def test_masks_of_those_who_saw_another_model_do_not_cancel() -> None:
    """Even with every check of signatures gone, the total over two models is noise: its masks stand on the request."""
    case = Round(values_of(7, 200), SecAgg(), asked=lambda client: b"crafted" if client < "client-03" else b"the model")
    case.until_masked()
    total = case.gathering._totals["update"]
    seeds = {name: state.seed for name, state in case.states.items()}
    case.gathering._take_off(total, "update", case.ring, seeds, {})
    assert (case.ring.centred(total) != case.plain(tuple(case.values))).mean() > 0.9
    same = Round(values_of(7, 200)).until_masked()
    total = same.gathering._totals["update"]
    same.gathering._take_off(total, "update", same.ring, {n: s.seed for n, s in same.states.items()}, {})
    assert (same.ring.centred(total) == same.plain(tuple(same.values))).all()


@pytest.mark.parametrize("n", [7, 20, 64, 100, 1000])
def test_a_client_confirms_no_sum_over_less_than_the_quorum(n: int) -> None:
    protection = SecAgg()
    cohort, terms = Cohort(n, protection), protection.terms(n)
    assert 2 * terms.survivors > n + int(0.1 * n + 1e-9)
    everybody = bitmap(range(n), n)
    state = State(
        "masked", cohort.context, b"m" * 32, b"s" * 32, bytes(32), everybody, 0, bitmap(range(1, n), n), {}, b"", {},
        everybody, bytes(32),
    )  # fmt: skip
    for size, refused in ((terms.survivors - 1, True), (terms.survivors, False)):
        active = bitmap(range(size), n)
        request = encode(ConfirmRequest(active, bitmap(range(size, n), n)))
        if refused:
            with pytest.raises(ProtocolError, match="too few"):
                answer(request, state, cohort.member(cohort.names[0]), terms)
        else:
            reply, _ = answer(request, state, cohort.member(cohort.names[0]), terms)
            assert decode(reply, Confirmation).signature


def test_split_views_of_active_and_dropped_open_nothing() -> None:
    """The server tells one half that a client dropped out and the other half that it did not."""
    case = Round(values_of(8)).until_masked()
    names = list(case.values)
    whole, without = ConfirmRequest(b"\xff", b"\x00"), ConfirmRequest(b"\xfe", b"\x01")
    signatures: dict[int, bytes] = {}
    for place, name in enumerate(names[1:], 1):
        view = whole if place % 2 else without
        reply, case.states[name] = answer(encode(view), case.states[name], case.members[name], case.terms)
        signatures[place] = decode(reply, Confirmation).signature
    for name in names[1:]:
        with pytest.raises(ProtocolError, match="nothing is opened"):
            answer(encode(UnmaskRequest(signatures, {})), case.states[name], case.members[name], case.terms)


def test_a_roster_that_repeats_a_key_is_refused() -> None:
    """One party under two names would count twice."""
    case = Round(values_of(5))
    twice = {**case.members["client-00"].roster, "client-04": case.identities["client-03"].public}
    with pytest.raises(ProtocolError, match="distinct"):
        answer(encode(KeysRequest(0, 5)), None, replace(case.members["client-00"], roster=twice), case.terms)
    with pytest.raises(BelowThreshold):
        Round(values_of(5), drop=dict.fromkeys(["client-01", "client-02", "client-03"], "keys")).total()
