"""The report of a run: every number from its files, gaps marked, and no more claimed than the run may claim."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framp_private.errors import LedgerError, RunError
from framp_private.privacy.claims import statement
from framp_private.protections import (
    BFVSum,
    CentralGaussian,
    DistributedGaussian,
    DistributedSkellam,
    LocalGaussian,
    PlainSum,
    PostProcessed,
    Protection,
    SecAgg,
    chain,
)
from framp_private.report.as_json import as_json
from framp_private.report.document import Document, Section, blocks_of, plain
from framp_private.report.folder import report_of_run
from framp_private.report.given import Given, claims_of, ledger_data
from framp_private.report.html import render_html
from framp_private.report.markdown import render_markdown
from framp_private.report.run import run_document
from framp_private.report.sources import Data
from framp_private.report.words import statement_of
from framp_private.summary import noised_by
from tests.report.pages import RUNS, Page, audit_rows, contents_of, stray_digits, wrong_numbers
from tests.report.test_document import numbers_in

PARTS = [
    "claim",
    "privacy",
    "utility",
    "spending",
    "server",
    "attacks",
    "traffic",
    "cost",
    "reproducibility",
    "card",
    "dpia",
]
MADE = pytest.mark.parametrize("name", list(RUNS))


@pytest.fixture(scope="module")
def audited(folders: dict[str, Path]) -> Document:
    contents = contents_of(folders["private"])
    rows = contents["summary"], contents["metrics"], contents["config"]
    return run_document(*rows, contents["report"]["version"], ledger=ledger_of(folders["private"]), audit=audit_rows())


def ledger_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


def part(document: Document, name: str) -> str:
    """All text of one part."""
    (found,) = [block for block in blocks_of(document.sections) if isinstance(block, Section) and block.id == name]
    return Page(render_html(Document("t", "s", (found,)))).text


def given_of(summary: dict[str, Any]) -> Given:
    return Given(Data("summary", summary), Data("metrics", []), Data("config", {}), Data("report", {}))


@MADE
def test_every_number_is_the_one_at_its_source(folders: dict[str, Path], name: str) -> None:
    page = Page((folders[name] / "report.html").read_text())
    assert len(page.numbers) > 100
    assert wrong_numbers(page, contents_of(folders[name])) == []


@MADE
def test_no_number_stands_in_the_text_without_a_source(folders: dict[str, Path], name: str) -> None:
    assert stray_digits(Page((folders[name] / "report.html").read_text())) == []


def test_an_audit_is_traced_too(folders: dict[str, Path], audited: Document) -> None:
    page = Page(render_html(audited))
    assert wrong_numbers(page, contents_of(folders["private"]) | {"audit": audit_rows()}) == []
    assert stray_digits(page) == []
    assert len([each for each in page.numbers if each.source.startswith("audit:")]) > 20


@MADE
def test_the_folder_alone_gives_the_same_report(folders: dict[str, Path], name: str) -> None:
    assert render_html(report_of_run(folders[name])) == (folders[name] / "report.html").read_text()


@MADE
def test_markdown_and_json_carry_the_same_numbers(folders: dict[str, Path], name: str) -> None:
    document = report_of_run(folders[name])
    expected = [(each.text, each.source) for each in Page(render_html(document)).numbers]
    assert numbers_in(json.loads(json.dumps(as_json(document)))) == expected
    listed = render_markdown(document).rpartition("```text\n")[2].removesuffix("\n```\n")
    assert [tuple(line.split(" = ", 1)) for line in listed.splitlines()] == expected


@MADE
def test_the_parts_come_in_their_order(folders: dict[str, Path], name: str) -> None:
    assert [section.id for section in report_of_run(folders[name]).sections] == PARTS


@MADE
def test_the_claim_is_the_one_that_terminals_print(folders: dict[str, Path], name: str) -> None:
    summary = contents_of(folders[name])["summary"]
    assert plain(statement_of(given_of(summary))) == statement(claims_of(summary))


@pytest.mark.parametrize(
    "changes", [{"protects": "a node, degrees cut to 16"}, {"epsilon": None, "why": "a node has 3 neighbours"}]
)
def test_the_claim_keeps_its_small_print(folders: dict[str, Path], changes: dict[str, Any]) -> None:
    summary = copy.deepcopy(contents_of(folders["private"])["summary"])
    summary["privacy"]["record"] |= changes
    expected = statement(claims_of(summary))
    assert plain(statement_of(given_of(summary))) == expected
    assert str(changes.get("protects") or changes["why"]) in expected
    page = Page(render_html(run_document(summary | {"epsilon_by_round": []}, [], {}, "0")))
    assert expected in page.text and stray_digits(page) == []


def test_a_private_run_states_every_term(folders: dict[str, Path]) -> None:
    document = report_of_run(folders["private"])
    stated = part(document, "privacy")
    summary = contents_of(folders["private"])["summary"]
    for words in (
        f"{summary['privacy']['record']['epsilon']:.4f}",
        "1e-05",
        "one training record of one client",
        "one holds one record more than the other",
        "local model",
        "at each client, before anything leaves it; trained by DpSGD",
        "Channel epsilons do not add up",
        "share of records whose gradient was longer than the clip norm",
        "this run alone",
        "GaussianDpEvent (noise multiplier",
        "every channel in use carries a guarantee",
    ):
        assert words in stated, words
    for hazard in ("Side channels", "Floating-point noise", "Choice of settings", "Several records of a person"):
        assert hazard in stated
    assert "experimenter's own view" in part(document, "utility") and "experimenter's own view" in part(
        document, "claim"
    )
    assert "infinite" not in stated and "none is claimed" not in stated


def test_an_open_run_claims_nothing_anywhere(folders: dict[str, Path]) -> None:
    document = report_of_run(folders["open"])
    claim, stated = part(document, "claim"), part(document, "privacy")
    assert "privacy: none, epsilon = infinite" in claim
    assert "Descriptor, update and prototypes left the clients in the clear" in claim
    assert "not for records that need protection" in claim
    assert "No differential privacy guarantee: none is claimed" in stated and "no noise is added" in stated
    assert "records that need protection: the run gives no guarantee" in part(document, "card")
    everything = Page(render_html(document)).text
    assert "local model" not in everything and "carries a guarantee" not in everything


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ({"granularity": "sum"}, "Update left the clients under a secure sum, which hides single values"),
        ({"noise": "client"}, "Update left the clients with noise that this run draws no guarantee from"),
    ],
)
def test_what_left_unprotected_is_said_channel_by_channel(
    folders: dict[str, Path], view: dict[str, str], words: str
) -> None:
    summary = contents_of(folders["open"])["summary"]
    summary["server_view"]["update"] |= view
    claim = part(run_document(summary, [], {}, "0"), "claim")
    assert words in claim and "Descriptor and prototypes left the clients in the clear" in claim


def test_a_silent_run_has_nothing_to_bound(folders: dict[str, Path]) -> None:
    text = Page((folders["silent"] / "report.html").read_text()).text
    assert "Nothing was sent" in text and "no message was sent" in text and "infinite" not in text
    assert contents_of(folders["silent"])["summary"]["server_view"] == {}


def test_a_run_for_whole_clients_names_the_server_that_it_trusts(folders: dict[str, Path]) -> None:
    stated = part(report_of_run(folders["client"]), "privacy")
    assert "central model" in stated and "by the server, to the sum that it sees" in stated
    assert "everything that one client contributes" in stated and "the unit is a whole client" in stated
    assert "replace-one" in stated and "they differ in what one client is" in stated
    assert "nobody but the server knowing who took part" in stated


def test_the_summary_says_what_the_server_sees(folders: dict[str, Path]) -> None:
    views = contents_of(folders["private"])["summary"]["server_view"]
    assert list(views) == ["descriptor", "update", "prototypes"]
    update, prototypes = views["update"], views["prototypes"]
    assert (update["protection"], update["trainer"], update["noise"]) == ("PlainSum", "DpSGD", "client")
    assert prototypes["protection"] == "LocalGaussian over PlainSum" and prototypes["noise"] == "client"
    for view in views.values():
        assert (view["granularity"], view["minimum_cohort"], view["guarantee"]) == ("client", 1, True)
        assert view["metadata"] == ["who took part", "sizes", "times"]
    clear = contents_of(folders["open"])["summary"]["server_view"]
    assert {view["noise"] for view in clear.values()} == {None} and not any(v["guarantee"] for v in clear.values())
    central = contents_of(folders["client"])["summary"]["server_view"]
    assert {view["noise"] for view in central.values()} == {"server"}
    assert central["update"]["protection"] == "CentralGaussian over PlainSum"


@pytest.mark.parametrize(
    ("protection", "who"),
    [
        (PlainSum(), None),
        (SecAgg(), None),
        (BFVSum(), None),
        (LocalGaussian(1.0, 4.0), "client"),
        (chain(LocalGaussian(1.0, 4.0), BFVSum()), "client"),
        (CentralGaussian(1.0, 1.1), "server"),
        (DistributedGaussian(1.0, 1.1, SecAgg(survivors=0.7)), "shares"),
        (DistributedSkellam(1.0, 1.1, SecAgg(survivors=0.7)), "shares"),
        (PostProcessed(), "earlier"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_who_adds_the_noise(protection: Protection, who: str | None) -> None:
    assert noised_by(protection) == who


def test_attacks_stand_with_interval_chance_ceiling_and_leak(audited: Document) -> None:
    found = part(audited, "attacks")
    for words in ("0.510", "0.490 to 0.550", "0.500", "0.900", "bounded", "worst client client-01, auc 0.600"):
        assert words in found, words
    assert "not in view" in found and "cannot refute" in found and "drawn twice in round 3" in found
    assert "2.500" in found and "1.234" not in found  # the largest bound of a claim
    risks = part(audited, "dpia-risks")
    assert "client identity" in risks and "record membership" not in risks


def test_a_run_without_audit_has_a_gap_for_it(folders: dict[str, Path]) -> None:
    document = report_of_run(folders["private"])
    for name in ("attacks", "dpia-risks"):
        assert "gap: not audited: framp-private train --audit, or framp-audit run DIR" in part(document, name)


def test_what_a_controller_must_say_is_marked(folders: dict[str, Path]) -> None:
    document = report_of_run(folders["private"])
    html, markdown = render_html(document), render_markdown(document)
    gaps = re.findall(r'<span class="gap">gap: (to be filled by [^<]+)</span>', html)
    assert len(gaps) > 15 and any("data protection officer" in gap for gap in gaps)
    assert markdown.count("**[gap: to be filled by") == len(gaps)
    dpia = part(document, "dpia")
    for letter in "abcd":
        assert f"Art. 35(7)({letter})" in dpia


def test_an_old_summary_still_has_a_report(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in RUNS:
        contents = contents_of(folders[name])
        for key in ("server_view", "provenance"):
            del contents["summary"][key]
        document = run_document(contents["summary"], contents["metrics"], contents["config"], "0.0.1")
        page = Page(render_html(document))
        assert "gap: not in the summary: the run was made by an older version" in page.text
        assert wrong_numbers(page, contents | {"report": {"version": "0.0.1"}}) == [] and stray_digits(page) == []


def test_strange_names_are_shown_as_they_are(folders: dict[str, Path]) -> None:
    contents = contents_of(folders["private"])
    summary, name = contents["summary"], "a.b <script>$x$|`*`"
    summary["by_client"] = {name: summary["by_client"]["client-00"]}
    summary["dataset"] = "<script>alert(1)</script>"
    document = run_document(summary, contents["metrics"], contents["config"], "0")
    html = render_html(document)
    assert "<script>" not in html and name in Page(html).text
    assert wrong_numbers(Page(html), contents | {"report": {"version": "0"}, "ledger": None}) == []


def test_a_changed_ledger_shows(folders: dict[str, Path], tmp_path: Path) -> None:
    contents = contents_of(folders["private"])
    rows = (contents["summary"], contents["metrics"], contents["config"], "0")
    whole = ledger_of(folders["private"])
    assert "as the summary says" in part(run_document(*rows, ledger=whole), "reproducibility")
    assert "not what the summary says" in part(run_document(*rows, ledger=whole[:-1]), "reproducibility")
    assert ledger_data(whole[:-1])["rows"] == len(whole) - 1
    for name in ("summary.json", "config.yaml", "metrics.jsonl"):
        (tmp_path / name).write_text((folders["private"] / name).read_text())
    (tmp_path / "ledger.jsonl").write_text(
        "".join((folders["private"] / "ledger.jsonl").read_text().splitlines(True)[1:])
    )
    with pytest.raises(LedgerError):
        report_of_run(tmp_path)


def test_a_shared_ledger_is_a_gap(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("summary.json", "config.yaml", "metrics.jsonl"):
        (tmp_path / name).write_text((folders["private"] / name).read_text())
    assert "gap: no ledger of the run's own was read" in part(report_of_run(tmp_path), "reproducibility")


BROKEN: dict[str, Callable[[Path], object]] = {
    "nothing": lambda folder: None,
    "no summary": lambda folder: (folder / "config.yaml").write_text("{}"),
    "half a summary": lambda folder: [
        (folder / "config.yaml").write_text("{}"),
        (folder / "summary.json").write_text('{"a'),
    ],
    "another summary": lambda folder: [
        (folder / "config.yaml").write_text("{}"),
        (folder / "summary.json").write_text('{"method": "x"}'),
    ],
}


@pytest.mark.parametrize("broken", list(BROKEN))
def test_a_folder_without_a_finished_run_is_refused(broken: str, tmp_path: Path) -> None:
    BROKEN[broken](tmp_path)
    with pytest.raises(RunError):
        report_of_run(tmp_path)


def test_an_audit_that_does_not_read_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("summary.json", "config.yaml", "metrics.jsonl"):
        (tmp_path / name).write_text((folders["private"] / name).read_text())
    (tmp_path / "audit.json").write_text("[1, 2")
    with pytest.raises(RunError, match=r"audit\.json"):
        report_of_run(tmp_path)
    (tmp_path / "audit.json").write_text('{"claims": []}')
    with pytest.raises(RunError, match="lacks what a report needs"):
        report_of_run(tmp_path)
