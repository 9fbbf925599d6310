"""Attacks held against the truth. An attack gets a view; the truth stays here, where only scores arrive.

Each trial is a function of a `Subject` and makes `Result` lines. Members are a client's training records; non-members
its test records, which have the same class mix; canaries are in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from threat_models.errors import NotInView, NotResolvable
from threat_models.results import Result, unseen
from threat_models.trials.graphs import links_and_nodes
from threat_models.trials.inversion import uploads
from threat_models.trials.released import global_prototypes, present_anywhere, served_models
from threat_models.trials.server import (
    hypernetwork_leak,
    label_counts,
    membership_from_updates,
    properties,
    reidentified,
    side_channels,
    single_record_classes,
    sources,
    tracing,
)
from threat_models.trials.subject import Subject as Subject
from threat_models.trials.subject import Trial

TRIALS: Mapping[str, tuple[Trial, str, str]] = {
    "A1": (membership_from_updates, "honest server", "record membership"),
    "A2": (tracing, "honest server", "record membership"),
    "A3": (single_record_classes, "honest server", "single record"),
    "A5": (label_counts, "honest server", "label distribution"),
    "A6": (uploads, "honest server", "record"),
    "A7": (hypernetwork_leak, "honest server", "update"),
    "A8": (properties, "honest server", "client property"),
    "A9": (sources, "honest server", "source of a record"),
    "A10": (reidentified, "honest server", "client identity"),
    "A11": (links_and_nodes, "external user", "edge"),
    "A12": (side_channels, "honest server", "classes held"),
    "C4": (present_anywhere, "curious client", "class present anywhere"),
    "C3": (global_prototypes, "curious client", "record membership"),
    "E1": (served_models, "external user", "record membership"),
}
"""Trials that run on any recorded run: id -> (trial, adversary, asset); of graphs A11 alone."""


def attack_run(
    subject: Subject, wanted: Sequence[str] | None = None, on_done: Callable[[str], None] = lambda id: None
) -> list[Result]:
    """All wanted trials; an attack that finds nothing in its view says so in a line of its own.

    Args:
        wanted: ids or names of adversaries; None for all.
    """
    found: list[Result] = []
    for id, (trial, adversary, asset) in TRIALS.items():
        if wanted is not None and id not in wanted and adversary not in wanted:
            continue
        if subject.graph is not (id == "A11"):
            continue
        try:
            for result in trial(subject):
                found.append(result)
        except (NotInView, NotResolvable) as error:
            found.append(unseen(id, adversary, asset, "–", str(error)))
        on_done(id)
    return found


def facts_of(subject: Subject) -> dict[str, Any]:
    """What a report says of the subject."""
    return {
        "clients": len(subject.dataset.clients),
        "rounds": subject.facts.rounds,
        "dataset": subject.dataset.name,
        "fingerprint": subject.dataset.fingerprint,
        "messages": len(subject.log),
    }
