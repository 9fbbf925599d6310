"""Verdicts: what bounds say of a claim, what they could have said, and what is no audit at all."""

from __future__ import annotations

import math

import numpy as np
import pytest

from threat_models.auditing import f_dp, one_run, parametric, registration
from threat_models.auditing.gaussian import epsilon_of, mu_of
from threat_models.claims import Bound, PrivacyClaim, judge
from threat_models.errors import AuditError

GAUSSIAN = PrivacyClaim(4.0, 1e-5, "record", "add/remove", "gaussian", "a test")
OTHER = PrivacyClaim(1.0, 0.0, "record", "add/remove", "other", "a test")


def test_no_noise_at_all_is_unbounded_and_says_so() -> None:
    rng = np.random.default_rng(12)
    coins = rng.random(1000) < 0.5
    scores = coins + 1e-13 * rng.normal(size=1000)
    claim = PrivacyClaim(4.0, 1e-5, "record", "add/remove", "gaussian", "a test")
    found, _ = registration.bounds(claim, registration.register(claim, 1000, alpha=0.05), scores, coins)
    by_name = {bound.estimator: bound for bound in found}
    assert by_name["parametric"].value > 50
    verdict = judge(claim, found, 0.05)
    assert verdict.state == "refuted" and verdict.words == "refuted by parametric: NOT DP"
    # guessing all 1,000 takes exactly as many in as out; 900 leave room for coins that are not balanced
    v = one_run.right_guesses(scores, coins, 900)
    assert one_run.lower_bound(1000, 900, v, delta=1e-5, alpha=0.05) >= 0.98 * 5.81


def test_what_cannot_be_refuted_is_called_so_with_its_maximum() -> None:
    coins = np.random.default_rng(15).random(1000) < 0.5
    for delta in (0.0, 1e-5):
        claim = PrivacyClaim(8.0, delta, "record", "add/remove", "other", "a test")
        for scores in (coins + 0.0, np.random.default_rng(16).normal(size=1000)):
            found, _ = registration.bounds(claim, registration.register(claim, 1000, alpha=0.05), scores, coins)
            verdict = judge(claim, found, 0.05)
            assert verdict.state == "cannot_refute" and verdict.words == "cannot refute (max 5.81)"
    bound = Bound(3.0, "one-run", "none", 0.05, one_run.reach(1000, 0.05), 1000, 1000, 900)
    assert judge(claim, [bound], 0.05).words == "cannot refute (max 5.81)"


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


@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_f_dp_bounds_a_gaussian_where_one_run_does_and_more(epsilon: float) -> None:
    mu = mu_of(epsilon, 1e-5)
    r = 300
    v = round(registration.expected_right(3000, r, mu))
    assert (
        one_run.lower_bound(3000, r, v, delta=1e-5, alpha=0.05)
        < f_dp.lower_bound(3000, r, v, declared="gaussian", delta=1e-5, alpha=0.05)
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
