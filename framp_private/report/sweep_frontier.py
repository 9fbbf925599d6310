"""Privacy and utility of a sweep's points: pictures, the same as tables, and where each point stands."""

from __future__ import annotations

from framp_private.report import sweep_figures as figures
from framp_private.report.document import Block, Cell, Details, Figure, Items, Section, Table, text
from framp_private.report.points import mean_of, name_of, state_of
from framp_private.report.sources import Data, named, number

STATES = {
    "front": "no other point has at most its epsilon, up to a five-hundredth, and a higher mean",
    "behind": "another point is ahead in the mean, and the seeds do not settle that it truly is",
    "beaten": "another point costs no more and is ahead by a paired t test over seeds",
}
TESTED = (
    ", and without correction for how many comparisons there are: among many points some are called beaten by luck."
)


def frontier(data: Data) -> Section | None:
    """Pictures and tables, by unit and budget; None if no point has a guarantee and all its replicates."""
    blocks: list[Block] = []
    for unit in dict.fromkeys(front["unit"] for front in data["frontier"]):
        several = sum(front["unit"] == unit for front in data["frontier"]) > 2  # one budget is all budgets
        blocks += [
            Figure(figures.frontier(data, unit)),
            *([Figure(figures.by_budget(data, unit))] if several else []),
            Details("The same as a table", (_front_table(data, unit),)),
        ]
    if not blocks:
        return None
    meanings = Items(tuple(f"{state}: {meaning}" for state, meaning in STATES.items()))
    tested = text("Each comparison is tested alone, at a confidence of ", number(data, "confidence", ".0%"), TESTED)
    return Section("Privacy and utility", (*blocks, meanings, tested), "frontier")


def _front_table(data: Data, unit: str) -> Table:
    fronts = [front for front in data["frontier"] if front["unit"] == unit]
    places = dict.fromkeys(row["place"] for front in fronts for row in front["points"])
    rows = []
    for place in places:
        point = ("points", place)
        cells: list[Cell] = [name_of(data, place), number(data, (*point, "epsilon"), ".3g")]
        for front in fronts:
            standing = state_of(front, place)
            shown: Cell = "–"
            if standing is not None:
                shown = text(mean_of(data, (*point, "intervals", "local", front["budget"])), f", {standing}")
            cells.append(shown)
        rows.append(tuple(cells))
    header: list[Cell] = ["point", "epsilon"]
    for budget in (front["budget"] for front in fronts):
        header.append("all budgets" if budget == "mean" else text("budget ", _budget(data, budget)))
    first = next(at for at, front in enumerate(data["frontier"]) if front["unit"] == unit)
    caption = "Local accuracy by budget, mean with interval, and where the point stands; unit "
    return Table(text(caption, number(data, ("frontier", first, "unit"))), tuple(header), tuple(rows))


def _budget(data: Data, budget: str) -> Cell:
    place = next(at for at, point in enumerate(data["points"]) if budget in point["accuracies"].get("local", {}))
    return named(data, ("points", place, "intervals", "local", budget))
