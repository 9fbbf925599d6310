"""A server, a network or a client that does not follow the protocol: one typed error, nothing opened."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from framp_private.crypto.homomorphic import new_keys
from framp_private.crypto.keys import Identity
from framp_private.errors import BelowThreshold, CryptoError, FrampError, ProtocolError, WireError
from framp_private.protections import BFVSum, CKKSSum
from framp_private.protections.base import Pin, Seat
from framp_private.protections.homomorphic import EncryptedSum
from framp_private.protections.homomorphic.messages import (
    KEY_HOLDER,
    SIGNED,
    Context,
    ContextOffer,
    ContextRequest,
    Encrypt,
    EncryptedValue,
    OpenedSum,
    OpenRequest,
    framed,
    stated,
)
from framp_private.protections.homomorphic.opening import open_once
from framp_private.randomness import Entropy
from framp_private.wire import decode, encode
from tests.homomorphic.harness import Round, values_of

CASES = [BFVSum(survivors=0.5), CKKSSum(survivors=0.5)]


def request_of(case: Round) -> OpenRequest:
    """What an honest server would ask the key holder."""
    asked: list[bytes] = []

    def watch(name: str, message: bytes) -> bytes:
        if name == KEY_HOLDER and message[6:].startswith(b"OpenRequest"):
            asked.append(message)
        return message

    case.down = watch
    case.total()
    case.records = {}
    return decode(asked[0], OpenRequest)


def ask(case: Round, request: OpenRequest) -> np.ndarray:
    return decode(case.holder(encode(request)), OpenedSum).units


@pytest.mark.parametrize("protection", CASES)
def test_the_holder_opens_no_sum_over_fewer_than_its_signers(protection: EncryptedSum) -> None:
    case = Round(values_of(8), protection)
    honest = request_of(case)
    for count in (1, 2, 3):
        some = dict(list(honest.values.items())[:count])
        with pytest.raises(BelowThreshold):
            ask(case, replace(honest, values=some))
    assert not case.records  # a refusal opens nothing and uses nothing up
    assert ask(case, honest).shape == (7,)


@pytest.mark.parametrize("protection", CASES)
def test_the_holder_opens_one_sum_for_a_round_and_channel(protection: EncryptedSum) -> None:
    case = Round(values_of(8), protection)
    honest = request_of(case)
    first = case.holder(encode(honest))
    assert case.holder(encode(honest)) == first  # to the last bit, the holder's noise included
    without = dict(list(honest.values.items())[1:])
    with pytest.raises(ProtocolError, match="each round has one"):
        ask(case, replace(honest, values=without))
    case.index = -1
    with pytest.raises(ProtocolError, match="each round has one"):
        ask(case, honest)


CHANGES: dict[str, Callable[[Round, EncryptedValue], EncryptedValue]] = {
    "no signature": lambda case, value: replace(value, signature=b""),
    "a flipped signature": lambda case, value: replace(
        value, signature=bytes([value.signature[0] ^ 1]) + value.signature[1:]
    ),
    "flipped ciphertext": lambda case, value: replace(
        value, ciphertexts=value.ciphertexts[:-1] + bytes([value.ciphertexts[-1] ^ 1])
    ),
    "cut ciphertext": lambda case, value: replace(value, ciphertexts=value.ciphertexts[:-1]),
    "no ciphertext": lambda case, value: replace(value, ciphertexts=b""),
    "another request": lambda case, value: replace(value, asked=hashlib.sha256(b"other").digest()),
    "somebody else's signature": lambda case, value: replace(
        value, signature=Identity.new(Entropy()).sign("encrypted value", b"x")
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_holder_opens_nothing_with_a_value_that_its_client_did_not_sign(what: str) -> None:
    case = Round(values_of(6), BFVSum())

    def forged(data: bytes) -> bytes:
        return encode(CHANGES[what](case, decode(data, EncryptedValue)))

    honest = request_of(case)
    changed = {name: forged(data) if name == "client-03" else data for name, data in honest.values.items()}
    with pytest.raises(CryptoError, match=r"^a ciphertext is refused$"):
        ask(case, replace(honest, values=changed))
    assert not case.records


def resigned(case: Round, name: str, **changes: object) -> Callable[[bytes], bytes]:
    """What a client makes of its own value, with a signature of its own."""

    def change(data: bytes) -> bytes:
        bad = replace(decode(data, EncryptedValue), **changes)  # type: ignore[arg-type]
        said = stated(case.run, case.index, "prototypes", case.key.digest, bad)
        return encode(replace(bad, signature=case.identities[name].sign(SIGNED, said)))

    return change


@pytest.mark.parametrize("what", [*CHANGES, "garbage", "nothing", "signed rubbish", "signed for another request"])
@pytest.mark.parametrize("protection", CASES)
def test_one_client_with_a_bad_ciphertext_costs_the_others_nothing(what: str, protection: EncryptedSum) -> None:
    """It is in no sum; whoever it is, nobody else is blamed, and the round goes on without it."""
    case = Round(values_of(6), protection)
    bad: Callable[[bytes], bytes] = {
        "garbage": lambda data: b"junk" * 20,
        "nothing": lambda data: b"",
        "signed rubbish": resigned(case, "client-03", ciphertexts=framed([b"x" * 1000])),
        "signed for another request": resigned(case, "client-03", asked=hashlib.sha256(b"other").digest()),
    }.get(what) or (lambda data: encode(CHANGES[what](case, decode(data, EncryptedValue))))
    case.up = lambda name, data: bad(data) if name == "client-03" and data[6:].startswith(b"EncryptedValue") else data
    total = case.total()
    plain = sum(value for name, value in case.values.items() if name != "client-03")
    assert total.count == 5 and np.abs(total.value - plain).max() < 0.2
    assert BFVSum not in (type(protection),) or np.abs(total.value - plain).max() < 1e-3


def test_values_of_other_rounds_runs_channels_and_clients_are_refused() -> None:
    case = Round(values_of(6), BFVSum())
    honest = request_of(case)

    def refused(request: OpenRequest, **more: object) -> None:
        place = {"run": case.run, "round_index": 0, **more}
        roster = place.pop("roster", case.members["client-00"].roster)
        with pytest.raises((CryptoError, ProtocolError)):
            open_once(
                case.protection, encode(request), {}, case.key, roster, place["run"], 6, place["round_index"], Entropy()
            )  # type: ignore[arg-type]

    refused(honest, round_index=1)
    refused(honest, run=b"s" * 32)
    refused(replace(honest, channel="update"))
    swapped = dict(zip(honest.values, reversed(list(honest.values.values())), strict=True))
    refused(replace(honest, values=swapped))
    stranger = {**honest.values, "stranger": honest.values["client-00"]}
    refused(replace(honest, values=stranger))
    roster = dict(case.members["client-00"].roster)
    roster.pop("client-05")  # rostered, but not in this round's cohort
    refused(honest, roster=roster)
    for size in (0, 6, 8, 5000, 10**6):
        refused(replace(honest, size=size))


def test_values_that_answer_different_requests_are_not_added_up() -> None:
    """A server that shows one client a model of its own cannot have that client's value in the sum."""
    case = Round(values_of(6), BFVSum(), asked=lambda name: b"crafted" if name == "client-02" else b"the model")
    session = case.opened()
    values = {name: case.value(name, session.brief(name) or b"") for name in case.values}
    with pytest.raises(ProtocolError, match="different requests"):
        ask(case, OpenRequest("prototypes", case.size, values))
    for name, value in values.items():
        session.add(name, value)
    assert session.close(case.exchange).count == 5  # an honest server leaves out what would not be opened


@pytest.mark.parametrize("protection", CASES)
def test_a_swapped_context_is_refused_by_clients_and_by_the_server(protection: EncryptedSum) -> None:
    own = new_keys(protection.parameters(6)).public  # the server knows its secret

    def swap(name: str, message: bytes) -> bytes:
        kind = message[6:]
        if kind.startswith(b"ContextOffer"):
            return encode(ContextOffer(hashlib.sha256(own).digest()))
        if kind.startswith(b"Context") and not kind.startswith((b"ContextRequest", b"ContextOffer", b"ContextKnown")):
            return encode(Context(own))
        return encode(Encrypt(hashlib.sha256(own).digest())) if kind.startswith(b"Encrypt") else message

    def only(kind: bytes) -> Callable[[str, bytes], bytes]:
        return lambda name, message: swap(name, message) if message[5 : 6 + len(kind)] == name_of(kind) else message

    def name_of(kind: bytes) -> bytes:
        return bytes([len(kind)]) + kind

    for kind in (b"ContextOffer", b"Context", b"Encrypt"):
        case = Round(values_of(6), protection, down=only(kind))
        with pytest.raises(CryptoError, match=r"^an encryption context is refused$"):
            case.gathered()
        assert not any(data[6:].startswith(b"EncryptedValue") for _, _, data in case.sent)
    case = Round(values_of(6), protection, up=only(b"Context"))
    with pytest.raises(CryptoError, match=r"^an encryption context is refused$"):
        case.gathered()


def test_a_pinned_context_on_other_parameters_is_refused() -> None:
    """Whoever pins for a site could be fooled with weak parameters: clients work them out themselves."""
    other = new_keys(BFVSum(step=1e-3).parameters(6)).public
    case = Round(values_of(6), BFVSum())
    pin = Pin(hashlib.sha256(other).digest())
    member = replace(case.members["client-00"], pin=pin)
    with pytest.raises(CryptoError):
        case.protection.answer(encode(Context(other)), b"", member, 6, 0, True)


def test_nobody_but_the_key_holder_gives_the_key_or_opens() -> None:
    case = Round(values_of(6), BFVSum())
    honest = request_of(case)
    for message in (ContextRequest(), honest):
        with pytest.raises(ProtocolError, match="holds no key"):
            case.client("client-00", encode(message))
    shared = Round(values_of(6), BFVSum(key_holder="clients"))
    shared.total()
    asked = [data for way, name, data in shared.sent if data[6:].startswith(b"OpenRequest")]
    honest = decode(asked[0], OpenRequest)
    with pytest.raises(ProtocolError, match="each round has one"):  # the client that opened opens nothing else
        shared.client("client-00", encode(replace(honest, values=dict(list(honest.values.items())[1:]))))
    with pytest.raises(BelowThreshold):  # and the others no single client's value
        shared.client("client-01", encode(replace(honest, values=dict(list(honest.values.items())[:1]))))


@pytest.mark.parametrize("protection", CASES)
def test_after_a_round_that_was_refused_the_next_one_works(protection: EncryptedSum) -> None:
    def flipped(name: str, data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if data[6:].startswith(b"EncryptedValue") else data

    case = Round(values_of(6), protection, up=flipped)
    with pytest.raises(BelowThreshold):
        case.total()
    kept = {"records": case.records, "identities": case.identities, "held": case.held}
    total = Round(case.values, protection, index=1, **kept).total()
    assert np.abs(total.value - sum(case.values.values())).max() < 0.2 and total.count == 6


def test_messages_out_of_order_are_refused() -> None:
    case = Round(values_of(4), BFVSum())
    member = case.members["client-00"]
    with pytest.raises(ProtocolError, match="begins with the context"):
        case.protection.receive(encode(Encrypt(case.key.digest)), b"model", b"", member, 4, 0)
    case.gathered()
    held = case.held["client-00"]
    with pytest.raises(ProtocolError, match="one request"):
        case.protection.protect(np.zeros(7), Entropy(), Seat("prototypes", 4, held, b"another", 0, member))
    session = Round(values_of(4), BFVSum()).opened()
    with pytest.raises(ProtocolError, match="not awaited"):
        session.add("stranger", b"")
    case = Round(values_of(4), BFVSum())
    session = case.opened()
    made = case.value("client-00", session.brief("client-00") or b"")
    session.add("client-00", made)
    with pytest.raises(ProtocolError, match="not awaited"):
        session.add("client-00", made)


def test_a_holder_that_answers_nonsense_or_nothing_opens_nothing() -> None:
    for reply in (
        encode(OpenedSum(np.zeros(6, np.int64))),
        encode(OpenedSum(np.zeros(7, np.float64))),
        b"junk",
    ):
        case = Round(values_of(4), BFVSum())
        case.up = lambda name, data, reply=reply: reply if data[6:].startswith(b"OpenedSum") else data  # type: ignore[misc]
        with pytest.raises((ProtocolError, WireError)):
            case.total()
    silent = Round(values_of(4), BFVSum())
    session = silent.gathered()
    silent.silent = (KEY_HOLDER,)
    with pytest.raises(BelowThreshold, match="nobody who holds the key"):
        session.close(silent.exchange)
    with pytest.raises(BelowThreshold, match="nobody who holds the key"):
        Round(values_of(4), BFVSum(), silent=(KEY_HOLDER,)).gathered()


def test_where_clients_hold_the_key_the_next_one_opens_when_the_first_is_gone() -> None:
    case = Round(values_of(5), BFVSum(key_holder="clients"))
    session = case.gathered()
    case.silent = ("client-00",)
    ring = case.protection.ring(5)  # type: ignore[attr-defined]
    plain = sum(ring.centred(ring.encode(value)) for value in case.values.values()) * ring.step
    assert (session.close(case.exchange).value == plain).all()


def test_no_change_of_one_byte_in_any_message_opens_another_sum() -> None:
    """Every message of a round, changed in a random place: a typed error, or the right sum."""
    rng = np.random.default_rng(0)
    right = Round(values_of(4), BFVSum()).total().value
    ring = BFVSum().ring(4)
    each = {name: ring.centred(ring.encode(value)) * ring.step for name, value in values_of(4).items()}
    outcomes = []
    for place in range(60):
        seen = -1

        def change(name: str, data: bytes) -> bytes:
            nonlocal seen
            seen += 1
            if seen != place % 24:
                return data
            changed = bytearray(data)
            changed[rng.integers(len(changed))] ^= 1 << int(rng.integers(8))
            return bytes(changed)

        case = Round(values_of(4), BFVSum(survivors=0.0), **{"down" if place % 2 else "up": change})
        try:
            found = case.total()
            whole = [right] if found.count == 4 else [right - value for value in each.values()]  # one client is out
            outcomes.append(any(np.allclose(found.value, one, atol=1e-9) for one in whole))
        except FrampError:
            outcomes.append(None)
    # a key holder that is believed is the one party that can lie: its sum is not signed
    assert outcomes.count(None) > 30 and outcomes.count(False) <= 3
