"""The report of a comparison: settings side by side, and which differences the seeds settle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framp_private.comparison import HASHES
from framp_private.report.document import (
    Block,
    Cell,
    Document,
    Facts,
    Items,
    Notice,
    Section,
    Table,
    Text,
    joined,
    text,
)
from framp_private.report.points import CHANNEL_HEADER, INFINITE, channel_rows, letter_of, mean_of
from framp_private.report.sources import Data, named, number
from framp_private.report.sweep_trials import HELD

SHOWN = ("local", "union", "unseen", "after_local_training", "worst client")
TESTED = (
    "Settings are compared with the first one over the seeds that both have: mean difference, interval and p of "
    "Student's paired t test. The last column is p corrected (Holm) for all tests of this comparison together: every "
    "measure of every setting, also those that are not shown here. Where settings do not differ, the probability that "
    "any corrected p is at most a level is at most that level. Intervals hold one by one. Of a single common seed "
    "there is a difference and no test. Confidence of all intervals: "
)


def comparison_document(found: Mapping[str, Any], version: str) -> Document:
    """The report of what `comparison.compare` found. version: of the program that renders."""
    data = Data("comparison", found)
    sections = [part(data) for part in (settings, side_by_side, differences, server_view, runs)]
    footer = text("framp_private ", number(Data("report", {"version": version}), "version"))
    return Document("Comparison of runs", "Settings side by side, over seeds", tuple(sections), footer)


def settings(data: Data) -> Section:
    """What each setting is, and what it claims."""
    blocks: list[Block] = [
        Notice("caution", "Mind what is compared", (text(number(data, ("comparable", place))),))
        for place in range(len(data["comparable"]))
    ]
    rows: list[tuple[str, Cell]] = []
    for place, setting in enumerate(data["settings"]):
        at = ("settings", place)
        rows.append((f"setting {letter_of(place).upper()}", _words(data, place)))
        claim: Cell = "no guarantee"
        if setting["claim"] is not None:
            epsilon, delta = number(data, (*at, "claim", "epsilon"), ".3f"), number(data, (*at, "claim", "delta"), "g")
            terms = joined([number(data, (*at, "claim", name)) for name in ("relation", "trust_model", "scope")], ", ")
            claim = text("epsilon ", epsilon, ", delta ", delta, ", unit ", number(data, (*at, "unit")), ", ", terms)
        rows.append((f"claim of a run of {letter_of(place).upper()}", claim))
        seeds = [number(data, (*at, "seeds", index)) for index in range(len(setting["seeds"]))]
        rows.append((f"seeds of {letter_of(place).upper()}", joined(seeds, ", ")))
    blocks.append(Facts(tuple(rows)))
    return Section("Settings", tuple(blocks), "settings")


def _words(data: Data, place: int) -> Text:
    at = ("settings", place)
    what: list[Cell] = [text(number(data, (*at, "method")), " on ", number(data, (*at, "dataset")))]
    for name in data[(*at, "differs")]:
        what.append(text(f"{name} = ", number(data, (*at, "differs", name))))
    return joined(what, ", ")


def side_by_side(data: Data) -> Section:
    """Means over seeds."""
    names = list(dict.fromkeys(name for setting in data["settings"] for name in setting["means"]))
    rows = []
    for name in names:
        form = ".3f" if name.split("/")[0] in SHOWN else ",.0f"
        cells: list[Cell] = []
        for place, setting in enumerate(data["settings"]):
            cells.append(mean_of(data, ("settings", place, "means", name), form) if name in setting["means"] else "–")
        first = next(place for place, setting in enumerate(data["settings"]) if name in setting["means"])
        rows.append((named(data, ("settings", first, "means", name)), *cells))
    epsilons: list[Cell] = []
    for place, setting in enumerate(data["settings"]):
        known = setting["claim"] is not None
        epsilons.append(number(data, ("settings", place, "claim", "epsilon"), ".3f") if known else INFINITE)
    rows.append(("epsilon, the largest of the seeds", *epsilons))
    header = ("measure", *(f"setting {letter_of(place).upper()}" for place in range(len(data["settings"]))))
    return Section("Side by side", (Table("Means over seeds with their intervals.", header, tuple(rows)),), "means")


def differences(data: Data) -> Section:
    """What the seeds settle."""
    rows = []
    for place, row in enumerate(data["differences"]):
        for name, measure in row["measures"].items():
            if name.split("/")[0] not in SHOWN:
                continue
            at = ("differences", place, "measures", name)
            who = text(f"{letter_of(row['setting']).upper()} minus A, ", named(data, at))
            interval: Cell = "–"
            if measure["low"] is not None:
                interval = text(number(data, (*at, "low"), "+.3f"), " to ", number(data, (*at, "high"), "+.3f"))
            adjusted: Cell = number(data, (*at, "p_holm"), ".2g") if "p_holm" in measure else "–"
            figures = (number(data, (*at, "n")), number(data, (*at, "mean"), "+.3f"), interval)
            rows.append((who, *figures, number(data, (*at, "p"), ".2g"), adjusted))
    header = ("difference", "seeds", "mean", "interval", "p", "p, corrected")
    blocks: list[Block] = [text(TESTED, number(data, "confidence", ".0%"), ".", tone="soft")]
    if rows:
        blocks.append(Table("Differences over common seeds.", header, tuple(rows)))
    else:
        blocks.append(
            text("No two settings have a seed in common, or there is one setting only: nothing can be tested.")
        )
    return Section("Differences", tuple(blocks), "differences")


def server_view(data: Data) -> Section:
    """What the server sees of each setting's channels."""
    rows: list[tuple[Cell, ...]] = []
    for place in range(len(data["settings"])):
        view = ("settings", place, "server_view")
        rows += channel_rows(data, letter_of(place).upper(), view, "nothing is sent, or the run does not tell")
    header = ("setting", *CHANNEL_HEADER)
    return Section("What the server sees", (Table("By channel, of one run.", header, tuple(rows)),), "server")


def runs(data: Data) -> Section:
    """Which runs these are, by what they can be checked, and what stands in their own reports alone."""
    rows = []
    for place, setting in enumerate(data["settings"]):
        for at, run in enumerate(setting["runs"]):
            path = ("settings", place, "runs", at)
            own = [number(data, (*path, name)) if run[name] is not None else "–" for name in HASHES]
            seed, folder = number(data, (*path, "seed")), number(data, (*path, "folder"))
            rows.append((letter_of(place).upper(), seed, folder, *own))
    header = ("setting", "seed", "folder", "configuration, SHA-256", "code, SHA-256", "data, commitment")
    words = text("A comparison holds means over runs. Of each run alone, the report in its own folder holds:")
    table = Table("The runs that were compared.", header, tuple(rows))
    return Section("The runs and their own reports", (table, words, Items(HELD)), "runs")
