"""The first part: the claim in words, and the terms without which an epsilon says nothing."""

from __future__ import annotations

from framp_private.report.document import Block, Cell, Link, Notice, Section, Table, Text, text
from framp_private.report.given import Given
from framp_private.report.sources import NOTHING, named
from framp_private.report.words import EXPERIMENTER, listed, meaning_of, statement_of, unit_of


def headline(given: Given) -> Section:
    """What the run may claim, or that it may claim nothing."""
    blocks: list[Block] = [_notice(given), claims_table(given), _result(given)]
    if given.bounded:
        blocks.append(text(EXPERIMENTER, tone="soft"))
    return Section("Claim", tuple(blocks), "claim")


def _notice(given: Given) -> Notice:
    line = statement_of(given)
    if given.silent:
        body = text("Nothing was sent: no message left any client, so nobody learned anything from this run.")
        return Notice("good", line, (body,))
    if given.bounded:
        return Notice("good", line, (text(" ".join(meaning_of(claim) for claim in given.held)),))
    sent = text(
        *_what_left(given),
        "Whoever receives them can learn about single records; this run is for method development, not for records "
        "that need protection.",
    )
    return Notice("bad", line, (sent,))


def _what_left(given: Given) -> tuple[Cell, ...]:
    """How unprotected channels left the clients, from what their protections say."""
    views = given.summary["server_view"] if given.summary.has("server_view") else {}
    if not views:
        return ("Updates, class prototypes and descriptors left the clients in the clear. ",)
    clear = [name for name, row in views.items() if row["granularity"] == "client" and row["noise"] is None]
    summed = [name for name, row in views.items() if row["granularity"] == "sum" and row["noise"] is None]
    noised = [name for name, row in views.items() if row["noise"] is not None]
    said = [
        (clear, "left the clients in the clear"),
        (summed, "left the clients under a secure sum, which hides single values and bounds nothing of what it tells"),
        (noised, "left the clients with noise that this run draws no guarantee from"),
    ]
    return tuple(f"{listed(names).capitalize()} {how}. " for names, how in said if names)


def claims_table(given: Given) -> Table:
    """Both units' claims with all their terms."""
    rows = []
    for claim in given.claims:
        at = ("privacy", claim.unit)
        epsilon: Cell = given.number((*at, "epsilon"), ".4f") if claim.epsilon is not None else "infinite"
        delta = given.number((*at, "delta"), "g")
        trust, scope = given.number((*at, "trust_model")), given.number((*at, "scope"))
        rows.append((unit_of(given, claim), epsilon, delta, claim.relation, trust, scope))
    header = ("unit", "epsilon", "delta", "relation", "trust model", "scope")
    caption = "A claim is epsilon and delta with their unit, neighbouring relation, trust model and scope."
    return Table(caption, header, tuple(rows))


def _result(given: Given) -> Text:
    """What the run reached, in one sentence."""
    worst = given.worst("local")
    least = given.number(("by_client", str(worst), "local"), ".3f")
    mean = given.number(("accuracy", "local", "mean"), ".3f")
    rounds, clients = given.number("rounds"), given.number("clients")
    reached = ("After ", rounds, " rounds with ", clients, " clients the served models reach a mean local accuracy of ")
    who = (mean, "; the worst client, ", named(given.summary, ("by_client", str(worst))), ", reaches ", least, ". ")
    more = (
        "More in ",
        Link("accuracy and utility", "#utility"),
        f". A dash ({NOTHING}) stands for what does not apply.",
    )
    return text(*reached, *who, *more)
