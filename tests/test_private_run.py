"""Whole private runs: what they claim, what they spend, what a crash cannot undo, and who refuses."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from framp_private import (
    ClientData,
    FederatedDataset,
    LocalSGD,
    Options,
    Schema,
    TargetNetwork,
    federate,
    load_run,
    make_config,
    run_config,
    train,
)
from framp_private.errors import (
    LedgerError,
    ModelError,
    PlanError,
    PrivacyBudgetExhausted,
    PrivacyParameterError,
    ProtocolError,
    ReleaseLost,
    RunError,
)
from framp_private.federated.accounts import EVERYTHING, Account, Accounts
from framp_private.federated.client import ClientState
from framp_private.federated.messages import EnrolRequest
from framp_private.federated.server import sample_cohort
from framp_private.privacy import accounting
from framp_private.privacy.clipping import clip_factors
from framp_private.privacy.events import Budget, leaves
from framp_private.privacy.ledger import Ledger, verify
from framp_private.protections import CentralGaussian, LocalGaussian, PlainSum, Plan
from framp_private.randomness import Entropy, SeededEntropy
from framp_private.simulation import Simulation
from framp_private.transcript import read_transcript
from framp_private.wire import encode
from tests import private
from tests.tiny import tiny_dataset

BUDGET = Budget(60.0, 1e-5)
"""Loose: the tests' noise is small."""


def run(out: Path | None = None, *, resume: bool = False, **options: object):  # noqa: ANN201
    made = private.federation(rounds=4)
    return train(
        made,
        private.DATASET,
        out=out,
        resume=resume,
        config={"method": "framp"},
        options=Options(evaluate_every=2, home_steps=2, **{"budget": BUDGET, **options}),
    )


def expected_epsilon(rounds: int = 4) -> float:
    made, counts = private.federation(rounds=rounds), Counter[str]()
    for event, count in made.planned("client-00"):
        counts += leaves(event.mechanism, count)
    return accounting.epsilon(counts, "add/remove", BUDGET.delta)


def test_the_claim_is_what_the_ledgers_hold(tmp_path: Path) -> None:
    summary = run(tmp_path / "run").summary
    claim = summary["privacy"]["record"]
    assert claim["epsilon"] == pytest.approx(expected_epsilon(), rel=1e-9)
    assert (claim["delta"], claim["relation"], claim["scope"]) == (1e-5, "add/remove", "this run alone")
    assert "any server" in claim["trust_model"] and summary["privacy"]["client"]["epsilon"] is None
    for name, row in summary["by_client"].items():
        assert row["epsilon"] == pytest.approx(claim["epsilon"], rel=1e-9)
        assert verify(tmp_path / "run" / "ledgers" / f"{name}.jsonl").rows == 2 + 1 + 2 * 4  # genesis, plan, spends
    assert verify(tmp_path / "run" / "ledger.jsonl").rows == 2 + 1 + 2 * 4
    assert list(summary["channels"]) == ["descriptor", "update", "prototypes"]
    for row in summary["channels"].values():
        assert row["noise_multiplier"] > 0 and 0 < row["epsilon"] < claim["epsilon"] and row["signal_to_noise"] > 0
    curve = summary["epsilon_by_round"]
    assert [done for done, _ in curve] == [1, 2, 3, 4] and curve[-1][1] == pytest.approx(claim["epsilon"], rel=1e-9)
    assert [value for _, value in curve] == sorted(value for _, value in curve)


def test_without_a_budget_there_is_no_delta_and_so_no_claim(tmp_path: Path) -> None:
    assert run(budget=None).summary["privacy"]["record"]["epsilon"] is None


def test_seeds_repeat_everything_but_the_noise() -> None:
    first, second = run(), run()
    assert first.summary["privacy"] == second.summary["privacy"]
    a, b = (made.simulation.tensors()["phi"].numpy() for made in (first, second))
    assert not np.array_equal(a, b)


def test_the_server_refuses_a_round_that_would_exceed_and_nothing_is_sent(tmp_path: Path) -> None:
    tight = Budget(expected_epsilon(2), 1e-5)
    with pytest.raises(PrivacyBudgetExhausted, match="federation"):
        run(tmp_path / "run", budget=tight, record_transcript=True)
    rounds = {name for name, _ in read_transcript(tmp_path / "run" / "private" / "transcript")}
    assert rounds == {"enrolment", "round-000000"}  # two would fit by PLD, which is no filter for a part of a plan
    spent = Ledger.open(tmp_path / "run" / "ledger.jsonl", unit="record").epsilon(1e-5)
    assert spent <= tight.epsilon
    assert PrivacyBudgetExhausted.exit_status == 4


def test_a_client_refuses_too_whatever_the_server_thinks() -> None:
    made = private.federation()
    account = Account(Ledger.open(None, unit="record", budget=Budget(1e-3, 1e-5)))
    client = private.client_of(made, "client-00", account=account)
    head = account.ledger.head
    with pytest.raises(PrivacyBudgetExhausted, match="nothing was released"):
        client.handle(private.train_request(made, "client-00"), ClientState.new())
    assert account.ledger.head == head


def test_a_request_is_checked_before_anything_is_spent_on_it() -> None:
    made, other = private.federation(), private.federation(clip_norm=0.5)
    account = Account(Ledger.open(None, unit="record"))
    client = private.client_of(made, "client-00", account=account)
    head = account.ledger.head
    for request in (private.train_request(other, "client-00"), encode(EnrolRequest(b"\0" * 32))):
        with pytest.raises(ProtocolError):
            client.handle(request, ClientState.new())
    assert account.ledger.head == head


def test_the_spend_is_written_before_the_reply_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = private.federation()
    account = Account(Ledger.open(None, unit="record"))
    client = private.client_of(made, "client-00", account=account)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(type(made.trainer), "train", broken)
    with pytest.raises(RuntimeError):
        client.handle(private.train_request(made, "client-00"), ClientState.new())
    assert account.ledger.has("round 0/update") and account.ledger.has("round 0/prototypes")


def test_the_same_request_gets_the_same_bytes_and_no_second_spend() -> None:
    made = private.federation()
    account = Account(Ledger.open(None, unit="record"))
    client = private.client_of(made, "client-00", account=account)
    request = private.train_request(made, "client-00")
    reply, state = client.handle(request, ClientState.new())
    head = account.ledger.head
    assert client.handle(request, ClientState.from_bytes(state.to_bytes()))[0] == reply
    assert account.ledger.head == head
    with pytest.raises(ProtocolError, match="answered before"):
        client.handle(_other_prototypes(made), state)


def _other_prototypes(made) -> bytes:  # noqa: ANN001
    from dataclasses import replace

    from framp_private.federated import server
    from framp_private.federated.prototypes import GlobalPrototypes

    state = private.state_of(made)
    shown = GlobalPrototypes(state.prototypes.values + 1, ~state.prototypes.present)
    return server.make_requests(made, replace(state, prototypes=shown), ["client-00"])["client-00"]


def test_a_release_that_was_spent_and_lost_is_never_drawn_again() -> None:
    made = private.federation()
    account = Account(Ledger.open(None, unit="record"))
    client = private.client_of(made, "client-00", account=account)
    request = private.train_request(made, "client-00")
    client.handle(request, ClientState.new())
    with pytest.raises(ReleaseLost, match="not drawn again"):
        client.handle(request, ClientState.new())


class Cut(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize("lost", [(), ("client-01",)])
def test_after_a_crash_inside_a_round_stored_replies_are_resent_and_lost_ones_stay_away(
    tmp_path: Path, lost: tuple[str, ...]
) -> None:
    out, calls = tmp_path / "run", []

    def drops(client: str, index: int) -> bool:
        calls.append((client, index))
        if index == 2 and client == "client-03" and ("again",) not in calls:
            raise Cut
        return False

    with pytest.raises(Cut):
        run(out, drops=drops, record_transcript=True)
    before = {
        d.client: d.data
        for name, d in read_transcript(out / "private" / "transcript")
        if name == "round-000002" and d.direction == "up"
    }
    assert set(before) == {"client-00", "client-01", "client-02"}
    rows = {name: verify(out / "ledgers" / f"{name}.jsonl").rows for name in private.DATASET.clients}
    for name in lost:  # its disk kept the ledger and lost the reply
        (out / "private" / "clients" / f"{name}.state").unlink()
    calls.append(("again",))
    summary = run(out, resume=True, drops=drops).summary
    after = {
        d.client: d.data
        for name, d in read_transcript(out / "private" / "transcript")
        if name == "round-000002" and d.direction == "up"
    }
    assert set(after) == set(private.DATASET.clients) - set(lost)
    for name in set(before) - set(lost):
        assert after[name] == before[name]
    for name in before:
        assert verify(out / "ledgers" / f"{name}.jsonl").rows == rows[name] + 2  # round 3 alone
    assert summary["privacy"]["record"]["epsilon"] == pytest.approx(expected_epsilon(), rel=1e-9)


def test_a_cut_ledger_stops_a_resumed_run(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def stop(done: int, row: object) -> None:
        if done == 2:
            raise Cut

    with pytest.raises(Cut):
        run(out, on_round=stop)
    path = out / "ledgers" / "client-02.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(LedgerError, match="cut off"):
        run(out, resume=True)


def test_seeded_noise_is_not_private() -> None:
    made = private.federation()
    accounts = Accounts(made)
    simulation = Simulation(made, private.DATASET, accounts=accounts, entropy=SeededEntropy(1))
    simulation.enrol()
    for ledger in (accounts.clients["client-00"].ledger, accounts.federation.ledger):
        assert ledger.has(EVERYTHING) and ledger.epsilon(1e-5) == math.inf
    assert all(claim.epsilon is None for claim in accounts.claims(True))
    with pytest.raises(PrivacyBudgetExhausted):
        Simulation(made, private.DATASET, accounts=Accounts(made, budget=BUDGET), entropy=SeededEntropy(1)).enrol()


def test_one_ledger_serves_several_runs_and_adds_them_up(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    first = run(tmp_path / "one", ledger=shared).summary["privacy"]["record"]
    with pytest.raises(PrivacyBudgetExhausted):
        run(tmp_path / "two", ledger=shared, budget=Budget(first["epsilon"], 1e-5))
    both = run(tmp_path / "three", ledger=shared).summary["privacy"]["record"]
    assert both["epsilon"] > first["epsilon"] and both["scope"] == "all runs in shared"
    assert not (tmp_path / "one" / "ledgers").exists()


def test_partial_cohorts_spend_for_those_who_are_asked(tmp_path: Path) -> None:
    from dataclasses import replace

    made = replace(private.federation(rounds=5), cohort=2)
    summary = train(made, private.DATASET, out=tmp_path / "run", options=Options(home_steps=1, budget=BUDGET)).summary
    asked = Counter(
        {
            name: (verify(tmp_path / "run" / "ledgers" / f"{name}.jsonl").rows - 3) // 2
            for name in private.DATASET.clients
        }
    )
    assert sum(asked.values()) == 10
    federation = Ledger.open(tmp_path / "run" / "ledger.jsonl", unit="record")
    assert federation.epsilon(1e-5) == pytest.approx(summary["privacy"]["record"]["epsilon"], rel=1e-9)
    assert max(row["epsilon"] for row in summary["by_client"].values()) == summary["privacy"]["record"]["epsilon"]


@pytest.mark.parametrize("mode", ["bookkeeping", "hooks", "ew", "functorch"])
def test_one_record_changed_leaves_every_other_contribution_bit_identical(mode: str) -> None:
    """What a step reads beside a record is public: the others' clipped gradients do not change in a single bit."""
    from torch.nn import functional

    from framp_private.federated import per_sample

    made, data = private.federation(), private.DATASET.clients["client-00"]
    network = made.network
    x, y = data.x[data.train], data.y[data.train]
    changed = x.clone()
    changed[7] = changed[7] * -2 + 5
    rows = []
    for records in (x, changed):
        network.load(made.theta_0)
        seen: list[torch.Tensor] = []

        def keep(squared: torch.Tensor, seen: list[torch.Tensor] = seen) -> torch.Tensor:
            seen.append(squared.clone())
            return clip_factors(squared, 0.1)

        def losses(module: torch.nn.Module, records: torch.Tensor = records) -> torch.Tensor:
            return functional.cross_entropy(network.forward(records, module=module)[0], y, reduction="none")

        per_sample._SUMS[mode](network, losses, None, keep)
        rows.append(seen[0])
    others = torch.arange(len(x)) != 7
    assert torch.equal(rows[0][others], rows[1][others]) and not torch.equal(rows[0][7], rows[1][7])


def test_one_record_changed_moves_one_row_of_the_class_sums_and_none_of_the_other_vectors() -> None:
    from dataclasses import replace

    from framp_private.federated.prototypes import local_prototypes

    made, data = private.federation(), private.DATASET.clients["client-00"]
    bound = made.prototype_bound
    assert bound is not None
    record = int(data.train[3])
    x = data.x.clone()
    x[record] = 9.0
    made.network.load(made.theta_0)
    sums = [
        local_prototypes(made.network, part, part.train, "counts", bound).reshape(made.network.n_classes, -1)
        for part in (data, replace(data, x=x))
    ]
    moved = np.abs(sums[0] - sums[1]).max(1) > 0
    assert moved.tolist() == [label == int(data.y[record]) for label in range(made.network.n_classes)]
    gone = replace(data, train=data.train[data.train != record])
    without = local_prototypes(made.network, gone, gone.train, "counts", bound).reshape(made.network.n_classes, -1)
    assert np.linalg.norm(sums[0] - without) <= bound.clip_norm
    whole = made.descriptor.clipped_sum(made.network, made.theta_0, data, 1.5)
    part = made.descriptor.clipped_sum(made.network, made.theta_0, gone, 1.5)
    assert float((whole - part).norm()) <= 1.5


def test_plans_whose_noise_no_bound_stands_behind_are_refused() -> None:
    from dataclasses import replace

    from framp_private import DescriptorRule

    made = private.federation()
    with pytest.raises(PlanError, match="frozen"):
        replace(made, descriptor=DescriptorRule(encoder="warmup"))
    with pytest.raises(PlanError, match="clip_norm"):
        replace(made, prototype_bound=None)
    with pytest.raises(PlanError, match="clip_norm"):
        replace(made, plan=replace(made.plan, prototypes=LocalGaussian(private.SUM_CLIP / 2, 1.0)))
    with pytest.raises(PlanError, match="counts"):
        replace(made, weighting="unweighted")
    with pytest.raises(PlanError, match="declared"):
        replace(made, declared=None)
    with pytest.raises(PlanError, match="DpSGD"):
        replace(made, trainer=LocalSGD(), plan=replace(made.plan, update=LocalGaussian(0.01, 50.0)))
    mixed = Plan(PlainSum(), PlainSum(), CentralGaussian(1.0, 1.0), None)
    with pytest.raises(PlanError, match="never added"):
        _ = replace(made, plan=mixed).unit


def test_one_channel_in_the_clear_leaves_no_claim() -> None:
    from dataclasses import replace

    made = replace(private.federation(), plan=replace(private.federation().plan, descriptor=PlainSum()))
    simulation = Simulation(made, private.DATASET)
    simulation.enrol()
    simulation.step()
    assert all(claim.epsilon is None for claim in simulation.accounts.claims(True))
    with pytest.raises(PrivacyBudgetExhausted):
        Simulation(made, private.DATASET, accounts=Accounts(made, budget=BUDGET)).enrol()


def test_a_noised_reply_is_on_disk_before_it_is_delivered(tmp_path: Path) -> None:
    seen = []

    def look(done: int, row: object) -> None:
        stored = ClientState.from_bytes((tmp_path / "run" / "private" / "clients" / "client-00.state").read_bytes())
        seen.append((stored.answered, bool(stored.reply)))

    run(tmp_path / "run", on_round=look)
    assert seen == [(index, True) for index in range(4)]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["privacy"]["record"]["epsilon"] > 0
    assert not Entropy().seeded


def client_level(rounds: int = 4, **changes: object):  # noqa: ANN201
    """FRAMP with the pullback on the clients and a trusted server's noise on the sums."""
    from dataclasses import replace

    from framp_private import DescriptorRule, HypernetworkShape, Pullback, ServerStep, TargetNetwork, federate
    from framp_private.federated.prototypes import PrototypeBound
    from tests.tiny import build, tiny_method

    shape = HypernetworkShape(head="low_rank", hidden=8, rank=4, standardise="own")
    method = replace(
        tiny_method(),
        hypernetwork=shape,
        pullback=Pullback.CLIENT,
        descriptor=DescriptorRule(steps=3),
        step=ServerStep(optimizer="sgd", backbone="cohort_mean"),
    )
    made = federate(
        method,
        TargetNetwork(build),
        list(private.DATASET.clients),
        rounds=rounds,
        plan=Plan(None, CentralGaussian(1.0, 2.0), CentralGaussian(1.0, 4.0), None),
        prototype_bound=PrototypeBound(1 / 30),
    )
    return replace(made, **changes)


def test_client_level_claims_are_of_the_client_and_of_a_trusted_server(tmp_path: Path) -> None:
    made = client_level()
    options = Options(home_steps=1, budget=BUDGET)
    summary = train(made, private.DATASET, out=tmp_path / "run", options=options).summary
    claim, counts = summary["privacy"]["client"], Counter[str]()
    for event, count in made.planned("client-00"):
        counts += leaves(event.mechanism, count)
    assert claim["epsilon"] == pytest.approx(accounting.epsilon(counts, "add/remove", 1e-5), rel=1e-9)
    assert claim["trust_model"] == "trusted server" and summary["privacy"]["record"]["epsilon"] is None
    assert json.loads((tmp_path / "run" / "ledger.jsonl").read_text().splitlines()[0])["unit"] == "client"
    assert summary["traffic"]["up"]["descriptor"] == 0


def test_a_noised_total_is_never_drawn_twice_after_a_crash(tmp_path: Path) -> None:
    """Rounds that the server acted on are checkpointed each, whatever `checkpoint_every` says."""
    made, out = client_level(), tmp_path / "run"

    def stop(done: int, row: object) -> None:
        if done == 3:
            raise Cut

    options = Options(home_steps=1, budget=BUDGET, checkpoint_every=50, record_transcript=True)
    from dataclasses import replace

    with pytest.raises(Cut):
        train(made, private.DATASET, out=out, options=replace(options, on_round=stop))
    before = {(name, d.client): d.data for name, d in read_transcript(out / "private" / "transcript")}
    train(made, private.DATASET, out=out, resume=True, options=options)
    after = {(name, d.client): d.data for name, d in read_transcript(out / "private" / "transcript")}
    assert all(after[key] == value for key, value in before.items())
    assert verify(out / "ledger.jsonl").rows == 2 + 2 * 4


def test_client_level_noise_needs_summable_contributions_without_masks() -> None:
    from framp_private import Pullback, ServerStep

    with pytest.raises(PlanError, match="phi-space"):
        client_level(step=ServerStep())
    with pytest.raises(PlanError):
        client_level(pullback=Pullback.SERVER)


def test_a_record_level_claim_needs_a_noised_descriptor_on_either_side() -> None:
    made = private.federation()
    from dataclasses import replace

    from framp_private import Pullback
    from framp_private.models.hypernetwork import Hypernetwork
    from framp_private.models.psi import HypernetworkShape

    shape = HypernetworkShape(trunk="random", hidden=4, standardise="own")
    generator = Hypernetwork(made.network.n_parameters, made.descriptor.size(made.network), shape)
    home = replace(made, generator=generator, pullback=Pullback.CLIENT)
    assert home.home_descriptor == made.plan.descriptor and "descriptor" not in home.channels
    for raw in (None, PlainSum()):
        with pytest.raises(PlanError, match="noised once"):
            replace(home, plan=replace(made.plan, descriptor=raw))


def test_what_is_served_can_be_the_mean_of_the_last_rounds_and_survives_a_restart(tmp_path: Path) -> None:
    from dataclasses import replace

    from framp_private import load_run

    made = private.federation(rounds=4)
    made = replace(made, step=replace(made.step, average=0.5))
    seen: list[torch.Tensor] = []

    def stop(done: int, row: object) -> None:
        if done == 3 and not resumed:
            raise Cut

    resumed: list[bool] = []
    options = Options(home_steps=1, budget=BUDGET, on_round=stop)
    with pytest.raises(Cut):
        train(made, private.DATASET, out=tmp_path / "run", options=options)
    resumed.append(True)
    finished = train(made, private.DATASET, out=tmp_path / "run", resume=True, options=options)
    state = finished.simulation.state
    assert state.averaged == 2 and not torch.equal(state.served, state.phi)
    seen.append(load_run(tmp_path / "run", dataset=private.DATASET, federation=made).simulation.state.served)
    assert torch.equal(seen[0], state.served)


def test_the_page_of_protections_is_what_the_code_says() -> None:
    import runpy

    docs = Path(__file__).resolve().parent.parent / "docs"
    made = runpy.run_path(str(docs / "make_protections.py"))
    assert made["page"]() == (docs / "protections.md").read_text()


def with_network(build) -> tuple[object, FederatedDataset]:  # noqa: ANN001
    from dataclasses import replace

    made = private.federation()
    network = TargetNetwork(build)
    noised = LocalGaussian(private.SUM_CLIP, private.SUM_NOISE)
    method = replace(_method(made), descriptor=made.descriptor)
    return federate(
        method,
        network,
        list(private.DATASET.clients),
        rounds=2,
        budgets=[1.0],
        plan=Plan(noised, PlainSum(), noised, None),
        prototype_bound=made.prototype_bound,
        declared=made.declared,
    ), private.DATASET


def _method(made):  # noqa: ANN001, ANN202
    from dataclasses import replace

    from framp_private import HypernetworkShape, framp

    return replace(framp(), trainer=made.trainer, hypernetwork=HypernetworkShape(trunk="random", hidden=4))


class MeetsOthers(torch.nn.Module):
    """Takes the batch's mean off: records meet."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        made: torch.Tensor = self.last((hidden - hidden.mean(0)).relu())
        return made


def test_networks_in_which_records_meet_or_share_dropout_are_refused(tmp_path: Path) -> None:
    def dropping() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))

    for build, words in ((MeetsOthers, "meet"), (dropping, "dropout")):
        made, dataset = with_network(build)
        with pytest.raises(ModelError, match=words):
            train(made, dataset, out=tmp_path / "run", options=Options(budget=BUDGET))  # type: ignore[arg-type]
        assert not (tmp_path / "run").exists()


def test_graphs_are_refused_before_anything_is_released(tmp_path: Path) -> None:
    made = private.federation()
    clients = {}
    for name, data in private.DATASET.clients.items():
        star = torch.stack([torch.zeros(len(data.y) - 1, dtype=torch.int64), torch.arange(1, len(data.y))])
        clients[name] = ClientData(
            data.x, data.y, data.train, data.validation, data.test, torch.cat([star, star.flip(0)], 1)
        )
    graph = FederatedDataset("star", Schema("graph", (6,), 3), clients)

    class Takes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.nn.Linear(6, 3)

        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.last(x)
            return made

    federation, _ = with_network(Takes)
    with pytest.raises(PlanError, match="neighbours"):
        train(federation, graph, out=tmp_path / "run", options=Options(budget=BUDGET))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
    with pytest.raises(PrivacyParameterError, match="edges"):
        made.descriptor.clipped_sum(made.network, made.theta_0, clients["client-00"], 1.0)


def test_an_older_checkpoint_does_not_make_the_server_noise_a_total_again(tmp_path: Path) -> None:
    import shutil
    from dataclasses import replace

    made, out = client_level(rounds=5), tmp_path / "run"
    options = Options(home_steps=1, budget=BUDGET)

    def copy(done: int, row: object) -> None:
        if done == 1:
            shutil.copytree(out / "private" / "checkpoint", tmp_path / "old")
        if done == 3:
            raise Cut

    with pytest.raises(Cut):
        train(made, private.DATASET, out=out, options=replace(options, on_round=copy))
    shutil.rmtree(out / "private" / "checkpoint")
    shutil.copytree(tmp_path / "old", out / "private" / "checkpoint")
    train(made, private.DATASET, out=out, resume=True, options=options)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("failed", False) for row in rows] == [False, True, True, False, False]
    assert verify(out / "ledger.jsonl").rows == 2 + 2 * 5


def test_a_crash_in_the_first_round_can_be_resumed(tmp_path: Path) -> None:
    out, calls = tmp_path / "run", []

    def drops(client: str, index: int) -> bool:
        if index == 0 and client == "client-03" and not calls:
            calls.append(1)
            raise Cut
        return False

    with pytest.raises(Cut):
        run(out, drops=drops)
    assert run(out, resume=True, drops=drops).summary["privacy"]["record"]["epsilon"] > 0


def test_a_stored_reply_that_the_ledger_does_not_know_stays_home() -> None:
    made = private.federation()
    request = private.train_request(made, "client-00")
    client = private.client_of(made, "client-00", account=Account(Ledger.open(None, unit="record")))
    _, state = client.handle(request, ClientState.new())
    forgetful = private.client_of(made, "client-00", account=Account(Ledger.open(None, unit="record")))
    with pytest.raises(LedgerError, match="rows were lost"):
        forgetful.handle(request, state)


def test_a_channel_that_was_not_agreed_on_is_not_answered() -> None:
    from dataclasses import replace

    from framp_private import fiarse

    made = private.federation()
    shared = federate(
        replace(fiarse(), trainer=made.trainer),
        made.network,
        list(made.budgets),
        rounds=2,
        plan=replace(made.plan, descriptor=PlainSum()),
        prototype_bound=made.prototype_bound,
        declared=made.declared,
    )
    client = private.client_of(shared, "client-00")
    with pytest.raises(ProtocolError, match="no such channel"):
        client.handle(encode(EnrolRequest(shared.digest)), ClientState.new())


def test_a_raw_descriptor_is_in_no_file_of_a_private_run(tmp_path: Path) -> None:
    finished = run(tmp_path / "run")
    made = finished.simulation.federation
    for name in private.DATASET.clients:
        raw = made.describe(name, private.DATASET.clients[name]).tobytes()
        for path in (tmp_path / "run").rglob("*"):
            assert not path.is_file() or raw not in path.read_bytes(), path
        assert len(finished.simulation.engine.states[name].descriptor) == 0


def test_an_unseen_client_has_no_account_and_so_no_model_to_take_away() -> None:
    dataset = tiny_dataset(6, 1)
    made = train(private.federation(dataset), dataset, options=Options(home_steps=1, budget=BUDGET))
    assert made.model("client-00") is not None
    with pytest.raises(RunError, match="never enrolled"):
        made.model("unseen-00")


def test_a_client_that_took_part_in_no_round_is_served_no_model(tmp_path: Path) -> None:
    """Its descriptor would be drawn anew at each load, and no account holds it: 200 loads gave its class shares."""
    small = {"rounds": 2, "clients": 12, "clients_per_round": 5, "home_steps": 1, "unseen_clients": 0}
    config = make_config(preset="digits-secure", assignments=small)
    out = tmp_path / "run"
    made = run_config(config, out=out)
    asked = {name for index in range(2) for name in sample_cohort(made.simulation.federation, index)}
    left_out = sorted(set(made.simulation.dataset.clients) - asked)
    assert left_out and asked
    for run_ in (made, load_run(out)):
        for name in left_out:
            with pytest.raises(RunError, match="took part in no round"):
                run_.model(name)
    first = load_run(out)
    for name in sorted(asked):  # and who did is served what was released, the same each time
        assert torch.equal(first.weights(name).weights, load_run(out).weights(name).weights)
