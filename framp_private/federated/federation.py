"""Everything both sides of a federation know before it starts: one frozen value, and its digest.

Clients and server are built from equal values; every request carries the digest, and a client refuses another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property

import torch
from torch import Tensor

from framp_private.errors import PlanError
from framp_private.federated.descriptor import DescriptorRule
from framp_private.federated.local_training import LocalSGD
from framp_private.federated.prototypes import Weighting
from framp_private.federated.pullback import Pullback, ServerStep, contribution_size
from framp_private.models.hypernetwork import Generator, SharedBackbone
from framp_private.models.submodel import Moments, SubmodelRule, kept
from framp_private.models.target import TargetNetwork
from framp_private.protections.base import Channel
from framp_private.protections.plan import Plan
from framp_private.randomness import Streams


@dataclass(frozen=True, eq=False)
class Federation:
    """The public facts of a run.

    Args:
        network: the target network. generator: descriptor and budget -> weights.
        submodel: budget -> mask. trainer: what a client does with its submodel.
        descriptor: how descriptors are made; unused by a shared backbone.
        step: how phi moves. plan: a protection for each channel. pullback: on which side J^T delta is computed.
        budgets: client -> share of the target network in (0, 1].
        cohort: clients per round. rounds: planned number of rounds.
        streams: seeded randomness of initialisation, sampling and batches.
        weighting: how prototypes are weighted.
        prototype_records: at most so many training records, drawn anew each round, make a client's class sums.

    Raises:
        PlanError: a channel in use has no protection, or a secure sum stands where single values are needed.
        ModelError: a budget is outside (0, 1] or keeps nothing.
    """

    network: TargetNetwork
    generator: Generator
    submodel: SubmodelRule
    trainer: LocalSGD
    descriptor: DescriptorRule
    step: ServerStep
    plan: Plan
    pullback: Pullback
    budgets: Mapping[str, float]
    cohort: int
    rounds: int
    streams: Streams
    weighting: Weighting = "counts"
    prototype_records: int | None = None

    def __post_init__(self) -> None:
        for budget in set(self.budgets.values()):
            kept(self.network, budget)
        if not 1 <= self.cohort <= len(self.budgets):
            raise PlanError(
                f"clients_per_round={self.cohort} must lie in 1 .. {len(self.budgets)}, the number of clients"
            )
        shape = getattr(self.generator, "shape", None)
        if shape is not None and shape.standardise == "enrolled" and self.pullback is Pullback.CLIENT:
            raise PlanError(
                "standardise='enrolled' takes a server that sees descriptors, and pullback='client' keeps them home: "
                "use hypernetwork.standardise='own'"
            )
        per_client: dict[Channel, str] = {
            "descriptor": "a server-side hypernetwork needs each client's descriptor: use pullback='client'"
        }
        if self.pullback is Pullback.SERVER:
            per_client["update"] = (
                "a server-side pullback needs each client's update, which a sum does not give: use pullback='client'"
            )
        self.plan.check(self.channels, per_client)

    @cached_property
    def channels(self) -> tuple[Channel, ...]:
        """The channels this federation sends on."""
        used: list[Channel] = ["descriptor"] if self.personalised and self.pullback is Pullback.SERVER else []
        used.append("update")
        return (*used, "prototypes") if self.aligns else tuple(used)

    @property
    def randomised(self) -> bool:
        """Whether a reply draws from `Entropy`, so that it must be stored and resent rather than made again."""
        return any(self.plan.protection(channel).randomised for channel in self.channels)

    @property
    def personalised(self) -> bool:
        """Whether weights depend on a descriptor."""
        return not isinstance(self.generator, SharedBackbone)

    @property
    def aligns(self) -> bool:
        """Whether prototypes are exchanged."""
        return self.trainer.alignment.weight > 0

    @cached_property
    def theta_0(self) -> Tensor:
        """(n_parameters,) the target network's initialisation, equal for all."""
        return self.network.initial_weights(self.streams.child("initial weights"))

    def phi_0(self) -> Tensor:
        """(n_phi,) the generator before the first round."""
        return self.generator.initial(self.theta_0, self.streams.child("initial hypernetwork"))

    def weights(self, phi: Tensor, descriptor: Tensor, budget: float) -> Tensor:
        """(n_parameters,) generated weights for one descriptor and budget, not yet masked."""
        return self.generator.generate(phi, descriptor[None], torch.tensor([budget]))[0]

    def mask(self, weights: Tensor, budget: float, moments: Moments | None) -> Tensor:
        """(n_parameters,) bool mask; from the initial weights where the rule is static."""
        source = self.theta_0 if self.submodel.static else weights
        return self.submodel.mask(self.network, source, budget, moments)

    def update_size(self, budget: float) -> int:
        """How many numbers a client uploads on the update channel."""
        if self.pullback is Pullback.CLIENT:
            return contribution_size(self.generator)
        return kept(self.network, budget) + self.network.n_parameters - self.network.n_maskable

    def prototypes_size(self) -> int:
        """How many numbers a client uploads on the prototype channel."""
        return self.network.n_classes * (self.network.feature_dim + 1)

    def rests(self, round_index: int) -> bool:
        """Whether psi still rests in this round; a shared backbone has no psi."""
        return self.step.rests(self.progress(round_index))

    def progress(self, round_index: int) -> float:
        """The part of the run that lies behind round `round_index`, in [0, 1)."""
        return min(round_index / self.rounds, 1.0)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over every public fact, the network's shape included."""
        facts = {
            "network": self.network.tensors,
            "classifier": self.network.classifier_name,
            "generator": getattr(self.generator, "shape", "shared"),
            "submodel": self.submodel,
            "trainer": self.trainer,
            "descriptor": self.descriptor,
            "step": self.step,
            "plan": self.plan,
            "pullback": self.pullback.value,
            "budgets": dict(self.budgets),
            "cohort": self.cohort,
            "rounds": self.rounds,
            "seed": self.streams,
            "weighting": self.weighting,
            "prototype_records": self.prototype_records,
        }
        return hashlib.sha256(repr(_plain(facts)).encode()).digest()


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return (type(value).__name__, *((field.name, _plain(getattr(value, field.name))) for field in fields(value)))
    if isinstance(value, Mapping):
        return tuple((key, _plain(value[key])) for key in sorted(value))
    return value
