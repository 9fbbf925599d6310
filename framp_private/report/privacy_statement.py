"""The privacy statement, in the terms of NIST SP 800-226: what is guaranteed, by what, and what could spoil it.

Near and Darais, *Guidelines for Evaluating Differential Privacy Guarantees*, NIST SP 800-226, March 2025. The order is
its pyramid's: the guarantee and its unit, the mechanisms and their composition, trust and implementation, the data.
"""

from __future__ import annotations

from framp_private.privacy.claims import Claim
from framp_private.report.document import Block, Cell, Facts, Gap, Notice, Section, text, to_fill
from framp_private.report.given import Given
from framp_private.report.hazards import hazards
from framp_private.report.mechanisms import composition, declared_plan, mechanisms
from framp_private.report.sources import named
from framp_private.report.words import unit_of

RELATIONS = {
    "add/remove": "two data sets are neighbours if one holds one {unit} more than the other",
    "replace-one": "two data sets are neighbours if they differ in what one {unit} is",
    "add/remove edge": "two graphs are neighbours if one holds one edge more than the other",
}
UNITS = {
    "record": "one training record of one client, after its split into training and test records",
    "client": "everything that one client contributes to the run",
}


def privacy_statement(given: Given) -> Section:
    """What the run can truly say for each item; none where there is no guarantee."""
    intro = text(
        "In the terms of NIST SP 800-226, Guidelines for Evaluating Differential Privacy Guarantees.", tone="soft"
    )
    blocks: list[Block] = [intro]
    if given.silent:
        blocks.append(
            Notice("good", "Nothing was released", (text("No message left a client. There is nothing to bound."),))
        )
    elif not given.bounded:
        why = text(
            "Privacy loss is not bounded: epsilon is infinite, and no delta, unit or neighbouring relation makes it "
            "finite. What follows is how the run was made, not a guarantee."
        )
        blocks.append(Notice("bad", "No differential privacy guarantee: none is claimed", (why,)))
    blocks += [
        Section("The guarantee", (_guarantee(given),), "guarantee"),
        Section("Mechanisms", mechanisms(given), "mechanisms"),
    ]
    blocks += [
        Section("Composition", (Facts(composition(given)), *declared_plan(given)), "composition"),
        Section("Deployment and data", (Facts(_deployment(given)),), "deployment"),
        Section("Privacy hazards", (hazards(given),), "hazards"),
    ]
    return Section("Privacy statement", tuple(blocks), "privacy")


def _guarantee(given: Given) -> Facts:
    rows: list[tuple[str, Cell]] = []
    for claim in given.held if given.bounded else []:
        at = ("privacy", claim.unit)
        epsilon, delta = given.number((*at, "epsilon"), ".4f"), given.number((*at, "delta"), "g")
        rows += [
            ("Privacy loss (epsilon)", text(epsilon, ", for a client that takes part in every round")),
            ("Largest loss of a client", _largest(given)),
            ("Delta", text(delta, *_records(given))),
            ("Unit of privacy", text(unit_of(given, claim), f": {UNITS[claim.unit]}")),
            ("Neighbouring relation", text(f"{claim.relation}: ", RELATIONS[claim.relation].format(unit=claim.unit))),
            ("Trust model", text(f"{_model(claim)}: ", given.number((*at, "trust_model")))),
            ("Query model", "training in rounds that were planned before the first; nobody asks further questions"),
        ]
    none = "nothing released" if given.silent else "none"
    terms = ("Privacy loss (epsilon)", "Delta", "Unit of privacy", "Neighbouring relation")
    trust = given.number(("privacy", "record", "trust_model"))
    return Facts(tuple(rows) or (*((term, none) for term in terms), ("Trust model", trust)))


def _largest(given: Given) -> Cell:
    """Of all clients' losses, and whose it is."""
    spent = {name: row["epsilon"] for name, row in given.summary["by_client"].items() if row["epsilon"] is not None}
    if not spent:
        return Gap("not recorded by client")
    name = max(spent, key=lambda each: spent[each])
    low = given.over_clients("min", "epsilon", ".4f")
    high = given.number(("by_client", name, "epsilon"), ".4f")
    if low.value == high.value:
        return text(high, ", the same for all ", given.over_clients("count", "epsilon"), " clients")
    return text(high, ", of ", named(given.summary, ("by_client", name)), "; the smallest is ", low)


def _records(given: Given) -> tuple[Cell, ...]:
    least = given.over_clients("min", "declared", ",")
    if least.value is None:
        return ("; it must lie far below one over the number of the smallest client's records",)
    return ("; it must lie far below one over the number of a client's records, of which the smallest declared ", least)


def _model(claim: Claim) -> str:
    """The class of a trust model."""
    if claim.trust_model.startswith(("any server", "nobody")):
        return "local model"
    if claim.trust_model.startswith("trusted server"):
        return "central model"
    return "secure computation with distributed noise"


def _deployment(given: Given) -> tuple[tuple[str, Cell], ...]:
    collected = (
        "records stay at the clients. The run is a simulation on one machine, which held all of them: whoever had "
        "access to it had access to the records"
    )
    security = (
        "ledgers are chained and signed, messages are bounded and parsed without executing anything, keys are readable "
        "by their owner alone"
    )
    return (
        ("Exposure by collection", collected),
        ("Security of the program", security),
        ("Security of the sites", to_fill("each site: access control, encryption at rest, staff")),
        (
            "Utility and bias",
            "the worst client and the worst budget stand beside each mean, under accuracy and utility",
        ),
        ("Effect on groups of people", to_fill("who knows the groups: no group was named to the run")),
    )
