"""What a choice among runs refuses: numbers out of range, curves that do not fit, candidates that cannot be priced."""

from __future__ import annotations

import math

import pytest
from dp_accounting import ComposedDpEvent, GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.dp_event import RepeatAndSelectDpEvent, SingleEpochTreeAggregationDpEvent

from framp_private import Ledger
from framp_private.errors import LedgerError, PrivacyParameterError
from framp_private.privacy.events import from_row, leaves, to_row
from framp_private.privacy.selection import SelectionDpEvent, draw_repetitions, renyi_of_best
from framp_private.randomness import Entropy
from tests.privacy.selection_oracle import STEPS


@pytest.mark.parametrize(
    ("mean", "shape"),
    [
        (0.99, 1),
        (0, math.inf),
        (-3, 1),
        (math.nan, 1),
        (math.inf, 1),
        (3, -0.1),
        (3, -1),
        (3, math.nan),
        (3, -math.inf),
        ("3", 1),
        (3, "poisson"),
        (True, 1),
    ],
)
def test_numbers_outside_their_range_are_refused(mean: float, shape: float) -> None:
    with pytest.raises(PrivacyParameterError, match=r"mean=|shape="):
        SelectionDpEvent([GaussianDpEvent(1.0)], mean, shape)
    with pytest.raises(PrivacyParameterError, match=r"mean=|shape="):
        renyi_of_best([2, 3], [1, 2], mean, shape)
    with pytest.raises(PrivacyParameterError, match=r"mean=|shape="):
        draw_repetitions(mean, shape, Entropy())


@pytest.mark.parametrize(
    ("orders", "base"),
    [
        ([], []),
        ([3, 2], [1, 2]),
        ([2, 2], [1, 2]),
        ([0.5, 2], [1, 2]),
        ([2, math.inf], [1, 2]),
        ([2, math.nan], [1, 2]),
        ([2, 3], [1]),
        ([2, 3], [1, math.nan]),
    ],
)
def test_orders_and_curves_that_do_not_fit_are_refused(orders: list[float], base: list[float]) -> None:
    with pytest.raises(PrivacyParameterError, match="orders"):
        renyi_of_best(orders, base, 3, 1)


def test_candidates_that_cannot_be_priced_are_refused_before_anything_is_written() -> None:
    ledger = Ledger.open(None, unit="record")
    head = ledger.head
    for empty in ([], [GaussianDpEvent(1.0), 3], "abc"):
        with pytest.raises(PrivacyParameterError, match="candidates="):
            SelectionDpEvent(empty, 3, 1)  # type: ignore[arg-type]
    unknown = SingleEpochTreeAggregationDpEvent(1.0, 3)
    for candidate in (unknown, ComposedDpEvent([unknown]), RepeatAndSelectDpEvent(GaussianDpEvent(1.0), 3, 1)):
        with pytest.raises(LedgerError, match="not known"):
            ledger.spend(SelectionDpEvent([GaussianDpEvent(1.0), candidate], 3, 1), "best")
    for bad in (
        GaussianDpEvent(math.nan),
        PoissonSampledDpEvent(1.5, GaussianDpEvent(1.0)),
        SelfComposedDpEvent(STEPS, 0),
    ):
        event = SelectionDpEvent([GaussianDpEvent(1.0), bad], 3, 1)
        with pytest.raises(PrivacyParameterError):
            leaves(event)
        with pytest.raises(PrivacyParameterError):
            ledger.spend(event, "best")
    assert ledger.head == head
    row = to_row(SelectionDpEvent([GaussianDpEvent(1.0)], 3, math.inf))
    for changed in ({"candidates": []}, {"mean": 0.5}, {"mean": None}, {"shape": "normal"}, {"candidates": [3]}):
        with pytest.raises(LedgerError, match="no known event"):
            from_row({**row, **changed})
    with pytest.raises(LedgerError):
        from_row({key: value for key, value in row.items() if key != "shape"})
