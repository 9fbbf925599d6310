"""The report's pictures, as SVG; each has a text of its own for those who cannot see it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from threat_models.auditing.gaussian import mu_of, tpr_ceiling, tpr_ceiling_dp
from threat_models.auditing.multi_run import clopper_pearson

INK, GRID = "#1f2933", "#d8dee6"
PALETTE = ("#1b3a5c", "#2a7f9e", "#e08e45", "#a83e5b", "#6b8f3c", "#7a5ea8")
MOST_CURVES = 4


@dataclass(frozen=True)
class Picture:
    """An SVG, its title, and what it shows in words."""

    title: str
    svg: str
    text: str


def roc(rows: Mapping[str, Any]) -> Picture | None:
    """Log-log curves of the strongest membership attacks, with bands, chance, and what the claim admits."""
    found = sorted((row for row in rows["attacks"] if row["curve"]), key=lambda row: -row["value"])[:MOST_CURVES]
    if not found:
        return None
    figure, axes = _axes(7.6, 4.4)
    grid = np.geomspace(1e-3, 1, 200)
    axes.plot(grid, grid, color=GRID, linewidth=1.2, linestyle="--", label="chance")
    claim = rows["claims"][0]
    if claim["epsilon"] is not None and claim["delta"]:
        axes.plot(
            grid,
            tpr_ceiling_dp(grid, claim["epsilon"], claim["delta"]),
            color=INK,
            linewidth=1.0,
            linestyle=":",
            label=f"({claim['epsilon']:.3g}, {claim['delta']:g})-DP",
        )
        if claim["mechanism"] == "gaussian":
            mu = mu_of(claim["epsilon"], claim["delta"])
            axes.plot(grid, [tpr_ceiling(x, mu) for x in grid], color=INK, linewidth=1.2, label=f"{mu:.2f}-GDP ceiling")
    for place, row in enumerate(found):
        fpr, tpr = np.array(row["curve"]).T
        count = int(row["members"])
        bands = np.array([clopper_pearson(round(value * count), count, 0.05) for value in tpr])
        label = f"{row['id']} {row['words'].split(';')[0].split(',')[0]}"[:34]
        axes.plot(fpr, tpr, color=PALETTE[place], linewidth=1.6, label=label)
        axes.fill_between(fpr, bands[:, 0], bands[:, 1], color=PALETTE[place], alpha=0.12, linewidth=0)
    least = min(min(x for x, _ in row["curve"] if x > 0) for row in found)
    left = min(0.1, max(1e-3, 10 * least))  # ten non-members over the threshold: fewer say nothing of a rate
    axes.set(xscale="log", yscale="log", xlim=(left, 1), ylim=(left, 1.05))
    _plain(axes.xaxis, axes.yaxis)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    text = "; ".join(f"{row['id']} {row['words'].split(';')[0]}: AUC {row['value']:.3f}" for row in found)
    return _picture(
        "Membership, low false positive rates", figure, f"{text}. Bands are exact 95 % intervals of the rate."
    )


def epsilons(rows: Mapping[str, Any]) -> Picture | None:
    """Claim and lower bounds of each channel."""
    channels = [row for row in rows["claims"][1:] if row.get("bounds")]
    if not channels:
        return None
    bars: list[tuple[str, float, str, str]] = []
    for row in channels:
        bars.append((f"{row['channel']}, claim", float(row["epsilon"]), INK, f"{row['epsilon']:.2f}"))
        for bound in row["bounds"]:
            value = row["epsilon"] * 1.5 if bound["value"] == "unbounded" else float(bound["value"])
            colour = PALETTE[("none", "gaussian-curve", "gaussian-scores").index(bound["assumption"]) + 1]
            bars.append((f"   {bound['estimator']}", value, colour, _number(bound["value"])))
    figure, axes = _axes(7.6, 0.9 + 0.28 * len(bars))
    axes.barh(range(len(bars)), [value for _, value, *_ in bars], color=[colour for *_, colour, _ in bars], height=0.7)
    for place, (_, value, _, words) in enumerate(bars):
        axes.text(value, place, f" {words}", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(bars)), [name for name, *_ in bars])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("epsilon")
    text = "; ".join(
        f"{row['channel']}: claim {row['epsilon']:.3f}, bounds "
        + ", ".join(
            f"{bound['estimator']} {_number(bound['value'])} ({bound['assumption']})" for bound in row["bounds"]
        )
        for row in channels
    )
    return _picture("Claims and lower bounds", figure, f"{text}. Each bound stands on the assumption in brackets.")


def growth(rows: Mapping[str, Any]) -> Picture | None:
    """How the best bound grows with the number of canaries, and the reach of perfect guesses."""
    channels = [row for row in rows["claims"][1:] if row.get("by_m")]
    if not channels:
        return None
    figure, axes = _axes(7.6, 3.2)
    text = []
    for place, row in enumerate(channels):
        m = np.array([point[0] for point in row["by_m"]])
        values = [np.nan if point[1] is None else point[1] for point in row["by_m"]]
        colour = PALETTE[place % len(PALETTE)]
        axes.plot(m, values, color=colour, marker="o", markersize=3, label=f"{row['channel']}, best bound")
        axes.axhline(row["epsilon"], color=colour, linewidth=0.9, linestyle="--")
        text.append(f"{row['channel']}: {_number(row['by_m'][-1][1])} of {row['epsilon']:.2f} at {m[-1]} canaries")
    alpha = min(bound["alpha"] for row in channels for bound in row["bounds"] if bound["assumption"] == "none")
    every = np.unique(np.concatenate([[point[0] for point in row["by_m"]] for row in channels]))
    axes.plot(
        every,
        [-np.log(np.expm1(-np.log(alpha) / x)) for x in every],
        color=GRID,
        linewidth=1.6,
        label="reach, no assumption",
    )
    axes.set_xscale("log")
    _plain(axes.xaxis)
    axes.set_xlabel("canaries")
    axes.set_ylabel("epsilon")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    return _picture("Bound by number of canaries", figure, f"{'; '.join(text)}. Dashed: the claims.")


def budget(rows: Mapping[str, Any]) -> Picture | None:
    """What each channel has spent after so many rounds, and the best lower bound by then."""
    channels = [row for row in rows["claims"][1:] if row.get("by_round")]
    if not channels:
        return None
    figure, axes = _axes(7.6, 3.2)
    text = []
    for place, row in enumerate(channels):
        done, spent = [point[0] for point in row["by_round"]], [point[1] for point in row["by_round"]]
        shown = [np.nan if point[2] is None else point[2] for point in row["by_round"]]
        colour = PALETTE[place % len(PALETTE)]
        axes.plot(done, spent, color=colour, linewidth=1.6, label=f"{row['channel']}, spent")
        axes.plot(done, shown, color=colour, linestyle="", marker="o", markersize=5, label=f"{row['channel']}, bound")
        words = ", ".join(f"{_number(b)} of {s:.2f} after {t}" for t, s, b in row["by_round"])
        text.append(f"{row['channel']}: {words}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rounds done")
    axes.set_ylabel("epsilon")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    return _picture("Budget over rounds", figure, f"{'; '.join(text)}. Lines: spent. Points: lower bounds by then.")


def ladder(rows: Mapping[str, Any]) -> Picture | None:
    """PSNR of gradient inversion by noise, with the mean picture's."""
    found = next((row for row in rows["pictures"] if row["kind"] == "ladder"), None)
    if found is None:
        return None
    figure, axes = _axes(7.6, 2.8)
    noise = [row["noise"] for row in found["steps"]]
    values = [min(120.0, row["psnr"]) for row in found["steps"]]
    axes.bar(range(len(noise)), values, color=PALETTE[1], width=0.6)
    for place, value in enumerate(values):
        axes.text(place, value, f"{value:.1f}", ha="center", va="bottom", fontsize=8)
    axes.axhline(found["baseline"], color=PALETTE[3], linestyle="--", linewidth=1.2, label="mean picture")
    axes.set_xticks(range(len(noise)), [f"{value:g}" for value in noise])
    axes.set_xlabel("noise deviation over the clip, per coordinate")
    axes.set_ylabel("PSNR, dB")
    axes.legend(frameon=False, fontsize=8)
    steps = "; ".join(f"noise {row['noise']:g}: {row['psnr']:.1f} dB" for row in found["steps"])
    return _picture(
        "Gradient inversion against noise", figure, f"{steps}; the mean picture has {found['baseline']:.1f} dB."
    )


def reconstructions(rows: Mapping[str, Any]) -> Picture | None:
    """Originals above, what inversion made of a client's upload below."""
    found = next((row for row in rows["pictures"] if row["kind"] == "reconstruction"), None)
    if found is None:
        return None
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    pairs = found["pairs"]
    axes = figure.subplots(2, len(pairs), squeeze=False)
    for column, pair in enumerate(pairs):
        for line, name in enumerate(("original", "reconstruction")):
            axes[line, column].imshow(np.array(pair[name]), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            axes[line, column].set_axis_off()
        axes[0, column].set_title(pair["words"], fontsize=8)
        axes[1, column].set_title(f"{pair['psnr']:.1f} dB", fontsize=8)
    text = "; ".join(f"{pair['words']}: {pair['psnr']:.1f} dB" for pair in pairs)
    return _picture("Originals, and what an upload gave away", figure, f"{text}.")


def _plain(*scales: Axis) -> None:
    """Labels of a logarithmic axis as numbers, without the powers that take fonts of mathematics."""
    for scale in scales:
        scale.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        scale.set_minor_formatter(NullFormatter())


def _number(value: Any) -> str:
    return str(value) if isinstance(value, str) else "–" if value is None else f"{value:.2f}"


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=8)
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.5)
    return figure, axes


def _picture(title: str, figure: Figure, text: str) -> Picture:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = stream.getvalue()
    return Picture(title, svg[svg.index("<svg") :], text)
