# ruff: noqa: D102  what `Facts` names is described in `Federation`
"""What must hold for noise on a channel to be a guarantee: sums over records or clients whose terms are bounded.

Noise without the bound would only suggest protection, so a federation that lacks one is refused before it starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol as Shape

from framp_private.errors import PlanError
from framp_private.federated.aggregation import Aggregation
from framp_private.federated.descriptor import DescriptorRule
from framp_private.federated.local_training import LocalTrainer
from framp_private.federated.prototypes import PrototypeBound, Weighting
from framp_private.federated.pullback import Pullback, ServerStep
from framp_private.privacy.amplification import Cohorts
from framp_private.privacy.events import Event
from framp_private.protections.base import Channel, Protection
from framp_private.protections.plan import Plan
from framp_private.protections.post_processed import PostProcessed


class Facts(Shape):
    """What of a federation matters here; see `Federation`."""

    @property
    def trainer(self) -> LocalTrainer: ...
    @property
    def descriptor(self) -> DescriptorRule: ...
    @property
    def step(self) -> ServerStep: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def pullback(self) -> Pullback: ...
    @property
    def budgets(self) -> Mapping[str, float]: ...
    @property
    def cohorts(self) -> Cohorts: ...
    @property
    def weighting(self) -> Weighting: ...
    @property
    def prototype_records(self) -> int | None: ...
    @property
    def prototype_bound(self) -> PrototypeBound | None: ...
    @property
    def declared(self) -> Mapping[str, int] | None: ...
    @property
    def preparation(self) -> Aggregation | None: ...
    @property
    def channels(self) -> Sequence[Channel]: ...
    @property
    def sampled(self) -> bool: ...
    @property
    def personalised(self) -> bool: ...
    @property
    def home_descriptor(self) -> Protection | None: ...
    def event(self, channel: Channel, client: str) -> Event: ...


def check_guarantees(facts: Facts) -> None:
    """Raises `PlanError` for noise that stands on no bound."""
    edges = _edges_alone(facts)
    events = {channel: facts.event(channel, next(iter(facts.budgets))) for channel in facts.channels}
    private = {channel for channel, event in events.items() if event.private and event.unit == "record" and not edges}
    whole = {channel for channel, event in events.items() if event.private and event.unit == "client"}
    if private and facts.declared is None:
        raise PlanError("a record-level guarantee divides by declared record numbers: pass declared= to federate")
    if "update" in whole and (facts.pullback is not Pullback.CLIENT or facts.step.counted):
        raise PlanError(
            "client-level noise on the update clips each client's whole contribution in phi-space: use "
            "pullback='client' and server.backbone='cohort_mean', so that no mask is part of it"
        )
    if "update" in private and facts.trainer.event(0) is None:
        _check_shared_noise(facts)
    if private:
        _check_descriptor(facts, "descriptor" in private)
    if whole:
        _check_clients_descriptor(facts)
    if facts.cohorts == "poisson" and not whole:
        raise PlanError(
            "cohorts='poisson' amplifies a guarantee for whole clients, and this run has none: use cohorts='fixed'"
        )
    if facts.sampled and any(not event.private for event in events.values()):
        raise PlanError("a sample of clients amplifies nothing while a channel is in the clear: protect all of them")
    if "prototypes" in private:
        _check_prototypes(facts)


def _check_shared_noise(facts: Facts) -> None:
    """The update's noise comes after training: what training sends must be a sum of bounded terms, one a record."""
    bound, clip = facts.trainer.record_bound, getattr(facts.plan.update, "clip_norm", None)
    if bound is None or clip is None:
        raise PlanError(
            "the update channel is noised for a bound on one record that this training does not keep: under a "
            "record-level guarantee train with DpSGD, or with GradientSum under noise that clients share"
        )
    if bound > clip * (1 + 1e-12):
        raise PlanError(f"the update is noised for clip_norm={clip}, and one record may move it by {bound}")
    if facts.pullback is not Pullback.CLIENT or facts.step.counted or facts.step.moves:
        raise PlanError(
            "noise that clients share is on one summed gradient of theta_0: use pullback='client', "
            "server.backbone='cohort_mean', so that no mask is part of it, and server.start=1, so that psi rests"
        )


def _check_descriptor(facts: Facts, sent: bool) -> None:
    """Masks are functions of the descriptor, and gradients of all records are cut to the masks."""
    stays = facts.personalised and facts.pullback is Pullback.CLIENT
    made = facts.home_descriptor
    if stays and (made is None or not made.event((), 0).private or made.event((), 0).unit != "record"):
        raise PlanError(
            "under a record-level guarantee the descriptor is noised once and spent even where it stays home: give the "
            "descriptor channel LocalGaussian, or use pullback='server'"
        )
    if (sent or stays) and not facts.descriptor.public:
        raise PlanError(
            f"descriptor.encoder={facts.descriptor.encoder!r} lets one record move all others' vectors: "
            "under a record-level guarantee use 'frozen' or 'labels'"
        )


def _check_clients_descriptor(facts: Facts) -> None:
    """A client's own descriptor is in the model that it is served; noise on it is for the same unit and relation."""
    made = facts.home_descriptor
    if made is None:
        return
    event = made.event((), 0)
    if not event.private or event.unit != "client":
        raise PlanError(
            "under a guarantee for whole clients the descriptor is noised for whole clients, or stays as it is: give "
            "the channel LocalGaussian(..., unit='client'), or None"
        )
    if facts.sampled and facts.cohorts == "fixed":
        raise PlanError(
            "a sample of fixed size protects by replace-one, and a noised descriptor by add/remove: ask all clients in "
            "every round, or use cohorts='poisson'"
        )


def _check_prototypes(facts: Facts) -> None:
    bound, clip = facts.prototype_bound, getattr(facts.plan.prototypes, "clip_norm", None)
    if bound is None or clip is None or bound.clip_norm > clip:
        raise PlanError(
            f"prototypes are noised for clip_norm={clip} and bounded by {bound}: the bound must be at most that"
        )
    if facts.weighting != "counts" or facts.prototype_records is not None:
        raise PlanError(
            "noised prototypes are sums over all records: use alignment.prototypes=counts and no records limit"
        )


def _edges_alone(facts: Facts) -> bool:
    """Whether edges are what is protected: all noise is in the preparation, and the channels follow from it."""
    prepared = facts.preparation is not None and facts.preparation.protects == "edges"
    derived = {isinstance(facts.plan.protection(channel), PostProcessed) for channel in facts.channels}
    if derived != {prepared} or (prepared and facts.trainer.event(0) is not None):
        raise PlanError(
            "noised sums over edges and channels that cost nothing more go together: give every channel "
            "PostProcessed() with preparation=Aggregation(protects='edges') and plain training, or none"
        )
    return prepared
