"""Points of a sweep in words: their letters and names, and means with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framp_private.report.document import Block, Cell, Details, Table, Text, joined, text
from framp_private.report.sources import Data, Keys, keys_of, named, number

INFINITE = "infinite"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MOST_ROWS = 12
"""A table of more rows that is no main thing of its section is folded."""


def letter_of(place: int) -> str:
    """What a point is called in pictures: a to z, then aa, ab and so on, so that no two of a sweep are called alike."""
    before, last = divmod(place, len(LETTERS))
    return (letter_of(before - 1) if before else "") + LETTERS[last]


CHANNEL_HEADER = ("channel", "protection", "granularity", "trust")


def channel_rows(data: Data, who: Cell, view: Keys, nothing: str) -> list[tuple[Cell, ...]]:
    """What the server sees of each channel, a row for each. view: where they stand. nothing: said if there is none."""
    rows: list[tuple[Cell, ...]] = [
        (who, named(data, (*view, name)), *(number(data, (*view, name, key)) for key in CHANNEL_HEADER[1:]))
        for name in data[view]
    ]
    return rows or [(who, "–", nothing, "–", "–")]


def name_of(data: Data, place: int) -> Text:
    """A point's letter, and its label or the values of its axes."""
    at, point = ("points", place), data["points"][place]
    letter = f"{letter_of(place)}: "
    if point["reference"] is not None:
        return text(letter, number(data, (*at, "reference")))
    axes: list[Cell] = [
        text(term_of(data, name), number(data, (*at, "axes", name), _form(value)))
        for name, value in point["axes"].items()
    ]
    return text(letter, joined(axes, ", ") if axes else "the base settings")


def term_of(data: Data, name: str) -> str:
    """A setting's name before its value; nothing for a bundle, whose label stands for itself."""
    axis = data["spec"]["axes"][name]
    bundle = isinstance(axis, Mapping) and "low" not in axis
    return "" if bundle else f"{name.rpartition('.')[2].replace('_', ' ')} "


def mean_of(data: Data, path: Keys, form: str = ".3f") -> Text:
    """A mean, and half the width of its interval as its two ends where it has one."""
    at = keys_of(path)
    mean = number(data, (*at, "mean"), form)
    if data[(*at, "low")] is None:
        return text(mean)
    return text(mean, " [", number(data, (*at, "low"), form), ", ", number(data, (*at, "high"), form), "]")


def epsilon_of(data: Data, place: int) -> Cell:
    """The epsilon of a point, the largest of its seeds: a number, or that it is infinite."""
    at = ("points", place, "epsilon")
    return INFINITE if data[at] is None else number(data, at, ".3f")


def state_of(front: Mapping[str, Any], place: int) -> str | None:
    """Where a point stands on a frontier, None if it is not of that comparison."""
    return next((str(row["state"]) for row in front["points"] if row["place"] == place), None)


def absent(data: Data, place: int) -> str:
    """Why a point has no result."""
    states = {row["state"] for row in data["rows"] if row["place"] == place and not row["screening"]}
    if data[("points", place, "pruned")]:
        return "pruned"
    return "not run yet" if states & {"waiting", "running"} else "failed"


def one_partition(data: Data) -> bool:
    """Whether all runs hold the same records at the same clients."""
    return data.has("partitions") and data["partitions"] == 1


def folded(title: str, table: Table) -> Block:
    """The table, folded under a title if it is long."""
    return Details(title, (table,)) if len(table.rows) > MOST_ROWS else table


def _form(value: Any) -> str:
    return ".4g" if isinstance(value, float) else ""
