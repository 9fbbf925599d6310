"""What no attack may beat on a run, from its plan: per channel, and for all of them together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from framp_private import Federation, channel_costs
from threat_models.auditing import claims_check, composition
from threat_models.auditing.composition import Release
from threat_models.auditing.gaussian import mu_of

DELTA = 1e-5


@dataclass(frozen=True)
class Ceiling:
    """releases: what an attack reads, as Gaussian mechanisms; None without a guarantee."""

    releases: tuple[Release, ...] | None

    @property
    def bounded(self) -> bool:
        """Whether there is one."""
        return self.releases is not None

    @property
    def auc(self) -> float | None:
        """Of a membership test; None without a guarantee. Without sampling Phi(mu / sqrt 2)."""
        return composition.auc(self.releases) if self.releases is not None else None

    def identification(self, prior: float) -> float | None:
        """Of picking a record or its source, right with chance `prior` before any release; None without a guarantee.

        Success is at most the power of a test at a false positive rate of `prior` (ReRo, arXiv 2307.03928, section 3);
        without sampling Phi(Phi^-1(prior) + mu).
        """
        return composition.power(self.releases, prior) if self.releases is not None else None


NO_CEILING = Ceiling(None)


def record_ceiling(federation: Federation, channels: Iterable[str]) -> Ceiling:
    """For tests of one record from all rounds' releases of some channels.

    What clients noised at home counts with every channel, since all depend on it. A mechanism that is no Gaussian
    counts as the Gaussian whose curve passes through its epsilon at delta 1e-5, as good as that is.
    """
    costs = channel_costs(federation, DELTA)
    read = {*channels, *({"descriptor"} if federation.home_descriptor is not None else set()), "aggregation"}
    if set(channels) & {"update", "prototypes"} and "descriptor" in federation.channels:
        read.add("descriptor")
    found = []
    for channel, row in costs.items():
        if channel not in read:
            continue
        if row["epsilon"] is None or row["unit"] != "record":
            return NO_CEILING
        found.append(_release(federation, channel, row["noise_multiplier"], row["epsilon"], row["releases"]))
    return Ceiling(tuple(found))


def _release(federation: Federation, channel: str, noise: float | None, epsilon: float, releases: int) -> Release:
    trainer = federation.trainer
    own = channel == "update" and trainer.event(1) is not None
    if noise is not None and own:
        q, steps = float(getattr(trainer, "sampling_probability", 1.0)), int(getattr(trainer, "steps", 1))
        return Release(noise, q, steps * releases)
    if noise is not None and claims_check.gaussian(federation, channel):
        return Release(noise, 1.0, releases)
    return Release(1 / max(mu_of(epsilon, DELTA), 1e-6), 1.0, 1)
