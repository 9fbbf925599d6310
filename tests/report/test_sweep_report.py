"""The report of a sweep and of a comparison: every number from its summary, nothing picked, nothing claimed too much."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from framp_private.report.as_json import as_json
from framp_private.report.comparison import comparison_document
from framp_private.report.document import Document, numbers_of, plain
from framp_private.report.html import render_html
from framp_private.report.markdown import render_markdown
from framp_private.report.sweep import sweep_document
from framp_private.sweep import sweep_of
from framp_private.sweep.record import Record
from framp_private.sweep.results import summarise
from framp_private.version import __version__
from tests.report.pages import Page, stray_digits, wrong_numbers
from tests.report.sweeps import WRITTEN, chosen_summary, row, shown_summary
from tests.test_comparison import made

SUMMARIES = {
    "all": shown_summary(),
    "public": shown_summary(records="public"),
    "silent": shown_summary(accounts=[]),
    "best": chosen_summary(),
}
EVERY = pytest.mark.parametrize("name", list(SUMMARIES))


def text_of(document: Document) -> str:
    return Page(render_html(document)).text


@EVERY
def test_every_number_stands_in_the_summary(name: str) -> None:
    summary = json.loads(json.dumps(SUMMARIES[name]))
    page = Page(render_html(sweep_document(summary, __version__)))
    contents = {"summary": summary, "report": {"version": __version__}}
    assert wrong_numbers(page, contents) == [] and stray_digits(page) == []
    assert len(page.numbers) > (100 if name != "best" else 5)
    altered = copy.deepcopy(contents)
    altered["summary"]["points"][2]["intervals"]["local"]["mean"]["mean"] += 0.1
    altered["summary"]["choosing"]["accounts"] = []
    assert wrong_numbers(page, altered) or name == "silent"


@EVERY
def test_other_forms_carry_the_same_numbers(name: str) -> None:
    document = sweep_document(SUMMARIES[name], __version__)
    sources = [each.source for each in numbers_of(document)]
    assert [found["source"] for found in numbers_in(as_json(document))] == sources
    markdown = render_markdown(document)
    assert all(f"= {source}" in markdown for source in sources)


def numbers_in(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        own = [node] if "number" in node else []
        return own + [found for key, value in node.items() if key != "number" for found in numbers_in(value)]
    return [found for value in node for found in numbers_in(value)] if isinstance(node, list) else []


def test_labels_are_escaped_and_failures_are_told() -> None:
    html = render_html(sweep_document(SUMMARIES["all"], __version__))
    assert "<noise>" not in html and "<b>no</b>" not in html
    text = Page(html).text
    assert "own <noise>" in text and "ValueError" in text and "Traceback" not in text
    assert "no</b>" not in text  # an error's words may quote records: they stay in the summary


def test_a_point_lacking_a_replicate_is_shown_and_on_no_frontier() -> None:
    summary = SUMMARIES["all"]
    assert summary["points"][5]["replicates"] == 1
    assert all(row["place"] != 5 for front in summary["frontier"] for row in front["points"])


def test_both_numbers_stand_beside_each_other() -> None:
    text = " ".join(text_of(sweep_document(SUMMARIES["all"], __version__)).split())
    assert "dearest run alone" in text and "with choosing" in text and "7.250" in text
    assert "the claim of a single run does not cover the choice" in text
    public = " ".join(text_of(sweep_document(SUMMARIES["public"], __version__)).split())
    assert "its records are public, training included" in public and "7.250" in public
    assert "covered by no epsilon" in text


def test_units_are_never_in_one_picture() -> None:
    titles = [found["title"] for found in pictures(as_json(sweep_document(SUMMARIES["all"], __version__)))]
    assert titles == [
        "Privacy and utility, unit client",
        "Privacy and utility by budget, unit client",
        "Privacy and utility, unit record",
        "Privacy and utility by budget, unit record",
    ]


def pictures(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        own = [node] if node.get("kind") == "figure" else []
        return own + [found for value in node.values() for found in pictures(value)]
    return [found for value in node for found in pictures(value)] if isinstance(node, list) else []


def test_where_only_the_best_is_published_nothing_else_is_shown() -> None:
    document = sweep_document(SUMMARIES["best"], __version__)
    text = text_of(document)
    assert [section.id for section in document.sections] == ["short", "choosing", "chosen", "reproducibility"]
    assert "0.700" in text and "0.500" not in text and "0.600" not in text
    assert "secret" in text and not any(each.source.startswith("summary:trials") for each in numbers_of(document))
    assert not any("choosing.accounts.0.runs" in each.source for each in numbers_of(document))


def test_a_run_without_messages_is_not_called_unprotected() -> None:
    document = sweep_document(SUMMARIES["all"], __version__)
    (claims,) = [section for section in document.sections if section.id == "claims"]
    rows = {plain(row[0]): [plain(cell) for cell in row[1:]] for row in claims.blocks[1].rows}  # type: ignore[union-attr]
    assert rows["at home"][1] == "0.0" and "no message was sent" in rows["at home"][4]
    assert rows["open"][1] == "infinite" and "no guarantee" in rows["open"][4]


def test_points_of_different_budgets_are_not_averaged_together() -> None:
    """One point has clients of one budget, the other of two: they meet at the budget they share, and in no mean."""
    rows = [row("record", 1.0, 0.6, 0), row("record", 2.0, 0.7, 0)]
    rows[1]["accuracy"] = {kind: {"1": 0.7, "mean": 0.7} for kind in rows[1]["accuracy"]}
    sweep = sweep_of({"name": "mixed", "axes": {"budgets": [[1.0, 0.25], [1.0]]}, "objectives": ["local"]})
    points = list(sweep.grid())
    trials = [Record(at, "complete", at, 0, params=points[at], values=(0.5,), result=rows[at]) for at in range(2)]
    summary = summarise(sweep, trials, {"records": "private", "publish": "all", "accounts": []})
    fronts = {(row["budget"], tuple(point["place"] for point in row["points"])) for row in summary["frontier"]}
    assert fronts == {("1", (0, 1)), ("1/4", (0,)), ("mean", (0,)), ("mean", (1,))}
    page = Page(render_html(sweep_document(json.loads(json.dumps(summary)), __version__)))
    assert wrong_numbers(page, {"summary": json.loads(json.dumps(summary)), "report": {"version": __version__}}) == []


def test_a_refuted_claim_stands_first() -> None:
    summary = copy.deepcopy(SUMMARIES["all"])
    assert "refuted" not in text_of(sweep_document(summary, __version__))
    summary["refuted"] = [3]
    assert "An audit refuted the claim of a run" in text_of(sweep_document(summary, __version__))


def test_different_code_is_told() -> None:
    summary = copy.deepcopy(SUMMARIES["all"])
    assert "they are not alike" not in text_of(sweep_document(summary, __version__))
    summary["provenance"].append({"versions": {"python": "3.12"}, "code_sha256": "1" * 64})
    assert "they are not alike" in text_of(sweep_document(summary, __version__))


def test_a_sweep_without_any_guarantee_has_no_frontier_and_says_so() -> None:
    sweep = sweep_of({**WRITTEN, "axes": {}, "references": {"open": {"preset": "digits"}}, "seeds": [0]})
    trial = Record(
        0, "complete", 0, 0, reference="open", values=(0.5, float("inf"), 1.0), result=row(None, None, 0.5, 0)
    )
    summary = summarise(sweep, [trial], {"records": "private", "publish": "all", "accounts": []})
    document = sweep_document(summary, __version__)
    assert "there is no frontier" in text_of(document) and "frontier" not in [s.id for s in document.sections]


def test_every_number_of_a_comparison_stands_in_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = json.loads(json.dumps(made(tmp_path_factory.mktemp("compared"))))
    page = Page(render_html(comparison_document(found, __version__)))
    contents = {"comparison": found, "report": {"version": __version__}}
    assert wrong_numbers(page, contents) == [] and stray_digits(page) == []
    assert "setting A" in page.text and "do not compare" in page.text
