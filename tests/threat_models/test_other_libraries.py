"""Agreement with other libraries' figures, where they are installed; none is a dependency of an audit."""

from __future__ import annotations

import importlib.util

import dp_accounting
import numpy as np
import pytest

from threat_models.auditing import f_dp, gaussian, multi_run, one_run


@pytest.mark.parametrize("block", range(4))
def test_epsilon_of_a_gaussian_against_dp_accounting(block: int) -> None:
    rng = np.random.default_rng(block)
    for _ in range(50):
        noise, delta = float(rng.uniform(0.3, 20)), float(10 ** rng.uniform(-9, -2))
        assert gaussian.epsilon_of(1 / noise, delta) == pytest.approx(
            dp_accounting.get_epsilon_gaussian(noise, delta), abs=2e-4
        )


@pytest.mark.skipif(importlib.util.find_spec("jax_privacy") is None, reason="pip install jax-privacy")
def test_one_run_and_clopper_pearson_bounds_against_jax_privacy() -> None:
    from jax_privacy.auditing import CanaryScoreAuditor, Explicit

    rng = np.random.default_rng(0)
    for _ in range(200):
        m, delta, gap = int(rng.integers(50, 2000)), float(10 ** rng.uniform(-7, -3)), float(rng.uniform(0, 4))
        coins = rng.random(m) < 0.5
        scores = rng.normal(size=m) + gap * coins
        threshold = float(np.quantile(scores, rng.uniform(0.3, 0.95)))
        theirs = CanaryScoreAuditor(scores[coins], scores[~coins])
        called = scores >= threshold
        r, v = int(called.sum()), int((called & coins).sum())
        strategy = Explicit(threshold)
        ours = one_run.lower_bound(m, r, v, delta=delta, alpha=0.05, p_value=one_run.published)
        assert ours == pytest.approx(theirs.epsilon_one_run(0.05, delta, threshold_strategy=strategy), abs=2e-4)
        curve = f_dp.lower_bound(m, r, v, declared="gaussian", delta=delta, alpha=0.05)
        assert curve == pytest.approx(theirs.epsilon_one_run_fdp(0.05, delta, threshold_strategy=strategy), abs=2e-4)
        # their Clopper-Pearson looks at one of the two ratios, at half of alpha each side, as ours does
        counts = (int((called & ~coins).sum()), int((~coins).sum()), int((~called & coins).sum()), int(coins.sum()))
        both = multi_run.lower_bound(*counts, delta=delta, alpha=0.05)
        assert theirs.epsilon_clopper_pearson(0.05, delta, threshold_strategy=strategy) <= both + 2e-4
