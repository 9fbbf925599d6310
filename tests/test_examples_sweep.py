"""The example of a sweep from Python: what it prints, and that it goes on with what it finished."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from framp_private.sweep import Sweep, sweep_of

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "embed_sweep.py"
SMALL = {"clients": 4, "rounds": 2, "local_steps": 2, "home_steps": 2, "network": "linear", "evaluate_every": 2}
POINT = re.compile(
    r"\{'privacy\.epsilon': '(\d)', 'pullback': '(\w+)'\}: epsilon ([\d.]+), "
    r"accuracy ([\d.]+) \[(-?[\d.]+), ([\d.]+)\], (front|behind|beaten)"
)
ACCOUNT = re.compile(r"all 12 runs together, unit record: epsilon ([\d.]+)")


def smaller(written: Mapping[str, Any]) -> Sweep:
    """The example's own sweep over smaller runs: its axes, seeds and other settings are left as they are."""
    return sweep_of({**written, "set": {**written["set"], **SMALL}})


def printed(out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the example prints, loaded anew from its file."""
    spec = importlib.util.spec_from_file_location("embed_sweep", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "sweep_of", smaller)
    monkeypatch.setattr(sys, "argv", [EXAMPLE.name, "--out", str(out), "--workers", "1"])
    example.main()
    return capsys.readouterr().out.splitlines()


def test_it_prints_a_line_for_each_point_and_the_account_and_a_second_time_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(tmp_path / "sweep", monkeypatch, capsys)
    summary = json.loads((tmp_path / "sweep" / "summary.json").read_text())
    assert [row.get("error") for row in summary["rows"]] == [None] * 12
    *points, last = lines
    found = [POINT.fullmatch(line) for line in points]
    assert [match.group(1, 2) for match in found if match] == [
        ("1", "server"),
        ("1", "client"),
        ("8", "server"),
        ("8", "client"),
    ]
    for match, point in zip((match for match in found if match), summary["points"], strict=True):
        wanted, epsilon, mean, low, high = (float(match.group(place)) for place in (1, 3, 4, 5, 6))
        assert 0.99 * wanted <= epsilon <= wanted and low <= mean <= high
        assert mean == round(point["objectives"]["accuracy.local"]["mean"], 3) and point["replicates"] == 3
    assert "front" in {match.group(7) for match in found if match}
    account = ACCOUNT.fullmatch(last)
    assert account is not None and float(account.group(1)) == round(summary["choosing"]["accounts"][0]["epsilon"], 2)
    assert float(account.group(1)) > 8.0  # the dearest run alone costs that

    ended = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep" / "trials").rglob("*") if path.is_file()}
    assert printed(tmp_path / "sweep", monkeypatch, capsys) == lines
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep" / "trials").rglob("*") if path.is_file()}
    assert again == ended
