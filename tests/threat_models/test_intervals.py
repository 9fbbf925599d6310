"""Every interval of an AUC holds its level on each side, at the smallest sizes that are accepted; no verdict is cheap.

Shares of misses are held to the level by their own binomial limit: 2,000 draws, so that a true 2.5 % is called too many
with probability below 10^-4 a cell (72 misses), and 4 % is let pass with less than 20 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binom, norm, rankdata

from threat_models import metrics
from threat_models.auditing.one_run import right_guesses
from threat_models.errors import AuditError, NotResolvable
from threat_models.metrics import auc, exact_limits
from threat_models.results import judged, shared
from threat_models.trials import chosen
from threat_models.trials.properties import held_out_scores

DRAWS, LEVEL = 2000, 0.025
MOST = int(binom.isf(1e-4, DRAWS, LEVEL))
SIZES = [(1, 20), (2, 30), (2, 100), (3, 100), (4, 100), (5, 5), (5, 100), (10, 100), (100, 2), (20, 20), (60, 30)]


def normal(shift: float, spread: float = 1.0) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return lambda rng, m, n: (spread * rng.normal(size=m) + shift, rng.normal(size=n))


SCENARIOS = {
    "no difference": (normal(0), 0.5),
    "members spread wide": (normal(0, 5.0), 0.5),
    "apart": (normal(norm.ppf(0.9) * math.sqrt(2)), 0.9),
    "far apart": (normal(norm.ppf(0.99) * math.sqrt(2)), 0.99),
    "ties": (lambda rng, m, n: (rng.integers(0, 3, m).astype(float), rng.integers(0, 3, n).astype(float)), 0.5),
    "heavy tails": (lambda rng, m, n: (rng.standard_t(1.2, m), rng.standard_t(1.2, n)), 0.5),
}


def misses(
    interval: Callable[[np.ndarray, np.ndarray], tuple[float, float]], name: str, m: int, n: int
) -> tuple[int, int]:
    """How often the truth lies under the low end, and over the high one."""
    draw, truth = SCENARIOS[name]
    rng, under, over = np.random.default_rng(7), 0, 0
    members = np.arange(m + n) < m
    for _ in range(DRAWS):
        scores = np.concatenate(draw(rng, m, n))
        if scores.min() == scores.max():
            continue
        low, high = interval(scores, members)
        under += truth < low - 1e-12
        over += truth > high + 1e-12
    return under, over


def ours(scores: np.ndarray, members: np.ndarray) -> tuple[float, float]:
    found = auc(scores, members)
    return found.low, found.high


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize(("m", "n"), SIZES)
def test_the_interval_of_an_auc_holds_its_level_on_each_side(m: int, n: int, name: str) -> None:
    under, over = misses(ours, name, m, n)
    assert under <= MOST and over <= MOST


def logit_delong(scores: np.ndarray, members: np.ndarray) -> tuple[float, float]:
    """DeLong's interval on the logit scale, which needs many records on both sides."""
    inside, outside = scores[members], scores[~members]
    n1, n0 = len(inside), len(outside)
    ranks = rankdata(np.concatenate([inside, outside]))
    value = (ranks[:n1].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)
    above, below = (ranks[:n1] - rankdata(inside)) / n0, 1 - (ranks[n1:] - rankdata(outside)) / n1
    if value in (0.0, 1.0):
        return max(0.0, value - min(0.5, 3 / min(n1, n0))), min(1.0, value + min(0.5, 3 / min(n1, n0)))
    half = norm.isf(0.025) * math.sqrt(above.var(ddof=1) / n1 + below.var(ddof=1) / n0) / (value * (1 - value))
    return float(expit(logit(value) - half)), float(expit(logit(value) + half))


@pytest.mark.parametrize(("m", "n"), [(2, 100), (3, 100), (5, 100)])
def test_an_interval_that_is_too_narrow_is_found_out(m: int, n: int) -> None:
    assert max(misses(logit_delong, "no difference", m, n)) > MOST


def test_it_is_not_needlessly_wide() -> None:
    """Against the normal approximation where that holds: 7 % wider at 100 against 100."""
    rng, widths = np.random.default_rng(1), []
    members = np.arange(200) < 100
    for _ in range(100):
        scores = rng.normal(size=200)
        low, high = logit_delong(scores, members)
        found = auc(scores, members)
        widths.append((found.high - found.low) / (high - low))
    assert 1.0 < np.mean(widths) < 1.12


def test_a_few_perfect_scores_prove_nothing() -> None:
    for n in range(1, 6):
        found = auc(np.r_[np.ones(n) * 9, np.zeros(50)], np.arange(n + 50) < n)
        assert found.value == 1.0 and found.low < 0.5 and found.low == pytest.approx(0.025 ** (1 / n))
    assert auc(np.r_[np.ones(6) * 9, np.zeros(50)], np.arange(56) < 6).low > 0.5


@pytest.mark.parametrize(("m", "n"), [(2, 100), (5, 20), (20, 20)])
def test_a_violation_is_as_rare_as_it_says(m: int, n: int) -> None:
    """No leak at a ceiling of one half, called at 1 in 100: at most 40 of 2,000 (false alarm below 10^-4)."""
    rng, called = np.random.default_rng(3), 0
    members = np.arange(m + n) < m
    for _ in range(DRAWS):
        found = auc(rng.normal(size=m + n), members)
        row = judged("E1", "x", "y", "AUC", found, baseline=0.5, ceiling=0.5)
        called += shared([row], 0.01)[0].leak == "violation"
    assert called <= int(binom.isf(1e-4, DRAWS, 0.01))


def test_exact_limits_are_clopper_pearsons() -> None:
    from threat_models.auditing.multi_run import clopper_pearson

    for hits, trials in ((0, 5), (3, 7), (50, 60), (9, 9)):
        assert exact_limits(hits / trials, trials, 0.05) == pytest.approx(clopper_pearson(hits, trials, 0.05))


@pytest.mark.parametrize("name", ["Z9", "lira", "", "a1", "server"])
def test_an_attack_that_nobody_knows_is_an_error_and_no_verdict(name: str) -> None:
    class Subject:
        graph = False

    with pytest.raises(AuditError, match="no attack on a recorded run"):
        chosen(Subject(), ["A1", name])  # type: ignore[arg-type]
    assert chosen(Subject(), ["A1"]) == ["A1"]  # type: ignore[arg-type]
    assert metrics.MADE_UP == 3.0


SHARES = {
    "coins": lambda rng, n: (rng.random(n) < 0.3).astype(float),
    "near one": lambda rng, n: rng.beta(20, 1, n),
    "two kinds": lambda rng, n: np.where(rng.random(n) < 0.1, 0.0, 1.0),
    "one value": lambda rng, n: np.full(n, 0.6),
}
MEANS = {"coins": 0.3, "near one": 20 / 21, "two kinds": 0.9, "one value": 0.6}


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("kind", SHARES)
def test_a_mean_over_few_clients_has_an_interval_that_holds(kind: str, n: int) -> None:
    rng, under, over = np.random.default_rng(n), 0, 0
    for _ in range(DRAWS):
        found = metrics.share(SHARES[kind](rng, n))
        under += MEANS[kind] < found.low - 1e-12
        over += MEANS[kind] > found.high + 1e-12
    assert under <= MOST and over <= MOST


def test_a_mean_of_no_client_or_beyond_one_is_refused() -> None:
    with pytest.raises(AuditError, match="outside"):
        metrics.share(np.array([0.5, 1.5]))
    with pytest.raises(NotResolvable):
        metrics.share(np.zeros(0))


def test_ties_and_what_is_no_number_prefer_nobody() -> None:
    """Ten rows of which none says anything: each is named one time in ten (binomial, 10^-6 a side)."""
    limits = binom.ppf([1e-6, 1 - 1e-6], 4000, 0.1)
    for table in (np.zeros((10, 4000)), np.full((10, 4000), np.nan), np.full((10, 4000), np.inf)):
        counts = np.bincount(metrics.least(table), minlength=10)
        assert limits[0] <= counts.min() and counts.max() <= limits[1]
    some = np.array([[np.nan, 3.0], [2.0, np.nan], [1.0, 1.0]])
    assert metrics.least(some).tolist() == [2, 2]


def test_canaries_that_come_in_some_order_gain_nothing_by_ties() -> None:
    """All scores are equal, and all that are in come first, or last: half of the guesses are right, and not all."""
    for coins in (np.arange(1000) < 500, np.arange(1000) >= 500):
        assert 400 < right_guesses(np.zeros(1000), coins, 1000) < 600  # 6 standard deviations


@pytest.mark.parametrize(("with_it", "without"), [(3, 3), (5, 5)])
def test_scores_of_clients_that_were_held_out_lean_to_no_side(with_it: int, without: int) -> None:
    """Descriptors of noise: the AUC is one half in the mean (six standard errors), and surely over it in no draw."""
    rng, has_it = np.random.default_rng(0), np.arange(with_it + without) < with_it
    found = []
    for draw in range(60):
        known = rng.dirichlet(np.full(10, 0.5), len(has_it))
        found.append(auc(held_out_scores(known, has_it, seed=draw), has_it))
    values = np.array([each.value for each in found])
    assert abs(values.mean() - 0.5) < 6 * values.std() / math.sqrt(len(values)) < 0.3
    assert not any(each.low > 0.5 for each in found)
