"""Clients on bytes, rounds with dropouts, and every message that must be refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from framp_private import Alignment, Federation, HypernetworkShape, Method, PlainSum, Plan, Pullback
from framp_private.errors import BelowThreshold, ModelError, PlanError, ProtocolError, WireError
from framp_private.federated.client import ClientState
from framp_private.federated.messages import EnrolRequest, TrainReply, TrainRequest, bytes_by_channel
from framp_private.federated.round import enrol, run_round
from framp_private.federated.server import ServerState, make_requests, sample_cohort
from framp_private.methods import fedavg, fiarse, framp, framp_layerwise, framp_static_mask
from framp_private.protections.base import Seat, ServerView
from framp_private.randomness import Entropy
from framp_private.wire import decode, encode
from tests.tiny import clients_of, engine_of, tiny_dataset, tiny_federation, tiny_method

DATASET = tiny_dataset()


def on_clients(**changes: object) -> Method:
    return tiny_method(pullback=Pullback.CLIENT, hypernetwork=HypernetworkShape(hidden=8, standardise="own"), **changes)


METHODS = {
    "framp": tiny_method(),
    "framp on clients": on_clients(),
    "fiarse": fiarse(),
    "fedavg": fedavg(),
    "layerwise": replace(framp_layerwise(), hypernetwork=None),
    "static": replace(framp_static_mask(), hypernetwork=None),
}


def started(federation: Federation, **more: object):  # noqa: ANN201
    engine = engine_of(federation, DATASET, **more)
    return engine, enrol(federation, ServerState.initial(federation), engine.exchange)


@pytest.mark.parametrize("name", METHODS)
def test_client_state_rebuilt_from_bytes_between_requests_changes_nothing(name: str) -> None:
    federation = tiny_federation(DATASET, METHODS[name])
    clients = clients_of(federation, DATASET)
    stored = {c: ClientState.new().to_bytes() for c in clients}

    def through_bytes(requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for client in requests:
            fresh = clients_of(federation, DATASET)[client]  # nothing survives but the bytes
            reply, state = fresh.handle(requests[client], ClientState.from_bytes(stored[client]))
            stored[client] = state.to_bytes()
            yield client, reply

    engine, kept = started(federation)
    bare = enrol(federation, ServerState.initial(federation), through_bytes)
    for index in range(3):
        engine.begin(index)
        kept, _ = run_round(federation, kept, engine.exchange)
        bare, _ = run_round(federation, bare, through_bytes)
    assert torch.equal(kept.phi, bare.phi)
    assert torch.equal(kept.prototypes.values, bare.prototypes.values)


@pytest.mark.parametrize("name", METHODS)
def test_a_round_goes_on_without_those_who_dropped(name: str) -> None:
    federation = tiny_federation(DATASET, METHODS[name])
    engine, state = started(federation, drops=lambda client, index: index >= 0 and client in ("client-01", "client-04"))
    engine.begin(0)
    _, report = run_round(federation, state, engine.exchange)
    assert set(report.cohort) - set(report.survivors) == {"client-01", "client-04"}


def test_the_total_of_a_round_with_dropouts_is_that_of_the_survivors() -> None:
    federation = tiny_federation(DATASET, fedavg())
    engine, state = started(federation, drops=lambda client, index: client != "client-00")
    engine.begin(0)
    moved, _ = run_round(federation, state, engine.exchange)
    mask = federation.mask(state.phi, 1.0, None)
    data = DATASET.clients["client-00"]
    trained = federation.trainer.train(
        federation.network, state.phi, mask, data, None, federation.streams.child("local", "client-00", 0), 0.0
    )
    torch.testing.assert_close(moved.phi, trained, rtol=1e-5, atol=1e-6)


def test_nobody_left_opens_nothing_and_leaves_the_state() -> None:
    federation = tiny_federation(DATASET)
    engine, state = started(federation, drops=lambda client, index: index == 0)
    engine.begin(0)
    with pytest.raises(BelowThreshold):
        run_round(federation, state, engine.exchange)
    engine.begin(1)
    assert run_round(federation, state, engine.exchange)[0].round_index == 1


def test_enrolment_needs_everybody() -> None:
    federation = tiny_federation(DATASET)
    engine = engine_of(federation, DATASET, drops=lambda client, index: client == "client-02")
    with pytest.raises(ProtocolError, match="client-02"):
        enrol(federation, ServerState.initial(federation), engine.exchange)


def test_cohorts_are_sampled_without_replacement_and_from_the_seed() -> None:
    federation = tiny_federation(DATASET, clients_per_round=3)
    cohorts = [sample_cohort(federation, index) for index in range(40)]
    assert all(len(set(cohort)) == 3 and set(cohort) <= set(federation.budgets) for cohort in cohorts)
    assert {client for cohort in cohorts for client in cohort} == set(federation.budgets)
    assert cohorts == [sample_cohort(tiny_federation(DATASET, clients_per_round=3), index) for index in range(40)]


def one_exchange(federation: Federation):  # noqa: ANN201
    """A client, a training request for it, and the state after answering it."""
    engine, state = started(federation)
    client = clients_of(federation, DATASET)["client-00"]
    request = make_requests(federation, state, ["client-00"])["client-00"]
    reply, after = client.handle(request, engine.states["client-00"])
    return client, request, reply, after


@pytest.mark.parametrize("name", ["framp", "framp on clients"])
def test_a_repeated_request_gets_the_same_reply_and_another_one_none(name: str) -> None:
    federation = tiny_federation(DATASET, METHODS[name])
    client, request, reply, after = one_exchange(federation)
    again, same = client.handle(request, after)
    assert again == reply and same.answered == after.answered
    changed = bytearray(request)
    changed[-1] ^= 1
    with pytest.raises(ProtocolError, match="answered before"):
        client.handle(bytes(changed), after)


class Noisy(PlainSum):
    """Stands for a protection that draws from the operating system's randomness."""

    randomised = True

    def protect(self, value: np.ndarray, entropy: Entropy, seat: Seat | None = None) -> bytes:
        return super().protect(value + np.frombuffer(entropy.bytes(1), np.uint8)[0] / 256, entropy, seat)


def test_a_release_with_noise_is_stored_and_resent_and_never_drawn_again() -> None:
    federation = tiny_federation(DATASET, plan=Plan(PlainSum(), Noisy(), PlainSum(), None))
    client, request, reply, after = one_exchange(federation)
    again = ClientState.from_bytes(after.to_bytes())
    assert all(client.handle(request, again)[0] == reply for _ in range(20))
    fresh = {client.handle(request, replace(after, request=b"", reply=b"", answered=-1))[0] for _ in range(20)}
    assert len(fresh) > 1
    plain, request, reply, after = one_exchange(tiny_federation(DATASET))
    assert after.reply == b"" and plain.handle(request, after)[0] == reply


def test_a_past_round_and_a_second_enrolment_are_refused() -> None:
    federation = tiny_federation(DATASET)
    client, request, _, after = one_exchange(federation)
    message = decode(request, TrainRequest)
    late = replace(after, answered=5)
    for data in (encode(message), encode(EnrolRequest(federation.digest))):
        with pytest.raises(ProtocolError, match="answered before"):
            client.handle(data, late)


def bad_requests() -> dict[str, object]:
    return {
        "another federation": lambda m: replace(m, federation=b"x" * 32),
        "too few values": lambda m: replace(m, values=m.values[:-1]),
        "NaN": lambda m: replace(m, values=m.values * np.float32("nan")),
        "mask cut": lambda m: replace(m, mask=m.mask[:-1]),
        "mask empty": lambda m: replace(m, mask=b""),
    }


@pytest.mark.parametrize("name", bad_requests())
def test_requests_that_do_not_fit_are_refused(name: str) -> None:
    federation = tiny_federation(DATASET)
    client = clients_of(federation, DATASET)["client-01"]
    engine, state = started(federation)
    request = make_requests(federation, state, ["client-01"])["client-01"]
    bad = encode(bad_requests()[name](decode(request, TrainRequest)))  # type: ignore[operator]
    with pytest.raises((ProtocolError, WireError)):
        client.handle(bad, engine.states["client-01"])
    client.handle(request, engine.states["client-01"])


def test_a_request_of_the_other_pullback_is_refused() -> None:
    server_side, client_side = tiny_federation(DATASET), tiny_federation(DATASET, on_clients())
    engine, state = started(client_side)
    phi_request = make_requests(client_side, state, ["client-00"])["client-00"]
    with pytest.raises(ProtocolError, match="another federation"):
        clients_of(server_side, DATASET)["client-00"].handle(phi_request, engine.states["client-00"])


@pytest.mark.parametrize(
    "change",
    ["truncated", "other round", "other federation", "update size", "prototype size", "NaN", "stranger", "twice"],
)
def test_replies_that_do_not_fit_are_refused_and_leave_the_state(change: str) -> None:
    federation = tiny_federation(DATASET)
    engine, state = started(federation)

    def tampered(requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for client, data in engine.exchange(requests):
            if client != "client-02":
                yield client, data
                continue
            reply = decode(data, TrainReply)
            small = PlainSum().protect(np.ones(2, np.float32), client)  # type: ignore[arg-type]
            yield {
                "truncated": lambda: (client, data[:-1]),
                "other round": lambda: (client, encode(replace(reply, round_index=9))),
                "other federation": lambda: (client, encode(replace(reply, federation=b"y" * 32))),
                "update size": lambda: (client, encode(replace(reply, update=small))),
                "prototype size": lambda: (client, encode(replace(reply, prototypes=small))),
                "NaN": lambda: (client, encode(replace(reply, update=reply.update[:-4] + np.float32("nan").tobytes()))),
                "stranger": lambda: ("client-99", data),
                "twice": lambda: ("client-01", data),
            }[change]()

    engine.begin(0)
    before = state.phi.clone()
    with pytest.raises((ProtocolError, WireError)):
        run_round(federation, state, tampered)
    assert torch.equal(state.phi, before) and state.round_index == 0


class OnlyASum(PlainSum):
    def server_view(self) -> ServerView:
        return ServerView("sum", 3, "honest but curious", ())


def test_plans_that_cannot_run_are_refused_before_anything_is_sent() -> None:
    plain = PlainSum()
    with pytest.raises(PlanError, match="server-side pullback needs each client's update"):
        tiny_federation(DATASET, plan=Plan(plain, OnlyASum(), plain, None))
    tiny_federation(DATASET, on_clients(), plan=Plan(None, OnlyASum(), OnlyASum(), None))
    for missing in (Plan(None, plain, plain, None), Plan(plain, None, plain, None), Plan(plain, plain, None, None)):
        with pytest.raises(PlanError, match="has no protection"):
            tiny_federation(DATASET, plan=missing)
    method = tiny_method(trainer=replace(tiny_method().trainer, alignment=Alignment(0.0)))
    tiny_federation(DATASET, method, plan=Plan(plain, plain, None, None))
    with pytest.raises(PlanError, match="standardise='enrolled'"):
        tiny_federation(DATASET, tiny_method(pullback=Pullback.CLIENT))
    for cohort in (0, 7):
        with pytest.raises(PlanError, match="clients_per_round"):
            tiny_federation(DATASET, clients_per_round=cohort)
    with pytest.raises(ModelError, match="budget="):
        replace(tiny_federation(DATASET), budgets={"client-00": 1.5})


def test_equal_facts_have_equal_digests_and_any_change_another() -> None:
    base = tiny_federation(DATASET).digest
    assert base == tiny_federation(DATASET).digest
    others = [
        tiny_federation(DATASET, seed=1),
        tiny_federation(DATASET, rounds=5),
        tiny_federation(DATASET, clients_per_round=3),
        tiny_federation(DATASET, tiny_method(weighting="unweighted")),
        tiny_federation(DATASET, fedavg()),
        tiny_federation(DATASET, framp()),
        tiny_federation(DATASET, on_clients()),
        tiny_federation(DATASET, plan=Plan(PlainSum(), PlainSum(), PlainSum(minimum=2), None)),
    ]
    assert len({base, *(other.digest for other in others)}) == 1 + len(others)


def test_what_travels_is_the_kept_values_and_a_coded_mask() -> None:
    federation = tiny_federation(DATASET)
    engine, state = started(federation)
    network = federation.network
    for client, budget in federation.budgets.items():
        data = make_requests(federation, state, [client])[client]
        message = decode(data, TrainRequest)
        assert len(message.values) == federation.update_size(budget) == int(budget * network.n_maskable) + 16
        sizes = bytes_by_channel(data)
        assert sum(sizes.values()) == len(data)
        assert sizes["update"] == 4 * len(message.values) + len(message.mask)
        assert sizes["protocol"] < 250
    engine.begin(0)
    run_round(federation, state, engine.exchange)
    up = engine.traffic.totals["up"]
    payload = sum(4 * federation.update_size(b) for b in federation.budgets.values())
    assert payload < up["update"] < payload + 100 * len(federation.budgets)
    assert up["metrics"] == 0
