"""The cost of the best of several runs, against a library's and a slow loop over the orders."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from dp_accounting import DpEvent, GaussianDpEvent
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from dp_accounting.rdp import RdpAccountant
from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS

from framp_private.privacy.selection import renyi_of_best
from tests.privacy.selection_oracle import MEANS, ORDERS, SHAPES, STEPS, in_digits, naive


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [1, 1.5, 10, 40.5, 300])
@pytest.mark.parametrize("event", [GaussianDpEvent(0.8), GaussianDpEvent(5.0), GaussianDpEvent(60.0), STEPS])
def test_the_curve_is_the_library_s_or_below_where_order_one_is_the_better_choice(
    event: DpEvent, mean: float, shape: float
) -> None:
    """Theorem 2 holds at order 1, too, which the library uses only where it is asked for; of Gaussians it can be."""
    gaussian = isinstance(event, GaussianDpEvent)
    orders = (1.0, *DEFAULT_RDP_ORDERS) if gaussian else tuple(DEFAULT_RDP_ORDERS)
    theirs, base = RdpAccountant(orders), RdpAccountant(orders)
    theirs.compose(RepeatAndSelectDpEvent(event, mean, shape))
    base.compose(event)
    expected = np.minimum.accumulate(np.array(theirs._rdp)[::-1])[::-1]
    found = renyi_of_best(orders, base._rdp, mean, shape)
    if gaussian or mean >= 10 or shape == math.inf:
        # the library finds its gamma by halving an interval to within 2^-30 or so
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8)
    else:
        assert (found <= expected * (1 + 1e-9)).all()
        assert mean > 1 or (found < expected).all()


@pytest.mark.parametrize("shape", SHAPES)
@in_digits
def test_the_curve_is_that_of_a_slow_loop_over_the_orders(shape: float) -> None:
    rng = np.random.default_rng(3)
    for mean in (*MEANS, 1000.0):
        base = np.sort(10 ** rng.uniform(-4, 1.5, len(ORDERS)))
        expected = [float(sum(terms)) for terms in naive(ORDERS, list(base), mean, shape)]
        lowest = [min(expected[place:]) for place in range(len(expected))]
        np.testing.assert_allclose(renyi_of_best(ORDERS, base, mean, shape), lowest, rtol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_known_at_one_order_holds_below_it(shape: float) -> None:
    base = [0.1, math.inf, 0.3, math.inf, 0.5, math.inf]
    found = renyi_of_best([1, 1.5, 2, 3, 4, 5], base, 7.0, shape)
    filled = renyi_of_best([1, 1.5, 2, 3, 4, 5], [0.1, 0.3, 0.3, 0.5, 0.5, math.inf], 7.0, shape)
    assert (found == filled).all() and (np.diff(found) >= 0).all()
    assert np.isfinite(found[:5]).all() and math.isinf(found[5])
    assert np.isinf(renyi_of_best([2, 3], [math.inf, math.inf], 7.0, shape)).all()


def test_one_run_for_sure_costs_one_run_and_more_runs_cost_more() -> None:
    base = np.array(ORDERS) / 50
    for shape in SHAPES[:-1]:
        one = renyi_of_best(ORDERS, base, 1, shape)
        np.testing.assert_allclose(one, base, rtol=1e-12)
        curves = [one, *(renyi_of_best(ORDERS, base, mean, shape) for mean in (1.1, 2, 10, 1e3, 1e6))]
        for fewer, more in pairwise(curves):
            assert (fewer < more).all()
    assert (renyi_of_best(ORDERS, base, 1, math.inf)[3:] > base[3:]).all()  # two runs or more happen, too
