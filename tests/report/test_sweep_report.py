"""The report of a sweep and of a comparison: every number from its summary, nothing picked, nothing claimed too much."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from framp_private.cli import main
from framp_private.errors import RunError
from framp_private.report import sweep_figures
from framp_private.report.as_json import as_json
from framp_private.report.comparison import comparison_document
from framp_private.report.document import Code, Document, Picture, Table, blocks_of, numbers_of, plain
from framp_private.report.html import render_html
from framp_private.report.markdown import render_markdown
from framp_private.report.points import letter_of
from framp_private.report.sweep import sweep_document
from framp_private.report.sweep_frontier import TESTED
from framp_private.report.sweep_trials import AWAY
from framp_private.reports_cli import document_of
from framp_private.sweep import sweep_of
from framp_private.sweep.record import Record
from framp_private.sweep.results import summarise
from framp_private.version import __version__
from tests.report.pages import Page, stray_digits, wrong_numbers
from tests.report.sweeps import (
    ALTERED,
    WRITTEN,
    altered,
    audited_summary,
    chosen_summary,
    forty_summary,
    in_folder,
    links_of,
    numbers_in,
    pictures,
    plain_of,
    removals,
    row,
    rows_of,
    sections_of,
    shown_summary,
    text_of,
)
from tests.services import accessibility, chromium, open_page
from tests.test_comparison import made

SUMMARIES = {
    "all": shown_summary(),
    "public": shown_summary(records="public"),
    "silent": shown_summary(accounts=[]),
    "best": chosen_summary(),
    "audited": audited_summary(),
    "forty": forty_summary(),
}
EVERY = pytest.mark.parametrize("name", list(SUMMARIES))


@EVERY
def test_every_number_stands_in_the_summary(name: str) -> None:
    summary = json.loads(json.dumps(SUMMARIES[name]))
    page = Page(render_html(sweep_document(summary, __version__)))
    contents = {"summary": summary, "report": {"version": __version__}}
    assert wrong_numbers(page, contents) == [] and stray_digits(page) == []
    assert len(page.numbers) > (100 if name != "best" else 5)
    other = copy.deepcopy(contents)
    other["summary"]["points"][-1 if name == "audited" else 2]["intervals"]["local"]["mean"]["mean"] += 0.1
    other["summary"]["choosing"]["accounts"] = []
    assert wrong_numbers(page, other) or name == "silent"


@EVERY
def test_other_forms_carry_the_same_numbers(name: str) -> None:
    document = sweep_document(SUMMARIES[name], __version__)
    sources = [each.source for each in numbers_of(document)]
    assert [found["source"] for found in numbers_in(as_json(document))] == sources
    markdown = render_markdown(document)
    assert all(f"= {source}" in markdown for source in sources)


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


def test_where_only_the_best_is_published_nothing_else_is_shown() -> None:
    document = sweep_document(SUMMARIES["best"], __version__)
    text = text_of(document)
    assert [section.id for section in document.sections] == ["short", "choosing", "chosen", "reproducibility"]
    assert "0.700" in text and "0.500" not in text and "0.600" not in text
    assert "secret" in text and not any(each.source.startswith("summary:trials") for each in numbers_of(document))
    assert not any("choosing.accounts.0.runs" in each.source for each in numbers_of(document))


def test_a_run_without_messages_is_not_called_unprotected() -> None:
    document = sweep_document(SUMMARIES["all"], __version__)
    rows = {row[0]: row[1:] for row in rows_of(document, "claims")}
    assert rows["b: at home"][1] == "0.0" and "no message was sent" in rows["b: at home"][4]
    assert rows["a: open"][1] == "infinite" and "no guarantee" in rows["a: open"][4]


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


def test_letters_never_run_out_and_no_two_points_are_called_alike() -> None:
    assert [letter_of(place) for place in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        *("a", "z", "aa", "ab", "az", "ba", "zz", "aaa")
    ]
    assert len({letter_of(place) for place in range(2000)}) == 2000


def test_forty_points_are_told_apart_in_picture_and_table() -> None:
    document = sweep_document(SUMMARIES["forty"], __version__)
    names = [row[0] for row in rows_of(document, "points")]
    assert len(set(names)) == 40 and names[0].startswith("a: ") and names[39].startswith("an: ")
    front = [
        picture for picture in pictures(as_json(document)) if picture["title"] == "Privacy and utility, unit record"
    ]
    caption = "".join(piece if isinstance(piece, str) else piece["text"] for piece in front[0]["caption"])
    assert [name for name in names if f"{name} reaches " in caption] == names[35:]  # aj to an: the best rate
    assert rows_of(document, "server")[0][0] == "all points"


def test_many_points_that_look_alike_to_the_server_stand_by_their_letters() -> None:
    summary = json.loads(json.dumps(SUMMARIES["forty"]))  # no two points share what the server sees of them
    for point in summary["points"][2:]:
        point["server_view"]["update"]["trust"] = "the server"
    shown = [row[0] for row in rows_of(sweep_document(summary, __version__), "server")]
    assert shown[0].startswith("a: learning rate") and shown[1].startswith("c, d, e") and shown[1].endswith("am, an")


@pytest.mark.slow
def test_the_page_of_forty_points_fits_the_window(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_html(sweep_document(SUMMARIES["forty"], __version__)))
    with chromium() as browser:
        for width in (1280, 400):
            with open_page(page, width, browser=browser) as seen:
                seen.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
                assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
                assert accessibility(seen) == [] and seen.problems == [] and seen.requests == []


def test_only_runs_whose_reports_are_there_are_linked(tmp_path: Path) -> None:
    files = ("trials/0003/report.html", "trials/0003/audit.html", "trials/0004/summary.json", "trials/0011/report.html")
    folder = in_folder(tmp_path / "sweep", SUMMARIES["all"], files)
    document = document_of(folder)
    assert links_of(document) == {"trials/0003/report.html", "trials/0003/audit.html"}  # of them the last one failed
    assert document == sweep_document(json.loads(json.dumps(SUMMARIES["all"])), __version__, folder)
    rows = rows_of(document, "runs")
    assert rows[3][1] == f"seed 0 (report, audit); trials/0009, {AWAY}"
    assert rows[4][1] == f"trials/0004, trials/0010, each {AWAY}"
    assert [row[4] for row in rows_of(document, "trials")] == [*[AWAY] * 3, "report, audit", *[AWAY] * 7, ""]


def test_without_a_folder_nothing_is_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(in_folder(tmp_path / "sweep", SUMMARIES["all"], ("trials/0003/report.html",)))
    assert links_of(sweep_document(SUMMARIES["all"], __version__)) == set()


def test_where_only_the_best_is_published_no_run_is_linked(tmp_path: Path) -> None:
    folder = in_folder(tmp_path / "sweep", SUMMARIES["best"], tuple(f"trials/000{at}/report.html" for at in range(3)))
    assert links_of(document_of(folder)) == set()


def test_the_reports_of_runs_are_said_to_hold_what_means_hide() -> None:
    runs = sections_of(sweep_document(SUMMARIES["all"], __version__))["runs"]
    words = render_markdown(Document("", "", (runs,)))
    told = ("every client", "epsilon by round", "attacks", "model card", "impact assessment", "phase", "all settings")
    assert [each for each in told if each not in words] == []


def test_audits_are_told_by_point() -> None:
    document = sweep_document(SUMMARIES["audited"], __version__)
    assert rows_of(document, "audits") == [
        ["a: epsilon 1", "1.000", "0.750", "no"],
        ["b: epsilon 4", "4.000", "infinite", "trial 3: this run alone"],
    ]
    assert "not to be passed on" in plain(sections_of(document)["audits"].blocks[0])  # type: ignore[arg-type]
    assert "An audit refuted the claim of a run" in text_of(document)
    assert "audits" not in sections_of(sweep_document(SUMMARIES["all"], __version__))


def test_an_audit_that_tested_nothing_against_a_point_is_no_row() -> None:
    summary = copy.deepcopy(SUMMARIES["audited"])
    for at in (0, 2):
        summary["rows"][at]["result"] |= {"empirical_epsilon": None, "refuted": None}
    assert [row[0] for row in rows_of(sweep_document(summary, __version__), "audits")] == ["b: epsilon 4"]


def test_comparisons_are_said_to_be_tested_alone() -> None:
    words = " ".join(text_of(sweep_document(SUMMARIES["all"], __version__)).split())
    assert f"Each comparison is tested alone, at a confidence of 95%{TESTED}" in words


def test_what_a_sweep_ran_on_can_be_checked() -> None:
    document = sweep_document(SUMMARIES["all"], __version__)
    parts = list(blocks_of((sections_of(document)["reproducibility"],)))
    (written,) = [block.content for block in parts if isinstance(block, Code)]
    assert yaml.safe_load(written) == SUMMARIES["all"]["spec"]
    code, hashes = [block for block in parts if isinstance(block, Table)]
    assert [plain(cell) for cell in code.rows[0]] == ["0" * 64, "python 3.11, torch 2.9"]
    assert len(hashes.rows) == 11  # every trial but the failed one
    assert [plain(cell) for cell in hashes.rows[10]] == ["10", f"{1:064x}", "e" * 64, "d" * 64]
    assert "Seeds, the same for every point: 0, 1." in text_of(document)


def test_hashes_that_a_summary_lacks_are_gaps() -> None:
    summary = copy.deepcopy(SUMMARIES["all"])
    del summary["rows"][0]["result"]["provenance"]["data_commitment"]
    (section,) = [each for each in sweep_document(summary, __version__).sections if each.id == "reproducibility"]
    table = [block for block in blocks_of(section.blocks) if isinstance(block, Table)][-1]
    assert "gap" in plain(table.rows[0][3]) and "gap" not in plain(table.rows[1][3])


def test_every_claim_names_whom_it_trusts() -> None:
    summary = copy.deepcopy(SUMMARIES["all"])
    for place, name in ((2, "one server"), (3, "another server")):
        summary["points"][place]["claim"]["trust_model"] = name
    document = sweep_document(summary, __version__)
    rows = {row[0].partition(":")[0]: row for row in rows_of(document, "claims")}
    assert (rows["c"][5], rows["d"][5], rows["e"][5]) == ("one server", "another server", "any server")
    assert "Scope: this run alone." in plain_of(sections_of(document)["claims"])
    assert "Trust: one server; another server." in plain_of(sections_of(document)["short"])
    assert all(row[-1] for row in rows_of(document, "choosing"))


def test_who_held_which_records_is_told() -> None:
    summary = copy.deepcopy(SUMMARIES["all"])
    told = " ".join(text_of(sweep_document({**summary, "partitions": 1}, __version__)).split())
    assert "All runs hold the same partition" in told and "how far noise and initialisation move" in told
    told = " ".join(text_of(sweep_document({**summary, "partitions": 2}, __version__)).split())
    assert "may be read exactly in another" in told and "noise, initialisation and partition move" in told


def test_an_unfinished_sweep_says_so() -> None:
    sweep = sweep_of({**WRITTEN, "references": {}, "seeds": [0]})
    points = list(sweep.grid())
    found = row("record", 1.0, 0.5)
    trials = [
        Record(0, "complete", 0, 0, params=points[0], values=(0.5, 1.0, 1.0), result=found),
        Record(1, "failed", 1, 0, params=points[1], error="no"),
        Record(2, "running", 2, 0, params=points[2]),
        Record(3, "waiting", 3, 0, params=points[3]),
    ]
    summary = summarise(sweep, trials, {"records": "private", "publish": "all", "accounts": []})
    document = sweep_document(summary, __version__)
    assert [row[2] for row in rows_of(document, "points")][1:] == ["failed", "not run yet", "not run yet"]
    assert "Trials are still to be run" in text_of(document) and "1 running, 1 waiting" in text_of(document)
    assert "Trials are still to be run" not in text_of(sweep_document(SUMMARIES["all"], __version__))


@pytest.mark.parametrize(("path", "put", "says"), ALTERED, ids=[says for _, _, says in ALTERED])
def test_an_altered_summary_ends_the_command_with_its_place_and_the_cure(
    path: tuple[str | int, ...],
    put: tuple[Any, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    in_folder(tmp_path / "sweep", altered(SUMMARIES["audited"], path, *put))
    assert main(["report", "sweep"]) == RunError.exit_status == 2
    told = capsys.readouterr().err
    assert says in told and "sweep/summary.json" in told
    assert "framp-private sweep sweep/sweep.yaml --out sweep --resume" in told
    assert not Path("sweep/report.html").exists()


@pytest.mark.parametrize("content", ["[1]", "[]", "3", "null"])
def test_a_summary_that_is_no_mapping_is_refused(content: str, tmp_path: Path) -> None:
    (in_folder(tmp_path / "sweep", {}) / "summary.json").write_text(content)
    with pytest.raises(RunError, match=r"summary\.json was altered"):
        document_of(tmp_path / "sweep")


def test_whichever_key_is_missing_there_is_a_report_or_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the check lets pass can be shown: nothing but a RunError ever leaves."""
    monkeypatch.setattr(sweep_figures, "picture", lambda title, figure, words: Picture(title, "<svg/>", words))
    summary = json.loads(json.dumps(SUMMARIES["audited"]))
    folder, paths = in_folder(tmp_path / "sweep", summary), list(removals(summary))
    refused = set()
    for path in paths:
        (folder / "summary.json").write_text(json.dumps(altered(summary, path)))
        try:
            document_of(folder)
        except RunError as error:
            assert str(path[-1]) in str(error)
            refused.add(path)
    assert len(refused) > 80 and len(paths) - len(refused) > 50
    assert ("points", 0, "trials") not in refused  # which no report reads


def test_every_number_of_a_comparison_stands_in_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = json.loads(json.dumps(made(tmp_path_factory.mktemp("compared"))))
    page = Page(render_html(comparison_document(found, __version__)))
    contents = {"comparison": found, "report": {"version": __version__}}
    assert wrong_numbers(page, contents) == [] and stray_digits(page) == []
    assert "setting A" in page.text and "do not compare" in page.text


def test_an_altered_comparison_is_refused_with_its_place_and_the_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = json.loads(json.dumps(made(tmp_path / "runs")))
    file = tmp_path / "compared" / "comparison.json"
    file.parent.mkdir()
    refused = set()
    for path in removals(found):
        file.write_text(json.dumps(altered(found, path)))
        try:
            document_of(file.parent)
        except RunError as error:
            assert str(path[-1]) in str(error)
            refused.add(path)
    read = ("means", "seeds", "claim", "differs", "method")
    assert {("settings", 0, key) for key in read} | {("confidence",), ("comparable",)} <= refused
    assert ("settings", 0, "folders") not in refused
    file.write_text(json.dumps(altered(found, ("settings", 1, "means"))))
    monkeypatch.chdir(tmp_path)
    assert main(["report", "compared"]) == 2
    told = capsys.readouterr().err
    assert "compared/comparison.json" in told and "nothing stands at settings.1.means" in told
    assert "framp-private compare RUN RUN ... --out compared" in told
