"""The best of several runs: its cost against a library's, a slow loop and exact divergences; the draw of their number."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import mpmath
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
from dp_accounting.dp_event import RepeatAndSelectDpEvent, SingleEpochTreeAggregationDpEvent
from dp_accounting.rdp import RdpAccountant
from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS
from scipy import stats
from scipy.optimize import brentq

from framp_private import Ledger
from framp_private.errors import LedgerError, PrivacyBudgetExhausted, PrivacyParameterError
from framp_private.privacy import accounting
from framp_private.privacy.events import Budget, Event, from_row, leaves, to_row
from framp_private.privacy.ledger import verify
from framp_private.privacy.selection import SelectionDpEvent, _quantile, draw_repetitions, renyi_of_best
from framp_private.privacy.skellam import SkellamDpEvent
from framp_private.randomness import Entropy

SHAPES = [0, 0.5, 1, 3, math.inf]
MEANS = [1, 1.3, 2, 5, 30]
STEPS = SelfComposedDpEvent(PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0)), 500)
Distribution = list[mpmath.mpf]


def in_digits(test: Callable[..., None]) -> Callable[..., None]:
    return mpmath.workdps(40)(test)


# --- the formula ---------------------------------------------------------------------------------------------------


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


def mean_of(gamma: mpmath.mpf, shape: float) -> mpmath.mpf:
    if shape == 0:
        return (1 / gamma - 1) / mpmath.log(1 / gamma)
    return shape * (1 - gamma) / (gamma * (1 - gamma**shape))


def gamma_of(mean: float, shape: float) -> mpmath.mpf:
    low, high = mpmath.mpf(0), mpmath.mpf(1)
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_of(middle, shape) > mean else (low, middle)
    return high


def naive(orders: list[float], base: list[float], mean: float, shape: float) -> list[tuple[mpmath.mpf, ...]]:
    """For each order the terms of theorem 2 or 6, by loops: one run's, that of ln E K, and the choice's."""
    found = []
    for order, one in zip(orders, base, strict=True):
        if shape == math.inf:
            small, delta = mpmath.log(1 + 1 / mpmath.mpf(order - 1)), mpmath.mpf(1)
            for b, rdp in zip(orders, base, strict=True):
                by_order = mpmath.exp((b - 1) * (rdp - small)) / (b - 1) * (1 - 1 / mpmath.mpf(b)) ** b
                delta = min(delta, by_order)
                delta = min(delta, mpmath.sqrt(1 - mpmath.exp(-mpmath.mpf(rdp))))
            choice = mean * delta
        else:
            log = mpmath.log(1 / gamma_of(mean, shape)) if mean > 1 else mpmath.mpf(0)
            choice = log
            for b, rdp in zip(orders, base, strict=True):
                choice = min(choice, (1 - 1 / mpmath.mpf(b)) * rdp + log / b)
            choice *= 1 + shape
        found.append((mpmath.mpf(one), mpmath.log(mean) / (order - 1), choice))
    return found


ORDERS = [1.05, 1.2, 1.5, 2, 3, 4, 8, 16, 32, 128, 1024]


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


# --- against exact divergences ---------------------------------------------------------------------------------------


def response(epsilon: float) -> tuple[list[float], list[float]]:
    """Randomised response, whose better output is the second."""
    low = 1 / (1 + math.exp(epsilon))
    return [low, 1 - low], [1 - low, low]


MECHANISMS = [
    response(0.02),
    response(0.5),
    response(1.0),
    response(3.0),
    ([0.9999, 0.0001], [0.999995, 0.000005]),
    ([0.545, 0.0058, 0.4464, 0.0028], [0.3976, 0.0517, 0.0002, 0.5505]),
    ([0.223, 0.0002, 0.1, 0.6768], [0.665, 0.01, 0.109, 0.216]),
]
"""Pairs of output distributions under neighbours, in the order of the score."""


def generating(mean: float, shape: float) -> Callable[[mpmath.mpf], mpmath.mpf]:
    """E x^K."""
    if shape == math.inf:
        return lambda x: mpmath.exp(mean * (x - 1))
    gamma = gamma_of(mean, shape)
    if mean == 1:
        return lambda x: x
    if shape == 0:
        return lambda x: mpmath.log(1 - (1 - gamma) * x) / mpmath.log(gamma)
    return lambda x: ((1 - (1 - gamma) * x) ** -shape - 1) / (gamma**-shape - 1)


def exactly(masses: list[float]) -> Distribution:
    total = mpmath.fsum(masses)
    return [mpmath.mpf(mass) / total for mass in masses]


def best_of(masses: Distribution, mean: float, shape: float) -> Distribution:
    """P(the best of K outputs is y) = G(F(y)) - G(F(y-)), and P(K = 0) first where that can be."""
    at, below = generating(mean, shape), mpmath.mpf(0)
    found, before = [at(below)] if shape == math.inf else [], at(below)
    for place in range(len(masses)):
        below = mpmath.mpf(1) if place == len(masses) - 1 else below + masses[place]
        found.append(at(below) - before)
        before = at(below)
    assert abs(mpmath.fsum(found) - 1) < 1e-30 and min(found) > 0
    return found


def divergence(p: Distribution, q: Distribution, order: float) -> mpmath.mpf:
    """The larger of both directions."""
    a = mpmath.mpf(order)
    return max(
        mpmath.log(mpmath.fsum(x**a * y ** (1 - a) for x, y in zip(one, other, strict=True))) / (a - 1)
        for one, other in ((p, q), (q, p))
    )


def curve(p: Distribution, q: Distribution) -> list[float]:
    return [float(divergence(p, q, order)) for order in ORDERS]


@pytest.mark.parametrize("shape", SHAPES)
@in_digits
def test_the_bound_is_never_below_the_exact_divergence_and_no_term_can_be_left_out(shape: float) -> None:
    """One run's price, no ln E K, half of the choice's term, or a choice without the 1 of 1 + eta: each falls short."""
    short = dict.fromkeys(["one run", "no mean", "no choice", "less choice"], 0)
    for one, other in MECHANISMS:
        p, q = exactly(one), exactly(other)
        base = curve(p, q)
        for mean in MEANS:
            exact = np.array(curve(best_of(p, mean, shape), best_of(q, mean, shape)))
            assert (exact <= renyi_of_best(ORDERS, base, mean, shape) * (1 + 1e-9)).all()
            terms = np.array([[float(term) for term in row] for row in naive(ORDERS, base, mean, shape)])
            run, many, choice = terms.T
            less = choice / 2 if shape == math.inf else choice * shape / (1 + shape)
            wrong = [run, run + choice, run + many, run + many + less]
            for name, bound in zip(short, wrong, strict=True):
                short[name] += bool((exact > bound * (1 + 1e-9)).any())
    needed = {"one run", "no mean", "no choice"} | ({"less choice"} if shape in (0, 0.5, math.inf) else set())
    assert {name for name, times in short.items() if times} >= needed


@in_digits
def test_candidates_together_cost_no_more_than_the_largest_at_each_order() -> None:
    """(index, output) exactly, for three candidates; their average, and the second largest, would fall short."""
    distributions = [(exactly(one), exactly(other)) for one, other in MECHANISMS]
    average_short = second_short = 0
    for first in range(len(distributions) - 2):
        chosen = distributions[first : first + 3]
        curves = np.array([curve(p, q) for p, q in chosen])
        pair = [[mass / 3 for each in chosen for mass in each[side]] for side in (0, 1)]
        exact = np.array(curve(*pair))
        assert (exact <= curves.max(axis=0) * (1 + 1e-9)).all()
        average_short += bool((exact > curves.mean(axis=0) * (1 + 1e-9)).any())
        second_short += bool((exact > np.sort(curves, axis=0)[-2] * (1 + 1e-9)).any())
        order = np.random.default_rng(first).permutation(len(pair[0]))  # a score that mixes the candidates
        mixed = [[side[place] for place in order] for side in pair]
        for mean, shape in ((2, 0), (5, 1), (30, 3), (5, math.inf)):
            best = np.array(curve(best_of(mixed[0], mean, shape), best_of(mixed[1], mean, shape)))
            assert (best <= renyi_of_best(ORDERS, curves.max(axis=0), mean, shape) * (1 + 1e-9)).all()
    assert average_short and second_short


# --- how many runs ---------------------------------------------------------------------------------------------------


def probabilities(mean: float, shape: float, reach: int) -> np.ndarray:
    """P(K = k) for k = 0 .. reach, by scipy's distributions."""
    k = np.arange(reach + 1)
    if shape == math.inf:
        return np.array(stats.poisson.pmf(k, mean))
    if mean == 1:
        return (k == 1).astype(float)
    gamma = brentq(lambda g: float(mean_of(mpmath.mpf(g), shape)) - mean, 1e-9, 1 - 1e-12, xtol=1e-15)
    if shape == 0:
        return np.array(stats.logser.pmf(k, 1 - gamma))
    found = np.array(stats.nbinom.pmf(k, shape, gamma)) / -math.expm1(shape * math.log(gamma))
    found[0] = 0
    return found


def cells(masses: np.ndarray, least: float) -> list[slice]:
    """Neighbouring values of K, together until they weigh `least`."""
    found, start = [], 0
    for stop in range(1, len(masses) + 1):
        if masses[start:stop].sum() >= least and masses[stop:].sum() >= least:
            found.append(slice(start, stop))
            start = stop
    return [*found, slice(start, len(masses))]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_number_of_runs_has_the_declared_distribution_and_no_other(shape: float) -> None:
    """n = 8,000, mean 4; chi-square at alpha = 1e-6 over cells that expect 40 or more, and the mean within 5 standard
    errors (alarms falsely once in 1.7e6). Each wrong one is missed with probability below 1e-8.
    """
    mean, reach, n = 4.0, 2000, 8000
    drawn = np.array([draw_repetitions(mean, shape, Entropy()) for _ in range(n)])
    assert drawn.min() >= (0 if shape == math.inf else 1)
    truth, k = probabilities(mean, shape, reach), np.arange(reach + 1)
    groups = cells(truth, 40 / n)
    counts = np.array([((drawn >= group.start) & (drawn < group.stop)).sum() for group in groups])
    assert counts.sum() == n

    def fits(masses: np.ndarray) -> float:
        expected = np.maximum([masses[group].sum() for group in groups], 1e-12)
        return float(stats.chisquare(counts, expected / expected.sum() * n).pvalue)

    assert fits(truth) > 1e-6
    wrong = [(mean, other) for other in SHAPES if other != shape] + [(0.7 * mean, shape), (1.4 * mean, shape)]
    for pair in wrong:
        assert fits(probabilities(*pair, reach)) < 1e-6
    assert (truth * k).sum() == pytest.approx(mean)
    deviation = math.sqrt((truth * k**2).sum() - mean**2)
    assert abs(drawn.mean() - mean) < 5 * deviation / math.sqrt(n)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [1, 1.01, 4, 60])
def test_the_draw_inverts_the_distribution_function(mean: float, shape: float) -> None:
    cumulated = np.cumsum(probabilities(mean, shape, 5000))
    for k in (0, 1, 2, 3, 10, 100):
        low = cumulated[k - 1] if k else 0.0
        if cumulated[k] - low > 1e-9:
            for part in (0.01, 0.5, 0.99):
                assert _quantile(Fraction(low + part * (cumulated[k] - low)), 60, mean, shape) == k


class Scripted(Entropy):
    """Gives out words that were written beforehand."""

    def __init__(self, *words: int) -> None:
        self.words = list(words)

    def bytes(self, count: int) -> bytes:
        return self.words.pop(0).to_bytes(count, "big")


def test_a_draw_on_an_edge_takes_as_many_bits_as_it_needs() -> None:
    """Geometric of mean 2: P(K = 1) is a half to within rounding, so the first 64 bits cannot decide there."""
    half = 1 << 63
    assert draw_repetitions(2.0, 1, Scripted(half - 2)) == 1
    assert draw_repetitions(2.0, 1, Scripted(half + 2**14)) == 2
    edge = Scripted(0, half)
    assert draw_repetitions(2.0, 1, edge) == 1 and not edge.words
    last = Scripted(2**64 - 1, half)  # a uniform number just below 1
    assert draw_repetitions(2.0, 1, last) > 60 and not last.words
    assert draw_repetitions(3.0, math.inf, Scripted(1)) == 0


# --- in the ledger ---------------------------------------------------------------------------------------------------


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


# --- refusals --------------------------------------------------------------------------------------------------------


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
