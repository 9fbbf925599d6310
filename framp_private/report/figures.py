"""The report's pictures, as SVG. Colours differ in lightness too, and every caption says what its picture shows.

Numbers in captions name their sources, as all numbers of a report do.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from framp_private.privacy.claims import Claim
from framp_private.report.document import Cell, Picture, Text, joined, text
from framp_private.report.sources import Data, derived, named, number

INK, GRID = "#1f2933", "#d8dee6"
PALETTE = ("#1b3a5c", "#2a7f9e", "#e08e45", "#a83e5b", "#6b8f3c", "#7a5ea8")
WIDTH = 7.6
_CLASS_COLOURS = "tab20"
MOST_BARS = 60
"""Clients up to which the class mix is drawn as bars; beyond, as a map."""


def class_mix(rows: Mapping[str, Mapping[str, Any]]) -> Picture:
    """Training records by class, one bar per client, from the rows of `clients.json`."""
    names, counts = list(rows), np.array([row["classes"] for row in rows.values()])
    words = _mix_in_words(Data("clients", rows))
    figure, axes = _axes(3.0)
    if len(names) > MOST_BARS:
        axes.imshow(counts.T, aspect="auto", interpolation="nearest", cmap="Blues")
        axes.grid(visible=False)
        axes.set_xlabel("client")
        axes.set_ylabel("class")
        return picture("Class mix of each client", figure, words)
    colours = _class_colours(counts.shape[1])
    bottom = np.zeros(len(names))
    for label in range(counts.shape[1]):
        axes.bar(range(len(names)), counts[:, label], bottom=bottom, color=colours[label], width=0.85, label=str(label))
        bottom += counts[:, label]
    _client_ticks(axes, names)
    axes.set_ylabel("training records")
    if counts.shape[1] <= 12:
        _legend(figure, axes, "class")
    return picture("Class mix of each client", figure, words)


def _mix_in_words(clients: Data) -> Text:
    classes = "*.classes"
    least, most = (derived((end, "total"), clients, classes) for end in ("min", "max"))
    low, high, mean = (derived((which, "top_share"), clients, classes, ".0%") for which in ("min", "max", "mean"))
    records: tuple[Cell, ...] = (least,) if least.value == most.value else (least, " to ", most)
    share = ("; a client's largest class holds ", low, " to ", high, " of its records, ", mean, " on average.")
    return text(derived("count", clients, classes), " clients with ", *records, " training records each", *share)


def accuracy_by_round(metrics: Data) -> Picture:
    """Local test accuracy of the served models, by budget, as rounds pass, from rows of which some were measured."""
    measured = [place for place, row in enumerate(metrics.content) if row.get("accuracy")]
    rounds = [metrics[(place, "round")] for place in measured]
    names = metrics.keys((measured[-1], "accuracy", "test"))
    figure, axes = _axes(3.0)
    for place, name in enumerate(names):
        values = [metrics[(row, "accuracy", "test", name)] for row in measured]
        style: dict[str, Any] = {"color": PALETTE[place % len(PALETTE)], "marker": "o", "markersize": 3}
        if name == "mean":
            style = {"color": INK, "linestyle": "--"}
        axes.plot(rounds, values, linewidth=1.6, label="mean" if name == "mean" else f"budget {name}", **style)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("round")
    axes.set_ylabel("local accuracy")
    _legend(figure, axes)
    last = (measured[-1], "accuracy", "test")
    shown: list[Cell] = [
        text("budget ", named(metrics, (*last, name)), ": ", number(metrics, (*last, name), ".3f"))
        for name in names
        if name != "mean"
    ]
    words = text(
        "Local test accuracy after round ", number(metrics, (measured[-1], "round")), ": ", joined(shown, "; ")
    )
    return picture("Accuracy by round", figure, text(words, "."))


def epsilon_by_round(summary: Data, claim: Claim) -> Picture:
    """What a client that takes part in every round has spent after each."""
    curve, figure, axes = summary["epsilon_by_round"], *_axes(2.8)
    rounds, spent = [done for done, _ in curve], [value for _, value in curve]
    axes.plot(rounds, spent, marker="o", markersize=4, color="#1d6b3a")
    axes.axhline(spent[-1], color="#52606d", linewidth=0.8, linestyle="--")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("round")
    axes.set_ylabel("epsilon")
    axes.set_ylim(0, spent[-1] * 1.15)

    def after(place: int) -> Text:
        value = number(summary, ("epsilon_by_round", place, 1), ".2f")
        return text(value, " after round ", number(summary, ("epsilon_by_round", place, 0)))

    terms = (f"Unit {claim.of_what}, {claim.relation}, delta ", number(summary, ("privacy", claim.unit, "delta"), "g"))
    trust = (", ", number(summary, ("privacy", claim.unit, "trust_model")), ": ")
    ends = (after(0), ", ", after(len(curve) - 1), ", for a client that takes part in all of them.")
    return picture("Epsilon by round", figure, text(*terms, *trust, *ends))


def accuracy_by_budget(summary: Data) -> Picture:
    """The four accuracies side by side at each budget."""
    accuracy = summary["accuracy"]
    kinds = [
        kind for kind in ("local", "union", "unseen", "after_local_training") if accuracy[kind]["mean"] is not None
    ]
    names = [name for name in accuracy["local"] if name != "mean"]
    figure, axes = _axes(2.8)
    width = 0.8 / len(kinds)
    for place, kind in enumerate(kinds):
        places = np.arange(len(names)) + (place - (len(kinds) - 1) / 2) * width
        values = [accuracy[kind][name] or 0.0 for name in names]
        axes.bar(places, values, width * 0.92, color=PALETTE[place], label=kind.replace("_", " "))
    axes.set_xticks(range(len(names)), [f"budget {name}" for name in names])
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("accuracy")
    _legend(figure, axes)
    means: list[Cell] = [
        text(f"{kind.replace('_', ' ')} mean ", number(summary, ("accuracy", kind, "mean"), ".3f")) for kind in kinds
    ]
    return picture("Accuracy by budget", figure, text(joined(means, "; "), "."))


def client_histogram(summary: Data) -> Picture:
    """How many clients reach which local accuracy."""
    local = {name: row["local"] for name, row in summary["by_client"].items()}
    values = np.array(list(local.values()))
    figure, axes = _axes(2.5)
    axes.hist(values, bins=[float(edge) for edge in np.linspace(0, 1, 21)], color=PALETTE[1], edgecolor="white")
    axes.axvline(float(values.mean()), color=INK, linestyle="--", linewidth=1.2, label=f"mean {values.mean():.3f}")
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("local accuracy")
    axes.set_ylabel("clients")
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    worst = min(local, key=lambda name: local[name])
    median, best = (derived(which, summary, "by_client.*.local", ".3f") for which in ("median", "max"))
    who = ("Worst client ", named(summary, ("by_client", worst)), " at ")
    least = number(summary, ("by_client", worst, "local"), ".3f")
    return picture("Accuracy of single clients", figure, text(*who, least, ", median ", median, ", best ", best, "."))


def traffic_by_channel(summary: Data) -> Picture:
    """Bytes carried, by channel and direction."""
    traffic = summary["traffic"]
    channels = [name for name in traffic["up"] if traffic["up"][name] or traffic["down"][name]]
    figure, axes = _axes(0.8 + 0.5 * max(1, len(channels)))
    for place, way in enumerate(("down", "up")):
        values = [traffic[way][name] / 1e6 for name in channels]
        axes.barh(np.arange(len(channels)) + (place - 0.5) * 0.38, values, 0.36, color=PALETTE[place], label=way)
    axes.set_yticks(range(len(channels)), channels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_xlabel("megabytes, whole run")
    if channels:
        _legend(figure, axes)
    parts: list[Cell] = []
    for name in channels:
        down, up = (number(summary, ("traffic", way, name), ",") for way in ("down", "up"))
        parts.append(text(f"{name}: ", down, " bytes down, ", up, " up"))
    return picture("Traffic by channel", figure, text(joined(parts or ["Nothing was sent"], "; "), "."))


def _axes(height: float) -> tuple[Figure, Axes]:
    """As wide as a column of text, inches; labels are as large as small print."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    return figure, axes


def _legend(figure: Figure, axes: Axes, title: str | None = None) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, title=title, loc="outside right center", frameon=False, fontsize=9)


def _client_ticks(axes: Axes, names: Sequence[str]) -> None:
    step = max(1, len(names) // 24)
    labels = [name.removeprefix("client-").replace("$", r"\$") for name in names]  # a dollar sign begins a formula
    axes.set_xticks(range(0, len(names), step), labels[::step])
    axes.set_xlabel("client")


def _class_colours(count: int) -> list[tuple[float, ...]]:
    return [
        tuple(colour)
        for colour in colormaps[_CLASS_COLOURS if count <= 20 else "viridis"](np.linspace(0, 1, max(count, 2)))
    ]


def picture(title: str, figure: Figure, words: Text) -> Picture:
    """The figure as SVG, the same bytes for the same figure."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": title}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    return Picture(title, svg[svg.index("<svg") :], words)
