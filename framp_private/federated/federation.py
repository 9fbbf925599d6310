"""Everything both sides of a federation know before it starts: one frozen value, and its digest.

Clients and server are built from equal values; every request carries the digest, and a client refuses another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from framp_private.data.base import ClientData
from framp_private.errors import PlanError
from framp_private.federated.aggregation import Aggregation
from framp_private.federated.descriptor import DescriptorRule
from framp_private.federated.guarantees import check_guarantees
from framp_private.federated.local_training import LocalTrainer
from framp_private.federated.prototypes import PrototypeBound, Weighting
from framp_private.federated.pullback import Pullback, ServerStep, contribution_size
from framp_private.models.hypernetwork import Generator, SharedBackbone
from framp_private.models.submodel import Moments, SubmodelRule, kept
from framp_private.models.target import TargetNetwork
from framp_private.privacy.amplification import Cohorts, joint, over_sample
from framp_private.privacy.claims import Unit
from framp_private.privacy.clipping import clip_vector
from framp_private.privacy.events import Event, Relation
from framp_private.protections.base import Channel, Interactive, Protection
from framp_private.protections.homomorphic.messages import KEY_HOLDER
from framp_private.protections.plan import Plan
from framp_private.randomness import Streams


@dataclass(frozen=True)
class Parties:
    """Who takes part in one run, and which run it is: all that keys, masks and signatures of a run stand on.

    Args:
        nonce: random bytes that no other run has. server: its Ed25519 key. roster: client -> its Ed25519 key.
        pins: channel -> SHA-256 of the public key that its values are encrypted under.
    """

    nonce: bytes
    server: bytes
    roster: Mapping[str, bytes]
    pins: Mapping[Channel, bytes]


@dataclass(frozen=True, eq=False)
class Federation:
    """The public facts of a run.

    Args:
        network: the target network. generator: descriptor and budget -> weights.
        submodel: budget -> mask. trainer: what a client does with its submodel.
        descriptor: how descriptors are made; unused by a shared backbone.
        step: how phi moves. plan: a protection for each channel. pullback: on which side J^T delta is computed.
        budgets: client -> share of the target network in (0, 1].
        cohort: clients per round, in the mean if `cohorts` is `poisson`. rounds: planned number of rounds.
        cohorts: `fixed` asks exactly `cohort` clients; `poisson` each independently with probability cohort / clients.
            Seeded, unless a guarantee counts on the sample staying unknown: then drawn from `Entropy`.
        streams: seeded randomness of initialisation, sampling and batches.
        weighting: how prototypes are weighted.
        prototype_records: at most so many training records, drawn anew each round, make a client's class sums.
        prototype_bound: what one record may add to the class sums, where the channel is noised.
        declared: client -> number of training records it declared at enrolment, a public divisor; needed where training
            or the descriptor is private. It need not be true for the guarantee to hold.
        preparation: what was done to each client's graph before it became the records that are trained on; it is spent
            with a client's first release.
        parties: of one run; None before there is one.

    Raises:
        PlanError: a channel in use has no protection, a secure sum stands where single values are needed, or a
            noised channel is fed by something that no bound on one record holds for.
        ModelError: a budget is outside (0, 1] or keeps nothing.
    """

    network: TargetNetwork
    generator: Generator
    submodel: SubmodelRule
    trainer: LocalTrainer
    descriptor: DescriptorRule
    step: ServerStep
    plan: Plan
    pullback: Pullback
    budgets: Mapping[str, float]
    cohort: int
    rounds: int
    streams: Streams
    cohorts: Cohorts = "fixed"
    weighting: Weighting = "counts"
    prototype_records: int | None = None
    prototype_bound: PrototypeBound | None = None
    declared: Mapping[str, int] | None = None
    preparation: Aggregation | None = None
    parties: Parties | None = None

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
        check_guarantees(self)
        if KEY_HOLDER in self.budgets:
            raise PlanError(f"a client is named {KEY_HOLDER!r}: that is the party which decrypts; use another name")
        carriers = [self.plan.protection(channel).carrier for channel in self.channels]
        alike = any(isinstance(carrier, Interactive) and carrier.one_request for carrier in carriers)
        if alike and self.pullback is Pullback.SERVER:
            raise PlanError(
                "in a secure sum all clients see the same request, and a server-side pullback sends each its own: use "
                "pullback='client'"
            )
        if self.secure and self.cohorts == "poisson":
            raise PlanError("a secure sum is planned for a cohort of one size: use cohorts='fixed'")
        for channel in self.channels:
            guarded = self.event(channel, next(iter(self.budgets))).private
            for budget in set(self.budgets.values()):
                self.plan.protection(channel).check(self.cohort, guarded, self.size_of(channel, budget))

    @cached_property
    def channels(self) -> tuple[Channel, ...]:
        """The channels this federation sends on."""
        used: list[Channel] = ["descriptor"] if self.personalised and self.pullback is Pullback.SERVER else []
        used.append("update")
        return (*used, "prototypes") if self.aligns else tuple(used)

    def seat_of(self, channel: Channel) -> Channel:
        """The channel whose trips carry this one too: the first whose values the same protocol sums."""
        carrier = self.plan.protection(channel).carrier
        return next(other for other in self.channels if self.plan.protection(other).carrier == carrier)

    @property
    def randomised(self) -> bool:
        """Whether a reply draws from `Entropy`, so that it must be stored and resent rather than made again."""
        noised = any(self.plan.protection(channel).randomised for channel in self.channels)
        return noised or self.trainer.event(0) is not None

    @property
    def record_level(self) -> bool:
        """Whether any channel claims a guarantee for single records."""
        events = [self.event(channel, next(iter(self.budgets))) for channel in self.channels]
        return any(event.private and event.unit == "record" for event in events)

    @property
    def once(self) -> bool:
        """Whether a round may be made only once: noise is drawn in it, by clients or by the server."""
        return self.randomised or any(self.plan.protection(channel).noises_total for channel in self.channels)

    def event(self, channel: Channel, client: str) -> Event:
        """What one release by a client on a channel costs, from the value that makes it: trainer or protection."""
        return self._over_sample(self._whole(channel, client))

    def _whole(self, channel: Channel, client: str) -> Event:
        size = self.size_of(channel, self.budgets[client])
        made = self.trainer.event(size) if channel == "update" else None
        return made or self.plan.protection(channel).event(tuple(self.budgets)[: self.cohort], size)

    def size_of(self, channel: Channel, budget: float) -> int:
        """How many numbers a client sends on a channel."""
        if channel == "descriptor":
            return self.descriptor.size(self.network)
        return self.prototypes_size() if channel == "prototypes" else self.update_size(budget)

    @property
    def sampled(self) -> bool:
        """Whether the guarantee is for whole clients and counts on a sample of them: a round costs all alike."""
        return self.cohort < len(self.budgets) and self.unit == "client" and not self.secure

    @property
    def secure(self) -> bool:
        """Whether clients sum their values by a protocol of their own, to a server that sees who takes part."""
        return any(isinstance(self.plan.protection(channel).carrier, Interactive) for channel in self.channels)

    def round_events(self, client: str) -> dict[str, Event]:
        """What one round costs a client, by what the ledger calls it: an event for each channel.

        Channels that all depend on one sample of clients are one event, the sampled composition of theirs.
        """
        channels: list[Channel] = [channel for channel in self.channels if channel != "descriptor"]
        if self.sampled and len(channels) > 1:
            return {"+".join(channels): self._over_sample(joint([self._whole(name, client) for name in channels]))}
        return {channel: self.event(channel, client) for channel in channels}

    def _over_sample(self, event: Event) -> Event:
        return event if self.secure else over_sample(event, self.cohort, len(self.budgets), self.cohorts)

    @cached_property
    def unit(self) -> Unit:
        """The unit of every event of this run: record, unless all channels protect whole clients."""
        events = [self.event(channel, next(iter(self.budgets))) for channel in self.channels]
        units = {event.unit for event in events if event.private}
        if len(units) > 1:
            raise PlanError("channels protect different units, record and client: units are never added, choose one")
        return units.pop() if units else "record"

    @cached_property
    def relation(self) -> Relation:
        """The neighbouring relation of every event of this run."""
        client = next(iter(self.budgets))
        relations = {self.event(channel, client).relation for channel in self.channels}
        return relations.pop() if len(relations) == 1 else "add/remove"

    @property
    def record(self) -> str:
        """What one record of the guarantee is, where clients have graphs; else empty."""
        return self.preparation.record if self.preparation is not None else ""

    @property
    def why(self) -> str:
        """What keeps a run that trains with noise from a guarantee; else empty."""
        event = self.trainer.event(0)
        return event.note if event is not None and not event.private else ""

    @property
    def trust(self) -> str:
        """Whom the guarantee needs to be honest: the weakest demand that holds for all channels."""
        if self.sampled:
            return "trusted server, who alone knows which clients took part"
        used = {channel: self.plan.protection(channel) for channel in self.channels}
        shared = {each.server_view().trust for each in used.values() if each.noises_in_shares}
        if shared:
            return "; ".join(sorted(shared))
        return "trusted server" if self.unit == "client" else "any server: each client adds its own noise"

    def planned(self, client: str) -> list[tuple[Event, int]]:
        """Every release a client may make in this run, with its count: one per round and channel, and those once."""
        releases = [(self.event("descriptor", client), 1)] if "descriptor" in self.channels else []
        releases += [(event, self.rounds) for event in self.round_events(client).values()]
        return [*releases, *((event, 1) for event in self.at_home(client).values())]

    def at_home(self, client: str) -> dict[str, Event]:
        """What is spent before a client's first reply though it never leaves: replies are functions of it, by label."""
        found = {"preparation": self.preparation.event()} if self.preparation is not None else {}
        if self.home_descriptor is not None:
            found["home/descriptor"] = self.home_descriptor.event((client,), self.descriptor.size(self.network))
        return found

    @property
    def home_descriptor(self) -> Protection | None:
        """What noises a descriptor that stays home: masks, and so all other records' gradients, depend on it.

        None where it is sent, where none is used, and where no single record is protected.
        """
        if not self.personalised or self.pullback is Pullback.SERVER:
            return None
        return self.plan.descriptor

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

    def declared_by(self, client: str) -> int:
        """The public record number of a client, 1 where none is needed."""
        return self.declared[client] if self.declared is not None else 1

    def describe(self, client: str, data: ClientData) -> np.ndarray:
        """(d,) what the descriptor channel's protection is given.

        A mean; where it is noised for single records, a sum of clipped terms; for whole clients, a clipped mean.
        """
        clip = self._descriptor_clip
        if clip is not None and self._descriptor_summed:
            return self.descriptor.clipped_sum(self.network, self.theta_0, data, clip).numpy()
        streams = self.streams.child("descriptor", client)
        mean = self.descriptor.compute(self.network, self.theta_0, data, streams).numpy()
        return mean if clip is None else clip_vector(mean, clip)

    def descriptor_of(self, revealed: np.ndarray, declared: int) -> Tensor:
        """(d,) float32 the descriptor from what the channel delivered: a noised sum is divided by the declared size."""
        divisor = declared if self._descriptor_summed else 1
        return torch.from_numpy((revealed / divisor).astype(np.float32))

    @property
    def _descriptor_clip(self) -> float | None:
        return getattr(self.plan.descriptor, "clip_norm", None)

    @property
    def _descriptor_summed(self) -> bool:
        """Whether what is noised is a sum over records, which the declared number divides afterwards."""
        return self._descriptor_clip is not None and getattr(self.plan.descriptor, "unit", "record") == "record"

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
            return contribution_size(self.generator, self.step.counted, self.step.moves)
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
        """SHA-256 over every public fact and who takes part in which run: what both sides hold requests against."""
        return hashlib.sha256(self.facts + repr(_plain(self.parties)).encode()).digest()

    @cached_property
    def facts(self) -> bytes:
        """SHA-256 over every public fact, the network's shape included; equal in equal runs."""
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
            "budgets": list(self.budgets.items()),
            "cohort": self.cohort,
            "cohorts": self.cohorts,
            "rounds": self.rounds,
            "seed": self.streams,
            "weighting": self.weighting,
            "prototype_records": self.prototype_records,
            "prototype_bound": self.prototype_bound,
            "preparation": self.preparation,
            "declared": dict(self.declared) if self.declared is not None else None,
        }
        return hashlib.sha256(repr(_plain(facts)).encode()).digest()


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return (type(value).__name__, *((field.name, _plain(getattr(value, field.name))) for field in fields(value)))
    if isinstance(value, Mapping):
        return tuple((key, _plain(value[key])) for key in sorted(value))
    return value
