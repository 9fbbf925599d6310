"""AUC and TPR against brute force, and refusals where a figure would mean nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.threat_models.oracles import brute_force_auc, brute_force_tpr
from threat_models import metrics
from threat_models.errors import AuditError, NotResolvable


@pytest.mark.parametrize("block", range(10))
def test_a_thousand_random_score_sets_with_ties(block: int) -> None:
    rng = np.random.default_rng(block)
    for _ in range(100):
        n = int(rng.integers(40, 90))
        members = rng.random(n) < 0.5
        scores = rng.integers(0, int(rng.integers(3, 40)), n) + members * rng.random()
        fpr = float(rng.choice([0.3, 0.5, 0.8]))
        assert metrics.auc(scores, members).value == pytest.approx(brute_force_auc(scores, members), abs=1e-12)
        if (~members).sum() * fpr >= 10:
            assert metrics.tpr_at_fpr(scores, members, fpr).value == pytest.approx(
                brute_force_tpr(scores, members, fpr)
            )


def test_the_curve_goes_from_corner_to_corner_and_its_area_is_the_auc() -> None:
    rng = np.random.default_rng(1)
    members = rng.random(500) < 0.4
    scores = np.round(rng.normal(size=500) + members, 1)
    fpr, tpr = metrics.roc(scores, members)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tpr, fpr) == pytest.approx(metrics.auc(scores, members).value)


@pytest.mark.parametrize("gap", [0.0, 1.0, 2.5])
def test_the_interval_of_the_auc_covers(gap: float) -> None:
    # 95 % nominal, 400 draws: under 0.90 has probability 2e-5
    rng = np.random.default_rng(2)
    truth = 0.5 * (1 + math.erf(gap / 2))
    members = np.repeat([True, False], 60)
    inside = 0
    for _ in range(400):
        found = metrics.auc(rng.normal(size=120) + gap * members, members)
        inside += found.low <= truth <= found.high
    assert inside / 400 >= 0.90


@pytest.mark.parametrize(
    ("scores", "members", "error", "words"),
    [
        ([1.0, math.nan, 2.0], [True, False, True], AuditError, "not finite"),
        ([1.0, 1.0, 1.0], [True, False, True], NotResolvable, "all scores are equal"),
        ([1.0, 2.0], [True, True], NotResolvable, "only members"),
        ([1.0, 2.0], [False, False], NotResolvable, "only members"),
        ([1.0, 2.0, 3.0], [True, False], AuditError, "one length"),
    ],
)
def test_degenerate_scores_give_an_error_and_never_a_half(scores, members, error, words) -> None:
    with pytest.raises(error, match=words):
        metrics.auc(np.array(scores), np.array(members))


def test_a_tpr_is_not_printed_where_one_false_positive_decides_it() -> None:
    rng = np.random.default_rng(0)
    members = np.repeat([True, False], 999)
    scores = rng.normal(size=1998)
    with pytest.raises(NotResolvable, match="takes 10000 non-members"):
        metrics.tpr_at_fpr(scores, members, 0.001)
    with pytest.raises(NotResolvable, match="not resolvable"):
        metrics.tpr_at_fpr(scores, members, 0.01)
    assert metrics.tpr_at_fpr(scores, members, 0.05).value < 0.2


def test_a_perfect_attack_has_no_zero_width_interval() -> None:
    members = np.repeat([True, False], 20)
    found = metrics.auc(members + 0.01 * np.arange(40), members)
    assert found.value == 1.0 and found.low < 0.9


def test_worst_group_names_the_group_and_leaves_small_ones_out() -> None:
    rng = np.random.default_rng(3)
    groups, members = np.repeat(["a", "b", "c"], [100, 100, 6]), rng.random(206) < 0.5
    scores = rng.normal(size=206) + 3 * members * (groups != "a")
    assert metrics.worst_group(scores, members, groups)["group"] == "b"


def test_psnr_and_total_variation() -> None:
    assert metrics.psnr(np.zeros(4), np.full(4, 0.1)) == pytest.approx(20.0)
    assert metrics.psnr(np.ones(3), np.ones(3)) == math.inf
    assert metrics.total_variation([0.5, 0.5], [1.0, 0.0]) == pytest.approx(0.5)
