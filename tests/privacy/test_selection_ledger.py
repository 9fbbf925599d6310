"""A choice among runs as an event: stored, composed, nested, and without a guarantee where a candidate has none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    LaplaceDpEvent,
    NonPrivateDpEvent,
    NoOpDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from dp_accounting.rdp import RdpAccountant

from framp_private import Ledger
from framp_private.errors import LedgerError, PrivacyBudgetExhausted
from framp_private.privacy import accounting
from framp_private.privacy.events import Budget, Event, from_row, leaves, to_row
from framp_private.privacy.ledger import verify
from framp_private.privacy.selection import SelectionDpEvent, renyi_of_best
from framp_private.privacy.skellam import SkellamDpEvent
from tests.privacy.selection_oracle import SHAPES, STEPS


def test_the_figures_that_the_documents_give() -> None:
    """docs/accounting.md, "The alternative"; the best of a number whose law is geometric has shape 1."""
    run = SelfComposedDpEvent(PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0)), 500)
    for published, epsilon in ((1, 1.33), (2, 1.83), (10, 4.20)):
        ledger = Ledger.open(None, unit="record")
        ledger.declare([(Event(run, "record"), published)], "all")
        for place in range(published):
            ledger.spend(run, f"run {place}")
        assert ledger.epsilon(1e-5) == pytest.approx(epsilon, abs=0.005)
    for mean, epsilon in ((2, 2.37), (10, 3.22), (100, 4.19)):
        ledger = Ledger.open(None, unit="record")
        ledger.declare([(Event(SelectionDpEvent([run], mean=mean, shape=1.0), "record"), 1)], "the best")
        ledger.spend(SelectionDpEvent([run], mean=mean, shape=1.0), "the best")
        assert ledger.epsilon(1e-5) == pytest.approx(epsilon, abs=0.005)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_ledger_on_disk_keeps_the_event_and_its_epsilon(shape: float, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    run = ComposedDpEvent([STEPS, GaussianDpEvent(8.0)])
    event = SelectionDpEvent([run, GaussianDpEvent(2.0)], 10, shape)
    ledger = Ledger.open(path, unit="record")
    assert ledger.spend(event, "best of the sweep") and not ledger.spend(event, "best of the sweep")
    spent = ledger.epsilon(1e-5)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert from_row(rows[-1]["mechanism"]) == event
    again = Ledger.open(path, unit="record")
    assert again.verify(ledger.head) == verify(path) and again.epsilon(1e-5) == spent
    assert not again.spend(event, "best of the sweep")
    with pytest.raises(LedgerError):
        again.spend(SelectionDpEvent([run, GaussianDpEvent(2.0)], 11, shape), "best of the sweep")

    one = accounting.epsilon(leaves(run), "add/remove", 1e-5)
    assert one < spent < math.inf
    again.spend(GaussianDpEvent(4.0), "round 1")
    assert spent < again.epsilon(1e-5)


def test_a_few_runs_are_cheaper_published_and_many_are_cheaper_chosen() -> None:
    def published(count: int) -> float:
        return accounting.epsilon(leaves(STEPS, count), "add/remove", 1e-5)

    def chosen(mean: int) -> float:
        return accounting.epsilon(leaves(SelectionDpEvent([STEPS], mean, 1)), "add/remove", 1e-5)

    assert published(2) < chosen(2)
    assert chosen(64) < published(64) / 3


def test_epsilon_is_that_of_rdp_alone_as_the_other_accountant_knows_no_choice() -> None:
    event = SelectionDpEvent([GaussianDpEvent(5.0)], 10, 1)
    counts = leaves(event, 2) + leaves(GaussianDpEvent(9.0))
    theirs = RdpAccountant()
    theirs.compose(RepeatAndSelectDpEvent(GaussianDpEvent(5.0), 10, 1), 2)
    theirs.compose(GaussianDpEvent(9.0))
    assert accounting._composed(frozenset(counts.items()), "add/remove") is None
    assert accounting.epsilon(counts, "add/remove", 1e-5) == pytest.approx(theirs.get_epsilon(1e-5), rel=1e-6)
    assert dict(leaves(ComposedDpEvent([event, SelfComposedDpEvent(event, 3)]))).popitem()[1] == 4


def test_a_run_costs_the_sum_of_its_parts_and_a_choice_the_largest_run() -> None:
    """At low orders the Gaussian is the dearest of the three, at high ones Laplace is not."""
    orders = accounting.ORDERS
    runs: list[DpEvent] = [GaussianDpEvent(2.0), LaplaceDpEvent(1.6), SelfComposedDpEvent(GaussianDpEvent(20.0), 3)]
    curves = []
    for run in runs:
        one = RdpAccountant(orders)
        one.compose(run)
        curves.append(one._rdp)
    largest = np.max(curves, axis=0)
    assert all((largest > each).any() for each in curves) and np.argmax(curves, axis=0).max() == 1
    assert len(set(np.argmax(curves, axis=0))) == 2
    found = accounting.rdp_vector(leaves(SelectionDpEvent(runs, 6.0, 0.5)), "add/remove")
    np.testing.assert_allclose(found, renyi_of_best(orders, largest, 6.0, 0.5), rtol=1e-12)
    nested = SelectionDpEvent([SelectionDpEvent(runs, 6.0, 0.5), NoOpDpEvent()], 2.0, 1)
    expected = renyi_of_best(orders, found, 2.0, 1)
    np.testing.assert_allclose(accounting.rdp_vector(leaves(nested), "add/remove"), expected, rtol=1e-12)
    assert from_row(to_row(nested)) == nested


def test_relations_and_whole_orders_hold_inside_a_candidate() -> None:
    skellam = SelectionDpEvent([SkellamDpEvent(900.0, 10.0, 30.0), GaussianDpEvent(50.0)], 5, 1)
    alone = accounting.epsilon(leaves(SkellamDpEvent(900.0, 10.0, 30.0)), "add/remove", 1e-5)
    assert alone < accounting.epsilon(leaves(skellam), "add/remove", 1e-5) < math.inf
    assert math.isinf(accounting.epsilon(leaves(skellam), "replace-one", 1e-5))
    sampled = SelectionDpEvent([PoissonSampledDpEvent(0.1, GaussianDpEvent(2.0))], 5, 1)
    assert math.isfinite(accounting.epsilon(leaves(sampled), "add/remove", 1e-5))
    assert math.isinf(accounting.epsilon(leaves(sampled), "replace-one", 1e-5))


def test_a_candidate_without_a_guarantee_leaves_none() -> None:
    bare = ComposedDpEvent([GaussianDpEvent(3.0), NonPrivateDpEvent()])
    event = SelectionDpEvent([GaussianDpEvent(3.0), bare], 5, 1)
    for mechanism in (event, SelectionDpEvent([event], 2, 0), PoissonSampledDpEvent(0.01, event)):
        assert math.isinf(accounting.epsilon(leaves(mechanism), "add/remove", 1e-5))
    assert not Event(event, "record").private and not Event(SelectionDpEvent([event], 2, 0), "record").private
    assert Event(SelectionDpEvent([GaussianDpEvent(3.0)], 5, 1), "record").private
    ledger = Ledger.open(None, unit="record", budget=Budget(5.0, 1e-5))
    with pytest.raises(PrivacyBudgetExhausted):
        ledger.spend(event, "best")
    assert ledger.spend(SelectionDpEvent([GaussianDpEvent(8.0)], 5, 1), "best")
