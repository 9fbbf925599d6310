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
from threat_models.errors import AuditError
from threat_models.metrics import auc, exact_limits
from threat_models.results import judged, shared
from threat_models.trials import chosen

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
