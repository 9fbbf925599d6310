"""What audits of a sweep's runs found, by point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from framp_private.report.document import Cell, Section, Table, joined, text
from framp_private.report.exposure import CAUTION
from framp_private.report.points import INFINITE, epsilon_of, name_of
from framp_private.report.sources import Data, number

BOUND = text(
    "A lower bound is the largest of all sound ones of a run's audit, whichever of the run's claims it was found "
    "against; infinite if none limits it. Which claim, by what attack and with what confidence stands in audit.html of "
    "the run's folder.",
    tone="soft",
)


def audits(data: Data) -> Section | None:
    """For every point with audited runs: its claim, the largest lower bound, what was refuted; None without audits."""
    by_point: dict[int, list[int]] = {}
    for at, row in enumerate(data["rows"]):
        if row["state"] == "complete" and _audited(row["result"]):
            by_point.setdefault(row["place"], []).append(at)
    if not by_point:
        return None
    rows = tuple(
        (name_of(data, place), epsilon_of(data, place), _largest(data, found), _refuted(data, found))
        for place, found in sorted(by_point.items())
    )
    header = ("point", "claimed epsilon", "largest lower bound", "refuted")
    caption = "Audited runs by point: the largest claim of its seeds, and the largest lower bound of all its runs."
    return Section("Audits", (CAUTION, Table(caption, header, rows), BOUND), "audits")


def _audited(result: Mapping[str, Any]) -> bool:
    """An audited run that refuted nothing has an empty list there; one that was not audited has null."""
    return result.get("empirical_epsilon") is not None or result.get("refuted") is not None


def _largest(data: Data, found: Sequence[int]) -> Cell:
    """Null in the row of an audited run is an infinite bound, which JSON has no number for."""
    bounds = {at: data[("rows", at, "result")].get("empirical_epsilon") for at in found}
    largest = max(bounds, key=lambda at: math.inf if bounds[at] is None else float(bounds[at]))
    path = ("rows", largest, "result", "empirical_epsilon")
    return INFINITE if bounds[largest] is None else number(data, path, ".3f")


def _refuted(data: Data, found: Sequence[int]) -> Cell:
    """Which claims of which trials."""
    told: list[Cell] = []
    for at in found:
        scopes = data[("rows", at, "result")].get("refuted") or ()
        which = [number(data, ("rows", at, "result", "refuted", place)) for place in range(len(scopes))]
        if which:
            told.append(text("trial ", number(data, ("rows", at, "number")), ": ", joined(which, ", ")))
    return joined(told, "; ") if told else "no"
