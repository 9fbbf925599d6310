"""Pictures of a sweep: accuracy over epsilon with intervals, for all budgets together and for each alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from framp_private.report.document import Cell, Picture, Text, joined, text
from framp_private.report.figures import GRID, INK, PALETTE, WIDTH, picture
from framp_private.report.points import letter_of, mean_of, name_of, term_of
from framp_private.report.sources import Data, number

MARKS = "osD^vPX*"
EPSILON = "privacy.epsilon"
ALL = "all points"
MOST_SERIES = 8
"""More than so many lines nobody tells apart: then points stand alone."""


def frontier(data: Data, unit: str) -> Picture:
    """Local accuracy over all budgets against epsilon: every point with its interval, the front as a line with letters.

    A run without a guarantee is a line, too, if it is of the same budgets: a mean over others would not compare.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.add_subplot()
    _draw(axes, data, unit, "mean", labelled=True)
    axes.set_xlabel(f"epsilon (unit {unit})", fontsize=9, color=INK)
    axes.set_ylabel("local accuracy", fontsize=9, color=INK)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    words = text("Points on the front, by epsilon: ", _front_words(data, unit, "mean"), ".")
    return picture(f"Privacy and utility, unit {_short(unit)}", figure, words)


def by_budget(data: Data, unit: str) -> Picture:
    """The same for the clients of each budget."""
    budgets = [front["budget"] for front in data["frontier"] if front["unit"] == unit and front["budget"] != "mean"]
    columns = min(4, len(budgets))
    rows = math.ceil(len(budgets) / columns)
    figure = Figure(figsize=(WIDTH, 0.4 + 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for place, panel in enumerate(panels.flat):
        if place >= len(budgets):
            panel.set_visible(False)
            continue
        _draw(panel, data, unit, budgets[place])
        panel.set_title(f"budget {budgets[place]}", fontsize=8, color=INK)
    figure.supxlabel(f"epsilon (unit {unit})", fontsize=8)
    parts: list[Cell] = [
        text("budget ", _budget_name(data, unit, budget), ": ", _span(data, unit, budget)) for budget in budgets
    ]
    words = text("From the cheapest to the dearest point on the front of each budget: ", joined(parts, "; "), ".")
    return picture(f"Privacy and utility by budget, unit {_short(unit)}", figure, words)


def _short(unit: str) -> str:
    """A kind of claim without its delta, which the axis names."""
    return unit.partition(", delta")[0]


def _budget_name(data: Data, unit: str, budget: str) -> Cell:
    place = next(at for at, row in enumerate(data["frontier"]) if (row["unit"], row["budget"]) == (unit, budget))
    return number(data, ("frontier", place, "budget"))


def _front_words(data: Data, unit: str, budget: str) -> Text:
    places = [row["place"] for row in _front(data, unit, budget)["points"] if row["state"] == "front"]
    return joined(
        [
            text(name_of(data, at), " reaches ", mean_of(data, ("points", at, "intervals", "local", budget)))
            for at in places
        ],
        "; ",
    )


def _span(data: Data, unit: str, budget: str) -> Text:
    places = [row["place"] for row in _front(data, unit, budget)["points"] if row["state"] == "front"]
    ends = [
        text(
            number(data, ("points", at, "intervals", "local", budget, "mean"), ".3f"),
            " at epsilon ",
            number(data, ("points", at, "epsilon"), ".3g"),
        )
        for at in dict.fromkeys((places[0], places[-1]))
    ]
    return joined(ends, " to ")


def _front(data: Data, unit: str, budget: str) -> Mapping[str, Any]:
    return next(row for row in data["frontier"] if (row["unit"], row["budget"]) == (unit, budget))


def _draw(axes: Axes, data: Data, unit: str, budget: str, labelled: bool = False) -> None:
    front = _front(data, unit, budget)
    points = [data["points"][row["place"]] for row in front["points"]]
    for place, (series, members) in enumerate(_series(data, points).items()):
        look = {"color": PALETTE[place % len(PALETTE)], "marker": MARKS[place % len(MARKS)]}
        _series_on(
            axes,
            members,
            budget,
            linewidth=0.0 if series == ALL else 1.2,
            label=series.replace("$", r"\$") if labelled else None,
            **look,
        )
    _front_on(axes, data, [row["place"] for row in front["points"] if row["state"] == "front"], budget, labelled)
    for point in data["points"]:
        found = point.get("intervals", {}).get("local", {}).get(budget)
        alike = found and set(point["intervals"]["local"]) == set(points[0]["intervals"]["local"])
        if point["reference"] is not None and alike and point["epsilon"] is None:
            words = str(point["reference"]).replace("$", r"\$")
            label = f"{words} (no guarantee)" if labelled else None
            axes.axhline(found["mean"], color="#52606d", linewidth=0.9, linestyle=":", label=label)
    _dress(axes, [point["epsilon"] for point in points])


def _front_on(axes: Axes, data: Data, places: Sequence[int], budget: str, labelled: bool) -> None:
    """The front as a line; with letters, each of its points by its own."""
    epsilons = [data["points"][place]["epsilon"] for place in places]
    means = [data["points"][place]["intervals"]["local"][budget]["mean"] for place in places]
    label = "front" if labelled else None
    axes.plot(epsilons, means, color=INK, linewidth=1.0, linestyle="--", label=label, zorder=1)
    if labelled:
        for place, epsilon, mean in zip(places, epsilons, means, strict=True):
            axes.annotate(
                letter_of(place),
                (epsilon, mean),
                xytext=(-4, 5),  # points, to the left of the error bar
                textcoords="offset points",
                ha="right",
                fontsize=8,
                fontweight="bold",
                color=INK,
                zorder=3,
            )


def _series(data: Data, points: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Points that differ in epsilon alone stand together."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        others = [f"{term_of(data, name)}{value}" for name, value in point["axes"].items() if name != EPSILON]
        label = str(point["reference"]) if point["reference"] is not None else ", ".join(others) or ALL
        found.setdefault(label, []).append(point)
    return found if len(found) <= MOST_SERIES else {ALL: list(points)}


def _series_on(axes: Axes, members: Sequence[Mapping[str, Any]], budget: str, **look: Any) -> None:
    means = [point["intervals"]["local"][budget] for point in members]
    low = [row["mean"] - row["low"] if row["low"] is not None else 0.0 for row in means]
    high = [row["high"] - row["mean"] if row["high"] is not None else 0.0 for row in means]
    axes.errorbar(
        [point["epsilon"] for point in members],
        [row["mean"] for row in means],
        [low, high],
        markersize=4.5,
        elinewidth=0.8,
        capsize=2,
        zorder=2,
        **look,
    )


def _dress(axes: Axes, epsilons: Sequence[float]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=8)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    if max(epsilons) > 2 * min(epsilons):
        axes.set_xscale("log")
        steps = sorted({float(f"{epsilon:.2g}") for epsilon in epsilons})
        kept = [step for at, step in enumerate(steps) if at == 0 or step >= 1.3 * steps[at - 1]]
        axes.set_xticks(kept)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0.0, 1.02)
