"""Signed ledgers and the heads that travel: who notices what when rows are lost, rewritten or forged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from framp_private import Options, train
from framp_private.crypto.keys import Identity
from framp_private.errors import CryptoError, FrampError, LedgerError
from framp_private.federated.accounts import Account
from framp_private.federated.client import ClientState
from framp_private.federated.messages import Envelope, SignedHead, read_request
from framp_private.federated.row_signer import RowSigner, row_signed
from framp_private.federated.witness import Witness, WitnessedClient
from framp_private.inspect_ledgers import verify_ledgers
from framp_private.privacy.chain import Head, read_chain
from framp_private.privacy.events import Budget
from framp_private.privacy.ledger import Ledger, verify
from framp_private.randomness import Entropy
from framp_private.wire import decode, encode
from tests import private

BUDGET = Budget(60.0, 1e-5)


class Cut(Exception):
    pass


def run(out: Path, rounds: int = 3, *, resume: bool = False, stop: int = 99):  # noqa: ANN201
    def on_round(done: int, row: object) -> None:
        if done == stop:
            raise Cut

    options = Options(home_steps=1, budget=BUDGET, on_round=on_round)
    return train(private.federation(rounds=rounds), private.DATASET, out=out, resume=resume, options=options)


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rewrite(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def test_every_row_is_signed_and_every_client_ends_with_a_receipt_for_its_last_one(tmp_path: Path) -> None:
    made = run(tmp_path / "run").simulation
    server = made.accounts.server.public
    for name in private.DATASET.clients:
        path = tmp_path / "run" / "ledgers" / f"{name}.jsonl"
        rows = read_chain(path, row_signed)
        assert rows[0]["signer"] == made.accounts.roster[name].key.hex() and all(row["signature"] for row in rows)
        receipt = decode(made.engine.states[name].receipt, SignedHead)
        assert (receipt.rows, receipt.hash.hex()) == (len(rows), rows[-1]["hash"])
        assert server.signed("ledger receipt", encode(replace(receipt, signature=b"")), receipt.signature)
    lines = verify_ledgers(tmp_path / "run")
    assert len(lines) == 7 and all("whole, signed by" in line and "tail as in summary.json" in line for line in lines)


def test_without_a_known_head_the_tail_is_unverified(tmp_path: Path) -> None:
    run(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    shutil.rmtree(tmp_path / "run" / "private" / "checkpoint")
    assert all("tail unverified" in line for line in verify_ledgers(tmp_path / "run"))


def forged(rows: list[dict[str, object]], how: str) -> list[dict[str, object]]:
    stranger = Identity.new(Entropy())
    if how == "signature of another key":
        rows[2]["signature"] = stranger.sign("ledger row", Head(3, str(rows[2]["hash"])).signed_part).hex()
    elif how == "signature of another row":
        rows[2]["signature"] = rows[3]["signature"]
    elif how == "no signature":
        del rows[2]["signature"]
    elif how == "another signer":
        rows[0]["signer"] = stranger.public.key.hex()
    elif how == "no signer":
        for row in rows:
            row.pop("signature")
        rows[0]["signer"] = ""
    elif how == "all of it signed anew":
        rows[0]["signer"] = stranger.public.key.hex()
        for number, row in enumerate(rows, 1):
            row["signature"] = stranger.sign("ledger row", Head(number, str(row["hash"])).signed_part).hex()
    elif how == "malformed signature":
        rows[2]["signature"] = "zz"
    return rows


FORGERIES = [
    "signature of another key",
    "signature of another row",
    "no signature",
    "another signer",
    "no signer",
    "all of it signed anew",
    "malformed signature",
]


@pytest.mark.parametrize("how", FORGERIES)
def test_a_forged_row_is_found(tmp_path: Path, how: str) -> None:
    run(tmp_path / "run")
    path = tmp_path / "run" / "ledgers" / "client-00.jsonl"
    rewrite(path, forged(rows_of(path), how))
    with pytest.raises(LedgerError):
        verify_ledgers(tmp_path / "run")


def test_a_whole_rewrite_takes_the_signers_key(tmp_path: Path) -> None:
    """Somebody who can write the file but has not the key makes a shorter history: the account refuses to go on."""
    path, owner = tmp_path / "a.jsonl", RowSigner(Identity.new(Entropy()))
    options = {"unit": "record", "owner": "a"}
    Ledger.open(path, signer=owner, **options).spend(private.trainer().event(10), "one")  # type: ignore[arg-type]
    path.unlink()
    Ledger.open(path, signer=RowSigner(Identity.new(Entropy())), **options)  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match="account's key"):
        Ledger.open(path, signer=owner, **options)  # type: ignore[arg-type]


def test_a_signed_ledger_is_read_without_its_signer_and_spent_on_only_with_it(tmp_path: Path) -> None:
    path, owner = tmp_path / "a.jsonl", RowSigner(Identity.new(Entropy()))
    event = private.trainer().event(10)
    Ledger.open(path, unit="record", owner="a", signer=owner).spend(event, "one")
    read = Ledger.open(path, unit="record", owner="a", repair=False)
    assert read.releases == 1
    with pytest.raises(LedgerError, match="open it with its signer"):
        read.spend(event, "two")
    assert verify(path, read.head, row_signed).rows == 2
    plain = Ledger.open(tmp_path / "b.jsonl", unit="record", owner="b")
    plain.spend(event, "one")
    with pytest.raises(LedgerError, match="account's key"):  # no signature is added to what was begun without
        Ledger.open(tmp_path / "b.jsonl", unit="record", owner="b", signer=owner)


def test_equal_runs_have_equal_heads_whoever_signs(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a"), run(tmp_path / "b")
    assert first.summary["ledgers"] == second.summary["ledgers"]


def test_a_client_with_an_old_ledger_refuses_before_it_spends(pair: tuple[Witness, WitnessedClient]) -> None:
    """Its whole disk is an older copy, so nothing it holds shows the loss; the server's receipt does."""
    witness, handler = pair
    exchange, states = exchange_of(handler)
    one(0, witness.around(exchange))
    old = states["client-00"]
    one(1, witness.around(exchange))
    assert handler.client.account is not None
    signer = handler.ledger._chain._signer
    short = Ledger.open(None, unit="record", owner="client-00", signer=signer)
    short.spend_all(handler.client._releases(read_request(private.train_request(private.federation(), "client-00", 0))))
    restored = replace(handler, client=replace(handler.client, account=Account(short)))
    request = witness.envelope("client-00", private.train_request(private.federation(), "client-00", 2))
    spent = short.releases
    with pytest.raises(LedgerError, match="cut off or replaced"):
        restored.handle(request, old)
    assert short.releases == spent
    handler.handle(request, states["client-00"])  # the one that kept its rows goes on


def test_a_ledger_that_was_put_back_alone_is_found_out_by_the_receipt_that_the_client_kept(
    pair: tuple[Witness, WitnessedClient],
) -> None:
    """The client's state is current and its receipt the one that comes again: still the ledger must have that head."""
    witness, handler = pair
    exchange, states = exchange_of(handler)
    for index in range(2):
        one(index, witness.around(exchange))
    envelope = witness.envelope("client-00", private.train_request(private.federation(), "client-00", 2))
    _, current = handler.handle(witness.envelope("client-00", b""), states["client-00"])
    short = Ledger.open(None, unit="record", owner="client-00", signer=handler.ledger._chain._signer)
    short.spend_all(handler.client._releases(read_request(private.train_request(private.federation(), "client-00", 0))))  # type: ignore[arg-type]
    restored = replace(handler, client=replace(handler.client, account=Account(short)))
    with pytest.raises(LedgerError, match="cut off or replaced"):
        restored.handle(envelope, current)
    spent = handler.ledger.releases
    for shown in RECEIPTS.values():
        head = shown(states["client-00"].receipt, witness)
        message = private.train_request(private.federation(), "client-00", 2)
        with pytest.raises(LedgerError):
            handler.handle(encode(Envelope(message, head.rows, head.hash, head.signature)), current)
    assert handler.ledger.releases == spent
    handler.handle(envelope, current)
    assert handler.ledger.releases > spent


RECEIPTS = {
    "an older one": lambda older, witness: decode(older, SignedHead),
    "none": lambda older, witness: SignedHead("client-00", 0, b"", b""),
    "that none is known": lambda older, witness: Witness(witness._identity, {}).receipt("client-00"),
    "another client's": lambda older, witness: Witness(witness._identity, {}).receipt("client-01"),
}


def test_no_message_is_answered_without_a_receipt(pair: tuple[Witness, WitnessedClient]) -> None:
    """Also the first one, when the server knows no head: then it signs that it knows none."""
    witness, handler = pair
    message = private.train_request(private.federation(), "client-00", 0)
    rows = handler.ledger.head.rows
    with pytest.raises(LedgerError, match="pinned server"):
        handler.handle(encode(Envelope(message, 0, b"", b"")), ClientState.new())
    assert handler.ledger.head.rows == rows
    reply, state = handler.handle(witness.envelope("client-00", message), ClientState.new())
    assert decode(reply, Envelope).rows > 0 and decode(state.receipt, SignedHead).rows == 0


def test_a_server_that_lost_what_it_knew_learns_it_from_its_own_receipts(
    pair: tuple[Witness, WitnessedClient],
) -> None:
    witness, handler = pair
    exchange, states = exchange_of(handler)
    for index in range(2):
        one(index, witness.around(exchange))
    again = Witness(witness._identity, witness.roster)
    again.learn("client-00", states["client-00"].receipt)
    assert again.known["client-00"].rows == decode(states["client-00"].receipt, SignedHead).rows > 0
    again.learn(
        "client-00", encode(Witness(witness._identity, {}).receipt("client-00"))
    )  # an older one changes nothing
    assert again.known["client-00"].rows == decode(states["client-00"].receipt, SignedHead).rows
    stranger = Witness(Identity.new(Entropy()), {}, witness.known)
    with pytest.raises(LedgerError, match="not this server's"):
        again.learn("client-00", encode(stranger.receipt("client-00")))


@pytest.fixture
def pair() -> tuple[Witness, WitnessedClient]:
    """A server that knows one client, and the client; what the client answers is an echo."""
    made, server = private.federation(), Identity.new(Entropy())
    identity = Identity.new(Entropy())
    ledger = Ledger.open(None, unit="record", owner="client-00", signer=RowSigner(identity))
    client = private.client_of(made, "client-00", account=Account(ledger))
    return Witness(server, {"client-00": identity.public}), WitnessedClient(client, server.public)


def exchange_of(handler: WitnessedClient, change=lambda reply: reply):  # noqa: ANN001, ANN201
    states = {"client-00": ClientState.new()}

    def exchange(requests):  # noqa: ANN001, ANN202
        for name in requests:
            reply, states[name] = handler.handle(requests[name], states[name])
            yield name, change(reply)

    return exchange, states


def one(made, exchange) -> bytes:  # noqa: ANN001
    request = private.train_request(private.federation(), "client-00", made)
    return dict(exchange({"client-00": request}))["client-00"]


def changed(reply: bytes, **fields: object) -> bytes:
    return encode(replace(decode(reply, Envelope), **fields))


BAD_HEADS = {
    "more rows": {"rows": 9},
    "no rows": {"rows": 0},
    "negative rows": {"rows": -1},
    "another hash": {"hash": bytes(32)},
    "short hash": {"hash": b"\x01"},
    "no signature": {"signature": b""},
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_the_server_uses_no_reply_with_a_head_that_its_client_did_not_sign(
    name: str, pair: tuple[Witness, WitnessedClient]
) -> None:
    witness, handler = pair
    exchange, _ = exchange_of(handler, lambda reply: changed(reply, **BAD_HEADS[name]))
    with pytest.raises(LedgerError):
        one(0, witness.around(exchange))
    assert not witness.known


def test_the_server_refuses_a_head_that_goes_back_and_one_that_was_left_out(
    pair: tuple[Witness, WitnessedClient],
) -> None:
    witness, handler = pair
    exchange, _ = exchange_of(handler)
    one(0, witness.around(exchange))
    first = witness.known["client-00"]
    one(1, witness.around(exchange))
    assert witness.known["client-00"].rows > first.rows
    old = {"rows": first.rows, "hash": first.hash, "signature": first.signature}
    back, _ = exchange_of(handler, lambda reply: changed(reply, **old))
    with pytest.raises(LedgerError, match="went back"):
        one(2, witness.around(back))
    unknown = Witness(witness._identity, witness.roster)
    left_out, _ = exchange_of(handler, lambda reply: changed(reply, rows=0, hash=b"", signature=b""))
    with pytest.raises(FrampError):  # a head is left out only where it is the one in the receipt
        one(3, unknown.around(left_out))


@pytest.mark.parametrize("name", [*BAD_HEADS, "another server"])
def test_a_client_spends_nothing_on_a_receipt_that_is_not_its_servers(
    name: str, pair: tuple[Witness, WitnessedClient]
) -> None:
    witness, handler = pair
    exchange, states = exchange_of(handler)
    one(0, witness.around(exchange))
    receipt = witness.receipt("client-00")
    if name == "another server":
        stranger = Witness(Identity.new(Entropy()), {}, witness.known)
        bad = stranger.receipt("client-00")
    else:
        bad = replace(receipt, **BAD_HEADS[name])  # type: ignore[arg-type]
    spent = handler.ledger.releases
    message = private.train_request(private.federation(), "client-00", 1)
    request = encode(Envelope(message, bad.rows, bad.hash, bad.signature))
    with pytest.raises(LedgerError):
        handler.handle(request, states["client-00"])
    assert handler.ledger.releases == spent
    good = encode(Envelope(message, receipt.rows, receipt.hash, receipt.signature))
    handler.handle(good, states["client-00"])
    assert handler.ledger.releases > spent


def test_the_keys_of_a_run_are_needed_to_go_on_with_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Cut):
        run(out, stop=1)
    keys = {path: path.read_bytes() for path in (out / "private" / "keys").rglob("*.key")}
    assert len(keys) == 8 and all(path.stat().st_mode & 0o077 == 0 for path in keys)
    shutil.rmtree(out / "private" / "keys")
    with pytest.raises(LedgerError, match="account's key"):
        run(out, resume=True)
    for path, data in keys.items():
        path.write_bytes(data)
        path.chmod(0o644)
    with pytest.raises(CryptoError, match="others than its owner"):
        run(out, resume=True)
    for path in keys:
        path.chmod(0o600)
    run(out, resume=True)


def test_no_secret_key_is_anywhere_but_in_its_file(tmp_path: Path) -> None:
    run(tmp_path / "run")
    secrets = [path.read_text().strip() for path in (tmp_path / "run" / "private" / "keys").rglob("*.key")]
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file() and path.suffix != ".key":
            data = path.read_bytes()
            assert not any(bytes.fromhex(secret) in data or secret.encode() in data for secret in secrets), path
