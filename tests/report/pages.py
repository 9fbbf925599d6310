"""Finished runs to report on, and a reader of pages that knows which text is a number's and which is not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

from framp_private import Options, local, train
from framp_private.privacy.events import Budget
from framp_private.report.given import ledger_data
from framp_private.report.sources import NOTHING, resolve
from framp_private.version import __version__
from tests import private
from tests.test_private_run import client_level
from tests.tiny import tiny_dataset, tiny_federation

STATIC = (
    r"NIST SP 800-226",
    r"Art\. \d+(\(\d+\)(\([a-d]\))?)?",
    r"Regulation \(EU\) 2016/679",
    r"(HMAC-)?SHA-?256",
)
"""Digits that name a document or a function and stand for no quantity."""
QUIET = ("svg", "pre", "style", "title")
"""Whose text is no statement of the report: drawings, files kept as they are, and what has no markup."""
FILES = ("summary", "metrics", "config", "report", "ledger", "audit")


@dataclass(frozen=True)
class Shown:
    """One `<data>` element."""

    text: str
    value: str
    source: str
    form: str


class Page(HTMLParser):
    """Tags, the text, the numbers, and the text outside of numbers and of what is quiet."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[Shown] = []
        self.text = self.outside = ""
        self._open: list[str] = []
        self._data: dict[str, str | None] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self._open.append(tag)
        if tag == "data":
            self._data = dict(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if any(tag in QUIET for tag in self._open):
            return
        self.text += data
        if self._open[-1:] == ["data"]:
            found = (str(self._data[key] or "") for key in ("value", "data-source", "data-format"))
            self.numbers.append(Shown(data, *found))
            self.outside += " "
        else:
            self.outside += data


def wrong_numbers(page: Page, contents: Mapping[str, Any]) -> list[str]:
    """Numbers whose source does not resolve, or resolves to something else than their value and their text."""
    wrong = []
    for each in page.numbers:
        try:
            value = resolve(each.source, contents)
        except (KeyError, ValueError) as error:
            wrong.append(f"{each}: {error}")
            continue
        shown = NOTHING if value is None else format(value, each.form)
        if each.text != shown or each.value != ("" if value is None else str(value)):
            wrong.append(f"{each}: it is {value!r}, shown {shown!r}")
    return wrong


def stray_digits(page: Page) -> list[str]:
    """Digits outside of numbers, with what stands around them."""
    rest = re.sub("|".join(STATIC), "", page.outside)
    return [rest[max(0, found.start() - 30) : found.end() + 20] for found in re.finditer(r"\d+", rest)]


def contents_of(folder: Path) -> dict[str, Any]:
    """What sources resolve in, read from a run folder by other means than the report's."""
    rows = (folder / "ledger.jsonl").read_text().splitlines()
    found = {
        "summary": json.loads((folder / "summary.json").read_text()),
        "metrics": [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()],
        "config": yaml.safe_load((folder / "config.yaml").read_text()),
        "report": {"version": __version__},
        "ledger": ledger_data([json.loads(row) for row in rows]),
    }
    if (folder / "audit.json").is_file():
        found["audit"] = json.loads((folder / "audit.json").read_text())
    return found


def open_run(out: Path) -> Any:
    data = tiny_dataset()
    return train(
        tiny_federation(data),
        data,
        out=out,
        options=Options(evaluate_every=2, home_steps=3),
        config={"method": "framp", "network": "mlp"},
    )


def private_run(out: Path) -> Any:
    return train(
        private.federation(rounds=4),
        private.DATASET,
        out=out,
        config={"method": "framp", "privacy": {"delta": 1e-5}},
        options=Options(evaluate_every=2, home_steps=2, budget=Budget(60.0, 1e-5)),
    )


def silent_run(out: Path) -> Any:
    data = tiny_dataset(4, 0)
    return train(tiny_federation(data, local(), rounds=2), data, exchanges=False, out=out, config={"method": "local"})


def client_run(out: Path) -> Any:
    """Whole clients are protected, by a server that is trusted and asks half of them."""
    made = client_level(rounds=2, cohort=3)
    options = Options(budget=Budget(60.0, 1e-3), home_steps=2)
    return train(made, private.DATASET, out=out, config={"method": "framp"}, options=options)


RUNS = {"open": open_run, "private": private_run, "silent": silent_run, "client": client_run}


def audit_rows() -> dict[str, Any]:
    """What an audit leaves behind, in its form: one attack under a ceiling, one over chance, one without a view."""
    claim = {
        "unit": "record",
        "delta": 1e-5,
        "adjacency": "add/remove",
        "scope": "this run alone",
        "mechanism": "gaussian",
    }
    bounds: Sequence[dict[str, Any]] = [
        {"estimator": "one-run tight", "value": 1.2345, "reach": 5.0, "alpha": 0.01, "sound": True},
        {"estimator": "parametric", "value": 2.5, "reach": "unbounded", "alpha": 0.01, "sound": True},
    ]
    attack = {"curve": [], "members": None, "statistic": "AUC", "baseline": 0.5}
    return {
        "schema": 1,
        "source": "transcript",
        "version": "0.1.0",
        "claims": [
            {**claim, "epsilon": 7.5, "state": "consistent", "words": "no evidence against the claim"},
            {**claim, "epsilon": 6.25, "state": "cannot_refute", "words": "max 3.81", "channel": "update", "bounds": bounds},
        ],
        "attacks": [
            {**attack, "id": "A1", "adversary": "honest server", "asset": "record membership", "value": 0.51, "low": 0.49,
             "high": 0.55, "ceiling": 0.9, "leak": "bounded", "words": "cosine", "worst": {"client": "client-01", "auc": 0.6}},
            {**attack, "id": "A10", "adversary": "honest server", "asset": "client identity", "value": 0.75, "low": 0.6,
             "high": 0.9, "ceiling": None, "leak": "open", "words": "", "worst": {}},
            {**attack, "id": "A3", "adversary": "honest server", "asset": "single record", "value": None, "low": None,
             "high": None, "baseline": None, "ceiling": None, "leak": "none", "words": "no prototypes", "worst": {}},
        ],
        "findings": [{"check": "noise", "channel": "update", "words": "drawn twice in round 3"}],
        "notes": ["descriptor: no canaries"],
    }  # fmt: skip
