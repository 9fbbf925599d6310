"""The one-run bounds: against linear programmes, closed forms, invariances, and what the field's tools compute."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.threat_models.oracles import optimum_over_all_guessers, optimum_over_counts
from threat_models.auditing import f_dp, one_run
from threat_models.errors import AuditError

SMALL = [(m, r, v) for m in range(1, 5) for r in range(1, m + 1) for v in range(1, r + 1)]


@pytest.mark.parametrize(("m", "r", "v"), [case for case in SMALL if case[0] < 4])
@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 0.01), (0.3, 0.2)])
def test_the_sharp_form_is_the_optimum_over_all_guessers(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    assert one_run.sharp(m, r, v, epsilon, delta) == pytest.approx(
        optimum_over_all_guessers(m, r, v, epsilon, delta), abs=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize(("m", "r", "v"), [case for case in SMALL if case[0] == 4])
@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 0.01), (0.3, 0.2), (2.0, 0.0)])
def test_the_sharp_form_is_the_optimum_over_all_guessers_of_four(m, r, v, epsilon, delta) -> None:
    assert one_run.sharp(m, r, v, epsilon, delta) == pytest.approx(
        optimum_over_all_guessers(m, r, v, epsilon, delta), abs=1e-9
    )


@pytest.mark.parametrize("seed", range(120))
def test_the_sharp_form_is_the_optimum_over_counts_and_never_above_the_published_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    r = int(rng.integers(1, 50))
    m, v = int(rng.integers(r, 200)), int(rng.integers(1, r + 1))
    epsilon, delta = float(rng.uniform(0, 4)), float(10 ** rng.uniform(-6, -1.5))
    found = one_run.sharp(m, r, v, epsilon, delta)
    assert found == pytest.approx(optimum_over_counts(m, r, v, epsilon, delta)[0], abs=1e-6)
    if found < 0.2:
        assert found <= one_run.published(m, r, v, epsilon, delta) + 1e-12


def test_the_published_form_is_not_always_a_bound_and_the_sharp_one_says_by_how_much() -> None:
    assert one_run.sharp(2, 2, 1, 1.0, 0.01) == pytest.approx(0.93108, abs=1e-5)
    assert one_run.published(2, 2, 1, 1.0, 0.01) == pytest.approx(0.93056, abs=1e-5)


@pytest.mark.parametrize(
    ("r", "expected"),
    [(50, 2.78), (100, 3.49), (300, 4.60), (1000, 5.81), (3000, 6.91), (10_000, 8.11), (10**5, 10.42)],
)
def test_reach(r: int, expected: float) -> None:
    assert one_run.reach(r, 0.05) == pytest.approx(expected, abs=0.005)
    assert one_run.lower_bound(r, r, r, delta=0.0, alpha=0.05) == pytest.approx(one_run.reach(r, 0.05), abs=1e-6)


def test_what_underflows_is_still_a_bound() -> None:
    assert one_run.sharp(60_000, 1100, 1100, 0.0, 1e-3) == pytest.approx(0.0545, abs=5e-4)
    assert one_run.lower_bound(60_000, 1100, 1100, delta=1e-3, alpha=0.05) == 0.0


def test_guesses_needed_to_pass_a_claim() -> None:
    needed = [one_run.guesses_needed(epsilon, 0.05) for epsilon in (1, 2, 3, 4, 5, 6, 8, 10)]
    assert needed == [10, 24, 62, 166, 447, 1211, 8932, 65987]
    for epsilon, r in zip((1, 4, 8), (10, 166, 8932)):
        assert one_run.reach(r, 0.05) >= epsilon > one_run.reach(r - 1, 0.05)


@pytest.mark.parametrize("seed", range(40))
def test_invariances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    r = int(rng.integers(5, 400))
    m = r + int(rng.integers(0, 2000))
    v = int(rng.integers(r // 2, r))
    delta, alpha = float(10 ** rng.uniform(-7, -3)), 0.05

    def bound(m: int, v: int, delta: float, alpha: float) -> float:
        return one_run.lower_bound(m, r, v, delta=delta, alpha=alpha)

    here = bound(m, v, delta, alpha)
    assert bound(m, v + 1, delta, alpha) >= here
    assert bound(2 * m, v, delta, alpha) <= here + 1e-8
    assert bound(m, v, 2 * delta, alpha) <= here + 1e-8
    assert bound(m, v, delta, alpha / 2) <= here + 1e-8
    scores, coins = rng.normal(size=m), rng.random(m) < 0.5
    monotone = np.exp(3 * scores) + 7
    assert one_run.right_guesses(scores, coins, r) == one_run.right_guesses(monotone, coins, r)


def test_the_gain_over_the_published_form_at_a_large_delta() -> None:
    # at epsilon 4 and delta 1e-3, 10,000 canaries: 1.27 published, 2.58 sharp, at each one's best r
    grid = [64, 128, 256, 512, 1024, 2048, 4096]
    right = {r: round(r * _accuracy(r / 10_000, 4.0)) for r in grid}
    best = {
        form: max(one_run.lower_bound(10_000, r, right[r], delta=1e-3, alpha=0.05, p_value=form) for r in grid)
        for form in (one_run.published, one_run.sharp)
    }
    assert best[one_run.sharp] > 1.8 * best[one_run.published]


def _accuracy(share: float, epsilon: float) -> float:
    from threat_models.auditing.gaussian import mu_of
    from threat_models.auditing.registration import expected_right

    return expected_right(10_000, round(share * 10_000), mu_of(epsilon, 1e-5)) / round(share * 10_000)


@pytest.mark.parametrize("v", [0, 1, 5])
def test_half_right_shows_nothing_at_all(v: int) -> None:
    assert one_run.lower_bound(1000, 2 * v or 1, v, delta=1e-5, alpha=0.05) == 0.0
    assert f_dp.lower_bound(1000, 2 * v or 1, v, declared="gaussian", delta=1e-5, alpha=0.05) == 0.0


@pytest.mark.parametrize(
    ("m", "r", "v", "delta"),
    [(10, 11, 3, 0), (10, 5, 6, 0), (10, 5, -1, 0), (0, 0, 0, 0), (10, 5, 3, 1.0), (10, 5, 3, -0.1)],
)
def test_counts_that_do_not_fit_are_refused(m: int, r: int, v: int, delta: float) -> None:
    for form in (one_run.sharp, one_run.published):
        with pytest.raises(AuditError, match=r"0 <= v <= r <= m"):
            form(m, r, v, 1.0, delta)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(AuditError, match="finite"):
        one_run.right_guesses(np.array([1.0, math.nan]), np.array([True, False]), 2)
    with pytest.raises(AuditError, match="r=3"):
        one_run.right_guesses(np.zeros(2), np.array([True, False]), 3)
