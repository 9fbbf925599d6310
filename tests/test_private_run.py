"""Whole private runs: what they claim, what they spend, what a crash cannot undo, and who refuses."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from framp_private import Options, SubmodelRule, train
from framp_private.errors import LedgerError, PlanError, PrivacyBudgetExhausted, ProtocolError, ReleaseLost
from framp_private.federated.accounts import EVERYTHING, Account, Accounts
from framp_private.federated.client import ClientState
from framp_private.federated.messages import EnrolRequest
from framp_private.privacy import accounting
from framp_private.privacy.events import Budget, leaves
from framp_private.privacy.ledger import Ledger, verify
from framp_private.protections import CentralGaussian, LocalGaussian, PlainSum, Plan
from framp_private.randomness import Entropy, SeededEntropy
from framp_private.simulation import Simulation
from framp_private.transcript import read_transcript
from framp_private.wire import encode
from tests import private

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
    rounds = {name for name, _ in read_transcript(tmp_path / "run" / "transcript")}
    assert rounds == {"enrolment", "round-000000", "round-000001"}
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
        for name, d in read_transcript(out / "transcript")
        if name == "round-000002" and d.direction == "up"
    }
    assert set(before) == {"client-00", "client-01", "client-02"}
    rows = {name: verify(out / "ledgers" / f"{name}.jsonl").rows for name in private.DATASET.clients}
    for name in lost:  # its disk kept the ledger and lost the reply
        (out / "clients" / f"{name}.state").unlink()
    calls.append(("again",))
    summary = run(out, resume=True, drops=drops).summary
    after = {
        d.client: d.data
        for name, d in read_transcript(out / "transcript")
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
    ledger = accounts.clients["client-00"].ledger
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


def test_one_record_changed_leaves_every_other_contribution_as_it_was() -> None:
    """What record-level releases read beside the record is public or noised: requests do not depend on it."""
    from dataclasses import replace

    made = private.federation()
    data = private.DATASET.clients["client-00"]
    x = data.x.clone()
    x[data.train[0]] += 5
    rows = made.descriptor.clipped_sum(made.network, made.theta_0, replace(data, train=data.train[1:]), 1.0)
    again = made.descriptor.clipped_sum(made.network, made.theta_0, replace(data, x=x, train=data.train[1:]), 1.0)
    assert np.array_equal(rows.numpy(), again.numpy())


@pytest.mark.parametrize("mask", ["taylor", "fisher", "magnitude"])
def test_masks_read_released_values_alone(mask: str) -> None:
    from dataclasses import replace

    made = replace(private.federation(), submodel=SubmodelRule(importance=mask))  # type: ignore[arg-type]
    assert private.train_request(made, "client-00") == private.train_request(made, "client-00")


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
        stored = ClientState.from_bytes((tmp_path / "run" / "clients" / "client-00.state").read_bytes())
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
    before = {(name, d.client): d.data for name, d in read_transcript(out / "transcript")}
    train(made, private.DATASET, out=out, resume=True, options=options)
    after = {(name, d.client): d.data for name, d in read_transcript(out / "transcript")}
    assert all(after[key] == value for key, value in before.items())
    assert verify(out / "ledger.jsonl").rows == 2 + 2 * 4


def test_client_level_noise_needs_summable_contributions_without_masks() -> None:
    from framp_private import Pullback, ServerStep

    with pytest.raises(PlanError, match="phi-space"):
        client_level(step=ServerStep())
    with pytest.raises(PlanError):
        client_level(pullback=Pullback.SERVER)


def test_a_record_level_claim_needs_a_server_side_pullback() -> None:
    made = private.federation()
    from dataclasses import replace

    from framp_private import Pullback
    from framp_private.models.hypernetwork import Hypernetwork
    from framp_private.models.psi import HypernetworkShape

    shape = HypernetworkShape(trunk="random", hidden=4, standardise="own")
    generator = Hypernetwork(made.network.n_parameters, made.descriptor.size(made.network), shape)
    with pytest.raises(PlanError, match="noised once"):
        replace(made, generator=generator, pullback=Pullback.CLIENT)


def test_what_is_served_can_be_the_mean_of_the_last_rounds_and_survives_a_restart(tmp_path: Path) -> None:
    from dataclasses import replace

    import torch

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
