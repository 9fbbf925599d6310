"""The server: a frozen state and the functions that make requests from it and move it by what came back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from framp_private.errors import ProtocolError
from framp_private.federated.federation import Federation
from framp_private.federated.messages import PhiRequest, TrainRequest
from framp_private.federated.prototypes import GlobalPrototypes
from framp_private.federated.pullback import Pullback, StepState, contributions
from framp_private.models.mask_coding import decode_mask, encode_mask
from framp_private.models.submodel import Moments
from framp_private.privacy.sampling import poisson_sample, uniform_sample
from framp_private.protections.base import (
    Channel,
    Lift,
    Protection,
    Total,
    plain_lift,
)
from framp_private.randomness import Entropy
from framp_private.wire import encode


@dataclass(frozen=True, eq=False)
class ServerState:
    """All that the server carries from round to round.

    round_index: rounds finished. phi: (n_phi,). step: the optimiser's memory. prototypes: what clients align to.
    average: (n_phi,) the mean of phi over the last rounds, where that is served, and over how many; None before.
    moments: for importance scores that need them. descriptors: (d,) by client, empty without a server-side
    hypernetwork. clip: of the update channel in the next round where it adapts, else 0.
    """

    round_index: int
    phi: Tensor
    step: StepState
    prototypes: GlobalPrototypes
    moments: Moments | None = None
    descriptors: Mapping[str, Tensor] = field(default_factory=dict)
    average: Tensor | None = None
    averaged: int = 0
    clip: float = 0.0

    @property
    def served(self) -> Tensor:
        """(n_phi,) what models are served from."""
        return self.phi if self.average is None else self.average

    @classmethod
    def initial(cls, federation: Federation) -> ServerState:
        """Before enrolment and the first round."""
        network = federation.network
        none = GlobalPrototypes.none(network.n_classes, network.feature_dim)
        clip = federation.plan.protection("update").starting_clip
        return cls(0, federation.phi_0(), federation.step.initial(federation.generator), none, clip=clip)


class SubmodelRequests(Mapping[str, bytes]):
    """One `TrainRequest` per client, made when it is asked for; keeps the coded masks for the pullback."""

    def __init__(self, federation: Federation, state: ServerState, cohort: Sequence[str]) -> None:
        self._federation, self._state, self._cohort = federation, state, tuple(cohort)
        self.masks: dict[str, bytes] = {}

    def __getitem__(self, client: str) -> bytes:
        federation, state = self._federation, self._state
        budget = federation.budgets[client]
        weights = federation.weights(state.phi, descriptor_of(state, client), budget)
        mask = federation.mask(weights, budget, state.moments)
        self.masks[client] = encode_mask(mask.numpy())
        return encode(
            TrainRequest(
                federation.digest,
                state.round_index,
                weights[mask].numpy(),
                self.masks[client],
                *_prototype_fields(federation, state),
            )
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._cohort)

    def __len__(self) -> int:
        return len(self._cohort)

    def lift(self, clients: Sequence[str], values: Sequence[np.ndarray]) -> np.ndarray:
        """The summed contribution of some clients' updates: J_i^T delta_i, computed here."""
        federation, state = self._federation, self._state
        masks = torch.stack(
            [torch.from_numpy(decode_mask(self.masks[client], federation.network.n_parameters)) for client in clients]
        )
        deltas = torch.zeros(masks.shape)
        for row, (client, value) in enumerate(zip(clients, values, strict=True)):
            if value.shape != (int(masks[row].sum()),):
                raise ProtocolError(
                    f"client {client!r} sent {value.shape} update values, must be ({int(masks[row].sum())},)"
                )
            deltas[row, masks[row]] = torch.from_numpy(value)
        descriptors = torch.stack([descriptor_of(state, client) for client in clients])
        budgets = torch.tensor([federation.budgets[client] for client in clients])
        resting = federation.rests(state.round_index)
        return contributions(
            federation.generator,
            state.phi,
            descriptors,
            budgets,
            deltas,
            masks,
            resting=resting,
            counted=federation.step.counted,
            moves=federation.step.moves,
        )


class PhiRequests(Mapping[str, bytes]):
    """The same `PhiRequest` for every client of the cohort."""

    def __init__(self, federation: Federation, state: ServerState, cohort: Sequence[str]) -> None:
        empty = np.zeros(0, np.float32)
        first, second = (state.moments.first.numpy(), state.moments.second.numpy()) if state.moments else (empty, empty)
        self._cohort = tuple(cohort)
        self._message = encode(
            PhiRequest(
                federation.digest,
                state.round_index,
                state.phi.numpy(),
                first,
                second,
                *_prototype_fields(federation, state),
                state.clip,
            )
        )

    def __getitem__(self, client: str) -> bytes:
        return self._message

    def __iter__(self) -> Iterator[str]:
        return iter(self._cohort)

    def __len__(self) -> int:
        return len(self._cohort)

    lift = staticmethod(plain_lift)


Requests = SubmodelRequests | PhiRequests


def make_requests(federation: Federation, state: ServerState, cohort: Sequence[str]) -> Requests:
    """The training requests of one round, and with them the `lift` that turns replies into contributions."""
    kind = SubmodelRequests if federation.pullback is Pullback.SERVER else PhiRequests
    return kind(federation, state, cohort)


def lifts(requests: Requests) -> dict[Channel, Lift]:
    """How each channel's values become summable."""
    return {"update": requests.lift, "prototypes": plain_lift}


def value_sizes(federation: Federation) -> dict[Channel, int | None]:
    """How many numbers each client owes on each channel; None where it depends on the client's budget."""
    update = None
    if federation.pullback is Pullback.CLIENT:
        update = federation.update_size(1.0)
    return {"update": update, "prototypes": federation.prototypes_size()}


def protection(federation: Federation, state: ServerState, channel: Channel) -> Protection:
    """A channel's protection in the round to come."""
    made = federation.plan.protection(channel)
    return made.at(state.clip) if channel == "update" else made


def draw_cohort(federation: Federation, round_index: int) -> tuple[str, ...]:
    """Who is asked in a round, in the order of the roster.

    A guarantee that counts on the sample needs one that nobody can foresee: no seed will do, and each call draws anew.
    """
    if not federation.sampled:
        return sample_cohort(federation, round_index)
    roster, size = list(federation.budgets), federation.cohort
    if federation.cohorts == "poisson":
        drawn = poisson_sample(len(roster), size / len(roster), Entropy()).tolist()
    else:
        drawn = uniform_sample(len(roster), size, Entropy()).tolist()
    return tuple(roster[place] for place in drawn)


def sample_cohort(federation: Federation, round_index: int) -> tuple[str, ...]:
    """A seeded uniform sample without replacement of `federation.cohort` clients, in the order of the roster."""
    roster = list(federation.budgets)
    if federation.cohort == len(roster):
        return tuple(roster)
    generator = federation.streams.child("cohort", round_index).numpy()
    chosen = generator.choice(len(roster), federation.cohort, replace=False)
    return tuple(roster[place] for place in sorted(chosen))


def apply(federation: Federation, state: ServerState, totals: Mapping[Channel, Total]) -> ServerState:
    """The state after a round: phi moves by the summed contributions, prototypes by the summed class rows."""
    total = totals["update"].value
    phi, step = federation.step.apply(
        federation.generator, state.phi, state.step, total, federation.cohort, federation.progress(state.round_index)
    )
    prototypes = state.prototypes
    if "prototypes" in totals:
        prototypes = prototypes.after(totals["prototypes"].value, federation.prototype_bound)
    moments = state.moments
    if federation.submodel.needs_moments:
        moved, _ = federation.step.update(federation.generator, total, federation.cohort)
        moments = (moments or Moments(torch.zeros_like(moved), torch.zeros_like(moved))).after(moved)
    done = state.round_index + 1
    average, averaged = state.average, state.averaged
    if federation.step.average and done > federation.rounds * (1 - federation.step.average):
        averaged += 1
        average = phi.clone() if average is None else average + (phi - average) / averaged
    return replace(
        state,
        round_index=done,
        phi=phi,
        step=step,
        prototypes=prototypes,
        moments=moments,
        average=average,
        averaged=averaged,
        clip=federation.plan.protection("update").after(state.clip, totals["update"], federation.cohort),
    )


def descriptor_of(state: ServerState, client: str) -> Tensor:
    """The client's descriptor, or an empty one where none is used."""
    return state.descriptors.get(client, torch.zeros(0))


def _prototype_fields(federation: Federation, state: ServerState) -> tuple[np.ndarray, np.ndarray]:
    if not federation.aligns:
        return np.zeros((0, 0), np.float32), np.zeros(0, np.uint8)
    return state.prototypes.values.numpy(), state.prototypes.present.numpy().astype(np.uint8)
