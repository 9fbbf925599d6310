"""What a person sees of a sweep: a live table while it runs, the same once for `status`, and its points at the end.

Everything fits 80 columns.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from framp_private.estimate import describe_plan
from framp_private.sweep.axes import Choices
from framp_private.sweep.record import Record
from framp_private.sweep.results import points_of
from framp_private.sweep.slots import slots_of
from framp_private.sweep.spec import REFERENCE, Sweep

WIDTH = 80
_SHOWN = 5


@contextmanager
def live(console: Console, sweep: Sweep) -> Iterator[Callable[[Sequence[Record]], None]]:
    """A table that follows the sweep; yields the callback that redraws it. Away from a terminal, a line now and
    then."""
    started = time.monotonic()
    before = printed = -1  # how many had ended when this began, and at the last line

    def seconds_left(trials: Sequence[Record]) -> float | None:
        nonlocal before
        ended = sum(trial.finished for trial in trials)
        before = ended if before < 0 else before
        made, left = ended - before, len(trials) - ended
        return (time.monotonic() - started) / made * left if made and left else None

    def line(trials: Sequence[Record]) -> None:
        nonlocal printed
        ended = sum(trial.finished for trial in trials)
        if ended != printed:
            printed = ended
            console.print(_counts(trials, seconds_left(trials)))

    if not console.is_terminal:
        yield line
        return
    with Live(console=console, refresh_per_second=4) as screen:
        yield lambda trials: screen.update(progress_table(sweep, trials, seconds_left(trials)))


def progress_table(sweep: Sweep, trials: Sequence[Record], seconds: float | None = None) -> RenderableType:
    """How far a sweep is, what failed, and the best points so far. seconds: that are left, if that is known."""
    parts: list[RenderableType] = [Text(f"sweep {sweep.name}", style="bold"), Text(_counts(trials, seconds))]
    if sweep.choosing.publish == "all":
        ranked = ranked_points(sweep, points_of(sweep, trials))
        if ranked:
            parts.append(points_table(sweep, ranked[:_SHOWN], "best so far, by unit"))
    failed = [trial for trial in trials if trial.state == "failed"]
    for trial in failed[-3:]:
        reason = trial.error.splitlines()[0]
        parts.append(Text(f"trial {trial.number} failed: {reason}", style="red", overflow="ellipsis", no_wrap=True))
    return Group(*parts)


def ranked_points(sweep: Sweep, points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Points with a result, by unit and then by the first objective, best first."""
    first = sweep.objectives[0]
    sign = -1 if first.direction == "maximize" else 1

    def rank(point: Mapping[str, Any]) -> tuple[str, float]:
        mean = point["objectives"][first.name]["mean"]
        return str(point["unit"]), sign * mean if mean is not None else float("inf")

    return sorted((point for point in points if point["objectives"]), key=rank)


def points_table(sweep: Sweep, points: Sequence[Mapping[str, Any]], title: str) -> Table:
    """By unit: settings, replicates, and means of the first three objectives with half the width of their intervals."""
    shown = sweep.objectives[:3]
    table = Table(title=title, title_justify="left", title_style="bold", width=WIDTH)
    table.add_column("point", overflow="fold", ratio=1)
    table.add_column("runs", justify="right")
    for objective in shown:
        table.add_column(objective.name.removeprefix("accuracy.").replace("_", " "), justify="right")
    unit = None
    for point in points:
        if point["unit"] != unit:
            unit = point["unit"]
            table.add_section()
            table.add_row(Text(UNITS_IN_WORDS.get(unit, str(unit)), style="bold"))
        cells = [_value(point["objectives"][objective.name]) for objective in shown]
        table.add_row(name_of(sweep, point), str(point["replicates"]), *cells)
    return table


UNITS_IN_WORDS = {"record": "unit record", "client": "unit client", "none": "no guarantee"}


def name_of(sweep: Sweep, point: Mapping[str, Any]) -> str:
    """A point in words."""
    if point["reference"] is not None:
        return str(point["reference"])
    bundles = {axis.name for axis in sweep.axes if isinstance(axis, Choices) and isinstance(axis.written(), dict)}
    axes = [
        _short(value) if name in bundles else f"{name.rpartition('.')[2].replace('_', ' ')} {_short(value)}"
        for name, value in point["axes"].items()
    ]
    return ", ".join(axes) or "the base settings"


def plan_table(sweep: Sweep) -> RenderableType:
    """The points of a sweep before it runs, with what each would claim."""
    slots = slots_of(sweep) if sweep.choosing.publish == "all" else []
    table = Table(title=f"sweep {sweep.name}", title_justify="left", title_style="bold", width=WIDTH)
    table.add_column("point", overflow="fold")
    table.add_column("claim of a run", overflow="fold")
    for slot in {slot.place: slot for slot in slots}.values():
        if slot.point is None:
            continue
        reference = slot.point.get(REFERENCE)
        axes = {} if reference is not None else dict(slot.point)
        claim = describe_plan(sweep.config(slot.point, slot.seed), measure=False)["privacy"]
        table.add_row(name_of(sweep, {"reference": reference, "axes": axes}), claim.removeprefix("privacy: "))
    count = f"{len(slots)} trials" if slots else f"a number of trials that is drawn, {sweep.choosing.mean:g} on average"
    return Group(table, Text(f"{count}, seeds {', '.join(map(str, sweep.seeds))}"))


def final_table(sweep: Sweep, summary: Mapping[str, Any]) -> RenderableType:
    """Counts, all points, and what choosing among them costs."""
    states = summary["trials"]
    counts = ", ".join(f"{states[name]} {name}" for name in ("done", "failed", "pruned") if states[name])
    parts: list[RenderableType] = [Text(f"sweep {sweep.name}: {counts} of {states['planned']} trials")]
    if summary["choosing"]["publish"] == "best":
        return Group(Text("the chosen run stands in the report"), Text(choosing_words(summary["choosing"])))
    if summary["points"]:
        title = "means over seeds ± half of their 95 % intervals, best first"
        parts.append(points_table(sweep, ranked_points(sweep, summary["points"]), title))
    return Group(*parts, Text(choosing_words(summary["choosing"])))


def choosing_words(choosing: Mapping[str, Any]) -> str:
    """What choosing from the sweep costs, in words."""
    lines = []
    for row in choosing["accounts"]:
        terms = f"unit {row['unit']}, {row['relation']}"
        if row["epsilon"] is None:
            lines.append(_in_part(row, terms))
            continue
        what = "the best run alone" if choosing["publish"] == "best" else f"all {row['runs']} runs together"
        lines.append(f"{what}, {terms}: epsilon {row['epsilon']:.3g} at delta {row['delta']:g}")
    if choosing["records"] == "public":
        lines.append("the sweep says that its records are public: then choosing from it costs nothing")
    return "choosing: " + ("; ".join(lines) or "nothing was released")


def _in_part(row: Mapping[str, Any], terms: str) -> str:
    """Of an account that some runs of the sweep are no part of, or have no guarantee in."""
    bounded, others = row["runs"] - row["without_guarantee"], row["without_guarantee"] + row["outside"]
    if row["epsilon_with_guarantee"] is None:
        return f"{row['runs']} runs, {terms}: no guarantee"
    spent = f"epsilon {row['epsilon_with_guarantee']:.3g} at delta {row['delta']:g}"
    return f"{bounded} runs together, {terms}: {spent}; {others} more guarantee nothing of these terms"


def _counts(trials: Sequence[Record], seconds: float | None) -> str:
    states = Counter(trial.state for trial in trials)
    done = f"{states['complete']} of {len(trials)} done"
    more = [f"{states[state]} {state}" for state in ("running", "failed", "pruned") if states[state]]
    left = "" if seconds is None else f"about {_clock(seconds)} left"
    return " · ".join(part for part in (done, *more, left) if part)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _value(row: Mapping[str, Any]) -> str:
    mean = row["mean"]
    if mean is None:
        return "infinite"
    for name, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(mean) >= scale:
            return f"{mean / scale:.1f} {name}"
    if row["low"] is None:
        return f"{mean:.3f}"
    return f"{mean:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
