"""From a run's summary and metrics rows to one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from framp_private.privacy.claims import UNITS, Claim, statement
from framp_private.report import figures

KINDS = (
    ("local", "local", "the model served to a client, on its own test records"),
    ("union", "union", "the same models on everybody's test records"),
    ("unseen", "unseen", "clients that never trained, from their descriptor alone"),
    ("after_local_training", "after local training", "the served model trained further at home"),
)


def claims_of(summary: Mapping[str, Any]) -> list[Claim]:
    """The claims that a summary states."""
    return [Claim(unit=unit, **summary["privacy"][unit]) for unit in UNITS]


def render_report(
    summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any], version: str
) -> str:
    """The page. Every number in it stands in the summary, the rows or the config."""
    claims = claims_of(summary)
    pictures = [
        figures.accuracy_by_budget(summary["accuracy"]),
        figures.client_histogram(summary["by_client"]),
        figures.class_mix(summary["by_client"]),
        figures.traffic_by_channel(summary["traffic"]),
    ]
    if any(row.get("accuracy") for row in rows):
        pictures.insert(0, figures.accuracy_by_round(rows))
    environment = Environment(
        loader=PackageLoader("framp_private.report", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["share"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["thousands"] = lambda value: f"{value:,}"
    return environment.get_template("template.html").render(
        summary=summary,
        claims=claims,
        statement=statement(claims),
        bounded=any(claim.bounded for claim in claims),
        kinds=KINDS,
        budgets=[name for name in summary["accuracy"]["local"] if name != "mean"],
        pictures=pictures,
        config=yaml.safe_dump(dict(config), sort_keys=False),
        version=version,
    )
