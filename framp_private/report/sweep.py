"""The report of a sweep: what privacy costs, for whom, and what choosing from the sweep costs on top."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from framp_private.report import sweep_figures as figures
from framp_private.report.document import (
    Block,
    Cell,
    Code,
    Details,
    Document,
    Figure,
    Items,
    Link,
    Notice,
    Section,
    Table,
    Text,
    joined,
    text,
)
from framp_private.report.points import INFINITE, mean_of, name_of, state_of
from framp_private.report.sources import Data, named, number

EXPERIMENTER = (
    "Accuracies are the experimenter's own view of simulated runs: exact, in no channel, and covered by no claim below."
)
CAUTION = (
    "Each mean is over the seeds that the sweep was planned with, whatever they gave; no run was picked. Intervals are "
    "Student's over seeds: they tell how far noise, initialisation and partition move a mean, and nothing of other "
    "data. "
    "Their confidence: "
)
STATES = {
    "front": "no other point has at most its epsilon, up to a five-hundredth, and a higher mean",
    "behind": "another point is ahead in the mean, and the seeds do not settle that it truly is",
    "beaten": "another point costs no more and is ahead by a paired t test over seeds",
}


def sweep_document(summary: Mapping[str, Any], version: str) -> Document:
    """The report of a sweep, from its summary.

    Args:
        summary: as `sweep.results.summarise` makes it. version: of the program that renders.
    """
    data = Data("summary", summary)
    best = summary["choosing"]["publish"] == "best"
    parts = (headline, choosing, chosen, reproducibility) if best else ALL
    sections = tuple(section for part in parts if (section := part(data)) is not None)
    title = text("Sweep ", number(data, "sweep"))
    states = [text(number(data, ("trials", name)), f" {name}") for name in ("planned", "done", "failed", "pruned")]
    subtitle = text("Report of a sweep") if best else text("Report of a sweep, trials: ", joined(states, ", "))
    footer = text("framp_private ", number(Data("report", {"version": version}), "version"), ". Every number is read ")
    return Document(title, subtitle, sections, text(footer, "from summary.json of the sweep's folder."))


def headline(data: Data) -> Section:
    """What the sweep found, in a few lines."""
    if data["choosing"]["publish"] == "best":
        line = "One run is chosen, and nothing else of this sweep may be shown to anybody"
        return Section("In short", (Notice("caution", line, (text(CHOSEN),)),), "short")
    lines: list[Text] = []
    for place, front in enumerate(data["frontier"]):
        on_front = [at for at, row in enumerate(front["points"]) if row["state"] == "front"]
        if front["budget"] == "mean" and on_front:
            reached = [_reached(data, front["points"][at]["place"]) for at in on_front]
            unit = number(data, ("frontier", place, "unit"))
            lines.append(text("Unit ", unit, ", local accuracy over all budgets: ", joined(reached, "; "), "."))
    if not lines:
        lines.append(text("No point has a guarantee and all its replicates: there is no frontier."))
    blocks: list[Block] = [Notice("good" if data["frontier"] else "bad", "What privacy costs", tuple(lines))]
    if data["refuted"]:
        which = joined([number(data, ("refuted", at)) for at in range(len(data["refuted"]))], ", ")
        told = text("Trials: ", which, ". Their audits say why.")
        blocks.insert(0, Notice("bad", "An audit refuted the claim of a run", (told,)))
    blocks += [text(CAUTION, number(data, "confidence", ".0%"), ".", tone="soft"), text(EXPERIMENTER, tone="soft")]
    return Section("In short", tuple(blocks), "short")


def _reached(data: Data, place: int) -> Text:
    at = ("points", place)
    value = mean_of(data, (*at, "intervals", "local", "mean"))
    return text("epsilon ", number(data, (*at, "epsilon"), ".3g"), " reaches ", value)


def claims(data: Data) -> Section:
    """Every point's claim with all its terms."""
    rows: list[tuple[Cell, ...]] = []
    for place, point in enumerate(data["points"]):
        at = ("points", place)
        if point["claim"] is None:
            rows.append((name_of(data, place), *_without_claim(data, place)))
            continue
        terms = [number(data, (*at, "claim", name)) for name in ("relation", "trust_model")]
        epsilon, delta = number(data, (*at, "epsilon"), ".3f"), number(data, (*at, "claim", "delta"), "g")
        rows.append((name_of(data, place), number(data, (*at, "unit")), epsilon, delta, *terms))
    table = Table(
        "What one run of each point claims, alone; epsilon is the largest of its seeds. Epsilons of different units or "
        "trust models are not comparable.",
        ("point", "unit", "epsilon", "delta", "relation", "trust model"),
        tuple(rows),
    )
    words = text(
        "A claim bounds what anybody learns of one unit from everything that one run released. Several runs on the "
        "same "
        "records compose: see ",
        Link("the cost of choosing", "#choosing"),
        ".",
    )
    return Section("What is claimed", (words, table), "claims")


def _without_claim(data: Data, place: int) -> tuple[Cell, ...]:
    point = data["points"][place]
    if not point["objectives"]:
        return ("–", "–", "–", "–", "pruned" if point["pruned"] else "no run of it ended well")
    if point["epsilon"] == 0:
        return ("–", number(data, ("points", place, "epsilon")), "–", "–", "nobody: no message was sent")
    return ("–", INFINITE, "–", "–", "none: no guarantee")


def frontier(data: Data) -> Section | None:
    """Pictures and tables, by unit and budget."""
    blocks: list[Block] = []
    for unit in dict.fromkeys(front["unit"] for front in data["frontier"]):
        several = sum(front["unit"] == unit for front in data["frontier"]) > 2  # one budget is all budgets
        blocks += [
            Figure(figures.frontier(data, unit)),
            *([Figure(figures.by_budget(data, unit))] if several else []),
            Details("The same as a table", (_front_table(data, unit),)),
        ]
    if not blocks:
        return None
    meanings = Items(tuple(f"{state}: {meaning}" for state, meaning in STATES.items()))
    return Section("Privacy and utility", (*blocks, meanings), "frontier")


def _front_table(data: Data, unit: str) -> Table:
    fronts = [front for front in data["frontier"] if front["unit"] == unit]
    places = dict.fromkeys(row["place"] for front in fronts for row in front["points"])
    rows = []
    for place in places:
        point = ("points", place)
        cells: list[Cell] = [name_of(data, place), number(data, (*point, "epsilon"), ".3g")]
        for front in fronts:
            standing = state_of(front, place)
            shown: Cell = "–"
            if standing is not None:
                shown = text(mean_of(data, (*point, "intervals", "local", front["budget"])), f", {standing}")
            cells.append(shown)
        rows.append(tuple(cells))
    header: list[Cell] = ["point", "epsilon"]
    for budget in (front["budget"] for front in fronts):
        header.append("all budgets" if budget == "mean" else text("budget ", _budget(data, budget)))
    first = next(at for at, front in enumerate(data["frontier"]) if front["unit"] == unit)
    caption = "Local accuracy by budget, mean with interval, and where the point stands; unit "
    return Table(text(caption, number(data, ("frontier", first, "unit"))), tuple(header), tuple(rows))


def _budget(data: Data, budget: str) -> Cell:
    place = next(at for at, point in enumerate(data["points"]) if budget in point["accuracies"].get("local", {}))
    return named(data, ("points", place, "intervals", "local", budget))


def points(data: Data) -> Section:
    """Objectives, and those whom means hide."""
    objectives = [(at, row["name"]) for at, row in enumerate(data["objectives"])]
    rows = []
    for place, point in enumerate(data["points"]):
        at = ("points", place)
        cells: list[Cell] = [name_of(data, place), number(data, (*at, "replicates"))]
        if point["objectives"]:
            cells += [_objective(data, place, name) for _, name in objectives]
            cells.append(mean_of(data, (*at, "worst_client")))
        else:
            cells += ["pruned" if point["pruned"] else "failed"] + [""] * len(objectives)
        rows.append(tuple(cells))
    header: list[Cell] = ["point", "runs", *(number(data, ("objectives", at, "name")) for at, _ in objectives)]
    meant = [
        text(number(data, ("objectives", at, "name")), ": ", number(data, ("objectives", at, "words")))
        for at, _ in objectives
    ]
    caption = "Every point: mean over its seeds, with its interval."
    table = Table(caption, (*header, "worst client"), tuple(rows))
    return Section("All points", (table, Items(tuple(meant))), "points")


def _objective(data: Data, place: int, name: str) -> Cell:
    at = ("points", place, "objectives", name)
    if data[(*at, "mean")] is None:
        return INFINITE
    form = ".3f" if abs(data[(*at, "mean")]) < 1000 else ",.0f"
    return mean_of(data, at, form)


CHOSEN = (
    "A number of repetitions was drawn and kept secret, each with a setting drawn from a public list; the claim "
    "below is "
    "for the release of the best of them and of nothing else. It does not hold for anybody who sees this folder: "
    "summary.json and the other trials stay with the operator. Nor does it hold for a server or a client that "
    "took part "
    "in the runs: they have seen all of them, and against them all of them compose."
)


def choosing(data: Data) -> Section:
    """What the sweep as a whole has spent."""
    rules = {
        (
            "public",
            "all",
        ): "The sweep says that its records are public, training included. Then choosing a setting from it "
        "tells nothing of anybody. What it would cost if they were not stands below.",
        (
            "private",
            "all",
        ): "Whoever picks a setting from these tables has used what all runs found. All of them compose, "
        "and the claim of a single run does not cover the choice.",
    }
    records, publish = data["choosing"]["records"], data["choosing"]["publish"]
    words = CHOSEN if publish == "best" else rules[(records, publish)]
    rows = []
    for place, account in enumerate(data["choosing"]["accounts"]):
        at = ("choosing", "accounts", place)
        whole: Cell = "none" if account["epsilon"] is None else number(data, (*at, "epsilon"), ".3f")
        part = number(data, (*at, "epsilon_with_guarantee"), ".3f")
        counts = [number(data, (*at, name)) for name in ("runs", "without_guarantee", "outside")]
        trust = [number(data, (*at, "trust_models", index)) for index in range(len(account["trust_models"]))]
        terms: list[Cell] = [number(data, (*at, "unit")), number(data, (*at, "relation"))]
        middle: list[Cell] = [] if publish == "best" else [*counts, _dearest(data, account), part]
        rows.append((*terms, *middle, whole, number(data, (*at, "delta"), "g"), joined(trust, "; ")))
    counted = ("runs", "without guarantee", "of other terms", "dearest run alone", "those with a guarantee")
    header = ("unit", "relation", *(() if publish == "best" else counted), "with choosing", "delta", "trust models")
    blocks: list[Block] = [text(words)]
    if rows:
        blocks.append(Table(BEST_ALONE if publish == "best" else TOGETHER, header, tuple(rows)))
        blocks.append(text(COVERED, tone="caution"))
    else:
        blocks.append(text("Nothing was released, so nothing was spent."))
    return Section("The cost of choosing", tuple(blocks), "choosing")


TOGETHER = (
    "Epsilon of one run alone, of all runs with a guarantee of these terms together, and of everything that choosing "
    "has used; by the sweep's own ledgers. There is no such number where a run of the sweep guarantees nothing "
    "of these "
    "terms. Each claim needs every party that is named."
)
BEST_ALONE = "What publishing the best run alone costs, by the sweep's own ledger."


def _dearest(data: Data, account: Mapping[str, Any]) -> Cell:
    places = [place for place, point in enumerate(data["points"]) if _in_account(point, account)]
    if not places:
        return "–"
    worst = max(places, key=lambda place: float(data["points"][place]["epsilon"]))
    return number(data, ("points", worst, "epsilon"), ".3f")


COVERED = (
    "Covered is what runs released of the records they trained on. Validation and test records, by which runs "
    "are judged, "
    "were read exactly and are covered by no epsilon. The partition is drawn anew at each seed: a record that "
    "trains in "
    "one run may be read exactly in another, and a client holds other records. Accuracies after training at home, and "
    "audits, read training records exactly, and no number here covers a choice by them."
)


def _in_account(point: Mapping[str, Any], account: Mapping[str, Any]) -> bool:
    claim = point["claim"]
    return bool(claim and point["unit"] == account["unit"] and claim["relation"] == account["relation"])


def chosen(data: Data) -> Section:
    """Where only the best may be shown: its setting and what it reached."""
    if data["chosen"] is None:
        return Section("The chosen run", (text("No repetition ended well: nothing may be published."),), "chosen")
    axes = [text(f"{name} ", number(data, ("chosen", "axes", name))) for name in data["chosen"]["axes"]]
    reached = number(data, "chosen.value", ".3f")
    words = text(joined(axes, ", "), ": ", number(data, ("objectives", 0, "name")), " ", reached, ".")
    return Section("The chosen run", (words,), "chosen")


def server_view(data: Data) -> Section:
    """What the server sees of each point's channels; points that look alike stand together."""
    groups: dict[str, list[int]] = {}
    for place, point in enumerate(data["points"]):
        if point["objectives"]:
            groups.setdefault(json.dumps(point["server_view"], sort_keys=True), []).append(place)
    rows: list[tuple[Cell, ...]] = []
    for places in groups.values():
        first = ("points", places[0], "server_view")
        who = joined([name_of(data, place) for place in places], "; ")
        if not data[first]:
            rows.append((who, "–", "nothing is sent", "–", "–"))
        for channel in data[first]:
            at = (*first, channel)
            cells = [number(data, (*at, name)) for name in ("protection", "granularity", "trust")]
            rows.append((who, named(data, at), *cells))
    header = ("points", "channel", "protection", "granularity", "trust")
    return Section("What the server sees", (Table("By channel, of one run.", header, tuple(rows)),), "server")


def cost(data: Data) -> Section:
    """Bytes and seconds."""
    rows = []
    for place, point in enumerate(data["points"]):
        if point["objectives"]:
            at = ("points", place)
            sizes = mean_of(data, (*at, "bytes"), ",.0f"), mean_of(data, (*at, "seconds"), ".1f")
            rows.append((name_of(data, place), *sizes))
    caption = "Bytes carried both ways and wall-clock seconds of a run, means with intervals; other work slows seconds."
    return Section("Traffic and time", (Table(caption, ("point", "bytes", "seconds"), tuple(rows)),), "cost")


def trials(data: Data) -> Section:
    """Every trial, with the way to its own report; failed ones with their reason."""
    blocks: list[Block] = []
    failed = [at for at, row in enumerate(data["rows"]) if row["state"] == "failed"]
    if failed:
        reasons = []
        for at in failed:
            reasons.append(
                text("trial ", number(data, ("rows", at, "number")), " failed: ", number(data, ("rows", at, "reason")))
            )
        blocks.append(Notice("bad", "Trials that failed, and why", tuple(reasons)))
    rows = []
    for at, row in enumerate(data["rows"]):
        link: Cell = Link("report", f"trials/{row['number']:04d}/report.html") if row["state"] == "complete" else ""
        seed = number(data, ("rows", at, "seed"))
        state = text(number(data, ("rows", at, "state")), " (screening)" if row["screening"] else "")
        rows.append((number(data, ("rows", at, "number")), name_of(data, row["place"]), seed, state, link))
    table = Table("All trials.", ("trial", "point", "seed", "state", "its own report"), tuple(rows))
    return Section("Trials", (*blocks, Details("All trials in a table", (table,))), "trials")


def reproducibility(data: Data) -> Section:
    """Everything it takes to run the sweep again."""
    blocks: list[Block] = []
    rows = []
    for place, row in enumerate(data["provenance"]):
        at = ("provenance", place)
        versions = [text(f"{name} ", number(data, (*at, "versions", name))) for name in (row["versions"] or {})]
        rows.append((number(data, (*at, "code_sha256")), joined(versions, ", ")))
    if len(rows) > 1:
        blocks.append(Notice("caution", "Trials were run by different code: they are not alike", ()))
    if rows:
        blocks.append(Table("Code and versions of the trials.", ("code, SHA-256", "versions"), tuple(rows)))
    seeds = [number(data, ("spec", "seeds", at)) for at in range(len(data["spec"]["seeds"]))]
    blocks.append(
        text(
            "Seeds, the same for every point: ",
            joined(seeds, ", "),
            ". Digest of the sweep: ",
            number(data, "digest"),
            ".",
        )
    )
    heads = (
        []
        if data["choosing"]["publish"] == "best"
        else [
            text(
                number(data, ("choosing", "accounts", at, "ledger", "file")),
                ": ",
                number(data, ("choosing", "accounts", at, "ledger", "rows")),
                " rows, head ",
                number(data, ("choosing", "accounts", at, "ledger", "hash")),
            )
            for at in range(len(data["choosing"]["accounts"]))
        ]
    )
    if heads:
        blocks.append(Items(tuple(heads)))
    spec = yaml.safe_dump(dict(data["spec"]), sort_keys=False)
    blocks.append(Details("The sweep as it was run", (Code("sweep.yaml", spec),)))
    own = "Configuration, seeds, hashes, model card and impact assessment of each run stand in that run's own report."
    return Section("Reproducibility", (*blocks, text(own)), "reproducibility")


ALL = (headline, frontier, claims, points, choosing, server_view, cost, trials, reproducibility)
