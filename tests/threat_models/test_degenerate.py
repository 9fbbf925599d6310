"""Degenerate input to membership attacks: a typed error, or scores that mean something; never NaN, never a half."""

from __future__ import annotations

import numpy as np
import pytest

from framp_private.errors import FrampError
from threat_models import metrics
from threat_models.attacks import membership, updates

PHI, REFS = np.random.default_rng(8).normal(size=50), np.random.default_rng(9).normal(size=(8, 50))
INSIDE = np.random.default_rng(10).random((8, 50)) < 0.5
ATTACKS = {
    "LOSS": lambda phi, refs, inside: membership.loss(phi),
    "calibration": lambda phi, refs, inside: membership.calibrated(phi, refs),
    "Attack-R": lambda phi, refs, inside: membership.attack_r(phi, refs),
    "LiRA online": membership.lira_online,
    "LiRA offline": lambda phi, refs, inside: membership.lira_offline(phi, np.where(inside, np.nan, refs)),
    "BaVarIA": membership.bavaria,
    "RMIA": lambda phi, refs, inside: membership.rmia(
        1 / (1 + np.exp(-phi)), 1 / (1 + np.exp(-refs)), 1 / (1 + np.exp(-phi)), 1 / (1 + np.exp(-refs))
    ),
    "FedMIA": lambda phi, refs, inside: updates.fed_mia([{"a": phi, **{str(k): r for k, r in enumerate(refs)}}], "a"),
}
BAD = {
    "NaN": (np.full(50, np.nan), REFS, INSIDE),
    "constant": (np.zeros(50), np.zeros((8, 50)), INSIDE),
    "one reference": (PHI, REFS[:1], INSIDE[:1]),
    "two alike": (PHI, np.repeat(REFS[:1], 2, 0), INSIDE[:2]),
    "none": (PHI, REFS[:0], INSIDE[:0]),
    "one class of records": (PHI[:1], REFS[:, :1], INSIDE[:, :1]),
}


@pytest.mark.parametrize("case", list(BAD))
@pytest.mark.parametrize("attack", list(ATTACKS))
def test_degenerate_input_is_an_error_or_a_score_that_means_something(attack: str, case: str) -> None:
    """Never NaN, never an AUC of a half for want of anything to say."""
    members = np.arange(len(BAD[case][0])) % 2 == 0
    try:
        scores = ATTACKS[attack](*BAD[case])
        found = metrics.auc(scores, members)
    except FrampError:
        return
    assert np.isfinite(scores).all() and np.ptp(scores) > 0 and found.value != 0.5
    assert case not in ("NaN", "constant", "one class of records")
