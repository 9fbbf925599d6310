"""The page in a real browser: silent, offline, accessible, and no wider than the window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from framp_private.report.comparison import comparison_document
from framp_private.report.html import render_html
from framp_private.report.run import run_document
from framp_private.report.sweep import sweep_document
from tests.report.pages import audit_rows, contents_of
from tests.report.sweeps import shown_summary
from tests.services import accessibility, chromium, open_page
from tests.test_comparison import made

if TYPE_CHECKING:
    import playwright.sync_api as pw

WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
HIDDEN = """() => [...document.querySelectorAll('table')].filter(
    table => table.offsetWidth > table.parentElement.clientWidth + 1 && table.parentElement.tabIndex !== 0).length"""


@pytest.fixture(scope="module")
def browser() -> Iterator[pw.Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def pages(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of an open run, and that of a private one with an audit, which holds all that a report can hold."""
    contents = contents_of(folders["private"])
    audited = run_document(contents["summary"], contents["metrics"], contents["config"], "0", audit=audit_rows())
    path = tmp_path_factory.mktemp("pages") / "audited.html"
    path.write_text(render_html(audited))
    swept, compared = path.with_name("sweep.html"), path.with_name("comparison.html")
    swept.write_text(render_html(sweep_document(shown_summary(), "0")))
    compared.write_text(render_html(comparison_document(made(path.parent / "compared"), "0")))
    return {"open": folders["open"] / "report.html", "audited": path, "sweep": swept, "comparison": compared}


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["open", "audited", "sweep", "comparison"])
def test_a_report_is_silent_offline_and_accessible(
    name: str, width: int, pages: dict[str, Path], browser: pw.Browser
) -> None:
    with open_page(pages[name], width, browser=browser) as seen:
        seen.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert seen.page.evaluate(WIDER) <= 0
        assert seen.page.evaluate(HIDDEN) == 0
        assert accessibility(seen) == []
        assert seen.problems == [] and seen.requests == []


def test_folded_parts_are_printed(pages: dict[str, Path], browser: pw.Browser) -> None:
    with open_page(pages["audited"], 1280, browser=browser) as seen:
        cell = seen.page.locator("details td").first
        assert not cell.is_visible()
        seen.page.emulate_media(media="print")
        assert cell.is_visible()
        assert (
            seen.page.locator("thead").first.evaluate("each => getComputedStyle(each).display") == "table-header-group"
        )


def test_the_skip_link_leads_to_the_report(pages: dict[str, Path], browser: pw.Browser) -> None:
    with open_page(pages["audited"], 400, browser=browser) as seen:
        seen.page.keyboard.press("Tab")
        assert seen.page.evaluate("document.activeElement.className") == "skip"
        assert seen.page.locator(".skip").bounding_box()["x"] >= 0
        seen.page.keyboard.press("Enter")
        assert seen.page.evaluate("document.activeElement.id") == "content"
