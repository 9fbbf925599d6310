"""Summaries of sweeps that hold all that their reports can show, and what tests read off reports."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from framp_private.report.document import Document, Section, Table, blocks_of, plain
from framp_private.report.html import render_html
from framp_private.sweep import Sweep, sweep_of
from framp_private.sweep.record import Record
from framp_private.sweep.results import summarise
from tests.report.pages import Page

VIEW = {
    "update": {
        "protection": "PlainSum",
        "granularity": "client",
        "trust": "nobody",
        "metadata": ["sizes"],
        "noise": "client",
    }
}
ACCOUNTS = [
    {
        "unit": "record",
        "relation": "add/remove",
        "runs": 9,
        "without_guarantee": 1,
        "outside": 3,
        "trust_models": ["any server"],
        "delta": 1e-5,
        "epsilon": None,
        "epsilon_with_guarantee": 11.5,
        "ledger": {"rows": 10, "hash": "ab" * 32, "file": "ledgers/record-add-remove.jsonl"},
    },
    {
        "unit": "client",
        "relation": "add/remove",
        "runs": 3,
        "without_guarantee": 0,
        "outside": 0,
        "trust_models": ["trusted server"],
        "delta": 1e-5,
        "epsilon": 7.25,
        "epsilon_with_guarantee": 7.25,
        "ledger": {"rows": 4, "hash": "cd" * 32, "file": "ledgers/client-add-remove.jsonl"},
    },
]
WRITTEN: dict[str, Any] = {
    "name": "shown",
    "axes": {
        "guarantee": {"own <noise>": {"preset": "digits-private"}, "trusted": {"preset": "digits-client-private"}},
        "privacy.epsilon": [1, 4],
    },
    "references": {"open": {"preset": "digits"}, "at home": {"method": "local"}},
    "seeds": [0, 1],
    "objectives": ["local", "epsilon", "bytes"],
}


def row(
    unit: str | None,
    epsilon: float | None,
    local: float,
    seed: int = 0,
    audited: tuple[float, list[str]] | tuple[None, None] = (None, None),
) -> dict[str, Any]:
    """What a study keeps of a run that reached so much at full budget. audited: largest lower bound, refuted claims."""
    table = {"1": local, "1/4": local - 0.1, "mean": local}
    claim = {
        "epsilon": epsilon,
        "delta": 1e-5,
        "relation": "add/remove",
        "trust_model": "any server",
        "scope": "this run alone",
    }
    return {
        "seed": seed,
        "accuracy": dict.fromkeys(("local", "union", "after_local_training"), table),
        "worst_client": local - 0.2,
        "unit": unit,
        "epsilon": epsilon,
        "privacy": {"record": claim, "client": claim},
        "bytes": 12345,
        "seconds": 1.5,
        "server_view": VIEW if epsilon != 0 else {},
        "empirical_epsilon": audited[0],
        "refuted": audited[1],
        "provenance": {
            "versions": {"python": "3.11", "torch": "2.9"},
            "code_sha256": "0" * 64,
            "config_sha256": f"{seed:064x}",
            "data_commitment": "d" * 64,
        },
        "summary_sha256": "e" * 64,
    }


def shown_summary(written: dict[str, Any] | None = None, **choosing: Any) -> dict[str, Any]:
    """Two references, two guarantees at two epsilons, two seeds; one trial failed and one point pruned."""
    sweep: Sweep = sweep_of(written or WRITTEN)
    trials = []
    for number in range(12):
        place, seed = number % 6, number // 6
        point = None if place < 2 else list(sweep.grid())[place - 2]
        unit = None if place < 2 else ("record", "client")[(place - 2) // 2]
        epsilon = (None, 0.0)[place] if place < 2 else float(point["privacy.epsilon"]) if point else None
        local = 0.4 + 0.05 * place + 0.02 * seed
        found = row(unit, epsilon, local, seed)
        values = (local, epsilon if epsilon is not None else float("inf"), 12345.0)
        reference = list(sweep.references)[place] if place < 2 else None
        record = Record(number, "complete", place, seed, False, reference, point or {}, values, found)
        if number == 11:
            record = Record(number, "failed", place, seed, params=point or {}, error="ValueError: <b>no</b>\nTraceback")
        trials.append(record)
    return summarise(sweep, trials, {"records": "private", "publish": "all", "accounts": ACCOUNTS, **choosing})


def chosen_summary() -> dict[str, Any]:
    """Three repetitions of which one is published."""
    written = {
        "name": "best",
        "axes": {"privacy.epsilon": [1, 2]},
        "sampler": "random",
        "choosing": {"publish": "best", "mean": 3},
        "objectives": ["local"],
    }
    trials = [
        Record(
            at,
            "complete",
            at,
            0,
            params={"privacy.epsilon": "1"},
            values=(0.5 + at / 10,),
            result=row("record", 1.0, 0.5, 0),
        )
        for at in range(3)
    ]
    choosing = {"records": "private", "publish": "best", "accounts": [{**ACCOUNTS[1], "unit": "record"}]}
    return summarise(sweep_of(written), trials, choosing)


def audited_summary() -> dict[str, Any]:
    """Two points at two seeds, all audited: one bound is infinite, and it refutes the claim."""
    sweep = sweep_of({"name": "audited", "axes": {"privacy.epsilon": [1, 4]}, "seeds": [0, 1], "objectives": ["local"]})
    points = list(sweep.grid())
    found: list[tuple[float, list[str]]] = [(0.25, []), (1.5, []), (0.75, []), (float("inf"), ["this run alone"])]
    trials = [
        Record(
            at,
            "complete",
            at % 2,
            at // 2,
            params=points[at % 2],
            values=(0.5,),
            result=row("record", epsilon, 0.5 + at / 50, at // 2, each),
        )
        for at, (epsilon, each) in enumerate(zip((1.0, 4.0, 1.0, 4.0), found, strict=True))
    ]
    return summarise(sweep, trials, {"records": "private", "publish": "all", "accounts": ACCOUNTS})


def forty_summary() -> dict[str, Any]:
    """Eight learning rates at five epsilons and two seeds: the largest rate, whose points come last, is the best."""
    rates = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]
    axes = {"learning_rate": rates, "privacy.epsilon": [0.5, 1, 2, 4, 8]}
    sweep = sweep_of({"name": "forty", "axes": axes, "seeds": [0, 1], "objectives": ["local", "epsilon"]})
    trials = []
    for number, (seed, place) in enumerate((seed, place) for seed in range(2) for place in range(40)):
        rate, step = divmod(place, 5)
        epsilon, local = (0.5, 1.0, 2.0, 4.0, 8.0)[step], 0.3 + 0.08 * step + 0.02 * rate + 0.01 * seed
        found = row("record", epsilon, local, seed)
        trials.append(
            Record(
                number, "complete", place, seed, params=list(sweep.grid())[place], values=(local, epsilon), result=found
            )
        )
    return summarise(sweep, trials, {"records": "private", "publish": "all", "accounts": ACCOUNTS})


def text_of(document: Document) -> str:
    return Page(render_html(document)).text


def numbers_in(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        own = [node] if "number" in node else []
        return own + [found for key, value in node.items() if key != "number" for found in numbers_in(value)]
    return [found for value in node for found in numbers_in(value)] if isinstance(node, list) else []


def pictures(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        own = [node] if node.get("kind") == "figure" else []
        return own + [found for value in node.values() for found in pictures(value)]
    return [found for value in node for found in pictures(value)] if isinstance(node, list) else []


def rows_of(document: Document, section: str) -> list[list[str]]:
    """The rows of a section's first table, as strings."""
    (found,) = [each for each in document.sections if each.id == section]
    table = next(block for block in blocks_of(found.blocks) if isinstance(block, Table))
    return [[plain(cell) for cell in row] for row in table.rows]


def links_of(document: Document) -> set[str]:
    targets = {str(attributes["href"]) for tag, attributes in Page(render_html(document)).tags if tag == "a"}
    return {target for target in targets if not target.startswith("#")}


def sections_of(document: Document) -> dict[str, Section]:
    return {section.id: section for section in document.sections}


def in_folder(root: Path, summary: dict[str, Any], files: tuple[str, ...] = ()) -> Path:
    """A sweep's folder with a summary, and files of trials that ran there."""
    root.mkdir(parents=True)
    (root / "sweep.yaml").write_text(yaml.safe_dump(summary.get("spec")))
    (root / "summary.json").write_text(json.dumps(summary))
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("a page")
    return root


def plain_of(section: Section) -> str:
    return " ".join(Page(render_html(Document("", "", (section,)))).text.split())


def removals(content: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every key; of the things in a list, which are all of one form, of the first's."""
    if isinstance(content, dict):
        for key, inner in content.items():
            yield (*path, key)
            yield from removals(inner, (*path, key))
    elif isinstance(content, list) and content:
        yield from removals(content[0], (*path, 0))


def altered(content: dict[str, Any], path: tuple[str | int, ...], *put: Any) -> dict[str, Any]:
    """A copy without the key at a path, or with another value there."""
    found: Any = copy.deepcopy(content)
    *before, last = path
    inner = found
    for key in before:
        inner = inner[key]
    if put:
        inner[last] = put[0]
    else:
        del inner[last]
    return found  # type: ignore[no-any-return]


ALTERED: tuple[tuple[tuple[str | int, ...], tuple[Any, ...], str], ...] = (
    (("sweep",), (), "nothing stands at sweep"),
    (("refuted",), (), "nothing stands at refuted"),
    (("spec", "seeds"), (), "nothing stands at spec.seeds"),
    (("points", 1, "claim", "trust_model"), (), "nothing stands at points.1.claim.trust_model"),
    (("points", 0, "intervals", "local", "1/4", "low"), (), "nothing stands at points.0.intervals.local.1/4.low"),
    (("choosing", "accounts", 1, "outside"), (), "nothing stands at choosing.accounts.1.outside"),
    (("frontier", 0, "points", 0, "place"), (), "nothing stands at frontier.0.points.0.place"),
    (("rows", 3, "result"), (), "nothing stands at rows.3.result"),
    (("confidence",), ("95 %",), "confidence is text and not a number"),
    (("points", 1, "epsilon"), ("4",), "points.1.epsilon is text and not a number"),
    (("points", 1, "replicates"), (True,), "points.1.replicates is true or false and not a whole number"),
    (("rows",), ({},), "rows is a mapping and not a list"),
    (("chosen",), ([],), "chosen is a list and not a mapping"),
    (("trials",), (None,), "trials is null and not a mapping"),
    (("frontier", 0, "points", 0, "place"), (7,), "list index out of range"),
)
"""Where `audited_summary` is altered, what is put there or nothing, and what is said of it."""
