"""Points of a sweep in words: their names, and means with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framp_private.report.document import Cell, Text, joined, text
from framp_private.report.sources import Data, Keys, keys_of, number

INFINITE = "infinite"


def name_of(data: Data, place: int) -> Text:
    """A point's label, or the values of its axes."""
    at, point = ("points", place), data["points"][place]
    if point["reference"] is not None:
        return text(number(data, (*at, "reference")))
    axes: list[Cell] = [
        text(*_term(data, name), number(data, (*at, "axes", name), _form(value)))
        for name, value in point["axes"].items()
    ]
    return joined(axes, ", ") if axes else text("the base settings")


def _term(data: Data, name: str) -> tuple[str, ...]:
    """A setting's name before its value; a bundle's label stands for itself."""
    axis = data["spec"]["axes"][name]
    bundle = isinstance(axis, Mapping) and "low" not in axis
    return () if bundle else (f"{name.rpartition('.')[2].replace('_', ' ')} ",)


def mean_of(data: Data, path: Keys, form: str = ".3f") -> Text:
    """A mean, and half the width of its interval as its two ends where it has one."""
    at = keys_of(path)
    mean = number(data, (*at, "mean"), form)
    if data[(*at, "low")] is None:
        return text(mean)
    return text(mean, " [", number(data, (*at, "low"), form), ", ", number(data, (*at, "high"), form), "]")


def state_of(front: Mapping[str, Any], place: int) -> str | None:
    """Where a point stands on a frontier, None if it is not of that comparison."""
    return next((str(row["state"]) for row in front["points"] if row["place"] == place), None)


def _form(value: Any) -> str:
    return ".4g" if isinstance(value, float) else ""
