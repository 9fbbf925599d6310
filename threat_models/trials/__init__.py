"""Attacks held against the truth. An attack gets a view; the truth stays here, where only scores arrive.

Each trial is a function of a `Subject` and makes `Result` lines. Members are a client's training records; non-members
its test records, which have the same class mix; canaries are in neither.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from threat_models.adversaries import Capability
from threat_models.errors import AuditError, NotInView, NotResolvable
from threat_models.results import Result, unseen
from threat_models.trials.graphs import links_and_nodes
from threat_models.trials.inversion import uploads
from threat_models.trials.properties import from_descriptors, from_released
from threat_models.trials.released import generated_model, global_prototypes, present_anywhere, served_models
from threat_models.trials.server import (
    hypernetwork_leak,
    label_counts,
    membership_from_updates,
    reidentified,
    side_channels,
    single_record_classes,
    sources,
    tracing,
)
from threat_models.trials.subject import Subject as Subject
from threat_models.trials.subject import Trial


@dataclass(frozen=True)
class Entry:
    """One trial: who attacks what, and the capabilities that its adversary must have."""

    run: Trial
    adversary: str
    asset: str
    requires: tuple[Capability, ...]


def _entries(adversary: str, requires: tuple[Capability, ...], **trials: tuple[Trial, str]) -> dict[str, Entry]:
    return {id: Entry(run, adversary, asset, requires) for id, (run, asset) in trials.items()}


TRIALS: Mapping[str, Entry] = {
    **_entries(
        "honest server",
        ("uploads",),
        A1=(membership_from_updates, "record membership"),
        A2=(tracing, "record membership"),
        A3=(single_record_classes, "single record"),
        A5=(label_counts, "label distribution"),
        A6=(uploads, "record"),
        A7=(hypernetwork_leak, "update"),
        A8=(from_descriptors, "client property"),
        A9=(sources, "source of a record"),
        A10=(reidentified, "client identity"),
        A12=(side_channels, "classes held"),
    ),
    **_entries(
        "curious client",
        ("requests",),
        C3=(global_prototypes, "record membership"),
        C4=(present_anywhere, "class present anywhere"),
        C5=(generated_model, "record membership"),
    ),
    **_entries(
        "external user",
        ("released_models",),
        A11=(links_and_nodes, "edge"),
        E1=(served_models, "record membership"),
        E5=(from_released, "client property"),
    ),
}
"""Trials that run on any recorded run, by id of the catalogue; of graphs A11 alone."""


def chosen(subject: Subject, wanted: Sequence[str] | None) -> list[str]:
    """The trials that run on a subject: those that are wanted, of graphs A11 alone and of anything else not A11.

    Raises:
        AuditError: a wanted name is no attack that runs on a recorded run, and no adversary.
    """
    known = [*TRIALS, *dict.fromkeys(entry.adversary for entry in TRIALS.values())]
    for name in wanted or ():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1, 0.3)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise AuditError(f"attacks={name!r} is no attack on a recorded run and no adversary: {hint}")
    return [
        id
        for id, entry in TRIALS.items()
        if (wanted is None or id in wanted or entry.adversary in wanted) and subject.graph is (id == "A11")
    ]


def attack_run(
    subject: Subject, wanted: Sequence[str] | None = None, on_done: Callable[[str], None] = lambda id: None
) -> list[Result]:
    """All wanted trials; an attack that finds nothing in its view says so in a line of its own.

    Args:
        wanted: ids or names of adversaries; None for all.
    """
    found: list[Result] = []
    for id in chosen(subject, wanted):
        entry = TRIALS[id]
        try:
            subject.view_of(entry.adversary).require(*entry.requires)
            for result in entry.run(subject):
                found.append(result)
        except (NotInView, NotResolvable) as error:
            found.append(unseen(id, entry.adversary, entry.asset, "–", str(error)))
        on_done(id)
    return found


def facts_of(subject: Subject) -> dict[str, Any]:
    """What a report says of the subject."""
    return {
        "clients": len(subject.dataset.clients),
        "rounds": subject.facts.rounds,
        "dataset": subject.dataset.name,
        "messages": len(subject.log),
        **({"accuracy": subject.accuracy} if subject.accuracy is not None else {}),
    }
