"""The trials of a sweep, and the way from each to the report of its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from framp_private.report.document import Block, Cell, Details, Items, Link, Notice, Section, Table, Text, joined, text
from framp_private.report.points import folded, name_of
from framp_private.report.sources import Data, number

AWAY = "on the machine that ran it"
HELD = (
    "accuracy of every client and its spread, by budget and by round",
    "the privacy statement after NIST SP 800-226: mechanisms, composition, hazards, and epsilon by round",
    "attacks and audited claims, if the run was audited: in audit.html beside the report, and in the report itself "
    "once framp-private report has written it anew",
    "traffic by channel, seconds by phase, ledger heads and all settings",
    "the model card",
    "the fields of an impact assessment under Art. 35 of Regulation (EU) 2016/679, with gaps that people must fill",
)


@dataclass(frozen=True)
class Runs:
    """The runs of a sweep's trials, as far as a page in the sweep's folder can link to them.

    Args:
        data: the sweep's summary. folder: where the page is going to lie; None links nothing.
    """

    data: Data
    folder: Path | None = None

    def link(self, at: int, file: str, words: str) -> Link | None:
        """The way to a file of the run in a row of `rows`; None where it is not beside the page."""
        path = f"trials/{self.data[('rows', at, 'number')]:04d}/{file}"
        return Link(words, path) if self.folder is not None and (self.folder / path).is_file() else None

    def report(self, at: int) -> Cell | None:
        """The ways to the report and to the audit of a run; None if the report is elsewhere."""
        report, audit = self.link(at, "report.html", "report"), self.link(at, "audit.html", "audit")
        return text(report, ", ", audit) if report is not None and audit is not None else report


def runs(data: Data, own: Runs) -> Section:
    """What means over runs leave out, and where it stands, by point."""
    by_point: dict[int, list[int]] = {}
    for at, row in enumerate(data["rows"]):
        if row["state"] == "complete" and not row["screening"]:
            by_point.setdefault(row["place"], []).append(at)
    rows = tuple((name_of(data, place), _ways(data, found, own)) for place, found in sorted(by_point.items()))
    words = text("This report holds means over runs. Of each run alone, the report in its own folder holds:")
    blocks: list[Block] = [words, Items(HELD)]
    if rows:
        table = Table("The runs' own reports, by seed.", ("point", "reports"), rows)
        blocks.append(folded("The runs' own reports by point", table))
    return Section("What stands in the runs' own reports", tuple(blocks), "runs")


def _ways(data: Data, found: Sequence[int], own: Runs) -> Cell:
    """Links by seed, then the folders that are elsewhere."""
    here = [
        text("seed ", number(data, ("rows", at, "seed")), " (", way, ")")
        for at in found
        if (way := own.report(at)) is not None
    ]
    folders = [text("trials/", number(data, ("rows", at, "number"), "04d")) for at in found if own.report(at) is None]
    elsewhere = [text(joined(folders, ", "), ", each " if len(folders) > 1 else ", ", AWAY)] if folders else []
    return joined([*here, *elsewhere], "; ")


def trials(data: Data, own: Runs) -> Section:
    """Every trial, with the way to its own report; failed ones with their reason."""
    blocks: list[Block] = []
    failed = [at for at, row in enumerate(data["rows"]) if row["state"] == "failed"]
    if failed:
        blocks.append(Notice("bad", "Trials that failed, and why", tuple(_failure(data, at) for at in failed)))
    rows = []
    for at, row in enumerate(data["rows"]):
        way: Cell = (own.report(at) or AWAY) if row["state"] == "complete" else ""
        seed = number(data, ("rows", at, "seed"))
        state = text(number(data, ("rows", at, "state")), " (screening)" if row["screening"] else "")
        rows.append((number(data, ("rows", at, "number")), name_of(data, row["place"]), seed, state, way))
    table = Table("All trials.", ("trial", "point", "seed", "state", "its own report"), tuple(rows))
    return Section("Trials", (*blocks, Details("All trials in a table", (table,))), "trials")


def _failure(data: Data, at: int) -> Text:
    reason = ("rows", at, "reason")
    why = number(data, reason) if data.has(reason) else "for no reason that was told"
    return text("trial ", number(data, ("rows", at, "number")), " failed: ", why)
