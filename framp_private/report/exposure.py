"""What the server sees of each channel, and what attacks on the run reached."""

from __future__ import annotations

from collections.abc import Callable

from framp_private.report.document import Block, Cell, Items, Notice, Section, Table, Text, text
from framp_private.report.given import OLD, Given
from framp_private.report.sources import Data, number
from framp_private.report.words import NOT_AUDITED, WHERE_NOISED

LEAKS = {
    "none": "no better than chance, or nothing in view",
    "bounded": "under a ceiling that the claim gives",
    "unclear": "over chance, but not surely",
    "open": "surely better than chance, and nothing bounds it",
    "violation": "surely over the ceiling",
}
SEES = text(
    "Granularity is the finest thing that the server gets: each client's value, or a sum over clients. Trust says who "
    "must behave for that to hold; what arrives may be noised before, as the row on noise says.",
    tone="soft",
)
CAUTION = text(
    "Results of attacks are computed from private records, without noise: they are for the operator, not to be passed "
    "on. A lower bound never certifies a claim: it can only refute it.",
    tone="caution",
)


def server_view(given: Given) -> Section:
    """By channel: what arrives, whom that trusts, what stays visible beside it."""
    blocks: tuple[Block, ...] = (OLD,)
    if given.summary.has("server_view"):
        blocks = (SEES, _views(given)) if given.summary["server_view"] else (text("Nothing: nothing was sent."),)
    return Section("What the server sees", blocks, "server")


def _views(given: Given) -> Table:
    """A column for each channel: there are few, and words are long."""
    views = given.summary["server_view"]

    def row(label: str, cell: Callable[[str], Cell]) -> tuple[Cell, ...]:
        return (label, *(cell(name) for name in views))

    rows = (
        row("protection", lambda name: given.number(("server_view", name, "protection"))),
        row("granularity", lambda name: given.number(("server_view", name, "granularity"))),
        row("clients in a value, at least", lambda name: given.number(("server_view", name, "minimum_cohort"), ",")),
        row("noise", lambda name: WHERE_NOISED[views[name]["noise"]] if views[name]["noise"] else "none"),
        row("trust", lambda name: given.number(("server_view", name, "trust"))),
        row("still visible", lambda name: ", ".join(views[name]["metadata"])),
    )
    return Table("What the server sees of each channel while it follows the protocol.", ("channel", *views), rows)


def attacks(given: Given) -> Section:
    """Attacks and audited claims, or that there was no audit."""
    audit = given.audit
    if audit is None:
        return Section("Attacks", (NOT_AUDITED,), "attacks")
    found = [text(number(audit, "summary"))] if audit.has("summary") else []
    blocks: list[Block] = [CAUTION, *found, _verdicts(audit), *_findings(audit), _reached(audit)]
    blocks.append(Items(tuple(f"{leak}: {meaning}" for leak, meaning in LEAKS.items())))
    for place, _ in enumerate(audit["notes"]):
        blocks.append(text("Not tested: ", number(audit, ("notes", place)), tone="soft"))
    source = text(
        "Read from: ", number(audit, "source"), "; audited by framp_private ", number(audit, "version"), tone="soft"
    )
    return Section("Attacks", (*blocks, source), "attacks")


def _verdicts(audit: Data) -> Table:
    """Claims and what was found against them; the bound is the largest among valid ones."""
    rows = []
    for place, claim in enumerate(audit["claims"]):
        at = ("claims", place)
        name = number(audit, (*at, "channel")) if "channel" in claim else "the run"
        epsilon: Cell = number(audit, (*at, "epsilon"), ".3f") if claim["epsilon"] is not None else "none"
        bounds = [each["value"] for each in claim.get("bounds", ())]
        known = [index for index, value in enumerate(bounds) if isinstance(value, int | float)]
        best = max(known, key=lambda index: bounds[index]) if known else None
        bound: Cell = "" if best is None else number(audit, (*at, "bounds", best, "value"), ".3f")
        rows.append((name, epsilon, bound, _spaced(audit, (*at, "state")), number(audit, (*at, "words"))))
    header = ("claim", "epsilon", "lower bound", "state", "in words")
    return Table("Claims and what canaries and replays found against them.", header, tuple(rows))


def _spaced(audit: Data, at: tuple[str | int, ...]) -> Cell:
    return str(audit[at]).replace("_", " ")


def _findings(audit: Data) -> list[Block]:
    found = [
        text(number(audit, ("findings", place, "check")), ": ", number(audit, ("findings", place, "words")))
        for place in range(len(audit["findings"]))
    ]
    return [Notice("bad", "Findings of replays and of the claim itself", tuple(found))] if found else []


def _reached(audit: Data) -> Table:
    rows = []
    for place, row in enumerate(audit["attacks"]):
        at = ("attacks", place)
        reached: tuple[Cell, ...] = ("", "", "", "", "not in view")
        if row["value"] is not None:
            interval = _interval(audit, at)
            numbers = (number(audit, (*at, name), ".3f") for name in ("baseline", "ceiling"))
            reached = (number(audit, (*at, "value"), ".3f"), interval, *numbers, str(row["leak"]))
        rows.append((number(audit, (*at, "id")), _what(audit, at), number(audit, (*at, "statistic")), *reached))
    header = ("attack", "by whom, on what", "statistic", "value", "interval", "chance", "ceiling", "leak")
    caption = "What each attack reached, its confidence interval, what chance reaches, and the ceiling of the claim."
    return Table(caption, header, tuple(rows))


def _what(audit: Data, at: tuple[str | int, ...]) -> Text:
    """Who attacked what, how or why not, and whom it hit worst."""
    parts: list[Cell] = [number(audit, (*at, "adversary")), ", ", number(audit, (*at, "asset"))]
    parts += [": ", number(audit, (*at, "words"))] if audit[(*at, "words")] else []
    worst = audit[(*at, "worst")] if audit.has((*at, "worst")) else {}
    hit = [name for name, value in worst.items() if value is not None and not isinstance(value, dict | list)]
    for place, name in enumerate(hit):
        form = ".3f" if isinstance(worst[name], float) else ""
        parts += ["; worst " if place == 0 else ", ", f"{name} ", number(audit, (*at, "worst", name), form)]
    return text(*parts)


def _interval(audit: Data, at: tuple[str | int, ...]) -> Text | str:
    if audit[(*at, "low")] is None or audit[(*at, "high")] is None:
        return "–"
    return text(number(audit, (*at, "low"), ".3f"), " to ", number(audit, (*at, "high"), ".3f"))
