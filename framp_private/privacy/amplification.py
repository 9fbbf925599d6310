"""What is left of a client-level release where only a sample of clients takes part.

Credited only against those who see the released model: whoever sees who took part (the server) must be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SampledWithoutReplacementDpEvent

from framp_private.errors import PlanError
from framp_private.privacy.events import Event

Cohorts = Literal["fixed", "poisson"]
"""How a round's clients are chosen: so many of them, or each by itself with a probability."""


def over_sample(event: Event, cohort: int, clients: int, cohorts: Cohorts) -> Event:
    """One Gaussian release over a cohort of `cohort` of `clients` clients, in the mean where cohorts are Poisson.

    Poisson cohorts keep add/remove (Mironov, Talwar and Zhang 2019). In a cohort of fixed size a client that leaves
    makes room for another one, so neighbours are replace-one and the sum moves by twice the clip (Wang, Balle and
    Kasiviswanathan 2019). Events of single records, and cohorts of everybody, are returned as they are.

    Raises:
        PlanError: a mechanism without an accounted sampled form.
    """
    mechanism = event.mechanism
    if event.unit != "client" or not event.private or cohort == clients:
        return event
    if not isinstance(mechanism, GaussianDpEvent):
        raise PlanError(f"{mechanism} has no accounted form for a sample of clients: ask all clients in every round")
    if cohorts == "poisson":
        return replace(event, mechanism=PoissonSampledDpEvent(cohort / clients, mechanism))
    halved = GaussianDpEvent(mechanism.noise_multiplier / 2)
    return replace(event, mechanism=SampledWithoutReplacementDpEvent(clients, cohort, halved), relation="replace-one")


def joint(events: Sequence[Event]) -> Event:
    """Gaussian releases on one and the same cohort as one: multiplier (sum z_j^-2)^(-1/2).

    Sampled first and composed afterwards they would count as independent samples, which they are not: that sum is too
    small. (Dong, Roth and Su 2022, corollary 3.3, before sampling.)

    Raises:
        PlanError: an event that is not Gaussian.
    """
    multipliers = []
    for event in events:
        if not isinstance(event.mechanism, GaussianDpEvent):
            raise PlanError(f"{event.mechanism} cannot be joined with other channels: ask all clients in every round")
        multipliers.append(event.mechanism.noise_multiplier)
    together = GaussianDpEvent(sum(z**-2 for z in multipliers) ** -0.5)
    return replace(events[0], mechanism=together, noise_values=sum(event.noise_values for event in events))
