"""The report of a sweep: what privacy costs, for whom, and what choosing from the sweep costs on top."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framp_private.report.document import Block, Document, Notice, Section, Text, joined, text
from framp_private.report.points import mean_of, one_partition
from framp_private.report.sources import Data, number
from framp_private.report.sweep_audits import audits
from framp_private.report.sweep_choosing import CHOSEN, choosing, chosen
from framp_private.report.sweep_claims import claims
from framp_private.report.sweep_frontier import frontier
from framp_private.report.sweep_points import cost, points, server_view
from framp_private.report.sweep_provenance import reproducibility
from framp_private.report.sweep_trials import Runs, runs, trials

EXPERIMENTER = (
    "Accuracies are the experimenter's own view of simulated runs: exact, in no channel, and covered by no claim below."
)
CAUTION = (
    "Each mean is over the seeds that the sweep was planned with, whatever they gave; no run was picked. Intervals are "
    "Student's over seeds: they tell how far "
)
MOVES = {True: "noise and initialisation", False: "noise, initialisation and partition"}
"""What differs from seed to seed, by whether all runs hold the same partition."""
OTHERS = " move a mean, and nothing of other data. Their confidence: "
UNDONE = ("running", "waiting")
UNFINISHED = "Trials are still to be run: what stands here is of those that are done"


def sweep_document(summary: Mapping[str, Any], version: str, folder: Path | None = None) -> Document:
    """The report of a sweep, from its summary.

    Args:
        summary: as `sweep.results.summarise` makes it; `sweep_shape.check_summary` tells whether it is whole.
        version: of the program that renders.
        folder: of the sweep, where the page is going to lie. Reports of runs that are there are linked, and none
            without it: of the others the page says that they are on the machine that ran them.
    """
    data = Data("summary", summary)
    best = summary["choosing"]["publish"] == "best"
    sections = _of_the_best(data) if best else _of_all(data, Runs(data, folder))
    title = text("Sweep ", number(data, "sweep"))
    states = [text(number(data, ("trials", name)), f" {name}") for name in ("planned", "done", "failed", "pruned")]
    subtitle = text("Report of a sweep") if best else text("Report of a sweep, trials: ", joined(states, ", "))
    footer = text("framp_private ", number(Data("report", {"version": version}), "version"), ". Every number is read ")
    return Document(title, subtitle, sections, text(footer, "from summary.json of the sweep's folder."))


def _of_the_best(data: Data) -> tuple[Section, ...]:
    """What may be shown where one run is chosen and all others stay secret."""
    return headline(data), choosing(data), chosen(data), reproducibility(data)


def _of_all(data: Data, own: Runs) -> tuple[Section, ...]:
    found = (
        headline(data),
        frontier(data),
        claims(data),
        points(data),
        audits(data),
        choosing(data),
        server_view(data),
        cost(data),
        runs(data, own),
        trials(data, own),
        reproducibility(data),
    )
    return tuple(section for section in found if section is not None)


def headline(data: Data) -> Section:
    """What the sweep found, in a few lines."""
    if data["choosing"]["publish"] == "best":
        line = "One run is chosen, and nothing else of this sweep may be shown to anybody"
        return Section("In short", (Notice("caution", line, (text(CHOSEN),)),), "short")
    lines = [
        _reached_by_all(data, place)
        for place, front in enumerate(data["frontier"])
        if front["budget"] == "mean" and any(row["state"] == "front" for row in front["points"])
    ]
    if not lines:
        lines = [text("No point has a guarantee and all its replicates: there is no frontier.")]
    blocks: list[Block] = [Notice("good" if data["frontier"] else "bad", "What privacy costs", tuple(lines))]
    if data["refuted"]:
        which = joined([number(data, ("refuted", at)) for at in range(len(data["refuted"]))], ", ")
        told = text("Trials: ", which, ". Their audits say why.")
        blocks.insert(0, Notice("bad", "An audit refuted the claim of a run", (told,)))
    if any(data[("trials", name)] for name in UNDONE):
        counts = [text(number(data, ("trials", name)), f" {name}") for name in UNDONE]
        blocks.insert(0, Notice("caution", UNFINISHED, (text(joined(counts, ", "), "."),)))
    confidence = number(data, "confidence", ".0%")
    blocks.append(text(CAUTION, MOVES[one_partition(data)], OTHERS, confidence, ".", tone="soft"))
    return Section("In short", (*blocks, text(EXPERIMENTER, tone="soft")), "short")


def _reached_by_all(data: Data, place: int) -> Text:
    """The front over all budgets of one kind of claim, and whom these claims trust."""
    at = [row["place"] for row in data["frontier"][place]["points"] if row["state"] == "front"]
    reached = joined([_reached(data, point) for point in at], "; ")
    first = {data[("points", point, "claim", "trust_model")]: point for point in reversed(at)}
    trust = [number(data, ("points", point, "claim", "trust_model")) for point in sorted(first.values())]
    unit = number(data, ("frontier", place, "unit"))
    return text("Unit ", unit, ", local accuracy over all budgets: ", reached, ". Trust: ", joined(trust, "; "), ".")


def _reached(data: Data, place: int) -> Text:
    at = ("points", place)
    value = mean_of(data, (*at, "intervals", "local", "mean"))
    return text("epsilon ", number(data, (*at, "epsilon"), ".3g"), " reaches ", value)
