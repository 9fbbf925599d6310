"""Calibration: from a wanted (epsilon, delta) to noise multipliers. The inverse of accounting.

Channel epsilons do not add up, so the budget is split by shares of mu^2, the one quantity of Gaussian DP that adds
(Dong, Roth and Su 2022, corollary 3.3). A channel with share s of a total mu gets mu_c = mu sqrt(s):

- n Gaussian releases: noise multiplier sqrt(n) / mu_c.
- n Poisson-sampled Gaussian steps at rate q: the central limit of Bu et al. 2020 (theorem 5),
  mu_c = q sqrt(n (exp(1 / z^2) - 1)), so z = (ln(1 + (mu_c / q)^2 / n))^(-1/2); for q = 1 the exact sqrt(n) / mu_c.

That only fixes the ratios between channels. The total mu is then searched so that the *accountant's* epsilon of the
whole plan is at most the wanted one and within a thousandth of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dp_accounting import DpEvent, GaussianDpEvent, PoissonSampledDpEvent

from framp_private.errors import PrivacyParameterError
from framp_private.privacy import accounting
from framp_private.privacy.amplification import over_sample
from framp_private.privacy.events import Budget, Event, Relation, leaves

TOLERANCE = 1e-3


@dataclass(frozen=True)
class Releases:
    """What a channel does in a run: `count` Gaussian releases, each over a Poisson sample of rate `sampling`.

    Args:
        count: >= 1. sampling: in (0, 1]; 1 for a release over all records.
        share: of mu^2, > 0; shares are normalised over the channels. noise_values: drawn by one release.
        drawn_of: (sample, population) where instead a sample of fixed size is drawn without replacement: the sum then
            moves by twice the clip, and neighbours are replace-one.
        mechanism: multiplier -> event, where a release is not quite a Gaussian.
    """

    count: int
    share: float
    sampling: float = 1.0
    noise_values: int = 0
    drawn_of: tuple[int, int] | None = None
    mechanism: Callable[[float], DpEvent] | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.sampling <= 1 or not 0 < self.share < math.inf:
            raise PrivacyParameterError(
                f"count={self.count}, sampling={self.sampling}, share={self.share}: at least one release, a rate in "
                "(0, 1] and a positive share are needed"
            )

    def multiplier(self, mu: float) -> float:
        """The noise multiplier with which these releases come to about `mu`."""
        if self.sampling == 1:
            return math.sqrt(self.count) / mu
        return float(math.log1p((mu / self.sampling) ** 2 / self.count) ** -0.5)

    def event(self, multiplier: float) -> DpEvent:
        """One release."""
        if self.mechanism is not None:
            return self.mechanism(multiplier)
        gaussian = GaussianDpEvent(multiplier)
        if self.drawn_of is not None:
            sample, population = self.drawn_of
            return over_sample(Event(gaussian, "client"), sample, population, "fixed").mechanism
        return gaussian if self.sampling == 1 else PoissonSampledDpEvent(self.sampling, gaussian)


@dataclass(frozen=True)
class Calibration:
    """Noise multipliers by channel, what each channel alone costs at the budget's delta, and what all cost together."""

    multipliers: Mapping[str, float]
    channel_epsilons: Mapping[str, float]
    epsilon: float
    delta: float


def calibrate(budget: Budget, channels: Mapping[Any, Releases], relation: Relation = "add/remove") -> Calibration:
    """The least noise with which all channels together stay within the budget.

    Raises:
        PrivacyParameterError: no channel, or a budget that no noise in reach meets.
    """
    if not channels:
        raise PrivacyParameterError("no channel releases anything: there is nothing to calibrate")
    total = sum(releases.share for releases in channels.values())
    noise_values = sum(releases.count * releases.noise_values for releases in channels.values())

    def multipliers(mu: float) -> dict[str, float]:
        return {name: each.multiplier(mu * math.sqrt(each.share / total)) for name, each in channels.items()}

    def counts(mu: float) -> Counter[str]:
        found: Counter[str] = Counter()
        for name, multiplier in multipliers(mu).items():
            found += leaves(channels[name].event(multiplier), channels[name].count)
        return found

    def rdp(mu: float) -> float:
        return accounting.filter_epsilon(accounting.rdp_vector(counts(mu), relation), budget.delta, noise_values)

    def pld(mu: float) -> float:
        return accounting.epsilon(counts(mu), relation, budget.delta, noise_values)

    start = _largest(rdp, budget.epsilon, 1e-4, 1e2)
    mu = _refine(pld, budget.epsilon, start)
    chosen = multipliers(mu)
    alone = {
        name: accounting.epsilon(leaves(each.event(chosen[name]), each.count), relation, budget.delta)
        for name, each in channels.items()
    }
    return Calibration(chosen, alone, pld(mu), budget.delta)


def _largest(cost: Callable[[float], float], limit: float, low: float, high: float) -> float:
    """The largest mu whose (increasing) cost is within the limit, by bisection in the logarithm."""
    if cost(low) > limit:
        raise PrivacyParameterError(f"epsilon={limit} is out of reach: ask for a larger one, or a larger delta")
    for _ in range(20):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if cost(middle) <= limit else (low, middle)
    return low


def _refine(cost: Callable[[float], float], limit: float, start: float) -> float:
    """From a mu within the limit to one within TOLERANCE of it: secant steps in the logarithms of mu and cost."""
    aim, point, value, slope = limit * (1 - TOLERANCE / 2), start, cost(start), 1.2
    best = start
    for _ in range(20):
        if limit * (1 - TOLERANCE) <= value <= limit:
            return point
        moved = point * (aim / value) ** (1 / slope)
        found = cost(moved)
        if not math.isfinite(found):  # beyond the accountant's grid: what is known to be within the limit is taken
            break
        if found != value:
            slope = min(max(math.log(found / value) / math.log(moved / point), 0.5), 5.0)
        point, value = moved, found
        if value <= limit:
            best = max(best, point)
    return best
