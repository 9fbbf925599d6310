"""Whether the claim follows from the noise: the epsilon of a run by another road than its ledger's.

For releases that are all Gaussian without sampling the exact answer is short: multipliers z_i used n_i times are
mu-GDP with mu^2 = sum n_i / z_i^2, whatever the ledger's accountant did.
"""

from __future__ import annotations

import math

from framp_private import Federation, channel_costs
from threat_models.auditing.gaussian import epsilon_of
from threat_models.auditing.replay import Finding
from threat_models.claims import PrivacyClaim


def gdp_of(federation: Federation) -> float | None:
    """mu of all channels of a run together, for the client that is asked most; None where a release is no Gaussian."""
    total = 0.0
    trainer = federation.trainer
    for channel, row in channel_costs(federation, 1e-5).items():
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
    sampled = channel == "update" and float(getattr(federation.trainer, "sampling_probability", 1.0)) < 1
    discrete = federation.plan.descriptor if channel == "descriptor" else federation.plan.protection(channel)  # type: ignore[arg-type]
    kind = type(discrete).__name__ if channel != "update" or federation.trainer.event(1) is None else "DpSGD"
    return not sampled and not federation.sampled and kind in _GAUSSIAN


_GAUSSIAN = ("LocalGaussian", "CentralGaussian", "DpSGD", "DistributedGaussian")
"""Values whose noise is Gaussian, or discrete Gaussian at a scale that makes no difference to a curve."""


LIMIT = 0.3
"""How far under the limit theorem's epsilon a claim may lie: at tens of steps the limit is up to a fifth off."""


def clt_of(federation: Federation) -> float | None:
    """mu of the same where DP-SGD samples, by the central limit theorem of Bu et al. (arXiv 1911.11607, theorem 5).

    q sqrt(T (e^(1/z^2) - 1)) for T steps; None where a release is of another kind, or noise too small for the limit.
    """
    trainer, total = federation.trainer, 0.0
    q = float(getattr(trainer, "sampling_probability", 1.0))
    for channel, row in channel_costs(federation, 1e-5).items():
        z = row["noise_multiplier"]
        stepwise = channel == "update" and trainer.event(1) is not None
        if z is None or federation.sampled or (not stepwise and not gaussian(federation, channel)):
            return None
        if stepwise and z < 0.7:
            return None
        steps = row["releases"] * (trainer.steps if stepwise else 1)  # type: ignore[attr-defined]
        total += steps * (q * q * math.expm1(1 / z**2) if stepwise and q < 1 else 1 / z**2)
    return math.sqrt(total)


def check_claim(federation: Federation, claim: PrivacyClaim, *, slack: float = 0.02) -> list[Finding]:
    """Unit, delta and composition: an epsilon under the exact one by more than `slack` is refused."""
    found = []
    units = {row["unit"] for row in channel_costs(federation, 1e-5).values()}
    if units and units != {claim.unit}:
        words = f"claimed for one {claim.unit}, but releases are noised for one {' and '.join(sorted(units))}"
        found.append(Finding("claim", "all", words))
    mu = gdp_of(federation)
    if mu is None and (limit := clt_of(federation)) is not None:
        mu, slack = limit, LIMIT  # an approximation: only what is far from it is wrong
    if mu is not None and claim.delta > 0:
        exact = epsilon_of(mu, claim.delta)
        if claim.epsilon < exact * (1 - slack):
            words = f"claimed epsilon {claim.epsilon:.3f}, the releases make {exact:.3f} at that delta"
            found.append(Finding("claim", "all", words))
    return found
