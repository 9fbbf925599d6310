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


MEANINGS = {
    "record": "Everything that left a client is distributed nearly as if any one of its records had not been there: no "
    "test of whether it was can do better than epsilon and delta allow, whoever makes the test. For a person with "
    "records at several clients the epsilons add up.",
    "client": "Everything that the server released is distributed nearly as if any one client had not taken part.",
}
"""A claim in words, by unit."""
SEEN = (
    " The server itself saw each client's contribution and is trusted with it.",
    " The server itself saw noised sums over clients and no client's contribution, if it follows the protocol.",
)
"""What the server of a client-level run saw: of a trusted one, and of one that clients noise their sums against."""


SHARED = (
    "Every sum that was opened, and everything that came of it, is distributed nearly as if any one of the records had "
    "not been there: no test of whether it was can do better than epsilon and delta allow, whoever sees the sums. For "
    "a person with records at several clients the epsilons add up."
)
"""A claim for records that hide behind noise from many clients."""


def meaning_of(claim: Claim) -> str:
    """A claim in words."""
    if claim.unit == "record" and claim.trust_model.startswith("honest-but-curious"):
        return SHARED + SEEN[1]
    trusted = claim.trust_model.startswith("trusted server")
    return MEANINGS[claim.unit] + (SEEN[0 if trusted else 1] if claim.unit == "client" else "")


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
    if summary["epsilon_by_round"]:
        pictures.insert(1, figures.epsilon_by_round(summary["epsilon_by_round"], next(c for c in claims if c.bounded)))
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
        meaning=" ".join(meaning_of(claim) for claim in claims if claim.bounded),
        kinds=KINDS,
        budgets=[name for name in summary["accuracy"]["local"] if name != "mean"],
        pictures=pictures,
        config=yaml.safe_dump(dict(config), sort_keys=False),
        version=version,
    )
