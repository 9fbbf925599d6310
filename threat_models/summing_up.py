"""What an audit found, in one sentence for whoever reads no table, and what the words in its tables mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EXACT = 0.9995
"""A share of right answers from which on a leak is called exact; it rounds to 1.000."""

LEGEND: Mapping[str, str] = {
    "none": "no better than chance",
    "bounded": "under a ceiling that the claim gives",
    "unclear": "over chance, but not surely",
    "open": "surely better than chance, and nothing bounds it",
    "violation": "surely over the ceiling",
}
"""What each leak means."""

_ASSETS: Mapping[str, str] = {
    "label distribution": "each client's mix of classes",
    "single record": "the only record of a class",
    "record membership": "whether a record was trained on",
    "client identity": "which client sent what",
    "client property": "whether a client has records of some class",
    "source of a record": "whose a record is",
    "record": "a record's features",
    "class present anywhere": "which classes anybody has",
    "classes held, by rows": "which classes a client has",
    "classes held, by size": "how many classes a client has",
    "records held, by size": "how many records a client has",
}


def sentence(rows: Mapping[str, Any]) -> str:
    """One sentence on the rows of `audit.json`: what became of the claim, and what is open beside it."""
    return f"{_claim(rows)}; {_leaks(rows['attacks'])}."


def _claim(rows: Mapping[str, Any]) -> str:
    run = rows["claims"][0]
    if run["epsilon"] is None:
        return "This run claims nothing"
    about = f"epsilon {run['epsilon']:.3g} for one {run['unit']}"
    refuted = [row for row in rows["claims"] if row["state"] == "refuted"]
    if refuted:
        which = "" if refuted[0] is run else f"{refuted[0]['channel']}: "
        return f"The claim of {about} is refuted ({which}{refuted[0]['words'].removeprefix('refuted by ')})"
    if run["state"] == "cannot_refute":
        return f"The claim of {about} was not refuted, and so few canaries could not have refuted it"
    if run["state"] == "estimate_only":
        return f"The claim of {about} was not tested: no bound with a valid confidence was possible"
    bounds = [bound["value"] for row in rows["claims"] for bound in row.get("bounds", []) if bound["sound"]]
    shown = f", of which canaries showed {max(bounds):.2f}" if bounds and max(bounds) > 0 else ""
    return f"Nothing was found against the claim of {about}{shown}"


def _leaks(attacks: Sequence[Mapping[str, Any]]) -> str:
    leaks = [row for row in attacks if row["leak"] == "open" and row["value"] is not None]
    exact = [row for row in leaks if row["value"] >= EXACT and "dB" not in row["statistic"]]
    better = [row for row in leaks if row["asset"] not in {each["asset"] for each in exact}]
    parts: list[str] = []
    last = ""
    for found, words in ((exact, "learns exactly"), (better, "does better than chance at telling")):
        for adversary in dict.fromkeys(row["adversary"] for row in found):
            of_it = [row for row in found if row["adversary"] == adversary]
            who = "" if adversary == last else f"the {_short(adversary)} "
            parts.append(f"{who}{words} {_listed(of_it)}")
            last = adversary
    if parts:
        return "without any bound " + ", and ".join(parts)
    return "no attack that nothing bounds did surely better than chance"


def _short(adversary: str) -> str:
    return adversary.removeprefix("honest ").removeprefix("external ")


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
    ids: dict[str, list[str]] = {}
    for row in rows:
        ids.setdefault(_ASSETS.get(row["asset"], row["asset"]), []).append(row["id"])
    parts = [f"{asset} ({', '.join(dict.fromkeys(names))})" for asset, names in ids.items()]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
