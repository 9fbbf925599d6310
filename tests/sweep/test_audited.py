"""A sweep whose trials are attacked: what `empirical_epsilon` and `refuted` are when audits make them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from framp_private.report.sweep import sweep_document
from framp_private.sweep import Machine, run_sweep, sweep_of
from framp_private.sweep.trial import empirical_epsilon
from framp_private.version import __version__
from tests.report.sweeps import rows_of

SMALL = {"clients": 4, "rounds": 4, "network": "linear", "evaluate_every": 4, "unseen_clients": 0, "home_steps": 2}


@pytest.mark.slow
def test_a_real_audit_bounds_each_trial_from_below(tmp_path: Path) -> None:
    """Twenty minutes of canaries would make it tight; of these few it is a lower bound, and no claim is refuted."""
    written = {
        "name": "audited",
        "preset": "digits-private",
        "set": SMALL,
        "axes": {"privacy.epsilon": [1, 100]},
        "objectives": ["local", "epsilon", "empirical_epsilon"],
    }
    out = tmp_path / "sweep"
    summary = run_sweep(sweep_of(written), out, machine=Machine(workers=2))
    assert summary["trials"]["done"] == 2 and summary["refuted"] == []
    for row in summary["rows"]:
        audit = json.loads((out / "trials" / f"{row['number']:04d}" / "audit.json").read_text())
        found = row["result"]["empirical_epsilon"]
        assert found == empirical_epsilon(audit) and 0 <= found <= row["result"]["epsilon"]
        assert row["values"][2] == found
    (weak, strong) = sorted((row["result"] for row in summary["rows"]), key=lambda result: result["epsilon"])
    assert weak["empirical_epsilon"] < strong["empirical_epsilon"]
    table = rows_of(sweep_document(summary, __version__, out), "audits")
    assert [row[-1] for row in table] == ["no", "no"]
