"""What a person sees of a sweep in the terminal: counts, time left, the best so far, and nothing wider than 80 columns."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from framp_private.sweep import run_sweep, sweep_of
from framp_private.sweep.record import Record
from framp_private.sweep.view import live, progress_table
from tests.sweep import trials
from tests.sweep.harness import grid, stored

LONG = {"name": "x" * 60, "references": {"a reference with a very long name " * 4: {"rounds": 3}}}


def screens(terminal: bool) -> tuple[Console, StringIO]:
    file = StringIO()
    return Console(file=file, width=80, force_terminal=terminal, color_system=None), file


def states_of(tmp_path: Path, written: dict[str, Any]) -> list[list[Record]]:
    """All trials of a sweep as they were each time that a view was told of them."""
    sweep = sweep_of(written)
    run_sweep(sweep, tmp_path / "sweep", run=trials.crashing)
    ended = stored(tmp_path / "sweep", sweep)
    begun = [Record(t.number, "waiting", t.place, t.seed, t.screening, t.reference, t.params) for t in ended]
    return [[*ended[:count], *begun[count:]] for count in range(len(ended) + 1)]


@pytest.mark.parametrize("terminal", [False, True])
def test_the_view_follows_the_trials_and_tells_the_time_left(tmp_path: Path, terminal: bool) -> None:
    written = {**grid(4), **LONG, "objectives": ["local", "bytes", "worst_client"]}
    console, file = screens(terminal)
    with live(console, sweep_of(written)) as on_change:
        for state in states_of(tmp_path, written):
            on_change(state)
            on_change(state)  # told again, it says nothing new
    text = file.getvalue()
    lines = [line for line in text.splitlines() if "done" in line]
    if not terminal:
        assert [line.split(" done")[0] for line in lines] == [f"{done} of 5" for done in (0, 1, 1, 2, 3, 4)]
        assert ["left" in line for line in lines] == [False, True, True, True, True, False]
    assert "4 of 5 done · 1 failed" in text
    assert all(len(line) <= 80 for line in text.replace("\x1b", "\n").splitlines())


def test_the_table_shows_the_best_by_unit_and_what_failed(tmp_path: Path) -> None:
    written = grid(8, seeds=2)
    last = states_of(tmp_path, written)[-1]
    console, file = screens(terminal=False)
    console.print(progress_table(sweep_of(written), last, 61.0))
    text = file.getvalue()
    assert "15 of 16 done · 1 failed · about 1 min 1 s left" in text and "trial 1 failed: ValueError: a bad" in text
    shown = [line for line in text.splitlines() if "rate 0.0" in line]
    assert len(shown) == 5 and "rate 0.08" in shown[0] and "unit record" in text
    assert all(len(line) <= 80 for line in text.splitlines())
