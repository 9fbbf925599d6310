"""Whole runs with encrypted channels: equal to clear ring sums, resumed, and cut off."""

from __future__ import annotations

import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch

from framp_private.crypto.homomorphic import Encryption, new_keys
from framp_private.crypto.keys import Identity
from framp_private.errors import CheckpointError, CryptoError, PlanError, ProtocolError, WireError
from framp_private.federated.key_holder import InMemory, KeyHolder, Keys, encrypted_sums, new_pins
from framp_private.federated.messages import Trip
from framp_private.protections import BFVSum, CKKSSum, LocalGaussian, PlainSum, Plan, SecAgg, chain
from framp_private.protections.homomorphic.messages import (
    KEY_HOLDER,
    SIGNED,
    ContextRequest,
    EncryptedValue,
    OpenRequest,
    framed,
    stated,
)
from framp_private.randomness import Entropy
from framp_private.run_folder import HolderStore
from framp_private.training import Options, train
from framp_private.transcript import read_transcript
from framp_private.wire import decode, encode
from tests import private
from tests.secagg.test_runs import DATASET, RingSum, federation, run

SECURE = SecAgg(bound=60.0, step=1e-2)
BFV = BFVSum(bound=60.0, step=1e-2)


def test_runs_under_encrypted_masked_and_clear_sums_are_equal_to_the_last_bit() -> None:
    runs = [run(protection) for protection in (BFV, replace(BFV, key_holder="clients"), SECURE, RingSum(secure=SECURE))]
    runs += [run(SECURE, BFV)]
    first = runs[0]
    for other in runs[1:]:
        assert torch.equal(first.simulation.state.phi, other.simulation.state.phi)
        assert first.summary["accuracy"] == other.summary["accuracy"]
    approximate = run(CKKSSum(bound=60.0, decryptions=6, statistical_bits=20)).simulation.state.phi
    torch.testing.assert_close(approximate, first.simulation.state.phi, atol=0.1, rtol=0)


def test_the_server_pullback_takes_encrypted_prototypes_and_no_encrypted_update() -> None:
    made = private.federation(rounds=2)
    noised = LocalGaussian(private.SUM_CLIP, private.SUM_NOISE)
    channel = chain(noised, BFVSum(bound=200.0, step=1e-2, beyond="clip"))
    secure = replace(made, plan=Plan(noised, PlainSum(), channel, None))
    found = train(secure, private.DATASET, options=Options(home_steps=1))
    assert found.simulation.state.round_index == 2
    assert found.summary["privacy"]["record"]["epsilon"] is None  # no delta was asked for
    with pytest.raises(PlanError, match="pullback='client'"):
        replace(made, plan=Plan(noised, BFVSum(beyond="clip"), noised, None))
    with pytest.raises(PlanError, match="beyond='clip'"):
        replace(made, plan=Plan(noised, PlainSum(), chain(noised, BFVSum(bound=200.0)), None))


class Cut(Exception):
    pass


def test_a_run_that_was_cut_goes_on_and_opens_nothing_twice(tmp_path: Path) -> None:
    whole = run(BFV, rounds=3).simulation.state.phi

    def cut(done: int, row: dict[str, object]) -> None:
        if done == 2:
            raise Cut

    with pytest.raises(Cut):
        run(BFV, out=tmp_path / "run", rounds=3, on_round=cut)
    holder = tmp_path / "run" / "private" / "key-holder"
    before = (holder / "opened.state").read_bytes()
    assert stat.S_IMODE((holder / "update.context").stat().st_mode) == 0o600
    resumed = run(BFV, out=tmp_path / "run", rounds=3, resume=True)
    assert torch.equal(resumed.simulation.state.phi, whole)
    assert (holder / "opened.state").read_bytes() != before


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    made = federation(BFV)
    first = new_pins(made, tmp_path)
    assert new_pins(made, tmp_path) == first
    (tmp_path / "update.context").chmod(0o644)
    with pytest.raises(CryptoError, match="chmod 600"):
        new_pins(made, tmp_path)


def test_keys_without_a_record_of_what_they_opened_are_not_used(tmp_path: Path) -> None:
    """A holder that forgot would open a second sum of a round, and the difference of two is one client's value."""
    run(BFV, out=tmp_path / "run", rounds=2)
    store = HolderStore(tmp_path / "run" / "private" / "key-holder")
    store.check()
    (store.folder / "opened.state").unlink()
    for look in (store.check, lambda: store.update(lambda saved: (saved, b""))):
        with pytest.raises(CryptoError, match="restore it, or make new keys"):
            look()
    fresh = HolderStore(tmp_path / "fresh")
    fresh.check()
    assert (fresh.folder / "opened.state").read_bytes() == b""


def test_holders_over_one_disk_open_one_sum_of_a_round(tmp_path: Path) -> None:
    """Two processes' worth of holders, each asked for many sums at once: whoever comes first decides which is opened."""
    made = federation(BFV, rounds=2)
    identities = {name: Identity.new(Entropy()) for name in made.budgets}
    roster = {name: identity.public for name, identity in identities.items()}
    pins = new_pins(made, tmp_path)
    HolderStore(tmp_path / "one").check()
    stores = [HolderStore(tmp_path / "one") for _ in range(2)]
    holders = [KeyHolder(made, pins, roster, Entropy(), store) for store in stores]
    encryption = Encryption(pins["update"].public, BFV.parameters(made.cohort))
    values = {}
    for name, identity in identities.items():
        value = EncryptedValue(framed(encryption.encrypt(np.arange(3))), bytes(32), b"")
        said = stated(made.digest, 0, "update", pins["update"].digest, value)
        values[name] = encode(replace(value, signature=identity.sign(SIGNED, said)))
    names = list(values)
    requests = [encode(OpenRequest("update", 3, {n: values[n] for n in names if n != gone})) for gone in names]
    trips = [encode(Trip(made.digest, 0, "update", request)) for request in [*requests, *requests]]
    ready = Barrier(len(trips))

    def opened(place: int) -> bytes | None:
        ready.wait()
        try:
            return holders[place % 2].handle(trips[place])
        except ProtocolError:
            return None

    with ThreadPoolExecutor(len(trips)) as pool:
        found = list(pool.map(opened, range(len(trips))))
    answered = {place % len(names) for place, reply in enumerate(found) if reply is not None}
    assert len(answered) == 1  # of that sum, the same bytes however often it is asked for
    assert len({reply for reply in found if reply is not None}) == 1


def test_a_key_that_was_replaced_in_a_run_that_was_cut_is_refused(tmp_path: Path) -> None:
    """By the server, whose checkpoint knows everybody's keys, and by each client, which keeps what it began with."""

    def cut(done: int, row: dict[str, object]) -> None:
        if done == 1:
            raise Cut

    with pytest.raises(Cut):
        run(BFV, out=tmp_path / "run", rounds=3, on_round=cut)
    holder = tmp_path / "run" / "private" / "key-holder"
    ours = new_keys(BFV.parameters(6))  # whoever replaced it can decrypt
    kept = (holder / "update.context").read_bytes()
    (holder / "update.context").write_bytes(encode(Keys(ours.secret, ours.public)))
    with pytest.raises(CheckpointError, match="keys of its parties were replaced"):
        run(BFV, out=tmp_path / "run", rounds=3, resume=True)
    shutil.rmtree(tmp_path / "run" / "private" / "checkpoint")  # a server that goes along with it
    with pytest.raises(ProtocolError, match="began with another federation"):
        run(BFV, out=tmp_path / "run", rounds=3, resume=True)
    (holder / "update.context").write_bytes(kept)


def test_the_server_never_sees_the_key_and_ciphertexts_are_counted(tmp_path: Path) -> None:
    found = run(BFV, out=tmp_path / "run", record_transcript=True)
    secret = new_pins(federation(BFV), tmp_path / "run" / "private" / "key-holder")["update"].secret
    assert all(not pin.secret for pin in found.simulation.pins.values())
    data = b"".join(delivery.data for _, delivery in read_transcript(tmp_path / "run" / "private" / "transcript"))
    for at in range(0, len(secret) - 64, len(secret) // 50):  # what is in the secret context alone
        piece = secret[at : at + 64]
        assert (
            piece not in data
            or piece in new_pins(federation(BFV), tmp_path / "run" / "private" / "key-holder")["update"].public
        )
    up = found.summary["traffic"]["up"]
    assert up["update"] > 6 * 3 * 40_000 and up["prototypes"] > 6 * 3 * 40_000


def test_the_key_holder_refuses_what_is_not_of_its_federation() -> None:
    made = federation(BFV, rounds=2)
    pins = new_pins(made, None)
    holder = KeyHolder(made, pins, {}, Entropy(), InMemory())
    opening = encode(OpenRequest("update", 3, {}))
    for request, error in (
        (Trip(b"other", 0, "update", encode(ContextRequest())), ProtocolError),
        (Trip(made.digest, 0, "descriptor", encode(ContextRequest())), ProtocolError),
        (Trip(made.digest, 2, "update", opening), ProtocolError),
        (Trip(made.digest, -1, "update", opening), ProtocolError),
        (Trip(made.digest, 0, "update", opening), ProtocolError),
        (Trip(made.digest, 0, "update", b"junk"), WireError),
    ):
        with pytest.raises(error):
            holder.handle(encode(request))
    assert encrypted_sums(made) == {"update": BFV}


def test_no_client_may_have_the_key_holders_name() -> None:
    made = federation(PlainSum())
    with pytest.raises(PlanError, match="use another name"):
        replace(made, budgets={KEY_HOLDER: 1.0, **made.budgets})


def test_clients_get_the_context_once(tmp_path: Path) -> None:
    run(BFV, out=tmp_path / "run", record_transcript=True)
    size = len(new_pins(federation(BFV), tmp_path / "run" / "private" / "key-holder")["update"].public)
    brought = [
        (name, delivery.client)
        for name, delivery in read_transcript(tmp_path / "run" / "private" / "transcript")
        if delivery.direction == "down"
        and delivery.client != KEY_HOLDER
        and size < len(delivery.data) < size + 2000
        and isinstance(decode(delivery.message, Trip), Trip)
    ]
    assert sorted(brought) == [("round-000000", name) for name in DATASET.clients]
