"""What no attack may beat on a run, from its plan: per channel, and for all of them together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from framp_private import Federation, channel_costs
from threat_models.auditing import claims_check
from threat_models.auditing.gaussian import auc_ceiling, identification_ceiling, mu_of

DELTA = 1e-5


@dataclass(frozen=True)
class Ceiling:
    """mu: of Gaussian DP, for the releases that an attack reads; infinite without a guarantee."""

    mu: float

    @property
    def bounded(self) -> bool:
        """Whether there is one."""
        return math.isfinite(self.mu)

    @property
    def auc(self) -> float | None:
        """Of a membership test; None without a guarantee."""
        return auc_ceiling(self.mu) if self.bounded else None

    def identification(self, prior: float) -> float | None:
        """Of picking one of 1 / prior candidates; None without a guarantee."""
        return identification_ceiling(prior, self.mu) if self.bounded else None


NO_CEILING = Ceiling(math.inf)


def record_ceiling(federation: Federation, channels: Iterable[str], rounds: int | None = None) -> Ceiling:
    """For tests of one record from some channels' releases over some rounds (default all).

    Sampling of records is not counted: amplification makes the true ceiling lower. What clients noised at home counts
    with every channel, since all depend on it. A mechanism that is no Gaussian counts as the Gaussian whose curve
    passes through its epsilon at delta 1e-5, as good as that is.
    """
    costs = channel_costs(federation, DELTA)
    read = {*channels, *({"descriptor"} if federation.home_descriptor is not None else set()), "aggregation"}
    if set(channels) & {"update", "prototypes"} and "descriptor" in federation.channels:
        read.add("descriptor")
    total = 0.0
    for channel, row in costs.items():
        if channel not in read:
            continue
        if row["epsilon"] is None or row["unit"] != "record":
            return NO_CEILING
        count = row["releases"] if rounds is None or channel in ("descriptor", "aggregation") else rounds
        total += count * _per_release(federation, channel, row["noise_multiplier"], row["epsilon"], row["releases"])
    return Ceiling(math.sqrt(total))


def _per_release(federation: Federation, channel: str, noise: float | None, epsilon: float, releases: int) -> float:
    """mu squared of one release."""
    trainer = federation.trainer
    own = channel == "update" and trainer.event(1) is not None
    steps = float(getattr(trainer, "steps", 1)) if own else 1.0
    if noise is not None and (own or claims_check.gaussian(federation, channel)):
        return steps / noise**2
    return mu_of(epsilon, DELTA) ** 2 / releases
