"""Estimators of epsilon: how often they are wrong, how tight they are, and what they refuse.

400 audits at alpha = 0.05: an estimator whose error is exactly 5 % is wrong more than 35 times with probability 3e-4.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from tests.threat_models.oracles import optimum_over_counts
from threat_models.auditing import f_dp, multi_run, one_run, parametric, registration
from threat_models.auditing.gaussian import epsilon_of, mu_of
from threat_models.claims import Bound, PrivacyClaim, judge
from threat_models.errors import AuditError, NotApplicable

AUDITS, WRONG = 400, 35
GAUSSIAN = PrivacyClaim(4.0, 1e-5, "record", "add/remove", "gaussian", "a test")
OTHER = PrivacyClaim(1.0, 0.0, "record", "add/remove", "other", "a test")


def randomised_response(rng: np.random.Generator, m: int, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Exactly epsilon-DP, and scores whose size says nothing."""
    coins = rng.random(m) < 0.5
    told = np.where(rng.random(m) < 1 / (1 + math.exp(-epsilon)), coins, ~coins)
    return np.where(told, 1.0, -1.0) * rng.random(m), coins


def gaussian(rng: np.random.Generator, m: int, epsilon: float, delta: float = 1e-5) -> tuple[np.ndarray, np.ndarray]:
    coins = rng.random(m) < 0.5
    return coins + rng.normal(size=m) / mu_of(epsilon, delta), coins


def laplace(rng: np.random.Generator, m: int, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    coins = rng.random(m) < 0.5
    return coins + rng.laplace(scale=1 / epsilon, size=m), coins


def pre_registered(scores, coins, epsilon):
    plan = registration.register(PrivacyClaim(epsilon, 0.0, "record", "", "other", ""), len(scores), alpha=0.05)
    return max(bound.value for bound in registration.bounds(OTHER, plan, scores, coins)[0])


def dyadic(scores, coins, epsilon):
    grid = registration.dyadic(len(scores))
    return max(
        one_run.lower_bound(len(scores), r, one_run.right_guesses(scores, coins, r), delta=0.0, alpha=0.05 / len(grid))
        for r in grid
    )


def published(scores, coins, epsilon):
    r = len(scores) // 4
    v = one_run.right_guesses(scores, coins, r)
    return one_run.lower_bound(len(scores), r, v, delta=0.0, alpha=0.05, p_value=one_run.published)


def confusion(scores, coins, epsilon):
    called = scores > 0
    counts = (int((called & ~coins).sum()), int((~coins).sum()), int((~called & coins).sum()), int(coins.sum()))
    return multi_run.lower_bound(*counts, delta=0.0, alpha=0.05)


def naive_maximum(scores, coins, epsilon):
    """What must not be done: the best of every number of guesses, each at the full alpha."""
    order = np.argsort(scores)
    high, low = np.cumsum(coins[order][::-1]), np.cumsum(~coins[order])
    return max(
        one_run.lower_bound(len(scores), k + j, int(high[k - 1] + low[j - 1]), delta=0.0, alpha=0.05, tolerance=1e-3)
        for k in range(5, len(scores) // 2, 6)
        for j in range(5, len(scores) // 2, 6)
    )


@cache
def wrong(estimator, epsilon: float, m: int, audits: int = AUDITS) -> int:
    rng = np.random.default_rng(11)
    return sum(estimator(*randomised_response(rng, m, epsilon), epsilon) > epsilon for _ in range(audits))


@pytest.mark.parametrize("epsilon", [0.01, 1.0, 2.0])
@pytest.mark.parametrize("estimator", [pre_registered, dyadic, published, confusion])
def test_at_most_thirty_five_of_four_hundred_audits_are_wrong(estimator, epsilon: float) -> None:
    assert wrong(estimator, epsilon, 200) <= WRONG


@pytest.mark.slow
def test_the_naive_maximum_is_wrong_far_more_often() -> None:
    assert wrong(naive_maximum, 1.0, 120, 100) > 100 * WRONG / AUDITS


@pytest.mark.parametrize(("m", "r", "v"), [(100, 20, 15), (300, 40, 26)])
@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 1e-3), (1.0, 1e-2)])
def test_the_extremal_mechanism_is_not_called_worse_than_it_is(m, r, v, epsilon, delta) -> None:
    _, counts = optimum_over_counts(m, r, v, epsilon, delta)
    rng = np.random.default_rng(4)
    drawn = rng.choice(r + 1, AUDITS, p=counts / counts.sum())
    for form in (one_run.sharp, one_run.published):
        bounds = [one_run.lower_bound(m, r, int(x), delta=delta, alpha=0.05, p_value=form) for x in range(r + 1)]
        assert sum(bounds[x] > epsilon + 1e-6 for x in drawn) <= WRONG


def test_four_hundred_gaussian_audits_are_wrong_at_most_thirty_five_times_by_every_estimator() -> None:
    rng = np.random.default_rng(5)
    mistakes = dict.fromkeys(("f-dp", "parametric", "gdp"), 0)
    for _ in range(AUDITS):
        scores, coins = gaussian(rng, 500, 2.0)
        v = one_run.right_guesses(scores, coins, 120)
        mistakes["f-dp"] += f_dp.lower_bound(500, 120, v, delta=1e-5, alpha=0.05) > 2.0
        mistakes["parametric"] += parametric.lower_bound(scores, coins, delta=1e-5, alpha=0.05) > 2.0
        called = scores > 0.5
        counts = (int((called & ~coins).sum()), int((~coins).sum()), int((~called & coins).sum()), int(coins.sum()))
        mistakes["gdp"] += multi_run.lower_bound_gaussian(*counts, delta=1e-5, alpha=0.05) > 2.0
    assert max(mistakes.values()) <= WRONG, mistakes


def test_gaussian_only_estimators_refuse_laplace_noise_and_undeclared_mechanisms() -> None:
    rng = np.random.default_rng(6)
    for epsilon in (0.5, 1.0, 4.0):
        scores, coins = laplace(rng, 3000, epsilon)
        with pytest.raises(NotApplicable, match=r"tails|not Gaussian"):
            parametric.require_gaussian(scores, coins, declared="gaussian")
        claim = PrivacyClaim(epsilon, 1e-5, "record", "add/remove", "gaussian", "declared wrongly")
        found, refused = registration.bounds(claim, registration.register(claim, 3000, alpha=0.05), scores, coins)
        assert {bound.assumption for bound in found} == {"none"} and refused
        assert judge(claim, found, 0.05).state != "refuted"
    with pytest.raises(NotApplicable, match="not declared Gaussian"):
        parametric.require_gaussian(*gaussian(rng, 3000, 1.0), declared="other")


def test_the_normality_check_rarely_refuses_a_gaussian() -> None:
    rng, refusals = np.random.default_rng(7), 0
    for n in (40, 200, 3000):
        for _ in range(300):
            try:
                parametric.require_gaussian(*gaussian(rng, n, 4.0), declared="gaussian")
            except NotApplicable:
                refusals += 1
    assert refusals <= 4  # of 900, at a nominal 1e-4 each


def test_coin_flips_show_nothing() -> None:
    rng, positive = np.random.default_rng(8), 0
    for _ in range(200):
        scores, coins = rng.normal(size=400), rng.random(400) < 0.5
        v = one_run.right_guesses(scores, coins, 100)
        bound = one_run.lower_bound(400, 100, v, delta=1e-5, alpha=0.05)
        if v <= 50:
            assert bound == 0.0
        positive += bound >= 0.05
    assert positive <= 10 + 3 * math.sqrt(10)


TIGHT = [
    # epsilon, m, and the intervals of one-run, f-DP and parametric bounds
    (4.0, 3000, (1.2, 2.4), (1.8, 3.3), (3.2, 4.2)),
    (1.0, 10_000, (0.25, 0.70), (0.40, 0.80), (0.65, 1.05)),
]


@pytest.mark.parametrize(("epsilon", "m", "first", "second", "third"), TIGHT)
def test_tightness_on_a_gaussian_mechanism(epsilon, m, first, second, third) -> None:
    rng = np.random.default_rng(9)
    values = {"one-run": [], "f-dp": [], "parametric": []}
    r = registration._best(m, mu_of(epsilon, 1e-5), 1e-5, 0.05)
    for _ in range(15):
        scores, coins = gaussian(rng, m, epsilon)
        v = one_run.right_guesses(scores, coins, r)
        values["one-run"].append(one_run.lower_bound(m, r, v, delta=1e-5, alpha=0.05))
        values["f-dp"].append(f_dp.lower_bound(m, r, v, delta=1e-5, alpha=0.05))
        values["parametric"].append(parametric.lower_bound(scores, coins, delta=1e-5, alpha=0.05))
    for name, (low, high) in zip(values, (first, second, third)):
        assert low <= np.median(values[name]) <= high, (name, np.median(values[name]))


TABLE = [
    # epsilon, m, medians of 4.1: published one-run [5 %, 95 %], f-DP [5 %, 95 %], parametric [5 %, 95 %]
    (1.0, 1000, (0.00, 0.43), (0.03, 0.67), (0.17, 1.01)),
    (1.0, 3000, (0.19, 0.52), (0.28, 0.71), (0.51, 0.99)),
    (2.0, 1000, (0.34, 0.93), (0.56, 1.45), (1.13, 1.98)),
    (2.0, 3000, (0.56, 1.12), (0.86, 1.47), (1.46, 1.99)),
    (4.0, 1000, (1.11, 2.10), (1.83, 2.85), (3.00, 3.99)),
    (4.0, 3000, (1.42, 2.18), (2.00, 3.05), (3.38, 4.04)),
    (8.0, 1000, (2.42, 3.47), (4.08, 5.63), (6.68, 8.09)),
    (8.0, 3000, (2.91, 3.91), (4.33, 6.04), (7.18, 7.99)),
]


@pytest.mark.parametrize(("epsilon", "m", "first", "second", "third"), TABLE)
def test_the_reference_table_is_reproduced_within_its_intervals(epsilon, m, first, second, third) -> None:
    rng = np.random.default_rng(10)
    r = registration._best(m, mu_of(epsilon, 1e-5), 1e-5, 0.05)
    found = []
    for _ in range(21):
        scores, coins = gaussian(rng, m, epsilon)
        v = one_run.right_guesses(scores, coins, r)
        found.append(
            (
                one_run.lower_bound(m, r, v, delta=1e-5, alpha=0.05, p_value=one_run.published),
                f_dp.lower_bound(m, r, v, delta=1e-5, alpha=0.05),
                parametric.lower_bound(scores, coins, delta=1e-5, alpha=0.05),
            )
        )
    for median, (low, high) in zip(np.median(found, 0), (first, second, third)):
        assert low <= median <= high


def test_no_noise_at_all_is_unbounded_and_says_so() -> None:
    rng = np.random.default_rng(12)
    coins = rng.random(1000) < 0.5
    scores = coins + 1e-13 * rng.normal(size=1000)
    claim = PrivacyClaim(4.0, 1e-5, "record", "add/remove", "gaussian", "a test")
    found, _ = registration.bounds(claim, registration.register(claim, 1000, alpha=0.05), scores, coins)
    by_name = {bound.estimator: bound for bound in found}
    assert by_name["parametric"].value > 50
    assert judge(claim, found, 0.05).state == "refuted"
    # guessing all 1,000 takes exactly as many in as out; 900 leave room for coins that are not balanced
    v = one_run.right_guesses(scores, coins, 900)
    assert one_run.lower_bound(1000, 900, v, delta=1e-5, alpha=0.05) >= 0.98 * 5.81


def test_what_cannot_be_refuted_is_called_so_with_its_maximum() -> None:
    claim = PrivacyClaim(8.0, 0.0, "record", "add/remove", "other", "a test")
    bound = Bound(3.0, "one-run", "none", 0.05, one_run.reach(1000, 0.05), 1000, 1000, 900)
    verdict = judge(claim, [bound], 0.05)
    assert verdict.state == "cannot_refute" and verdict.words == "cannot refute (max 5.81)"


def test_verdicts() -> None:
    def bound(value: float, assumption="none", alpha=0.05, sound=True):
        return Bound(value, "e", assumption, alpha, math.inf, 100, sound=sound)

    assert judge(GAUSSIAN, [bound(4.1)], 0.05).state == "refuted"
    assert judge(GAUSSIAN, [bound(3.9)], 0.05).state == "consistent"
    assert judge(OTHER, [bound(9.0, "gaussian-scores")], 0.05).state == "estimate_only"
    assert judge(GAUSSIAN, [bound(9.0, "gaussian-scores", sound=False)], 0.05).state == "estimate_only"
    assert judge(GAUSSIAN, [bound(9.0, "gaussian-scores")], 0.05).state == "refuted"
    with pytest.raises(AuditError, match="split it"):
        judge(GAUSSIAN, [bound(1.0), bound(1.0)], 0.05)


@pytest.mark.parametrize("bad", [{"epsilon": -1.0}, {"epsilon": math.nan}, {"delta": 1.0}, {"delta": -0.1}])
def test_claims_out_of_range_are_refused(bad) -> None:
    with pytest.raises(AuditError, match="epsilon"):
        PrivacyClaim(
            **{
                "epsilon": 1.0,
                "delta": 1e-5,
                "unit": "record",
                "adjacency": "",
                "mechanism": "other",
                "scope": "",
                **bad,
            }
        )


@pytest.mark.parametrize("n", [20, 100, 3000])
def test_the_parametric_limit_covers(n: int) -> None:
    for mu in (0.0, 0.5, 1.7):
        assert parametric.coverage(n // 2, n // 2, mu, alpha=0.05) >= 0.94


def test_the_reach_of_independent_runs() -> None:
    found = [multi_run.reach(n, delta=1e-5, alpha=0.05) for n in (50, 100, 500, 1000, 5000)]
    assert found == pytest.approx([2.57, 3.28, 4.91, 5.60, 7.21], abs=0.005)


@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_f_dp_bounds_a_gaussian_where_one_run_does_and_more(epsilon: float) -> None:
    mu = mu_of(epsilon, 1e-5)
    r = 300
    v = round(registration.expected_right(3000, r, mu))
    assert (
        one_run.lower_bound(3000, r, v, delta=1e-5, alpha=0.05)
        < f_dp.lower_bound(3000, r, v, delta=1e-5, alpha=0.05)
        <= epsilon_of(mu, 1e-5)
    )


def test_too_few_canaries_or_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(AuditError, match="at least 8"):
        parametric.mu_lower(np.arange(10.0), np.arange(10) < 3, alpha=0.05)
    with pytest.raises(AuditError, match="finite"):
        parametric.mu_lower(np.full(40, np.nan), np.arange(40) < 20, alpha=0.05)
    with pytest.raises(AuditError, match="at least 8"):
        registration.register(GAUSSIAN, 7, alpha=0.05)
    with pytest.raises(AuditError, match="registered"):
        registration.bounds(GAUSSIAN, registration.register(GAUSSIAN, 20, alpha=0.05), np.zeros(21), np.zeros(21))
