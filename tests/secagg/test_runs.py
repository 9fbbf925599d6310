"""Secure sums in training rounds: equal learning, dropouts, crashes, and what the server and its transcript hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from framp_private import (
    Options,
    Pullback,
    ServerStep,
    TargetNetwork,
    make_config,
    read_transcript,
    run_config,
    secure_sum,
    train,
)
from framp_private.assemble import federation_of
from framp_private.crypto.ring import Ring, pack, unpack
from framp_private.errors import FrampError, PlanError, ProtocolError, ReleaseLost
from framp_private.federated.client import ClientState
from framp_private.federated.messages import Briefed, Envelope, Trip, TripReply, bytes_by_channel, read_request
from framp_private.federated.server import sample_cohort
from framp_private.models.vision import perceptron
from framp_private.protections import (
    CentralGaussian,
    DistributedGaussian,
    LocalGaussian,
    PlainSum,
    Plan,
    Protection,
    SecAgg,
)
from framp_private.protections.base import Exchange, Lift, Meeting, Seat, ServerView, Session, Total
from framp_private.protections.secagg.messages import KeysRequest
from framp_private.protections.secagg.state import State
from framp_private.randomness import Entropy
from framp_private.run_folder import ClientStore
from framp_private.simulation import Simulation
from framp_private.wire import decode, encode
from tests.tiny import tiny_dataset, tiny_federation, tiny_method

DATASET = tiny_dataset(6, 0)
SECURE = SecAgg(bound=64.0, step=1e-3)


@dataclass(frozen=True)
class RingSum(PlainSum):
    """The plain sum of the same quantised values, in the clear: what a secure sum must equal to the last bit."""

    secure: SecAgg = SECURE

    def protect(self, value: np.ndarray, entropy: Entropy, seat: Seat | None = None) -> bytes:
        assert seat is not None
        ring = self.secure.ring(seat.planned)
        return pack(ring.encode(np.ravel(value)), ring.bits)

    def open(
        self, cohort: Sequence[str], size: int | None, lift: Lift, exchange: Exchange, meeting: Meeting | None = None
    ) -> Session:
        assert size is not None
        return _Ints(self.secure.ring(len(cohort)), size)

    def server_view(self) -> ServerView:
        return replace(super().server_view(), granularity="client")


class _Ints(Session):
    def __init__(self, ring: Ring, size: int) -> None:
        self._ring, self._size, self._total, self._count = ring, size, np.zeros(size, np.int64), 0

    def add(self, client: str, payload: bytes) -> None:
        self._total += self._ring.centred(unpack(payload, self._size, self._ring.bits))
        self._count += 1

    def close(self, exchange: Exchange) -> Total:
        return Total(self._total * self._ring.step, self._count)


def federation(  # noqa: ANN201
    update: Protection, prototypes: Protection | None = None, backbone: str = "coordinate_mean", **more: object
):
    method = tiny_method(pullback=Pullback.CLIENT, step=ServerStep(backbone=backbone))  # type: ignore[arg-type]
    method = replace(method, hypernetwork=replace(method.hypernetwork, standardise="own"))  # type: ignore[type-var]
    plan = Plan(None, update, prototypes or update, None)
    return tiny_federation(DATASET, method, plan=plan, **more)


def run(update: Protection, prototypes: Protection | None = None, out: Path | None = None, **options: object):  # noqa: ANN201
    rounds, resume = options.pop("rounds", 3), options.pop("resume", False)
    return train(
        federation(update, prototypes, rounds=rounds),
        DATASET,
        out=out,
        resume=resume,  # type: ignore[arg-type]
        options=Options(home_steps=2, **options),  # type: ignore[arg-type]
    )


def test_a_run_under_secure_sums_equals_the_plain_one_to_the_last_bit() -> None:
    secure, plain = run(SECURE), run(RingSum())
    assert torch.equal(secure.simulation.state.phi, plain.simulation.state.phi)
    for name in DATASET.clients:
        assert torch.equal(secure.weights(name).weights, plain.weights(name).weights)
    assert secure.summary["accuracy"] == plain.summary["accuracy"]
    exact = run(PlainSum()).simulation.state.phi
    torch.testing.assert_close(secure.simulation.state.phi, exact, atol=2e-2, rtol=0)
    assert not torch.equal(secure.simulation.state.phi, exact)


def test_channels_of_one_protocol_share_its_trips_and_others_do_not(tmp_path: Path) -> None:
    def trips(update: Protection, prototypes: Protection) -> list[str]:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        run(update, prototypes, out, rounds=1, record_transcript=True)
        found = []
        for name, d in read_transcript(out / "private" / "transcript"):
            if name == "round-000000" and d.direction == "down" and d.client == "client-00":
                found.append(d.message)
        kinds = []
        for data in found:
            message = decode(data, Trip, Briefed)
            kinds.append(message.channel if isinstance(message, Trip) else "+".join(sorted(message.briefs)))
        return kinds

    assert trips(SECURE, SECURE) == ["update", "update", "update", "update", "update"]
    other = replace(SECURE, threshold=0.75)
    assert trips(SECURE, other) == [
        *("update", "update", "prototypes", "prototypes"),
        "prototypes+update",
        *("update", "update", "prototypes", "prototypes"),
    ]
    assert trips(PlainSum(), SECURE)[2] == "prototypes"


def test_masked_slices_are_counted_on_their_channels(tmp_path: Path) -> None:
    made = federation(SECURE)
    summary = run(SECURE, out=tmp_path / "run", record_transcript=True).summary
    ring, clients = SECURE.ring(6), 6 * 3
    sizes = {"update": made.update_size(1.0), "prototypes": made.prototypes_size()}
    for channel, size in sizes.items():
        assert summary["traffic"]["up"][channel] == clients * -(-size * ring.bits // 8)
    counted = dict.fromkeys(("descriptor", "update", "prototypes", "metrics", "protocol"), 0)
    for _, delivery in read_transcript(tmp_path / "run" / "private" / "transcript"):
        if delivery.direction == "up":
            for channel, size in bytes_by_channel(delivery.data).items():
                counted[channel] += size
    assert counted == summary["traffic"]["up"] and counted["descriptor"] == 0


@pytest.mark.parametrize("gone", [1, 2])
def test_rounds_go_on_without_those_who_are_silent_and_fail_below_the_threshold(gone: int) -> None:
    def drops(client: str, round_index: int) -> bool:
        return round_index == 1 and int(client[-2:]) < gone + (2 if gone == 2 else 0)

    failed: list[bool] = []
    made = run(SECURE, drops=drops, on_round=lambda done, row: failed.append(bool(row.get("failed"))))
    plain = run(RingSum(), drops=drops)
    assert made.simulation.state.round_index == 3
    staying = 6 - (1 if gone == 1 else 4)
    assert failed == ([False, staying < SECURE.terms(6).threshold, False])
    # a round that failed left phi as it was, and the plain sum, which takes any number, moved it
    assert torch.equal(made.simulation.state.phi, plain.simulation.state.phi) == (gone == 1)


class Cut(Exception):
    pass


def test_a_round_that_was_cut_is_not_summed_a_second_time(tmp_path: Path) -> None:
    """Two sums of one round over different survivors would show what lies between them."""
    out, calls = tmp_path / "run", []

    def drops(client: str, round_index: int) -> bool:
        calls.append((round_index, client))
        if round_index == 1 and len([c for c in calls if c[0] == 1]) == 6 * 2 + 4 and ("cut", "") not in calls:
            calls.append(("cut", ""))  # type: ignore[arg-type]
            raise Cut  # while masked vectors arrive: three clients have answered
        return False

    with pytest.raises(Cut):
        run(SECURE, out=out, drops=drops)
    made = run(SECURE, out=out, resume=True, drops=drops)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("failed", False) for row in rows] == [False, True, False]
    assert made.simulation.state.round_index == 3


def test_no_secret_of_a_round_is_ever_stored(tmp_path: Path) -> None:
    store = ClientStore(tmp_path)
    made = Simulation(federation(SECURE, rounds=2), DATASET, store=store)
    made.enrol()
    seen: set[bytes] = set()
    real = made.engine._handle

    def handle(name: str, request: bytes) -> bytes | None:
        reply = real(name, request)
        seen.update(held for held in made.engine.states[name].secret.values() if held)
        return reply

    made.engine._handle = handle  # type: ignore[method-assign]
    made.step()
    secrets = set()
    for held in seen:
        state = State.from_bytes(held)
        assert state is not None
        secrets |= {state.mask_secret, state.seal_secret, state.seed} - {b""}
    assert len(secrets) == 3 * 6
    for name, state in made.engine.states.items():
        stored = state.to_bytes()
        assert not any(secret in stored for secret in secrets), name
    tensors = b"".join(value.numpy().tobytes() for value in made.tensors().values())
    assert not any(secret in tensors for secret in secrets)
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(files) == 6 and not any(secret in data for data in files for secret in secrets)


def test_messages_of_other_rounds_and_channels_are_refused() -> None:
    made = Simulation(federation(SECURE, rounds=3), DATASET)
    made.enrol()
    made.step()
    client, state = made.engine._clients["client-00"].client, made.engine.states["client-00"]  # type: ignore[attr-defined]
    digest = made.federation.digest
    keys = encode(KeysRequest(0, 6))
    with pytest.raises(ReleaseLost, match="no second sum"):
        client.handle(encode(Trip(digest, 0, "update", keys)), replace(state, secret={}))
    for bad in (
        Trip(b"other", 1, "update", keys),
        Trip(digest, -1, "update", keys),
        Trip(digest, 3, "update", keys),
        Trip(digest, 1, "update", keys),  # says round 0 inside
        Trip(digest, 1, "prototypes", encode(KeysRequest(1, 6))),  # its trips are those of update
        Trip(digest, 1, "descriptor", keys),
        Trip(digest, 1, "nothing", keys),
    ):
        with pytest.raises(ProtocolError):
            client.handle(encode(bad), replace(state, secret={}))
    nested = encode(Briefed(encode(Trip(digest, 1, "update", keys)), {}))
    with pytest.raises(ProtocolError, match="one more"):
        client.handle(nested, state)
    reply, moved = client.handle(encode(Trip(digest, 1, "update", encode(KeysRequest(1, 6)))), state)
    assert decode(reply, TripReply).body and moved.secret["update"]


def test_no_value_is_masked_with_keys_of_another_round_or_without_its_brief() -> None:
    """Two vectors under the same masks would show their difference: each takes a brief of its own round, once."""
    made = Simulation(federation(SECURE, rounds=3), DATASET)
    made.enrol()
    client = made.engine._clients["client-00"].client  # type: ignore[attr-defined]
    kept: list[bytes] = []
    real = made.engine._handle

    def handle(name: str, request: bytes) -> bytes | None:
        message = decode(request, Envelope).message
        if name == "client-00" and message and isinstance(read_request(message), Briefed):
            kept.append(message)
        return real(name, request)

    made.engine._handle = handle  # type: ignore[method-assign]
    made.step()
    state = made.engine.states["client-00"]
    middle = replace(state, secret=state.secret)
    briefed = read_request(kept[0])
    assert isinstance(briefed, Briefed)
    request = read_request(briefed.request)
    later = encode(replace(request, round_index=1))  # type: ignore[type-var]
    spent = client.account.ledger.releases
    for bad in (
        later,
        encode(Briefed(later, {})),
        encode(Briefed(later, briefed.briefs)),
        encode(Briefed(later, {**briefed.briefs, "prototypes": b""})),
        encode(Briefed(later, {"descriptor": b""})),
    ):
        for held in (middle, replace(middle, secret={})):
            with pytest.raises(ProtocolError):
                client.handle(bad, held)
    # and in the middle of a round, with its keys at hand: another request than the one that was briefed
    live = Simulation(federation(SECURE, rounds=3), DATASET)
    live.enrol()
    seen: dict[str, tuple[bytes, ClientState]] = {}
    proper = live.engine._handle

    def watch(name: str, data: bytes) -> bytes | None:
        message = decode(data, Envelope).message
        if name == "client-00" and isinstance(read_request(message), Briefed):
            seen["before"] = (message, live.engine.states[name])
        return proper(name, data)

    live.engine._handle = watch  # type: ignore[method-assign]
    live.step()
    message, before = seen["before"]
    own = live.engine._clients["client-00"].client  # type: ignore[attr-defined]
    given = read_request(message)
    assert isinstance(given, Briefed)
    with pytest.raises(ProtocolError):
        own.handle(encode(Briefed(encode(replace(read_request(given.request), round_index=1)), given.briefs)), before)  # type: ignore[type-var]
    assert client.account.ledger.releases == spent
    held = State.from_bytes(live.engine.states["client-00"].secret["update"])
    assert held is not None and held.stage == "unmask"
    with pytest.raises(ProtocolError, match="one request"):
        SECURE.mask(np.zeros(3), SECURE.ring(6), Seat("update", 6, held.to_bytes(), b"another"))


def test_a_client_whose_state_was_put_back_is_in_no_second_sum_of_a_round(tmp_path: Path) -> None:
    """Its ledger, and not the state that was lost, says that it took part."""
    made = Simulation(federation(SECURE, rounds=2), DATASET)
    made.enrol()
    made.step()
    made.state = replace(made.state, round_index=0)
    made.engine.states = {name: ClientState.new() for name in DATASET.clients}
    row = made.step()
    assert row["failed"] and row["survivors"] == 0


def test_who_is_not_in_a_rounds_cohort_does_not_take_part() -> None:
    made = Simulation(federation(SECURE, rounds=3, clients_per_round=4), DATASET)
    made.enrol()
    asked = set(sample_cohort(made.federation, 0))
    left_out = next(name for name in DATASET.clients if name not in asked)
    client = made.engine._clients[left_out].client  # type: ignore[attr-defined]
    trip = encode(Trip(made.federation.digest, 0, "update", encode(KeysRequest(0, 4))))
    with pytest.raises(ProtocolError, match="not in the cohort"):
        client.handle(trip, ClientState.new())
    assert made.step()["survivors"] == 4


def test_plans_that_a_secure_sum_cannot_carry_are_refused() -> None:
    with pytest.raises(PlanError, match="pullback='client'"):
        tiny_federation(DATASET, plan=Plan(PlainSum(), SECURE, PlainSum(), None))
    with pytest.raises(PlanError, match="the same request"):
        tiny_federation(DATASET, plan=Plan(PlainSum(), PlainSum(), SECURE, None))
    with pytest.raises(PlanError, match="minimum"):
        federation(replace(SECURE, minimum=7))
    with pytest.raises(PlanError, match="minimum"):
        federation(SECURE, clients_per_round=2)


def test_under_a_guarantee_no_value_ends_a_round_and_no_clip_is_left_unchecked() -> None:
    with pytest.raises(PlanError, match="use DistributedGaussian"):
        CentralGaussian(0.5, 1.0, SecAgg())
    noised = LocalGaussian(1.0, 1.0, SecAgg())
    with pytest.raises(PlanError, match="beyond='clip'"):
        noised.check(6, True)
    noised.check(6, False)
    LocalGaussian(1.0, 1.0, SecAgg(beyond="clip")).check(6, True)
    values = {name: np.array([5.0, -5.0, np.nan, 0.25]) for name in DATASET.clients}
    clipped = secure_sum(values, SecAgg(beyond="clip"))
    np.testing.assert_allclose(clipped.value, [6.0, -6.0, 0.0, 1.5], atol=1e-3)
    with pytest.raises(ProtocolError, match="to be summed"):
        secure_sum(values, SecAgg())


def test_a_client_level_run_needs_nobody_for_its_noise(tmp_path: Path) -> None:
    small = {"clients": 12, "rounds": 2, "home_steps": 2, "local_steps": 2}
    config = make_config(preset="digits-distributed", assignments=small)
    made = run_config(config, out=tmp_path / "run")
    federation = made.simulation.federation
    assert isinstance(federation.plan.update, DistributedGaussian) and federation.channels == ("update", "prototypes")
    claim = made.summary["privacy"]["client"]
    assert (
        7.9 < claim["epsilon"] <= 8
        and claim["relation"] == "add/remove"
        and "honest-but-curious" in claim["trust_model"]
    )
    assert made.summary["privacy"]["record"]["epsilon"] is None
    rows = [json.loads(line) for line in (tmp_path / "run" / "ledgers" / "client-00.jsonl").read_text().splitlines()]
    spends = [row for row in rows if row["kind"] == "spend"]
    assert [row["mechanism"]["kind"] for row in spends] == ["ZCDpEvent"] * 4
    assert {row["unit"] for row in rows if "unit" in row} == {"client"}
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count('"survivors": 12') == 2
    report = " ".join((tmp_path / "run" / "report.html").read_text().split())
    assert "no client&#39;s contribution" in report and "is trusted with it" not in report


def test_a_round_under_the_least_survivors_is_skipped_and_stays_spent(tmp_path: Path) -> None:
    small = {"clients": 10, "rounds": 3, "home_steps": 2, "local_steps": 2}
    config = make_config(preset="digits-distributed", assignments=small)

    def drops(client: str, round_index: int) -> bool:
        return round_index == 1 and client in ("client-00", "client-01", "client-02")

    made = run_config(config, out=tmp_path / "run", options=Options(drops=drops))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("failed", False) for row in rows] == [False, True, False]
    assert made.summary["privacy"]["client"]["epsilon"] <= 8


def test_a_smaller_cohort_is_not_amplified_against_a_server_that_sees_it() -> None:
    small = {"clients": 12, "clients_per_round": 6, "rounds": 2}
    config = make_config(preset="digits-distributed", assignments=small)
    network = TargetNetwork(lambda: perceptron(1, 8, 10))
    made = federation_of(config, network, {f"client-{i:02d}": 12 for i in range(12)})
    assert not made.sampled and made.secure
    assert (
        made.planned("client-00")[0][0].mechanism == made.plan.update.event(["x"] * 6, made.update_size(1.0)).mechanism
    )  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("assignments", "reason"),
    [
        ({"cohorts": "poisson", "clients_per_round": 6}, "one size"),
        ({"privacy": {"adaptive_clip": {"quantile": 0.5}}}, "adaptive_clip"),
        ({"protections": {"update": "central-gaussian", "prototypes": "distributed-gaussian"}}, "together"),
        ({"protections": {"prototypes": "central-gaussian"}}, "together"),
        ({"clients": 2}, "minimum"),
        ({"secagg": {"survivors": 0.0, "colluding": 8}}, "no share of the noise"),
        ({"secagg": {"threshold": 0.5, "corrupt": 0.4}}, "two views"),
        ({"privacy": {"unit": "record"}}, "local_steps=1"),
    ],
)
def test_settings_that_contradict_distributed_noise_are_refused(assignments: dict[str, object], reason: str) -> None:
    config = make_config(preset="digits-distributed", assignments={"clients": 12, "rounds": 2, **assignments})
    network = TargetNetwork(lambda: perceptron(1, 8, 10))
    with pytest.raises(FrampError, match=reason):
        federation_of(config, network, {f"client-{i:02d}": 12 for i in range(config.clients)})
