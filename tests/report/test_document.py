"""The document model, the lookup of numbers, and what the renderers make of both."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from framp_private.report.as_json import as_json
from framp_private.report.document import (
    Code,
    Details,
    Document,
    Facts,
    Figure,
    Gap,
    Items,
    Link,
    Notice,
    Number,
    Picture,
    Section,
    Strong,
    Table,
    joined,
    numbers_of,
    plain,
    text,
    to_fill,
)
from framp_private.report.html import render_html
from framp_private.report.markdown import render_markdown
from framp_private.report.sources import NOTHING, Data, derived, keys_of, named, number, path_of, resolve
from tests.report.pages import Page, stray_digits, wrong_numbers

CONTENT: dict[str, Any] = {
    "accuracy": {"mean": 0.8125, "0.5": 0.25, "none": None},
    "by_client": {"a.b": {"local": 0.5, "classes": [3, 1]}, "c\\d": {"local": None, "classes": [2, 2]}},
    "curve": [[1, 0.5], [2, 0.75]],
    "hash": "ab" * 32,
}
DATA = Data("summary", CONTENT)


def whole() -> Document:
    """One of everything."""
    value = number(DATA, "accuracy.mean", ".3f")
    table = Table(
        text("Of ", value),
        ("name", "value"),
        (
            (named(DATA, ("by_client", "a.b")), number(DATA, ("by_client", "a.b", "local"), ".1%")),
            ("gap", to_fill("you")),
        ),
    )
    svg = '<svg width="10" height="10"><defs><path id="p" d="M0 0L1 1"/></defs><use xlink:href="#p"/></svg>'
    picture = Picture("A line", svg, text("It ends at ", number(DATA, "curve.1.1", ".2f"), "."))
    inner = Section("Inner", (Items(("one", text(Strong("two"), " and ", Link("three", "#outer")))),), "inner")
    folded = Details("More", (table, Code("File", "a: 1 `<b>`")))
    blocks = (
        Notice("bad", text("None ", value), (text("body"),)),
        text("soft", tone="soft"),
        Facts((("Hash", number(DATA, "hash")), ("Nothing", number(DATA, "accuracy.none")))),
        Figure(picture),
        Figure(picture),
        Gap("not made"),
        folded,
        inner,
    )
    sections = (Section("Outer", blocks, "outer"),)
    return Document(text("Title ", value), "sub", sections, text("v ", number(DATA, "curve.0.0")))


def test_a_number_holds_the_value_at_its_path() -> None:
    assert number(DATA, "accuracy.mean", ".1f") == Number(0.8125, "0.8", "summary:accuracy.mean", ".1f")
    assert number(DATA, ("accuracy", "0.5"), ".2f") == Number(0.25, "0.25", r"summary:accuracy.0\.5", ".2f")
    assert number(DATA, ("curve", 1, 1)).source == "summary:curve.1.1"
    assert number(DATA, "accuracy.none", ".3f").text == NOTHING


@pytest.mark.parametrize(
    "path", ["accuracy.other", "curve.2", "curve.-1", "accuracy", "curve.0", "hash.0", "by_client.*"]
)
def test_a_path_that_leads_to_no_single_value_is_an_error(path: str) -> None:
    with pytest.raises(KeyError):
        number(DATA, path)


@pytest.mark.parametrize("keys", [("a", "b"), ("a.b", "c"), ("a\\", ".b"), ("\\.", "..", "0")])
def test_any_keys_survive_being_written_as_a_path(keys: tuple[str, ...]) -> None:
    assert keys_of(path_of(keys)) == keys
    nested: Any = 1.5
    for key in reversed(keys):
        nested = {key: nested}
    made = number(Data("x", nested), keys)
    assert resolve(made.source, {"x": nested}) == 1.5


def test_derived_numbers_say_how() -> None:
    least = derived("min", DATA, "by_client.*.local", ".2f")
    assert (least.text, least.source) == ("0.50", "min(summary:by_client.*.local)")
    share = derived(("max", "top_share"), DATA, "by_client.*.classes", ".0%")
    assert (share.text, share.source) == ("75%", "max(top_share(summary:by_client.*.classes))")
    assert derived("count", DATA, "by_client.*.local").value == 1  # null left out
    assert derived("mean", DATA, "curve.*.1").value == 0.625
    assert derived(("sum", "total"), DATA, "by_client.*.classes").value == 8
    assert named(DATA, ("by_client", "c\\d")).value == "c\\d"
    for made in (least, share, named(DATA, ("by_client", "a.b"))):
        assert resolve(made.source, {"summary": CONTENT}) == made.value


@pytest.mark.parametrize(
    "source", ["summary", "min(summary:curve.0.0", "best(summary:curve.*.0)", "min(key(summary:curve.0))", ":curve"]
)
def test_a_source_that_does_not_read_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="source"):
        resolve(source, {"summary": CONTENT})


@pytest.mark.parametrize("name", ["", "a:b", "min(a"])
def test_names_of_data_cannot_break_a_source(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Data(name, {})


def test_documents_refuse_what_no_renderer_could_show() -> None:
    with pytest.raises(ValueError, match="columns"):
        Table("t", ("a", "b"), (("x",),))
    with pytest.raises(ValueError, match="id same"):
        Document("t", "s", (Section("A", (Section("B", (), "same"),), "same"),))
    for target in ("https://example.com", "//example.com", "javascript:alert(1)", "/etc/passwd"):
        with pytest.raises(ValueError, match="target"):
            Link("x", target)
    Link("x", "trials/0001/report.html#claim")


def test_joining_keeps_numbers() -> None:
    made = joined(["a", number(DATA, "accuracy.mean", ".1f"), text("b", "c")], "; ")
    assert plain(made) == "a; 0.8; bc" and len([piece for piece in made.pieces if isinstance(piece, Number)]) == 1


def test_html_shows_every_number_with_its_source() -> None:
    document = whole()
    page = Page(render_html(document))
    assert wrong_numbers(page, {"summary": CONTENT}) == [] and stray_digits(page) == []
    assert [(each.text, each.source) for each in page.numbers] == [(n.text, n.source) for n in numbers_of(document)]
    assert "gap: to be filled by you" in page.text and "gap: not made" in page.text


def test_the_reader_of_pages_finds_what_is_wrong() -> None:
    honest = Document("t", text("x ", number(DATA, "accuracy.mean", ".1f")), ())
    assert wrong_numbers(Page(render_html(honest)), {"summary": CONTENT}) == []
    forged = [
        Number(0.8125, "0.9", "summary:accuracy.mean", ".1f"),
        Number(0.9, "0.8", "summary:accuracy.mean", ".1f"),
        Number(0.8125, "0.8", "summary:accuracy.other", ".1f"),
    ]
    for each in forged:
        assert len(wrong_numbers(Page(render_html(Document("t", text(each), ()))), {"summary": CONTENT})) == 1
    assert stray_digits(Page(render_html(Document("t", "epsilon is 8", ())))) != []
    assert stray_digits(Page(render_html(Document("t", "Art. 35(7)(a) and SHA-256", ())))) == []


def test_pictures_on_one_page_share_no_id() -> None:
    html = render_html(whole())
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'href="#([^"]+)"', html):
        assert target in ids


def test_folded_parts_are_open_on_request_alone() -> None:
    closed, opened = render_html(whole()), render_html(whole(), opened=True)
    assert "<details>" in closed and "<details open>" not in closed
    assert "<details open>" in opened and "<details>" not in opened


NASTY = "<script>alert(1)</script> | *a* `b` [c](d) # \"e\" 'f' & $x$\n- g"


def test_names_are_escaped_everywhere() -> None:
    data = Data("summary", {NASTY: {"v": 1}})
    cell = named(data, (NASTY,))
    blocks = (
        Facts(((NASTY, cell),)),
        Table(NASTY, (NASTY, "b"), ((cell, NASTY),)),
        Figure(Picture(NASTY, "<svg></svg>", text(NASTY))),
        Gap(NASTY),
        Notice("bad", NASTY, (text(Strong(NASTY)),)),
        Items((Link(NASTY, "#x"),)),
        Details(NASTY, (Code(NASTY, NASTY + " ```"),)),
    )
    document = Document(NASTY, NASTY, (Section(NASTY, blocks, "x"),), NASTY)
    html = render_html(document)
    assert "<script>" not in html
    assert wrong_numbers(Page(html), {"summary": data.content}) == []
    markdown = render_markdown(document)
    outside = re.sub(r"````text\n.*?\n````", "", markdown, flags=re.DOTALL)
    outside = re.sub(r"```text\n.*?\n```", "", outside, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<script|(?<!\\)`|(?<!\\)\[c|\n- g", outside)
    rows = [line for line in outside.splitlines() if line.startswith("| ")]
    assert len(rows) == 3 and all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in rows)
    assert json.loads(json.dumps(as_json(document)))["sections"][0]["title"] == NASTY


def test_markdown_and_json_carry_the_same_numbers_as_html() -> None:
    document = whole()
    expected = [(each.text, each.source) for each in Page(render_html(document)).numbers]
    assert numbers_in(as_json(document)) == expected
    markdown = render_markdown(document)
    listed = re.search(r"## Sources of the numbers.*?```text\n(.*)\n```", markdown, re.DOTALL)
    assert listed is not None
    assert [tuple(line.split(" = ", 1)) for line in listed[1].splitlines()] == expected
    body = markdown[: listed.start()]
    for shown, _ in expected:
        assert shown.replace("_", r"\_") in body
    assert "**[gap: to be filled by you]**" in body and "```text\na: 1 `<b>`\n```" in body


def numbers_in(found: Any) -> list[tuple[str, str]]:
    """(text, source) of all numbers in JSON, in order."""
    if isinstance(found, dict):
        if "number" in found:
            return [(found["text"], found["source"])]
        return [pair for value in found.values() for pair in numbers_in(value)]
    return [pair for value in found for pair in numbers_in(value)] if isinstance(found, list) else []
