"""The report: one file, every figure in words too, every number from the summary."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from framp_private import Options, local, train
from tests.tiny import tiny_dataset, tiny_federation

DATASET = tiny_dataset()


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):  # noqa: ANN201
    out = tmp_path_factory.mktemp("report") / "run"
    return train(
        tiny_federation(DATASET),
        DATASET,
        out=out,
        options=Options(evaluate_every=2, home_steps=3),
        config={"method": "framp"},
    )


@pytest.fixture(scope="module")
def html(finished) -> str:  # noqa: ANN001
    return (finished.folder / "report.html").read_text()


def test_it_needs_nothing_but_itself(html: str) -> None:
    page = Page(html)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe")]
    for _, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("href", "src", "xlink:href"):
                assert (value or "").startswith("#")
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html


def test_every_picture_has_words(html: str) -> None:
    pictures = [attributes for _, attributes in Page(html).tags if attributes.get("role") == "img"]
    assert len(pictures) == 4
    assert all(len(attributes["aria-label"] or "") > 30 for attributes in pictures)


def test_its_numbers_are_those_of_the_summary(html: str, finished) -> None:  # noqa: ANN001
    text = Page(html).text
    for kind in ("local", "union", "unseen", "after_local_training"):
        for value in finished.summary["accuracy"][kind].values():
            assert f"{value:.3f}" in text
    for way in ("up", "down"):
        for size in finished.summary["traffic"][way].values():
            assert f"{size:,}" in text
    assert "privacy: none, epsilon = infinite" in text and "trusted" in text


def test_a_run_without_messages_says_that_nothing_was_sent(tmp_path: Path) -> None:
    method = local()
    train(tiny_federation(DATASET, method), DATASET, exchanges=False, out=tmp_path / "run")
    text = Page((tmp_path / "run" / "report.html").read_text()).text
    assert "Nothing was sent" in text and "no message was sent" in text and "infinite" not in text


def test_names_are_escaped(tmp_path: Path) -> None:
    train(
        tiny_federation(DATASET, rounds=1),
        DATASET,
        out=tmp_path / "run",
        config={"method": "<script>alert(1)</script>"},
    )
    assert "<script>" not in (tmp_path / "run" / "report.html").read_text()


def test_many_clients_are_drawn_as_a_map() -> None:
    from framp_private.report.figures import MOST_BARS, class_mix

    few = {f"c{i}": {"classes": [3, 1]} for i in range(MOST_BARS)}
    many = {f"c{i}": {"classes": [3, 1]} for i in range(1000)}
    assert len(class_mix(many).svg) < 2 * len(class_mix(few).svg)
    assert "1000 clients with 4 training records" in class_mix(many).text
