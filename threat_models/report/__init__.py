"""From `audit.json` to one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from threat_models.catalogue import CATALOGUE
from threat_models.report import figures
from threat_models.summing_up import LEGEND


def render(rows: Mapping[str, Any]) -> str:
    """The page. Every number in it stands in the rows."""
    pictures = [
        figures.roc(rows),
        figures.epsilons(rows),
        figures.growth(rows),
        figures.budget(rows),
        figures.ladder(rows),
        figures.reconstructions(rows),
    ]
    environment = Environment(
        loader=PackageLoader("threat_models.report", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["share"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["bound"] = lambda value: value if isinstance(value, str) else f"{value:.3f}"
    return environment.get_template("template.html").render(
        rows=rows,
        legend=LEGEND,
        run=rows["claims"][0],
        channels=rows["claims"][1:],
        matrix=leak_matrix(rows),
        names={each.id: each for each in CATALOGUE},
        pictures=[picture for picture in pictures if picture is not None],
    )


_ORDER = ("none", "bounded", "unclear", "open", "violation")


def leak_matrix(rows: Mapping[str, Any]) -> dict[str, Any]:
    """adversary x asset -> the worst leak among the attacks on it."""
    adversaries = list(dict.fromkeys(row["adversary"] for row in rows["attacks"]))
    assets = list(dict.fromkeys(row["asset"] for row in rows["attacks"]))
    cells: dict[tuple[str, str], tuple[str, str]] = {}
    for row in rows["attacks"]:
        key = (row["adversary"], row["asset"])
        leak = "not in view" if row["value"] is None else row["leak"]
        before = cells.get(key, ("not in view", ""))
        rank = (-1, *range(5))[("not in view", *_ORDER).index(leak)]
        if rank >= (-1, *range(5))[("not in view", *_ORDER).index(before[0])]:
            cells[key] = (leak, row["id"])
    return {"adversaries": adversaries, "assets": assets, "cells": cells}
