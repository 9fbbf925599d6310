"""One run's parties: a nonce, everybody's keys and what is pinned are in the digest that both sides hold requests against."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from framp_private import Options, train
from framp_private.crypto.keys import Identity
from framp_private.errors import CheckpointError, ProtocolError
from framp_private.federated.client import ClientState
from framp_private.federated.federation import Parties
from framp_private.federated.messages import EnrolRequest
from framp_private.privacy.events import Budget
from framp_private.randomness import Entropy
from framp_private.wire import encode
from tests import private

BUDGET = Budget(500.0, 1e-5)
PARTIES = Parties(b"n" * 16, b"s" * 32, {"client-00": b"a" * 32, "client-01": b"b" * 32}, {"prototypes": b"p" * 32})
CHANGES = {
    "nonce": {"nonce": b"m" * 16},
    "server key": {"server": b"t" * 32},
    "a client's key": {"roster": {**PARTIES.roster, "client-01": b"c" * 32}},
    "a client less": {"roster": {"client-00": b"a" * 32}},
    "keys swapped": {"roster": {"client-00": b"b" * 32, "client-01": b"a" * 32}},
    "a pin": {"pins": {"prototypes": b"q" * 32}},
    "no pin": {"pins": {}},
    "the pin of another channel": {"pins": {"update": b"p" * 32}},
}


class Cut(Exception):
    pass


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_of_the_parties_changes_the_digest_and_not_the_facts(what: str) -> None:
    federation = replace(private.federation(), parties=PARTIES)
    other = replace(federation, parties=replace(PARTIES, **CHANGES[what]))  # type: ignore[arg-type]
    assert other.digest != federation.digest and other.facts == federation.facts
    assert replace(federation, parties=None).digest != federation.digest


@pytest.mark.parametrize("what", [*CHANGES, "a setting"])
def test_a_client_goes_on_with_the_federation_that_it_began_with_and_no_other(what: str) -> None:
    """Whatever its disk is then read by: another key of a member, of an encrypted sum, or another run's nonce."""
    federation = replace(private.federation(), parties=PARTIES)
    client = private.client_of(federation, "client-00")
    _, state = client.handle(encode(EnrolRequest(federation.digest)), ClientState.new())
    stored = ClientState.from_bytes(state.to_bytes())
    assert stored.federation == federation.digest
    if what == "a setting":
        other = replace(private.federation(rounds=5), parties=PARTIES)
    else:
        other = replace(federation, parties=replace(PARTIES, **CHANGES[what]))  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="began with another federation"):
        replace(client, federation=other).handle(encode(EnrolRequest(other.digest)), stored)
    client.handle(encode(EnrolRequest(federation.digest)), stored)


def test_runs_under_one_ledger_have_equal_keys_and_digests_of_their_own(tmp_path: Path) -> None:
    """So that keys which clients signed in one run are void in the next."""
    found = []
    for name in ("one", "two"):
        options = Options(home_steps=1, budget=BUDGET, ledger=tmp_path / "ledgers")
        run = train(private.federation(rounds=1), private.DATASET, out=tmp_path / name, options=options)
        found.append(run.simulation.federation)
    first, second = found
    assert first.parties is not None and second.parties is not None
    assert first.parties.roster == second.parties.roster and first.parties.server == second.parties.server
    assert first.parties.nonce != second.parties.nonce and first.digest != second.digest
    assert first.facts == second.facts


def test_a_resumed_run_is_the_one_that_was_cut(tmp_path: Path) -> None:
    def cut(done: int, row: dict[str, object]) -> None:
        raise Cut

    out, options = tmp_path / "run", Options(home_steps=1, budget=BUDGET)
    with pytest.raises(Cut):
        train(private.federation(rounds=2), private.DATASET, out=out, options=replace(options, on_round=cut))
    kept = (out / "run_id").read_text()
    (out / "run_id").write_text("00" * 16)
    with pytest.raises(CheckpointError, match="another run"):
        train(private.federation(rounds=2), private.DATASET, out=out, resume=True, options=options)
    (out / "run_id").write_text(kept)
    key = out / "private" / "keys" / "clients" / "client-01.key"
    before = key.read_bytes()
    key.unlink()
    Identity.of_file(key, Entropy())  # somebody else's
    with pytest.raises(Exception, match=r"account's key|keys of its parties"):
        train(private.federation(rounds=2), private.DATASET, out=out, resume=True, options=options)
    key.write_bytes(before)
    run = train(private.federation(rounds=2), private.DATASET, out=out, resume=True, options=options)
    assert run.simulation.federation.parties.nonce.hex() == kept  # type: ignore[union-attr]
