"""A client driven by arbitrary sequences of messages: true ones, old ones, damaged ones, of other rounds and of liars.

Whatever comes, the client answers or raises one of its typed errors; it sends one vector a round and opens once; no
message that leaves it holds a secret; and for no peer does it ever open both shares in one round.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from framp_private.crypto.keys import Identity
from framp_private.errors import CryptoError, ProtocolError, ReleaseLost, WireError
from framp_private.protections import SecAgg
from framp_private.protections.base import Member, Seat
from framp_private.protections.secagg.messages import Opened
from framp_private.protections.secagg.state import State
from framp_private.randomness import Entropy
from framp_private.wire import decode
from tests.secagg.harness import Round, values_of

VICTIM = "client-00"
REFUSALS = (ProtocolError, CryptoError, WireError, ReleaseLost)
PROTECTION = SecAgg()
VALUES = values_of(5, 3)
IDENTITIES = {name: Identity.new(Entropy()) for name in VALUES}


def recorded(index: int, drop: dict[str, str]) -> dict[str, bytes]:
    """What a true server sends the victim in one round, with a victim of its own that is not the one driven."""
    case = Round(VALUES, PROTECTION, drop, index=index, identities=IDENTITIES)
    case.total()
    return {stage: data for stage, way, name, data in case.sent if (way, name) == ("down", VICTIM)}


OLD = [recorded(0, {}), recorded(1, {"client-03": "masked"})]


class ClientMachine(RuleBasedStateMachine):
    """The victim is one of five; the four others, and the server, are played by the machine."""

    @initialize()
    def begin(self) -> None:
        roster = {name: identity.public for name, identity in IDENTITIES.items()}
        self.member = Member(VICTIM, IDENTITIES[VICTIM], roster, b"r" * 32, Entropy())
        self.round, self.answered, self.held = 0, -1, b""
        self.case = Round(VALUES, PROTECTION, index=0, identities=IDENTITIES)
        self.opened: dict[int, dict[str, set[int]]] = {}
        self.step = 0

    def deliver(self, message: bytes, *, masked: bool = False) -> bytes | None:
        """One message; None if it was refused, and then nothing changed."""
        secrets = self.secrets()
        try:
            if masked:
                held = PROTECTION.receive(message, b"the model", self.held, self.member, 5, self.round)
                reply = PROTECTION.protect(VALUES[VICTIM], Entropy(), Seat("update", 5, held, b"the model"))
                assert self.answered < self.round, "two vectors in one round"
                self.answered = self.round
            else:
                fresh = self.round > self.answered
                reply, held = PROTECTION.answer(message, self.held, self.member, 5, self.round, fresh)
        except REFUSALS:
            return None
        self.held = held
        assert not any(secret in reply for secret in secrets | self.secrets())
        self.note(reply)
        return reply

    def secrets(self) -> set[bytes]:
        state = State.from_bytes(self.held)
        if state is None:
            return set()
        return {state.mask_secret, state.seal_secret, state.seed, self.member.identity._secret} - {b""}

    def note(self, reply: bytes) -> None:
        try:
            opened = decode(reply, Opened)
        except WireError:
            return
        assert self.round not in self.opened, "opened twice in one round"
        self.opened[self.round] = {"seeds": set(opened.seeds), "keys": set(opened.keys)}

    @rule()
    def next_round(self) -> None:
        self.round += 1
        self.held = b""
        self.case = Round(VALUES, PROTECTION, index=self.round, identities=IDENTITIES)
        self.step = 0

    @rule(silent=st.sampled_from(["", "client-03"]))
    def true_message(self, silent: str) -> None:
        """The next message of an honest round, in which the others answer for real."""
        case, stages = self.case, ("keys", "shares", "masked", "confirm", "unmask")
        if self.step >= len(stages):
            return
        stage = stages[self.step]
        try:
            self.honest(case, stage, silent)
        except REFUSALS:
            self.step = len(stages)  # the victim went another way: this round is over
        else:
            self.step += 1

    def honest(self, case: Round, stage: str, silent: str) -> None:
        gathering = case.gathering
        if stage in ("keys", "shares"):
            collect = gathering.collect_keys if stage == "keys" else gathering.collect_shares
            collect(self.exchange)
        elif stage == "masked":
            for name in VALUES:
                data = gathering.delivery(name)
                if name == VICTIM:
                    reply = self.deliver(data, masked=True)
                elif name == silent:
                    reply = None
                else:
                    held = PROTECTION.receive(
                        data, b"the model", case.states[name].to_bytes(), case.members[name], 5, self.round
                    )
                    reply = PROTECTION.protect(VALUES[name], Entropy(), Seat("update", 5, held, b"the model"))
                    state = State.from_bytes(held)
                    assert state is not None
                    case.states[name] = state
                if reply is not None:
                    gathering.add(name, "update", reply, 3, case.ring)
        elif stage == "confirm":
            totals, survivors = gathering.open(self.exchange, {"update": case.ring})
            assert (case.ring.centred(totals["update"]) == case.plain(survivors)).all()
            self.step += 1

    def exchange(self, requests):  # noqa: ANN001, ANN201
        if VICTIM in requests:
            reply = self.deliver(requests[VICTIM])
            if reply is not None:
                yield VICTIM, reply
        yield from self.case.exchange({name: requests[name] for name in requests if name != VICTIM})

    @rule(stage=st.sampled_from(["keys", "shares", "masked", "confirm", "unmask"]), which=st.sampled_from([0, 1]))
    def old_message(self, stage: str, which: int) -> None:
        """A message that was true in another round, of clients with the same names and identities."""
        reply = self.deliver(OLD[which][stage], masked=stage == "masked")
        # bitmaps alone are no statement of any round: what the client signs of them is of its own
        assert reply is None or stage in ("keys", "confirm") or self.round == which

    @rule(
        stage=st.sampled_from(["keys", "shares", "masked", "confirm", "unmask"]),
        place=st.integers(0, 10_000),
        bit=st.integers(0, 7),
        cut=st.integers(0, 40),
    )
    def damaged_message(self, stage: str, place: int, bit: int, cut: int) -> None:
        data = bytearray(OLD[0][stage])
        data[place % len(data)] ^= 1 << bit
        self.deliver(bytes(data[: len(data) - cut]), masked=stage == "masked")

    @rule(data=st.binary(max_size=200), masked=st.booleans())
    def garbage(self, data: bytes, masked: bool) -> None:
        assert self.deliver(data, masked=masked) is None

    @invariant()
    def both_shares_of_nobody(self) -> None:
        for opened in getattr(self, "opened", {}).values():
            assert not opened["seeds"] & opened["keys"]


def machine(examples: int, steps: int) -> type:
    made = type("Machine", (ClientMachine,), {})
    made.TestCase.settings = settings(  # type: ignore[attr-defined]
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return made.TestCase  # type: ignore[attr-defined,no-any-return]


TestArbitraryMessages = machine(120, 40)


@pytest.mark.slow
class TestTenThousandSteps(machine(500, 50)):  # type: ignore[misc]
    """About 17,000 messages, in 500 sequences."""


def test_the_machine_can_reach_the_end_of_a_round() -> None:
    """What shows that the rules are not all refused: true messages alone open two rounds."""
    played = ClientMachine()
    played.begin()
    for silent in ("", "client-03"):
        for _ in range(5):
            played.true_message(silent)
        played.next_round()
    assert set(played.opened) == {0, 1}
    assert played.opened[1]["keys"] == {3}
