"""Samples of clients: how they are drawn, what they cost, and that a round over nobody looks like any other."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SampledWithoutReplacementDpEvent

from framp_private.errors import PlanError, PrivacyBudgetExhausted, ProtocolError
from framp_private.federated import server
from framp_private.federated.client import ClientState
from framp_private.federated.messages import PhiRequest
from framp_private.federated.server import ServerState
from framp_private.inspect_ledgers import ledger_rows
from framp_private.privacy import accounting
from framp_private.privacy.amplification import joint, over_sample
from framp_private.privacy.events import Budget, Event, leaves
from framp_private.privacy.sampling import uniform_sample
from framp_private.protections import AdaptiveClip, CentralGaussian, PlainSum, Plan
from framp_private.randomness import Entropy
from framp_private.training import Options, train
from framp_private.wire import decode, encode
from tests import private
from tests.test_private_run import client_level

NOBODY = PlainSum(minimum=0)
BUDGET = Budget(50.0, 1e-5)


def sampled(cohorts: str = "poisson", cohort: int = 2, rounds: int = 4, *, adaptive: AdaptiveClip | None = None):  # noqa: ANN201
    plan = Plan(None, CentralGaussian(1.0, 2.0, NOBODY, adaptive), CentralGaussian(1.0, 4.0, NOBODY), None)
    return client_level(rounds, cohort=cohort, cohorts=cohorts, plan=plan)


def test_poisson_cohorts_have_a_binomials_sizes_and_no_seed() -> None:
    made = sampled()
    draws = [server.draw_cohort(made, 0) for _ in range(4_000)]
    n, p = len(made.budgets), 2 / len(made.budgets)
    sizes = np.array([len(draw) for draw in draws])
    assert abs(sizes.mean() - n * p) < 4.9 * (n * p * (1 - p) / 4_000) ** 0.5
    assert abs(sizes.var() / (n * p * (1 - p)) - 1) < 4.9 * (3 / 4_000) ** 0.5
    taken = Counter(name for draw in draws for name in draw)
    for name in made.budgets:
        assert abs(taken[name] / 4_000 - p) < 5.5 * (p * (1 - p) / 4_000) ** 0.5, name
    assert () in draws and draws[:50] != [server.draw_cohort(made, 0) for _ in range(50)]


def test_fixed_samples_are_uniform_of_their_size_and_have_no_seed() -> None:
    draws = Counter(tuple(uniform_sample(5, 2, Entropy()).tolist()) for _ in range(4_000))
    assert len(draws) == 10 and all(a < b for a, b in draws)
    assert all(abs(count - 400) < 5.5 * 360**0.5 for count in draws.values())
    made = sampled("fixed")
    assert {len(server.draw_cohort(made, 0)) for _ in range(100)} == {2}
    assert len({server.draw_cohort(made, 0) for _ in range(100)}) > 1


def test_channels_of_one_sample_are_one_event_and_cost_more_than_independent_samples_would() -> None:
    made = sampled()
    ((name, event),) = made.round_events("client-00").items()
    assert name == "update+prototypes" and event.relation == "add/remove" and event.unit == "client"
    z = (2.0**-2 + 4.0**-2) ** -0.5
    assert event.mechanism == PoissonSampledDpEvent(2 / 6, GaussianDpEvent(pytest.approx(z)))
    apart: Counter[str] = Counter()
    for channel in ("update", "prototypes"):
        apart += leaves(made.event(channel, "client-00").mechanism, 30)
    together = accounting.epsilon(leaves(event.mechanism, 30), "add/remove", 1e-5)
    assert together > accounting.epsilon(apart, "add/remove", 1e-5)


def test_fixed_samples_are_replace_one_at_twice_the_clip() -> None:
    made = sampled("fixed")
    ((_, event),) = made.round_events("client-00").items()
    z = (2.0**-2 + 4.0**-2) ** -0.5
    assert event.relation == "replace-one" == made.relation
    assert event.mechanism == SampledWithoutReplacementDpEvent(6, 2, GaussianDpEvent(pytest.approx(z / 2)))


def test_replacing_a_client_moves_a_sum_by_up_to_twice_the_clip() -> None:
    clip = CentralGaussian(1.0, 1.0)
    here, there = (clip.reveal(clip.protect(np.array([v], np.float32), Entropy())) for v in (5.0, -5.0))
    assert float(np.linalg.norm(here - there)) == pytest.approx(2.0, rel=1e-4)


def test_records_and_whole_cohorts_are_not_amplified() -> None:
    record, client = Event(GaussianDpEvent(1.0), "record"), Event(GaussianDpEvent(1.0), "client")
    assert over_sample(record, 2, 6, "poisson") == record and over_sample(client, 6, 6, "fixed") == client
    sampled_already = Event(PoissonSampledDpEvent(0.1, GaussianDpEvent(1.0)), "client")
    with pytest.raises(PlanError, match="accounted form"):
        over_sample(sampled_already, 2, 6, "poisson")
    with pytest.raises(PlanError, match="joined"):
        joint([client, sampled_already])


@pytest.mark.parametrize("cohorts", ["poisson", "fixed"])
def test_every_round_costs_every_client_alike(cohorts: str, tmp_path: Path) -> None:
    made = sampled(cohorts)
    options = Options(home_steps=1, budget=BUDGET)
    summary = train(made, private.DATASET, out=tmp_path / "run", options=options).summary
    claim, counts = summary["privacy"]["client"], Counter[str]()
    for event, count in made.planned("client-00"):
        counts += leaves(event.mechanism, count)
    assert claim["epsilon"] == pytest.approx(accounting.epsilon(counts, made.relation, 1e-5), rel=1e-6)
    assert claim["relation"] == made.relation and "which clients took part" in claim["trust_model"]
    assert summary["privacy"]["record"]["epsilon"] is None
    opened = json.loads((tmp_path / "run" / "ledger.jsonl").read_text().splitlines()[0])
    assert (opened["unit"], opened["relation"]) == ("client", made.relation)
    shown = ledger_rows(tmp_path / "run", 1e-5)
    assert len(shown) == 7 and all(row["epsilon"] >= claim["epsilon"] - 1e-9 for row in shown)
    assert {row["trust_model"] for row in shown} == {claim["trust_model"]}


def test_a_round_over_nobody_releases_noise_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "draw_cohort", lambda federation, index: ())
    made = sampled()
    before = ServerState.initial(made)
    finished = train(made, private.DATASET, options=Options(home_steps=1, budget=BUDGET))
    assert finished.simulation.state.round_index == 4
    assert not np.allclose(finished.simulation.state.phi.numpy(), before.phi.numpy())
    assert finished.summary["privacy"]["client"]["epsilon"] > 0


def test_the_budget_refuses_a_sampled_round(tmp_path: Path) -> None:
    with pytest.raises(PrivacyBudgetExhausted):
        train(
            sampled(), private.DATASET, out=tmp_path / "run", options=Options(home_steps=1, budget=Budget(0.05, 1e-5))
        )


def test_a_sample_amplifies_nothing_for_records_or_beside_a_clear_channel() -> None:
    with pytest.raises(PlanError, match="whole clients"):
        replace(private.federation(), cohorts="poisson", cohort=2)
    clear = Plan(None, CentralGaussian(1.0, 2.0, NOBODY), NOBODY, None)
    with pytest.raises(PlanError, match="in the clear"):
        client_level(cohort=2, cohorts="poisson", plan=clear)


def test_an_adaptive_clip_moves_from_round_to_round_and_survives_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sampled(cohort=6, adaptive=AdaptiveClip(0.5, 0.5, 3.0))
    options = Options(home_steps=1, budget=BUDGET)
    out, seen = tmp_path / "run", []
    real = server.apply

    def stops(federation, state, totals):  # noqa: ANN001, ANN202
        seen.append(state.clip)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(federation, state, totals)

    monkeypatch.setattr(server, "apply", stops)
    with pytest.raises(KeyboardInterrupt):
        train(made, private.DATASET, out=out, options=options)
    assert seen[0] == 1.0 and len(set(seen)) == 3
    finished = train(made, private.DATASET, out=out, options=options, resume=True)
    # the interrupted round's total was spent and lost: it is skipped, and the next one takes the clip it would have had
    assert seen[3] == seen[2] and finished.simulation.state.clip not in (0.0, 1.0)


@pytest.mark.parametrize("clip", [0.0, -1.0, float("inf"), float("nan")])
def test_a_client_refuses_a_clip_that_no_noise_was_sized_for(clip: float) -> None:
    made = sampled(cohort=6, adaptive=AdaptiveClip(0.5, 0.5, 3.0))
    requests = server.make_requests(made, ServerState.initial(made), ["client-00"])
    message = decode(requests["client-00"], PhiRequest)
    client = private.client_of(made, "client-00")
    with pytest.raises(ProtocolError, match="clip="):
        client.handle(encode(replace(message, clip=clip)), ClientState.new())
    fixed = sampled(cohort=6)
    given = decode(server.make_requests(fixed, ServerState.initial(fixed), ["client-00"])["client-00"], PhiRequest)
    with pytest.raises(ProtocolError, match="clip="):
        private.client_of(fixed, "client-00").handle(encode(replace(given, clip=2.0)), ClientState.new())
