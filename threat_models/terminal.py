"""What a person sees in the terminal. Everything fits 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from threat_models.summing_up import LEGEND

WIDTH = 80
_COLOURS = {"refuted": "bold red", "violation": "bold red", "open": "yellow", "unclear": "yellow", "bounded": "green"}


def audit_table(rows: Mapping[str, Any], folder: Path) -> RenderableType:
    """What was found in a sentence, claims with their states, attacks with a legend, then findings."""
    claims = _table("claims", ("claim", "epsilon", "lower bound", "state"))
    for row in rows["claims"]:
        name = row.get("channel", f"run, one {row['unit']}")
        epsilon = "none" if row["epsilon"] is None else f"{row['epsilon']:.3f}"
        claims.add_row(name, epsilon, _best(row.get("bounds", [])), Text(_state(row), _COLOURS.get(row["state"], "")))
    attacks = _table("attacks", ("id", "by", "asset, or how", "statistic", "value", "chance", "ceiling", "leak"))
    for row in rows["attacks"]:
        shown = row["leak"] if row["value"] is not None else "–"  # nothing in the view to work on
        leak = Text(shown, _COLOURS.get(shown, "dim"))
        asset = (
            row["words"].split(",")[0] if row["id"] in ("A1", "C5", "E1") and row["value"] is not None else row["asset"]
        )
        attacks.add_row(row["id"], row["adversary"].split()[-1], asset, row["statistic"], *_figures(row), leak)
    found_ = Text(rows.get("summary", ""), style="bold")
    meanings = Text("; ".join(f"{leak}: {words}" for leak, words in LEGEND.items()), style="dim")
    parts: list[RenderableType] = [found_, claims, attacks, meanings]
    if rows["findings"]:
        found = _table("findings", ("check", "channel", "what"))
        for row in rows["findings"]:
            found.add_row(row["check"], row["channel"], row["words"])
        parts.append(found)
    parts += [Text(f"note: {note}", style="dim") for note in rows["notes"]]
    parts.append(Text(f"source: {rows['source']}; a lower bound never certifies a claim", style="dim"))
    parts.append(Text(f"report: {folder / 'audit.html'}", overflow="fold"))
    return Group(*parts)


def _state(row: Mapping[str, Any]) -> str:
    if row["epsilon"] is None:
        return "NOT DP: nothing is claimed"
    return str(row["words"]).split(":")[0] if row["state"] == "consistent" else str(row["words"] or row["state"])


def _best(bounds: Sequence[Mapping[str, Any]]) -> str:
    if not bounds:
        return "–"
    values = [bound["value"] for bound in bounds]
    if "unbounded" in values:
        return "unbounded"
    return f"{max(values):.2f}"


def _figures(row: Mapping[str, Any]) -> tuple[str, str, str]:
    if row["value"] is None:
        return "–", "–", "–"
    return tuple("–" if row[name] is None else f"{row[name]:.3f}" for name in ("value", "baseline", "ceiling"))  # type: ignore[return-value]


def plan_table(rows: Mapping[str, Any]) -> RenderableType:
    """By channel: what can be refuted."""
    table = _table(
        "what an audit could refute",
        ("channel", "epsilon", "m", "needed", "reach", "assumes nothing", "Gaussian", "power, %"),
    )
    notes = []
    for name, row in rows["channels"].items():
        shown = [f"{row['epsilon']:.3f}", str(row["canaries"]), f"{row['guesses_needed']:,}"]
        shown += [f"{row['reach']:.2f}" if row["canaries"] else "–"]
        expected = row.get("expected", {})
        shown += [f"{max(expected[each] for each in expected if each != 'parametric'):.2f}" if expected else "–"]
        shown += ["–" if not row.get("parametric") else f"{row['parametric']:.2f}"]
        shown += [" ".join(f"{100 * value:.0f}" for value in row["power"].values()) if row["canaries"] else "–"]
        table.add_row(name, *shown)
        if row["canaries"] and not row["can_refute"]:
            notes.append(Text(f"{name}: no outcome could refute this claim", style="dim"))
        if row.get("tested", row["epsilon"]) != row["epsilon"]:
            notes.append(Text(f"{name}: what is tested is one round's claim, epsilon {row['tested']:.3f}", style="dim"))
        if row.get("why"):
            notes.append(Text(f"{name}: {row['why']}", style="dim"))
    seconds = "" if rows["seconds"] is None else f", about {rows['seconds']:.0f} s"
    words = (
        f"cost: {rows['runs']} run of {rows['rounds']} rounds with {rows['clients']} clients{seconds}, and attacks. "
        "m: canaries; needed: right guesses to pass the claim; reach: the largest bound that assumes nothing. assumes "
        "nothing, Gaussian: what each estimator shows of a true claim. power: how often the claim is refuted if there "
        "is .9, .7, .5 of its noise."
    )
    if not rows["channels"]:
        return Text("nothing is claimed for any channel: there is no epsilon to refute, and attacks alone will run")
    return Group(table, *notes, Text(words))


def catalogue_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """id, name, adversary, asset."""
    table = _table("attacks", ("id", "name", "adversary", "asset"))
    for row in rows:
        table.add_row(row["id"], row["name"], row["adversary"], row["asset"])
    return table


def membership_table(rows: Mapping[str, Any]) -> RenderableType:
    """AUC and TPR by attack."""
    table = _table("membership", ("attack", "AUC", "95 %", "TPR at 1 %", "TPR at 10 %"))
    notes = []
    for name, row in rows["attacks"].items():
        if "why" in row:
            table.add_row(name, "–", "–", "–", "–")
            notes.append(Text(f"{name}: {row['why']}", style="dim"))
            continue
        rates = []
        for key in ("tpr_at_0.01", "tpr_at_0.1"):
            rate = row[key]
            rates.append("not resolvable" if isinstance(rate, str) else f"{rate[0]:.3f}")
        table.add_row(name, f"{row['auc']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}", *rates)
    counts = f"{rows['members']} members, {rows['non_members']} non-members"
    counts += f", {rows['references']} references, {rows['shadows']} shadows"
    return Group(table, *notes, Text(counts, style="dim"))


def _table(title: str, names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", width=WIDTH, padding=(0, 1, 0, 0))
    for name in names:
        right = name in (
            "epsilon",
            "lower bound",
            "value",
            "chance",
            "ceiling",
            "canaries",
            "m",
            "assumes nothing",
            "Gaussian",
            "power, %",
            "needed",
            "reach",
        )
        table.add_column(name, justify="right" if right else "left")
    return table
