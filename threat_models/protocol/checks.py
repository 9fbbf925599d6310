"""Which of the adversaries a run has something for, and all of them in a row."""

from __future__ import annotations

from pathlib import Path

from framp_private import FederatedDataset, Federation
from framp_private.protections import SecAgg
from framp_private.protections.homomorphic import EncryptedSum
from threat_models.auditing.replay import Finding
from threat_models.protocol.crafted import chosen_neighbourhood, phantom_survivors, replaced_context, split_models
from threat_models.protocol.leftovers import run_folder_thief, unpaid_models

ADVERSARIES = (
    "phantom survivors",
    "chosen neighbourhood",
    "split models",
    "replaced context",
    "unpaid models",
    "run-folder thief",
)
MOST = 100
"""Clients in a crafted round: a larger cohort is played at this size, with the graph that is planned for it."""


def check_protocol(
    federation: Federation, dataset: FederatedDataset, *, folder: Path | None = None, seed: int = 0
) -> list[Finding]:
    """Findings of every adversary that this run has something for; the run itself is not touched.

    Args:
        folder: the run's, where it has one.
    """
    carriers = {channel: federation.plan.protection(channel).carrier for channel in federation.channels}
    n = min(federation.cohort, MOST)
    found: list[Finding] = []
    for carrier in dict.fromkeys(carriers.values()):
        if isinstance(carrier, SecAgg):
            for crafted in (phantom_survivors, chosen_neighbourhood, split_models):
                found += crafted(carrier, n, seed=seed)
        elif isinstance(carrier, EncryptedSum):
            found += replaced_context(carrier, n, seed=seed)
    found += unpaid_models(federation, dataset)
    return found + (run_folder_thief(folder, federation, dataset) if folder is not None else [])
