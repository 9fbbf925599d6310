"""What one run of each point of a sweep claims."""

from __future__ import annotations

from framp_private.report.document import Cell, Link, Section, Table, joined, text
from framp_private.report.points import INFINITE, absent, epsilon_of, name_of
from framp_private.report.sources import Data, number

ALONE = (
    "What one run of each point claims, alone; epsilon is the largest of its seeds. Epsilons of different units or "
    "trust models are not comparable."
)


def claims(data: Data) -> Section:
    """Every point's claim with all its terms."""
    rows: list[tuple[Cell, ...]] = []
    for place, point in enumerate(data["points"]):
        at = ("points", place, "claim")
        if point["claim"] is None:
            rows.append((name_of(data, place), *_without_claim(data, place)))
            continue
        terms = [number(data, (*at, name)) for name in ("relation", "trust_model")]
        delta = number(data, (*at, "delta"), "g")
        rows.append((name_of(data, place), _unit(data, place), epsilon_of(data, place), delta, *terms))
    header = ("point", "unit", "epsilon", "delta", "relation", "trust model")
    table = Table(text(ALONE, *_scopes(data)), header, tuple(rows))
    words = text(
        "A claim bounds what anybody learns of one unit from everything that one run released. Several runs on the "
        "same records compose: see ",
        Link("the cost of choosing", "#choosing"),
        ".",
    )
    return Section("What is claimed", (words, table), "claims")


def _scopes(data: Data) -> tuple[Cell, ...]:
    """What the claims count, each scope once."""
    claimed = [at for at, point in enumerate(data["points"]) if point["claim"] is not None]
    first = {data[("points", at, "claim", "scope")]: at for at in reversed(claimed)}
    scopes = [number(data, ("points", at, "claim", "scope")) for at in sorted(first.values())]
    return (" Scope: ", joined(scopes, "; "), ".") if scopes else ()


def _unit(data: Data, place: int) -> Cell:
    """The unit, and what one is where the claim says so."""
    unit, of_what = number(data, ("points", place, "unit")), ("points", place, "claim", "protects")
    return text(unit, " (", number(data, of_what), ")") if data.has(of_what) else unit


def _without_claim(data: Data, place: int) -> tuple[Cell, ...]:
    point = data["points"][place]
    if not point["objectives"]:
        return ("–", "–", "–", "–", absent(data, place))
    if point["epsilon"] == 0:
        return ("–", number(data, ("points", place, "epsilon")), "–", "–", "nobody: no message was sent")
    return ("–", INFINITE, "–", "–", "none: no guarantee")
