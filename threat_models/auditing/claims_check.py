"""Whether the claim follows from the noise: the epsilon of a run by another road than its ledger's.

For releases that are all Gaussian without sampling the exact answer is short: multipliers z_i used n_i times are
mu-GDP with mu^2 = sum n_i / z_i^2, whatever the ledger's accountant did. With sampling losses are convolved
(`composition`).
"""

from __future__ import annotations

import math

from framp_private import Federation, channel_costs
from threat_models.auditing import composition
from threat_models.auditing.composition import Release
from threat_models.auditing.gaussian import epsilon_of
from threat_models.auditing.replay import Finding
from threat_models.claims import PrivacyClaim
from threat_models.facts import DELTA, sampling_of


def gdp_of(federation: Federation) -> float | None:
    """mu of all channels of a run together, for the client that is asked most; None where a release is no Gaussian."""
    total = 0.0
    trainer = federation.trainer
    for channel, row in channel_costs(federation, DELTA).items():
        z = row["noise_multiplier"]
        if z is None or not gaussian(federation, channel):
            return None
        steps = trainer.steps if channel == "update" and trainer.event(1) is not None else 1  # type: ignore[attr-defined]
        total += row["releases"] * steps / z**2
    return math.sqrt(total)


def gaussian(federation: Federation, channel: str) -> bool:
    """Whether a channel's releases are Gaussian mechanisms without sampling."""
    if channel == "aggregation":  # sums over edges, noised once for each hop
        return True
    sampled = channel == "update" and sampling_of(federation.trainer) < 1
    return not sampled and not federation.sampled and is_gaussian(federation, channel)


def is_gaussian(federation: Federation, channel: str) -> bool:
    """Whether the noise of one release is Gaussian, sampled or not."""
    return _kind(federation, channel) in _GAUSSIAN


def _kind(federation: Federation, channel: str) -> str:
    if channel == "update" and federation.trainer.event(1) is not None:
        return "DpSGD"
    discrete = federation.plan.descriptor if channel == "descriptor" else federation.plan.protection(channel)  # type: ignore[arg-type]
    return type(discrete).__name__


_GAUSSIAN = ("LocalGaussian", "CentralGaussian", "DpSGD", "DistributedGaussian")
"""Values whose noise is Gaussian, or discrete Gaussian at a scale that makes no difference to a curve."""


def releases_of(federation: Federation) -> list[Release] | None:
    """All Gaussian releases of a run, with the chance of a record or client to be in each; None if others are there.

    A sample of clients decides over all channels of a round at once, so that they are one release. Cohorts of a fixed
    size are none of these.
    """
    trainer, found = federation.trainer, []
    rows = channel_costs(federation, DELTA)
    if any(row["noise_multiplier"] is None for row in rows.values()):
        return None
    if federation.sampled:
        if federation.cohorts != "poisson" or not all(is_gaussian(federation, name) for name in rows):
            return None
        joint = math.sqrt(1 / sum(1 / row["noise_multiplier"] ** 2 for row in rows.values()))
        return [Release(joint, federation.cohort / len(federation.budgets), federation.rounds)]
    for channel, row in rows.items():
        stepwise = channel == "update" and trainer.event(1) is not None
        if not stepwise and not gaussian(federation, channel):
            return None
        q = sampling_of(trainer) if stepwise else 1.0
        steps = trainer.steps if stepwise else 1  # type: ignore[attr-defined]
        found.append(Release(row["noise_multiplier"], q, row["releases"] * steps))
    return found


def check_claim(federation: Federation, claim: PrivacyClaim, *, slack: float = 0.02) -> list[Finding]:
    """Unit, relation, delta and composition: an epsilon under the exact one by more than `slack` is refused."""
    found = []
    rows = channel_costs(federation, DELTA).values()
    relations = {row["relation"] for row in rows}
    if relations and claim.adjacency not in relations:
        words = f"claimed for {claim.adjacency}, but releases are noised for {' and '.join(sorted(relations))}"
        found.append(Finding("claim", "all", words))
    units = {row["unit"] for row in rows}
    if units and units != {claim.unit}:
        words = f"claimed for one {claim.unit}, but releases are noised for one {' and '.join(sorted(units))}"
        found.append(Finding("claim", "all", words))
    exact = exact_epsilon(federation, claim.delta)
    if exact is not None and claim.epsilon < exact * (1 - slack):
        words = f"claimed epsilon {claim.epsilon:.3f}, the releases make {exact:.3f} at that delta"
        found.append(Finding("claim", "all", words))
    return found


def exact_epsilon(federation: Federation, delta: float) -> float | None:
    """By the curve where nothing is sampled, else by convolution; None where neither applies.

    Infinite at delta = 0, where a Gaussian has no epsilon. Beyond the grid of losses it is where the grid ends.
    """
    mu = gdp_of(federation)
    releases = releases_of(federation) if mu is None else None
    if mu is None and not releases:
        return None
    if delta == 0:
        return math.inf
    if mu is not None:
        return epsilon_of(mu, delta)
    return min(composition.epsilon(releases or [], delta), 0.98 * composition.MOST)
