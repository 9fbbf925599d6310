"""Every point of a sweep: its objectives, what the server sees of it, what it costs to run."""

from __future__ import annotations

import json
from collections.abc import Sequence

from framp_private.report.document import Cell, Items, Section, Table, joined, text
from framp_private.report.points import (
    CHANNEL_HEADER,
    INFINITE,
    absent,
    channel_rows,
    folded,
    letter_of,
    mean_of,
    name_of,
)
from framp_private.report.sources import Data, number

MOST_NAMES = 4
"""More points than these stand in one cell by their letters."""


def points(data: Data) -> Section:
    """Objectives, and those whom means hide."""
    objectives = [(at, row["name"]) for at, row in enumerate(data["objectives"])]
    rows = []
    for place, point in enumerate(data["points"]):
        at = ("points", place)
        cells: list[Cell] = [name_of(data, place), number(data, (*at, "replicates"))]
        if point["objectives"]:
            cells += [_objective(data, place, name) for _, name in objectives]
            cells.append(mean_of(data, (*at, "worst_client")))
        else:
            cells += [absent(data, place)] + [""] * len(objectives)
        rows.append(tuple(cells))
    header: list[Cell] = ["point", "runs", *(number(data, ("objectives", at, "name")) for at, _ in objectives)]
    meant = [
        text(number(data, ("objectives", at, "name")), ": ", number(data, ("objectives", at, "words")))
        for at, _ in objectives
    ]
    caption = "Every point, by the letter that stands for it elsewhere: mean over its seeds, with its interval."
    table = Table(caption, (*header, "worst client"), tuple(rows))
    return Section("All points", (table, Items(tuple(meant))), "points")


def _objective(data: Data, place: int, name: str) -> Cell:
    at = ("points", place, "objectives", name)
    if data[(*at, "mean")] is None:
        return INFINITE
    form = ".3f" if abs(data[(*at, "mean")]) < 1000 else ",.0f"
    return mean_of(data, at, form)


def server_view(data: Data) -> Section:
    """What the server sees of each point's channels; points that look alike stand together."""
    groups: dict[str, list[int]] = {}
    for place, point in enumerate(data["points"]):
        if point["objectives"]:
            groups.setdefault(json.dumps(point["server_view"], sort_keys=True), []).append(place)
    rows: list[tuple[Cell, ...]] = []
    for places in groups.values():
        view = ("points", places[0], "server_view")
        rows += channel_rows(data, _together(data, places), view, "nothing is sent")
    header = ("points", *CHANNEL_HEADER)
    return Section("What the server sees", (Table("By channel, of one run.", header, tuple(rows)),), "server")


def _together(data: Data, places: Sequence[int]) -> Cell:
    if len(places) > 1 and len(places) == len(data["points"]):
        return "all points"
    if len(places) > MOST_NAMES:
        return ", ".join(letter_of(place) for place in places)
    return joined([name_of(data, place) for place in places], "; ")


def cost(data: Data) -> Section:
    """Bytes and seconds."""
    rows = []
    for place, point in enumerate(data["points"]):
        if point["objectives"]:
            at = ("points", place)
            sizes = mean_of(data, (*at, "bytes"), ",.0f"), mean_of(data, (*at, "seconds"), ".1f")
            rows.append((name_of(data, place), *sizes))
    caption = "Bytes carried both ways and wall-clock seconds of a run, means with intervals; other work slows seconds."
    table = Table(caption, ("point", "bytes", "seconds"), tuple(rows))
    return Section("Traffic and time", (folded("Bytes and seconds of every point", table),), "cost")
