"""The ledger's epsilon against independent oracles: the exact Gaussian one in 50 digits, RDP, and Opacus's PRV."""

from __future__ import annotations

import math
from collections import Counter

import mpmath
import numpy as np
import pytest
from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    NonPrivateDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    ZCDpEvent,
)
from dp_accounting.rdp import RdpAccountant

from framp_private import Ledger
from framp_private.errors import LedgerError, PrivacyParameterError
from framp_private.privacy import accounting
from framp_private.privacy.events import Budget, Event, from_row, leaves, to_row

CASES = 200
QUICK = 20


def exact_gaussian_epsilon(multiplier: float, delta: float) -> mpmath.mpf:
    """Balle and Wang 2018, theorem 8, solved by bisection in 50 digits."""
    with mpmath.workdps(50):
        mu, delta_ = 1 / mpmath.mpf(multiplier), mpmath.mpf(delta)

        def spent(epsilon: mpmath.mpf) -> mpmath.mpf:
            first = mpmath.ncdf(mu / 2 - epsilon / mu)
            return first - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu)

        if spent(mpmath.mpf(0)) <= delta_:
            return mpmath.mpf(0)
        low, high = mpmath.mpf(0), mpmath.mpf(1)
        while spent(high) > delta_:
            high *= 2
        for _ in range(120):
            middle = (low + high) / 2
            low, high = (middle, high) if spent(middle) > delta_ else (low, middle)
        return high


def cases(count: int) -> list[object]:
    """Random plans: Gaussian releases alone, or with Poisson-sampled steps."""
    rng, found = np.random.default_rng(11), []
    for index in range(count):
        gaussian = [(float(rng.uniform(5, 60)), int(rng.integers(1, 60))) for _ in range(int(rng.integers(1, 3)))]
        poisson = None
        if index % 2:
            poisson = (float(10 ** rng.uniform(-2.5, -0.3)), float(rng.uniform(0.8, 6)), int(rng.integers(1, 1500)))
        delta = float(10 ** rng.uniform(-7, -4))
        marks = [] if index < QUICK else [pytest.mark.slow]
        found.append(pytest.param(gaussian, poisson, delta, id=f"plan-{index}", marks=marks))
    return found


@pytest.mark.filterwarnings("ignore")  # of the other accountant, inside
@pytest.mark.parametrize(("gaussian", "poisson", "delta"), cases(CASES))
def test_epsilon_lies_between_the_exact_one_and_rdp_and_near_prv(
    gaussian: list[tuple[float, int]], poisson: tuple[float, float, int] | None, delta: float
) -> None:
    ledger, rdp = Ledger.open(None, unit="record"), RdpAccountant()
    plan = [(Event(GaussianDpEvent(multiplier), "record"), count) for multiplier, count in gaussian]
    if poisson is not None:
        plan.append((Event(PoissonSampledDpEvent(poisson[0], GaussianDpEvent(poisson[1])), "record"), poisson[2]))
    ledger.declare(plan, "all")
    for place, (multiplier, count) in enumerate(gaussian):
        event = SelfComposedDpEvent(GaussianDpEvent(multiplier), count)
        ledger.spend(event, f"gaussian {place}")
        rdp.compose(event)
    alone = sum(count / multiplier**2 for multiplier, count in gaussian) ** -0.5
    if poisson is None:
        exact = exact_gaussian_epsilon(alone, delta)
        spent = ledger.epsilon(delta)
        assert spent >= exact
        assert spent <= float(exact) + max(0.02 * float(exact), 0.02)
    else:
        q, multiplier, steps = poisson
        event = SelfComposedDpEvent(PoissonSampledDpEvent(q, GaussianDpEvent(multiplier)), steps)
        ledger.spend(event, "steps")
        rdp.compose(event)
        near_prv(ledger, alone, poisson, delta)
    assert ledger.epsilon(delta) <= rdp.get_epsilon(delta) + 1e-12


def near_prv(ledger: Ledger, alone: float, poisson: tuple[float, float, int], delta: float) -> None:
    """Opacus's PRV accountant (Gopi et al. 2021) with an error of .01 stays within 2 % or .02 where epsilon is usual."""
    from opacus.accountants import PRVAccountant

    q, multiplier, steps = poisson
    prv = PRVAccountant()
    prv.history = [(alone, 1.0, 1), (multiplier, q, steps)]
    spent = ledger.epsilon(delta)
    if 0.1 <= spent <= 20:
        other = prv.get_epsilon(delta, eps_error=0.005, delta_error=delta / 1000)
        assert abs(spent - other) <= max(0.02 * other, 0.02)


def test_composition_is_undone_and_equal_events_are_counted() -> None:
    gaussian, step = GaussianDpEvent(2.0), PoissonSampledDpEvent(0.1, GaussianDpEvent(1.0))
    nested = ComposedDpEvent([SelfComposedDpEvent(step, 3), gaussian, SelfComposedDpEvent(ComposedDpEvent([step]), 2)])
    assert sorted(leaves(nested, 2).values()) == [2, 10]
    assert accounting.epsilon(leaves(nested), "add/remove", 1e-5) == pytest.approx(
        accounting.epsilon(leaves(step, 5) + leaves(gaussian), "add/remove", 1e-5)
    )


def test_gaussians_merge_exactly() -> None:
    (event, count), *rest = accounting.merged(leaves(GaussianDpEvent(3.0), 4) + leaves(GaussianDpEvent(6.0), 9))
    assert not rest and count == 1 and event.noise_multiplier == pytest.approx((4 / 9 + 9 / 36) ** -0.5)


@pytest.mark.parametrize(
    "event",
    [
        GaussianDpEvent(1.25),
        PoissonSampledDpEvent(0.1, GaussianDpEvent(0.7)),
        SelfComposedDpEvent(ComposedDpEvent([GaussianDpEvent(1.0), ZCDpEvent(0.1)]), 3),
        NonPrivateDpEvent(),
    ],
)
def test_events_survive_the_way_to_a_file_and_back(event: DpEvent) -> None:
    assert from_row(to_row(event)) == event


def test_what_is_unknown_has_no_epsilon_or_is_refused() -> None:
    assert accounting.epsilon(leaves(NonPrivateDpEvent()), "add/remove", 1e-5) == math.inf
    assert accounting.epsilon(leaves(GaussianDpEvent(0.0)), "add/remove", 1e-5) == math.inf
    assert accounting.epsilon(Counter(), "add/remove", 1e-5) == 0
    assert math.isfinite(accounting.epsilon(leaves(ZCDpEvent(0.05)), "add/remove", 1e-5))
    for bad in ("GaussianDpEvent", object(), None):
        with pytest.raises(LedgerError):
            leaves(bad)  # type: ignore[arg-type]
    for row in ({}, {"kind": "Evil"}, {"kind": "GaussianDpEvent", "other": 1}, {"kind": 3}):
        with pytest.raises(LedgerError):
            from_row(row)


def test_cut_tails_are_taken_off_delta() -> None:
    counts = leaves(GaussianDpEvent(2.0))
    plain = accounting.epsilon(counts, "add/remove", 1e-5)
    assert accounting.epsilon(counts, "add/remove", 1e-5, 10**9) == pytest.approx(plain, abs=1e-9)
    larger = accounting.epsilon(counts, "add/remove", 1e-5, int(2e-7 / accounting.TAIL))
    assert plain < larger < math.inf
    assert accounting.epsilon(counts, "add/remove", 1e-5, int(1e-4 / accounting.TAIL)) == math.inf


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(0, 1e-5), (-1, 1e-5), (math.nan, 1e-5), (math.inf, 1e-5), (1, 0), (1, 1), (1, 2), (1, math.nan)],
)
def test_budgets_that_mean_nothing_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(PrivacyParameterError):
        Budget(epsilon, delta)


def test_events_multiply() -> None:
    event = Event(GaussianDpEvent(1.0), "record", noise_values=5).times(4)
    assert sum(leaves(event.mechanism).values()) == 4 and event.noise_values == 20 and event.private
    assert not Event(ComposedDpEvent([NonPrivateDpEvent()]), "record").private
