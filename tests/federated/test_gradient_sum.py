"""Noise that the clients share: each record's share of the sum is bounded, and everything else is public or spent."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn
from torch.nn import functional

from framp_private import (
    Alignment,
    ClientData,
    HypernetworkShape,
    LocalSGD,
    ServerStep,
    SubmodelRule,
    make_config,
    run_config,
    secure_sum,
)
from framp_private.assemble import federation_of
from framp_private.errors import ConfigError, PlanError, PrivacyParameterError
from framp_private.federated.accounts import Accounts
from framp_private.federated.descriptor import DescriptorRule
from framp_private.federated.federation import Federation
from framp_private.federated.gradient_sum import GradientSum
from framp_private.federated.local_training import AtHome
from framp_private.federated.prototypes import GlobalPrototypes, PrototypeBound
from framp_private.federated.pullback import Pullback
from framp_private.models.prior import ClassPrior
from framp_private.models.target import TargetNetwork
from framp_private.models.vision import lenet, small_cnn
from framp_private.privacy import accounting
from framp_private.privacy.events import Budget, leaves
from framp_private.protections import (
    BFVSum,
    DistributedGaussian,
    DistributedSkellam,
    LocalGaussian,
    PlainSum,
    Plan,
    SecAgg,
    chain,
)
from framp_private.protections.base import Seat
from framp_private.randomness import Entropy, Streams
from framp_private.simulation import Simulation
from framp_private.transcript import Transcript, read_transcript
from tests.federated.test_dp_sgd import NETWORKS, records
from tests.secagg.harness import values_of
from tests.tiny import tiny_dataset, tiny_federation, tiny_method

DATASET = tiny_dataset(6, 0)
CLIP, RATE, RECORDS = 0.7, 2.0, 30
TRAINER = GradientSum(CLIP, RATE, RECORDS, Alignment(0.3))


def delta(network: TargetNetwork, data: ClientData, mask: torch.Tensor, trainer: GradientSum = TRAINER) -> torch.Tensor:
    weights = network.initial_weights(Streams(0)) * mask
    made = GlobalPrototypes(torch.ones(network.n_classes, network.feature_dim), torch.ones(network.n_classes).bool())
    found = trainer.delta(network, weights, mask, data, made, AtHome(Entropy(), 1))
    assert torch.equal(network.weights, weights)  # class sums are made next, and under nothing that is not noised
    torch.testing.assert_close(
        weights.double() - trainer.train(network, weights, mask, data, made, Streams(0), 0.0), found, rtol=0, atol=1e-12
    )
    return found


def some(network: TargetNetwork, seed: int = 0) -> torch.Tensor:
    mask = torch.rand(network.n_parameters, generator=torch.Generator().manual_seed(seed)) < 0.6
    return mask | ~network.maskable


def of_rows(data: ClientData, rows: list[int]) -> ClientData:
    return replace(data, train=data.train[rows])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_delta_is_the_clipped_sum_record_by_record(name: str) -> None:
    network, shape = NETWORKS[name]
    data, mask = records(shape), some(network)
    weights = network.initial_weights(Streams(0)) * mask
    total, clipped = torch.zeros(network.n_parameters, dtype=torch.float64), 0
    for row in data.train:
        network.load(weights)
        network.gradient.zero_()
        logits, features = network.forward(data.x[row : row + 1])
        loss = functional.cross_entropy(logits, data.y[row : row + 1]) + 0.3 * (features - 1).square().mean()
        loss.backward()
        gradient = (network.gradient * mask).double()
        clipped += bool(gradient.norm() > CLIP)
        total += gradient * min(1.0, CLIP / float(gradient.norm()))
    assert clipped  # the clip is at work
    found = delta(network, data, mask)
    torch.testing.assert_close(found, total * RATE / RECORDS, rtol=1e-3, atol=1e-6)
    assert not found[~mask].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_one_record_moves_the_delta_by_no_more_than_its_bound(name: str) -> None:
    network, shape = NETWORKS[name]
    data, mask = records(shape), some(network, 1)
    whole = delta(network, data, mask)
    n = len(data.train)
    moved = [
        float((whole - delta(network, of_rows(data, [j for j in range(n) if j != i]), mask)).norm()) for i in range(n)
    ]
    assert max(moved) <= TRAINER.record_bound
    assert max(moved) > 0.99 * TRAINER.record_bound  # and reaches it: a wrong factor would show
    assert TRAINER.record_bound == pytest.approx(CLIP * RATE / RECORDS)


def test_a_record_that_is_not_finite_adds_nothing_and_no_records_give_zero() -> None:
    network, shape = NETWORKS["table"]
    data, mask = records(shape), some(network)
    spoiled = replace(data, x=data.x.clone())
    spoiled.x[data.train[2]] = math.nan
    without = [row for row in range(len(data.train)) if row != 2]
    torch.testing.assert_close(
        delta(network, spoiled, mask), delta(network, of_rows(data, without), mask), rtol=0, atol=1e-9
    )
    assert not delta(network, of_rows(data, []), mask).any()


def test_no_weights_that_a_server_chooses_move_the_bound() -> None:
    """Biases of 2^51 leave logits as they are; a delta recovered by subtraction would lie on a grid of that size."""
    network = NETWORKS["table"][0]
    data, mask = records((6,), 40), torch.ones(network.n_parameters, dtype=torch.bool)
    weights = network.initial_weights(Streams(0))
    weights[-network.n_classes :] = 2.0**51
    plain, n = replace(TRAINER, alignment=Alignment(0.0)), len(data.train)
    sums = [plain.delta(network, weights, mask, of_rows(data, list(range(m))), None) for m in range(1, n + 1)]
    moved = [float((after - before).norm()) for before, after in itertools.pairwise(sums)]
    assert max(moved) <= plain.record_bound
    rounded = [SHARED.rounded(value.numpy() / plain.record_bound * 0.05, Entropy()).astype(float) for value in sums]
    apart = [np.linalg.norm(after - before) for before, after in itertools.pairwise(rounded)]
    assert max(apart) <= SHARED.bound(network.n_parameters)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e5, 1e7, 1e9])
def test_records_whose_places_cancel_are_bounded_too(scale: float, masked: bool) -> None:
    """A convolution's gradient is a sum over places: huge inputs that cancel leave rounding errors that count."""
    network = TargetNetwork(
        lambda: nn.Sequential(nn.Conv2d(16, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3))
    )
    generator, n = torch.Generator().manual_seed(0), 500 if masked else 1
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])[None, None, :, None]
    x = torch.randn(n, 16, 1, 1, generator=generator) * scale * signs * torch.ones(n, 16, 4, 4)
    none = torch.zeros(0, dtype=torch.long)
    data = ClientData(x, torch.zeros(n, dtype=torch.long), torch.arange(n), none, none)
    mask = some(network) if masked else torch.ones(network.n_parameters, dtype=torch.bool)
    plain = GradientSum(1.0, 1.0, 1, Alignment(0.0))
    weights = network.initial_weights(Streams(0)) * mask
    whole = plain.delta(network, weights, mask, data, None)
    assert float((whole - plain.delta(network, weights, mask, of_rows(data, list(range(1, n))), None)).norm()) <= 1.0


def test_values_out_of_range_are_refused() -> None:
    for change in (
        {"clip_norm": 0.0},
        {"clip_norm": math.inf},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"records": 0},
        {"mode": "loop"},
        {"alignment": Alignment(1.0, "l2")},
    ):
        with pytest.raises(PrivacyParameterError):
            replace(TRAINER, **change)
    with pytest.raises(PrivacyParameterError):
        DistributedGaussian(1.0, 1.0, unit="record", records=0)
    network, shape = NETWORKS["table"]
    data = records(shape)
    with pytest.raises(PrivacyParameterError, match="graph"):
        delta(network, replace(data, edge_index=torch.zeros(2, 0, dtype=torch.long)), some(network))


# The protection: rounding after a sum over records, and its noise.

SHARED = DistributedGaussian(0.05, 3.0, SecAgg(survivors=0.7), unit="record", records=40)


def test_a_record_moves_the_integers_by_the_accounted_distance_and_may_reach_it() -> None:
    rng, size = np.random.default_rng(0), 400
    grid, bound = SHARED.grid(size), SHARED.bound(size)
    assert bound == pytest.approx(0.05 / grid + 20) and bound <= 1.01 * 0.05 / grid + 1e-9
    for _ in range(200):
        before, step = rng.normal(0, 0.1, size), rng.normal(size=size)
        after = before + step * 0.05 / np.linalg.norm(step)
        moved = SHARED.rounded(after, Entropy()) - SHARED.rounded(before, Entropy())
        assert np.linalg.norm(moved.astype(float)) <= bound
    # every coordinate just below a half, and the record pushes each over it: more than C / g, as rounding comes after
    before = np.full(size, 0.499) * grid
    after = before + 99.01 * grid
    assert np.linalg.norm(after - before) < 0.05
    moved = SHARED.rounded(after, Entropy()) - SHARED.rounded(before, Entropy())
    assert 99.01 * 20 < np.linalg.norm(moved.astype(float)) <= bound


def test_sums_beyond_the_room_are_cut_off_and_what_is_not_finite_is_zero() -> None:
    most = math.floor(40 * 0.05 / SHARED.grid(4) + 1)
    found = SHARED.rounded(np.array([1e9, -1e9, math.nan, 0.02]), Entropy())
    assert found.tolist() == [most, -most, 0, round(0.02 / SHARED.grid(4))]


@pytest.mark.parametrize("gone", [0, 2])
def test_the_opened_noise_is_what_the_claim_says_at_the_least_survivors(gone: int) -> None:
    """KS at alpha = 1e-6: the scale of all survivors' shares, and neither 2/3 nor 3/2 of it."""
    values = {name: value * 0.1 for name, value in values_of(8, 10_000).items()}
    drop = dict.fromkeys(list(values)[:gone], "masked")
    total = secure_sum(values, SHARED, drop=drop)  # type: ignore[arg-type]
    noise = total.value - sum(value for name, value in values.items() if name not in drop)
    deviation = SHARED.grid(10_000) * SHARED.share_deviation(10_000, 8) * math.sqrt(8 - gone)
    assert kstest(noise / deviation, "norm").pvalue > 1e-6
    for wrong in (2 / 3, 3 / 2):
        assert kstest(noise / (deviation * wrong), "norm").pvalue < 1e-6
    if gone == 2:  # six survive, one of whom gives its share away: five carry what is claimed
        assert deviation * math.sqrt(5 / 6) == pytest.approx(SHARED.deviation)


def test_the_cost_is_that_of_a_gaussian_with_the_rounded_sensitivity() -> None:
    names = [str(place) for place in range(8)]
    event = SHARED.event(names, 650)
    assert (event.unit, event.relation) == ("record", "add/remove")
    exact = (SHARED.bound(650) / (SHARED.share_deviation(650, 8) * math.sqrt(5))) ** 2 / 2
    assert exact <= event.mechanism.rho <= exact * 1.001
    assert event.mechanism.rho > 1 / (2 * 3.0**2)  # never below the noise without rounding


# Whole federations.


def made(**changes: object) -> Federation:
    """Personalised by a noised descriptor that stays home; update under shared noise, prototypes encrypted."""
    shape = HypernetworkShape(trunk="random", hidden=4, head="low_rank", rank=4, standardise="own", prior=ClassPrior())
    method = tiny_method(
        hypernetwork=shape,
        pullback=Pullback.CLIENT,
        step=ServerStep(start=1.0, backbone="cohort_mean"),
        submodel=SubmodelRule(),
    )
    method = replace(method, trainer=TRAINER, descriptor=DescriptorRule(encoder="labels"))
    noised = LocalGaussian(1.0, 2.0)
    plan = Plan(
        LocalGaussian(1.0, 2.0),
        DistributedGaussian(TRAINER.record_bound, 1.5, SecAgg(), unit="record", records=40),
        chain(noised, BFVSum(bound=60.0, step=0.05, beyond="clip")),
        None,
    )
    declared = {name: data.n_train for name, data in DATASET.clients.items()}
    first = tiny_federation(
        DATASET, method, rounds=3, plan=plan, prototype_bound=PrototypeBound(1.0), declared=declared
    )
    return replace(first, **changes) if changes else first


def rows_of(path: Path) -> list[str]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        label
        for row in rows
        if row["kind"] == "spend"
        for label in ([row["label"]] if "label" in row else row["labels"])
    ]


def test_the_descriptor_is_noised_once_spent_and_stays_home(tmp_path: Path) -> None:
    federation = made()
    accounts = Accounts(federation, budget=Budget(200.0, 1e-5), folder=tmp_path)
    simulation = Simulation(federation, DATASET, accounts=accounts, transcript=Transcript(tmp_path / "transcript"))
    simulation.enrol()
    simulation.step()
    first = {name: state.descriptor.copy() for name, state in simulation.engine.states.items()}
    simulation.step()
    data = b"".join(delivery.data for _, delivery in read_transcript(tmp_path / "transcript"))
    for name, state in simulation.engine.states.items():
        assert np.array_equal(state.descriptor, first[name])
        raw = federation.describe(name, DATASET.clients[name]) / DATASET.clients[name].n_train
        noise = (state.descriptor - raw) * DATASET.clients[name].n_train
        assert 0.1 < np.abs(noise).max() < 2.0 * 8  # noised, at its scale
        assert state.descriptor.tobytes() not in data and raw.astype(np.float32).tobytes() not in data
        assert np.array_equal(simulation.serves.descriptors[name].numpy(), state.descriptor)  # type: ignore[attr-defined]
        labels = Counter(rows_of(tmp_path / "ledgers" / f"{name}.jsonl"))
        assert labels["home/descriptor"] == 1 and labels["round 1/update"] == 1 and labels["round 1/prototypes"] == 1
    assert "home/descriptor" in rows_of(tmp_path / "ledger.jsonl")
    assert simulation.traffic["up"]["descriptor"] == 0
    second = Simulation(federation, DATASET)
    second.enrol()
    second.step()
    assert not np.array_equal(second.engine.states["client-00"].descriptor, first["client-00"])


def test_a_descriptor_that_was_spent_and_lost_is_not_drawn_again(tmp_path: Path) -> None:
    federation = made()
    accounts = Accounts(federation, budget=Budget(200.0, 1e-5))
    accounts.clients["client-00"].spend(federation.at_home("client-00"))
    simulation = Simulation(federation, DATASET, accounts=accounts)
    simulation.enrol()
    simulation.step()
    assert not simulation.engine.states["client-00"].descriptor.any()
    assert simulation.engine.states["client-01"].descriptor.any()


def test_what_a_run_costs_is_the_sum_of_its_ledger_and_covers_every_release() -> None:
    federation = made()
    accounts = Accounts(federation, budget=Budget(200.0, 1e-5))
    simulation = Simulation(federation, DATASET, accounts=accounts)
    simulation.enrol()
    for _ in range(3):
        simulation.step()
    counts: Counter[str] = Counter()
    for event, count in federation.planned("client-00"):
        counts += leaves(event.mechanism, count)
    expected = accounting.epsilon(counts, "add/remove", 1e-5, 0)
    assert accounts.epsilons()["client-00"] == pytest.approx(expected, rel=1e-3)
    claim = accounts.claims(True)[0]
    assert claim.unit == "record" and "honest-but-curious" in claim.trust_model
    assert "nobody" not in claim.trust_model and "any server" not in claim.trust_model


def test_the_secure_vector_holds_theta_0_alone() -> None:
    federation = made()
    assert federation.update_size(1.0) == federation.network.n_parameters < federation.generator.n_phi


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trainer": LocalSGD(alignment=Alignment(0.3))}, "GradientSum"),
        ({"trainer": replace(TRAINER, clip_norm=0.71)}, "one record may move it by"),
        ({"step": ServerStep(start=1.0)}, "cohort_mean"),
        ({"step": ServerStep(start=0.5, backbone="cohort_mean")}, "psi rests"),
        ({"pullback": Pullback.SERVER}, "pullback='client'"),
        ({"descriptor": DescriptorRule(encoder="warmup")}, "'frozen' or 'labels'"),
        ({"declared": None}, "declared"),
        ({"prototype_bound": PrototypeBound(2.0)}, "at most that"),
    ],
)
def test_noise_that_stands_on_no_bound_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        made(**changes)


@pytest.mark.parametrize("descriptor", [None, PlainSum()])
def test_a_raw_descriptor_is_refused_even_if_it_stays_home(descriptor: PlainSum | None) -> None:
    federation = made()
    with pytest.raises(PlanError, match="even where it stays home"):
        made(plan=replace(federation.plan, descriptor=descriptor))


# From the command line's settings.

SMALL = {"clients": 6, "rounds": 2, "home_steps": 2, "evaluate_every": 2}


@pytest.mark.parametrize("preset", ["digits-secure", "digits-encrypted"])
def test_the_preset_protects_every_channel_at_its_epsilon(tmp_path: Path, preset: str) -> None:
    found = run_config(make_config(preset=preset, assignments=SMALL), out=tmp_path / "run")
    federation = found.simulation.federation
    plan = federation.plan
    assert isinstance(plan.update, DistributedGaussian) and plan.update.unit == "record"
    if preset == "digits-encrypted":
        assert isinstance(plan.prototypes, LocalGaussian) and isinstance(plan.prototypes.inner, BFVSum)
    else:  # one secure sum, one set of trips
        assert isinstance(plan.prototypes, DistributedGaussian) and plan.prototypes.unit == "record"
        assert federation.seat_of("prototypes") == "update"
    assert plan.prototypes.clip_norm == federation.prototype_bound.clip_norm  # type: ignore[union-attr]
    claim = found.summary["privacy"]["record"]
    assert 7.9 < claim["epsilon"] <= 8.0 and claim["relation"] == "add/remove"
    assert found.summary["privacy"]["client"]["epsilon"] is None
    up = found.summary["traffic"]["up"]
    assert up["descriptor"] == 0 and up["update"] and up["prototypes"] and up["metrics"] == 0
    report = " ".join((tmp_path / "run" / "report.html").read_text().split())
    assert "Every sum that was opened" in report and "Everything that left a client is" not in report


@pytest.mark.parametrize(
    ("assignments", "reason"),
    [
        ({"local_steps": 2}, "local_steps=1"),
        ({"privacy": {"sampling_probability": 0.5}}, "sampling_probability=1"),
        ({"pullback": "server"}, "pullback='client'"),
        ({"rethreshold": True}, "rethreshold"),
        ({"protections": {"update": "dp-sgd", "prototypes": "bfv"}}, "set both"),
        ({"protections": {"update": "dp-sgd", "prototypes": "distributed-gaussian"}}, "set both"),
        ({"protections": {"prototypes": "distributed-skellam"}}, "leave it at auto"),
        ({"protections": {"prototypes": "plain"}}, "does not keep"),
        ({"protections": {"prototypes": "secagg"}}, "does not keep"),
    ],
)
def test_settings_that_contradict_shared_noise_are_refused(assignments: dict[str, object], reason: str) -> None:
    with pytest.raises((ConfigError, PlanError), match=reason):
        run_config(make_config(preset="digits-secure", assignments={**SMALL, **assignments}))


def test_secure_sums_without_a_guarantee_are_had_by_name() -> None:
    for prototypes in ("secagg", "bfv", "ckks"):
        settings = {**SMALL, "dataset": "digits", "network": "linear", "pullback": "client", "budgets": [1.0]}
        settings |= {"protections": {"update": "secagg", "prototypes": prototypes}}
        settings |= {
            "secagg": {"bound": 100.0, "step": 0.01},
            "encryption": {"bound": 3000.0},
            "alignment": {"weight": 1.0},
        }
        settings |= {"hypernetwork": {"standardise": "own"}}
        found = run_config(make_config(assignments=settings))
        assert found.summary["privacy"]["record"]["epsilon"] is None
        assert found.simulation.state.round_index == 2


def test_what_is_cut_off_at_a_bound_is_counted_and_reported() -> None:
    found = run_config(make_config(preset="digits-secure", assignments=SMALL))
    channels = found.summary["channels"]
    assert channels["prototypes"]["saturated"] == 0.0 and channels["update"]["saturated"] == 0.0
    tight = Seat("update", 4, b"", b"", saturated=(seen := []).append)
    assert tight.cut(np.array([0.5, -2.0, math.nan, 1.0]), 1.0).tolist() == [0.5, -1.0, 0.0, 1.0]
    assert seen == [0.5]


@pytest.mark.parametrize(
    ("preset", "network", "side"), [("digits-secure", small_cnn, 8), ("cifar10-secure", lenet, 32)]
)
def test_a_compact_hypernetwork_is_hardly_larger_than_its_target(preset: str, network, side: int) -> None:  # noqa: ANN001
    config = make_config(
        preset=preset, assignments={"privacy": "none", "protections": {"update": "secagg", "prototypes": "bfv"}}
    )
    target = TargetNetwork(lambda: network(1 if side == 8 else 3, side, 10))
    federation = federation_of(config, target, {f"client-{i:02d}": 56 for i in range(20)})
    assert target.n_parameters < federation.generator.n_phi <= 1.25 * target.n_parameters


@pytest.mark.parametrize("preset", ["digits-secure", "digits-distributed"])
def test_shares_may_be_skellam(preset: str) -> None:
    more = {**SMALL, "clients": 12, "protections": {"update": "distributed-skellam"}}
    found = run_config(make_config(preset=preset, assignments=more))
    update = found.simulation.federation.plan.update
    assert isinstance(update, DistributedSkellam)
    claim = found.summary["privacy"][update.unit]
    assert 7.8 < claim["epsilon"] <= 8.0
