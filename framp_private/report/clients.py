"""The operator's page: how many records of which class each client has. It is never part of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framp_private.report import figures
from framp_private.report.document import Document, Figure, Notice, Section, Table, text
from framp_private.report.html import render_html
from framp_private.report.sources import Data, named, number

COLUMNS = ("records", "validation", "test")


def render_clients(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """One HTML page of `clients.json`: by client the numbers of records, and training records by class."""
    given = Data("clients", rows)
    table = [
        (
            named(given, (name,)),
            *(number(given, (name, column), ",") for column in COLUMNS),
            *(number(given, (name, "classes", place)) for place in range(len(row["classes"]))),
        )
        for name, row in rows.items()
    ]
    labels = tuple(f"class {place}" for place in range(max((len(row["classes"]) for row in rows.values()), default=0)))
    warning = Notice("caution", "Not to be passed on", (text(WARNING),))
    caption = "Each client: its training, validation and test records, and training records by class."
    parts = (warning, Figure(figures.class_mix(rows)), Table(caption, ("client", *COLUMNS, *labels), tuple(table)))
    sections = (Section("Clients", parts, "clients"),)
    return render_html(Document(text("The clients' records"), text("For the operator alone"), sections, text(FOOTER)))


WARNING = (
    "These counts are exact and no guarantee covers them. The run's report and summary, which may be passed on, hold "
    "what clients declared instead."
)
FOOTER = "Every number is read from clients.json, which lies beside this page."
