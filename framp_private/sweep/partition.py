"""Which records the clients of a run hold, as far as settings decide it."""

from __future__ import annotations

import hashlib
import json

from framp_private.config import Config

PARTITION = (
    "dataset",
    "features",
    "clients",
    "unseen_clients",
    "partition",
    "alpha",
    "classes_per_client",
    "tests",
    "test_fraction",
    "validation_fraction",
    "data_seed",
)
"""Settings that say who trains and tests on which records; without `data_seed` also `seed`."""


def partition_digest(config: Config, seed: int | None = None) -> str:
    """SHA-256 of the settings in `PARTITION`. Runs of one digest on the same files hold the same partition.

    Args:
        seed: of the run, where it is another than the configuration's.
    """
    chosen = {name: getattr(config, name) for name in PARTITION}
    if config.data_seed is None:
        chosen["data_seed"] = config.seed if seed is None else seed
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()
