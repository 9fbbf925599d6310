"""What a sweep as a whole has spent, and the one run that may be shown where only the best is published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framp_private.report.document import Block, Cell, Section, Table, joined, text
from framp_private.report.points import one_partition
from framp_private.report.sources import Data, number

CHOSEN = (
    "A number of repetitions was drawn and kept secret, each with a setting drawn from a public list; the claim below "
    "is for the release of the best of them and of nothing else. It does not hold for anybody who sees this folder: "
    "summary.json and the other trials stay with the operator. Nor does it hold for a server or a client that took "
    "part in the runs: they have seen all of them, and against them all of them compose."
)
RULES = {
    "public": "The sweep says that its records are public, training included. Then choosing a setting from it tells "
    "nothing of anybody. What it would cost if they were not stands below.",
    "private": "Whoever picks a setting from these tables has used what all runs found. All of them compose, and the "
    "claim of a single run does not cover the choice.",
}
"""Where all runs are published, by whose records they are."""
TOGETHER = (
    "Epsilon of one run alone, of all runs with a guarantee of these terms together, and of everything that choosing "
    "has used; by the sweep's own ledgers. There is no such number where a run of the sweep guarantees nothing of "
    "these terms. Each claim needs every party that is named."
)
BEST_ALONE = "What publishing the best run alone costs, by the sweep's own ledger."
COVERED = (
    "Covered is what runs released of the records they trained on. Validation and test records, by which runs are "
    "judged, were read exactly and are covered by no epsilon."
)
PARTITIONS = {
    True: " All runs hold the same partition: no record that one of them trains on is read exactly to judge another.",
    False: " Runs hold different partitions, as one that is drawn anew at each seed: a record that trains in one run "
    "may be read exactly in another, and a client holds other records.",
}
"""By whether there is one alone."""
EXACT = (
    " Accuracies after training at home, and audits, read training records exactly, and no number here covers a choice "
    "by them."
)


def choosing(data: Data) -> Section:
    """What the sweep as a whole has spent."""
    best = data["choosing"]["publish"] == "best"
    rows = tuple(_account(data, place, best) for place in range(len(data["choosing"]["accounts"])))
    counted = ("runs", "without guarantee", "of other terms", "dearest run alone", "those with a guarantee")
    header = ("unit", "relation", *(() if best else counted), "with choosing", "delta", "trust models")
    blocks: list[Block] = [text(CHOSEN if best else RULES[data["choosing"]["records"]])]
    if rows:
        blocks.append(Table(BEST_ALONE if best else TOGETHER, header, rows))
        blocks.append(text(COVERED, PARTITIONS[one_partition(data)], EXACT, tone="caution"))
    else:
        blocks.append(text("Nothing was released, so nothing was spent."))
    return Section("The cost of choosing", tuple(blocks), "choosing")


def _account(data: Data, place: int, best: bool) -> tuple[Cell, ...]:
    at, account = ("choosing", "accounts", place), data["choosing"]["accounts"][place]
    whole: Cell = "none" if account["epsilon"] is None else number(data, (*at, "epsilon"), ".3f")
    part = number(data, (*at, "epsilon_with_guarantee"), ".3f")
    counts = [number(data, (*at, name)) for name in ("runs", "without_guarantee", "outside")]
    trust = [number(data, (*at, "trust_models", index)) for index in range(len(account["trust_models"]))]
    terms: list[Cell] = [number(data, (*at, "unit")), number(data, (*at, "relation"))]
    middle: list[Cell] = [] if best else [*counts, _dearest(data, account), part]
    return (*terms, *middle, whole, number(data, (*at, "delta"), "g"), joined(trust, "; "))


def _dearest(data: Data, account: Mapping[str, Any]) -> Cell:
    places = [place for place, point in enumerate(data["points"]) if _in_account(point, account)]
    if not places:
        return "–"
    worst = max(places, key=lambda place: float(data["points"][place]["epsilon"]))
    return number(data, ("points", worst, "epsilon"), ".3f")


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
