"""Canary clients (F3): whole contributions that an auditor makes, to test noise that protects whole clients.

In every round each client sends, in the place of its own contribution, the largest one that is allowed along a
coordinate of its own, or nothing, by a fair coin drawn anew. What the server opens is then one independent trial of one
round's mechanism for each client that was asked. The idea of canary clients is Andrew et al.'s (arXiv 2302.03098);
orthogonal coordinates and fresh coins make the exact limits of `parametric` apply. The model of such a run is of no
use: it is made for the audit.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from framp_private import FederatedDataset, Federation, Options, RunFolder, read_transcript, train
from threat_models.adversaries import HonestServer
from threat_models.auditing.gaussian import epsilon_of
from threat_models.claims import PrivacyClaim
from threat_models.errors import AuditError
from threat_models.view import View


@dataclass(eq=False)
class CanaryClient:
    """A `framp_private.Plant` that replaces a client's update. place: its coordinate. coins: by round, once drawn."""

    place: int
    size: float
    generator: np.random.Generator
    coins: dict[int, bool] = field(default_factory=dict)

    def value(self, channel: str, round_index: int, value: np.ndarray) -> np.ndarray:
        """Nothing but the canary, if its coin says so."""
        if channel != "update":
            return np.zeros_like(value)
        self.coins[round_index] = bool(self.generator.random() < 0.5)
        made = np.zeros_like(value)
        made[self.place] = self.size * self.coins[round_index]
        return made

    def step(self, round_index: int, clipped: Tensor) -> Tensor:
        """Unused: a client-level guarantee has no noise in its steps."""
        del round_index
        return clipped


def claim_of_round(federation: Federation, delta: float) -> PrivacyClaim:
    """One round's guarantee for one client that takes part in it, without what sampling of clients adds.

    Raises:
        AuditError: the clip adapts, or noise is no Gaussian.
    """
    protection: Any = federation.plan.protection("update")
    if protection.starting_clip or type(protection).__name__ not in ("CentralGaussian", "DistributedGaussian"):
        raise AuditError("canary clients take Gaussian noise at a clip that is fixed")
    epsilon = epsilon_of(1 / protection.noise_multiplier, delta)
    return PrivacyClaim(epsilon, delta, "client", "add/remove", "gaussian", "update, one round")


TOO_LONG = 10.0
"""Clips that a canary client sends: cutting it to one is the pipeline's work, and shows if it is not done."""


def digest(federation: Federation, seed: int) -> str:
    """SHA-256 over who holds which coordinate, not over the coins."""
    places = _places(federation, np.random.default_rng(seed))
    return hashlib.sha256(repr([*zip(federation.budgets, places.tolist(), strict=True)]).encode()).hexdigest()


def _places(federation: Federation, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(rng.permutation(federation.network.n_parameters)[: len(federation.budgets)])


def trials(federation: Federation, dataset: FederatedDataset, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(m,) scores in units of the clip, and (m,) coins, of every client in every round whose total can be read.

    Raises:
        AuditError, NotInView: as `claim_of_round`; no total can be read.
    """
    protection: Any = federation.plan.protection("update")
    rng = np.random.default_rng(seed)
    places = _places(federation, rng)
    size = float(protection.clip_norm)
    plants = {
        name: CanaryClient(int(place), TOO_LONG * size, np.random.default_rng(rng.integers(2**63)))
        for name, place in zip(federation.budgets, places, strict=True)
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        options = Options(record_transcript=True, plants=plants, evaluate_every=federation.rounds, home_steps=1)
        train(federation, dataset, out=out, options=options)
        totals = View.of(HonestServer(), federation, list(read_transcript(RunFolder(out).transcript))).totals()
    rows = [
        (totals[t][each.place] / size, coin)
        for each in plants.values()
        for t, coin in each.coins.items()
        if t in totals
    ]
    return np.array([score for score, _ in rows]), np.array([coin for _, coin in rows], bool)
