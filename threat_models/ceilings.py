"""What no attack may beat on a run, from its plan: per channel, and for all of them together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from framp_private import Federation, channel_costs
from threat_models.auditing import claims_check, composition
from threat_models.auditing.composition import ApproximateDp, Release
from threat_models.facts import DELTA, sampling_of


@dataclass(frozen=True)
class Ceiling:
    """releases: what an attack reads; None without a guarantee. room: the total
    variation by which members and non-members differ anyhow."""

    releases: tuple[Release | ApproximateDp, ...] | None
    room: float = 0.0

    @property
    def bounded(self) -> bool:
        """Whether there is one."""
        return self.releases is not None

    @property
    def auc(self) -> float | None:
        """Of telling members from non-members of one run; None without a guarantee.

        The pair (member, other) is one run with the first and without the second, whose order an attack gets right as
        often as it tells that run from the one with both traded: at most the power of a test at a false positive rate
        of one half, since both are as far from the run with neither. Without sampling Phi(mu). Where members differ
        from others anyhow, one half becomes how often the order is told without any release: at most 1/2 + room.
        """
        return composition.power(self.releases, min(1.0, 0.5 + self.room)) if self.releases is not None else None

    @property
    def auc_of_runs(self) -> float | None:
        """Of telling runs with a record from runs without it, each drawn anew; without sampling Phi(mu / sqrt 2)."""
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

    What clients noised at home counts with every channel, since all depend on it. Of a channel that is no Gaussian
    nothing counts but its epsilon at delta 1e-5.
    """
    costs = channel_costs(federation, DELTA)
    read = {*channels, *({"descriptor"} if federation.home_descriptor is not None else set()), "aggregation"}
    if set(channels) & {"update", "prototypes"} and "descriptor" in federation.channels:
        read.add("descriptor")
    found: list[Release | ApproximateDp] = []
    for channel, row in costs.items():
        if channel not in read:
            continue
        if row["epsilon"] is None:
            return NO_CEILING
        if row["unit"] == "client":  # a record that changes is a contribution that leaves, and another that comes
            if row["noise_multiplier"] is None or not claims_check.gaussian(federation, channel):
                return NO_CEILING
            found.append(Release(row["noise_multiplier"] / 2, 1.0, row["releases"]))
            continue
        found.append(_release(federation, channel, row["noise_multiplier"], row["epsilon"], row["releases"]))
    return Ceiling(tuple(found))


def _release(
    federation: Federation, channel: str, noise: float | None, epsilon: float, releases: int
) -> Release | ApproximateDp:
    trainer = federation.trainer
    own = channel == "update" and trainer.event(1) is not None
    if noise is not None and own:
        q, steps = sampling_of(trainer), int(getattr(trainer, "steps", 1))
        return Release(noise, q, steps * releases)
    if noise is not None and claims_check.gaussian(federation, channel):
        return Release(noise, 1.0, releases)
    return ApproximateDp(epsilon, DELTA)
