"""What every party of a federation knows, and so every adversary: no records, no keys, no seeds.

A `Federation` holds the streams of a simulation too, from which batches of unprotected training and cohorts are drawn;
at real sites nobody has them. A view gets this value in its place, with a network that nobody has loaded weights into.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from framp_private import Federation, Plan, Pullback, TargetNetwork


@dataclass(frozen=True, eq=False)
class PublicFacts:
    """The public facts of a run; it can be pickled where the network's build function can.

    theta_0: (n_parameters,) what the backbone starts from. declared: record numbers that clients stated,
    which only a guarantee for single records needs; None else. The rest is as in `Federation`.
    """

    network: TargetNetwork
    plan: Plan
    trainer: Any
    step: Any
    pullback: Pullback
    prototype_bound: Any
    budgets: Mapping[str, float]
    declared: Mapping[str, int] | None
    cohort: int
    rounds: int
    theta_0: Tensor
    aligns: bool
    secure: bool

    @classmethod
    def of(cls, federation: Federation) -> PublicFacts:
        """Those of a federation."""
        return cls(
            network=copy.copy(federation.network),
            plan=federation.plan,
            trainer=federation.trainer,
            step=federation.step,
            pullback=federation.pullback,
            prototype_bound=federation.prototype_bound,
            budgets=dict(federation.budgets),
            declared=dict(federation.declared or {}) if federation.record_level else None,
            cohort=federation.cohort,
            rounds=federation.rounds,
            theta_0=federation.theta_0.clone(),
            aligns=federation.aligns,
            secure=federation.secure,
        )

    def progress(self, round_index: int) -> float:
        """The part of the run that lies behind a round, in [0, 1]."""
        return min(round_index / self.rounds, 1.0)

    def declared_by(self, client: str) -> int:
        """The record number that a client stated, 1 where none is needed."""
        return self.declared[client] if self.declared is not None else 1


DELTA = 1e-5
"""At which ceilings, plans and single mechanisms are stated; a claim brings its own."""


def sampling_of(trainer: Any) -> float:
    """The chance of a record to be in a step, in (0, 1]; 1 for training that does not sample for its guarantee."""
    return float(getattr(trainer, "sampling_probability", 1.0))
