"""The report's pictures, as SVG. Colours differ in lightness too, and every picture has a text of its own."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from framp_private.privacy.claims import Claim

INK, GRID = "#1f2933", "#d8dee6"
PALETTE = ("#1b3a5c", "#2a7f9e", "#e08e45", "#a83e5b", "#6b8f3c", "#7a5ea8")
_CLASS_COLOURS = "tab20"
MOST_BARS = 60
"""Clients up to which the class mix is drawn as bars; beyond, as a map."""


@dataclass(frozen=True)
class Picture:
    """An SVG, its caption, and what it shows in words for those who cannot see it."""

    title: str
    svg: str
    text: str


def class_mix(by_client: Mapping[str, Mapping[str, Any]]) -> Picture:
    """Training records by class, one bar per client."""
    names, counts = list(by_client), np.array([row["classes"] for row in by_client.values()])
    figure, axes = _axes(8.4, 3.2)
    if len(names) > MOST_BARS:
        axes.imshow(counts.T, aspect="auto", interpolation="nearest", cmap="Blues")
        axes.grid(visible=False)
        axes.set_xlabel("client")
        axes.set_ylabel("class")
        return _picture("Class mix of each client", figure, _mix_in_words(counts))
    colours = _class_colours(counts.shape[1])
    bottom = np.zeros(len(names))
    for label in range(counts.shape[1]):
        axes.bar(range(len(names)), counts[:, label], bottom=bottom, color=colours[label], width=0.85, label=str(label))
        bottom += counts[:, label]
    _client_ticks(axes, names)
    axes.set_ylabel("training records")
    if counts.shape[1] <= 12:
        figure.legend(
            *axes.get_legend_handles_labels(), title="class", loc="outside right center", frameon=False, fontsize=8
        )
    return _picture("Class mix of each client", figure, _mix_in_words(counts))


def _mix_in_words(counts: np.ndarray) -> str:
    sizes, most = counts.sum(1), counts.max(1) / np.maximum(counts.sum(1), 1)
    records = f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
    return (
        f"{len(counts)} clients with {records} training records each; a client's largest class holds "
        f"{most.min():.0%} to {most.max():.0%} of its records, {most.mean():.0%} on average."
    )


def accuracy_by_round(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Local test accuracy of the served models, by budget, as rounds pass."""
    measured = [row for row in rows if row.get("accuracy")]
    figure, axes = _axes(8.4, 3.2)
    rounds = [row["round"] for row in measured]
    for place, name in enumerate(_budgets(measured[0]["accuracy"]["test"])):
        values = [row["accuracy"]["test"][name] for row in measured]
        axes.plot(
            rounds,
            values,
            color=PALETTE[place % len(PALETTE)],
            label=f"budget {name}",
            linewidth=1.6,
            marker="o",
            markersize=2.5,
        )
    axes.plot(
        rounds,
        [row["accuracy"]["test"]["mean"] for row in measured],
        color=INK,
        linestyle="--",
        linewidth=1.2,
        label="mean",
    )
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("round")
    axes.set_ylabel("local accuracy")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    last = measured[-1]
    text = "; ".join(
        f"budget {name}: {value:.3f}" for name, value in last["accuracy"]["test"].items() if name != "mean"
    )
    return _picture("Accuracy by round", figure, f"Local test accuracy after round {last['round']}: {text}.")


def epsilon_by_round(curve: Sequence[tuple[int, float]], claim: Claim) -> Picture:
    """What a client that takes part in every round has spent after each."""
    figure, axes = _axes(7.2, 3.0)
    rounds, spent = [done for done, _ in curve], [value for _, value in curve]
    axes.plot(rounds, spent, marker="o", color="#1d6b3a")
    axes.axhline(spent[-1], color="#52606d", linewidth=0.8, linestyle="--")
    axes.set_xlabel("round")
    axes.set_ylabel("epsilon")
    axes.set_ylim(0, spent[-1] * 1.15)
    text = (
        f"Unit {claim.of_what}, {claim.relation}, delta {claim.delta:g}, {claim.trust_model}: "
        f"{spent[0]:.2f} after round {rounds[0]}, {spent[-1]:.2f} after round {rounds[-1]}, for a client that "
        "takes part in all of them."
    )
    return _picture("Epsilon by round", figure, text)


def accuracy_by_budget(accuracy: Mapping[str, Mapping[str, float | None]]) -> Picture:
    """The four accuracies side by side at each budget."""
    kinds = [
        kind for kind in ("local", "union", "unseen", "after_local_training") if accuracy[kind]["mean"] is not None
    ]
    names = _budgets(accuracy["local"])
    figure, axes = _axes(8.4, 3.0)
    width = 0.8 / len(kinds)
    for place, kind in enumerate(kinds):
        places = np.arange(len(names)) + (place - (len(kinds) - 1) / 2) * width
        axes.bar(
            places,
            [accuracy[kind][name] or 0.0 for name in names],
            width * 0.92,
            color=PALETTE[place],
            label=kind.replace("_", " "),
        )
    axes.set_xticks(range(len(names)), [f"budget {name}" for name in names])
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("accuracy")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    text = "; ".join(f"{kind.replace('_', ' ')} mean {accuracy[kind]['mean']:.3f}" for kind in kinds)
    return _picture("Accuracy by budget", figure, f"{text}.")


def client_histogram(by_client: Mapping[str, Mapping[str, Any]]) -> Picture:
    """How many clients reach which local accuracy."""
    values = np.array([row["local"] for row in by_client.values()])
    figure, axes = _axes(8.4, 2.6)
    axes.hist(values, bins=[float(edge) for edge in np.linspace(0, 1, 21)], color=PALETTE[1], edgecolor="white")
    axes.axvline(float(values.mean()), color=INK, linestyle="--", linewidth=1.2, label=f"mean {values.mean():.3f}")
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("local accuracy")
    axes.set_ylabel("clients")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    worst = min(by_client, key=lambda name: by_client[name]["local"])
    text = f"Worst client {worst} at {values.min():.3f}, median {np.median(values):.3f}, best {values.max():.3f}."
    return _picture("Accuracy of single clients", figure, text)


def traffic_by_channel(traffic: Mapping[str, Mapping[str, int]]) -> Picture:
    """Bytes carried, by channel and direction."""
    channels = [name for name in traffic["up"] if traffic["up"][name] or traffic["down"][name]]
    figure, axes = _axes(8.4, 0.8 + 0.5 * max(1, len(channels)))
    for place, way in enumerate(("down", "up")):
        values = [traffic[way][name] / 1e6 for name in channels]
        axes.barh(np.arange(len(channels)) + (place - 0.5) * 0.38, values, 0.36, color=PALETTE[place], label=way)
    axes.set_yticks(range(len(channels)), channels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_xlabel("megabytes, whole run")
    if channels:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    text = "; ".join(f"{name}: {traffic['down'][name]:,} bytes down, {traffic['up'][name]:,} up" for name in channels)
    return _picture("Traffic by channel", figure, f"{text or 'Nothing was sent'}.")


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=8)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    return figure, axes


def _client_ticks(axes: Axes, names: Sequence[str]) -> None:
    step = max(1, len(names) // 24)
    labels = [name.removeprefix("client-") for name in names]
    axes.set_xticks(range(0, len(names), step), labels[::step])
    axes.set_xlabel("client")


def _class_colours(count: int) -> list[tuple[float, ...]]:
    return [
        tuple(colour)
        for colour in colormaps[_CLASS_COLOURS if count <= 20 else "viridis"](np.linspace(0, 1, max(count, 2)))
    ]


def _budgets(table: Mapping[str, Any]) -> list[str]:
    return [name for name in table if name != "mean"]


def _picture(title: str, figure: Figure, text: str) -> Picture:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    return Picture(title, svg[svg.index("<svg") :], text)
