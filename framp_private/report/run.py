"""The report of one run: its parts in their order, every number from the files of the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framp_private.report import figures
from framp_private.report.document import Block, Details, Document, Figure, Section, Table, text
from framp_private.report.exposure import attacks, server_view
from framp_private.report.given import Given, ledger_data
from framp_private.report.headline import headline
from framp_private.report.html import render_html
from framp_private.report.impact import impact
from framp_private.report.model_card import model_card
from framp_private.report.operation import cost, reproducibility, traffic
from framp_private.report.privacy_statement import privacy_statement
from framp_private.report.sources import Data, number
from framp_private.report.utility import utility

Rows = Sequence[Mapping[str, Any]]


def run_document(
    summary: Mapping[str, Any],
    rows: Rows,
    config: Mapping[str, Any],
    version: str,
    *,
    ledger: Rows | None = None,
    audit: Mapping[str, Any] | None = None,
) -> Document:
    """The report of a finished run.

    Args:
        summary: summary.json, also of older versions; what they lack is a gap. rows: of metrics.jsonl.
        config: config.yaml. version: of the program that renders.
        ledger: the rows of ledger.jsonl. audit: audit.json.
    """
    given = Given(
        Data("summary", summary),
        Data("metrics", rows),
        Data("config", config),
        Data("report", {"version": version}),
        Data("ledger", ledger_data(ledger)) if ledger is not None else None,
        Data("audit", audit) if audit is not None else None,
    )
    parts = (headline, privacy_statement, utility, spending, server_view, attacks, traffic, cost, reproducibility)
    sections = tuple(part(given) for part in (*parts, model_card, impact))
    title = text(given.number("method"), " on ", given.number("dataset"))
    return Document(title, _subtitle(given), sections, _footer(given))


def render_report(
    summary: Mapping[str, Any],
    rows: Rows,
    config: Mapping[str, Any],
    version: str,
    *,
    ledger: Rows | None = None,
    audit: Mapping[str, Any] | None = None,
) -> str:
    """The report as one HTML page; see `run_document`."""
    return render_html(run_document(summary, rows, config, version, ledger=ledger, audit=audit))


def spending(given: Given) -> Section:
    """Epsilon as rounds pass."""
    curve = given.summary["epsilon_by_round"]
    if not curve:
        why = (
            "Nothing was sent, so nothing was spent."
            if given.silent
            else "There is no epsilon to show: it is infinite."
        )
        return Section("Epsilon by round", (text(why),), "spending")
    places = range(len(curve))
    rows = tuple(
        (given.number(("epsilon_by_round", place, 0)), given.number(("epsilon_by_round", place, 1), ".4f"))
        for place in places
    )
    table = Table("Epsilon of a client that takes part in every round.", ("after round", "epsilon"), rows)
    blocks: tuple[Block, ...] = (
        Figure(figures.epsilon_by_round(given.summary, given.held[0])),
        Details("The curve as a table", (table,)),
    )
    return Section("Epsilon by round", blocks, "spending")


def _subtitle(given: Given) -> Any:
    clients, unseen, rounds = (given.number(name) for name in ("clients", "unseen_clients", "rounds"))
    sizes = ("Report of a run: ", clients, " clients, ", unseen, " unseen, ", rounds, " rounds, seed ")
    return text(*sizes, given.number("seed"))


def _footer(given: Given) -> Any:
    files = "summary.json, metrics.jsonl, config.yaml, ledger.jsonl and audit.json of the run's folder"
    where = f"Every number is read from a file and carries its source: {files}. In HTML it shows under the pointer."
    return text("framp_private ", number(given.report, "version"), f". {where}")
