"""FRAMP and its baselines as recipes: generator x submodel rule x alignment x local training x step on the server.

A `Method` is a value; the functions below are the named ones, with schedules searched on digits by validation
accuracy, the same number of trials for each (docs/reproducing.md has the search and what was chosen).
Change a part with `dataclasses.replace`, and bind a method to data with `federate`.

    >>> framp().hypernetwork is not None, fiarse().hypernetwork is None, local().exchanges
    (True, True, False)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from framp_private.errors import ConfigError
from framp_private.federated.aggregation import Aggregation
from framp_private.federated.descriptor import DescriptorRule
from framp_private.federated.dp_sgd import DpSGD
from framp_private.federated.federation import Federation
from framp_private.federated.gradient_sum import GradientSum
from framp_private.federated.local_training import Alignment, LocalSGD
from framp_private.federated.prototypes import PrototypeBound, Weighting
from framp_private.federated.pullback import Pullback, ServerStep
from framp_private.models.hypernetwork import Generator, Hypernetwork, SharedBackbone
from framp_private.models.psi import HypernetworkShape
from framp_private.models.submodel import SubmodelRule
from framp_private.models.target import TargetNetwork
from framp_private.privacy.amplification import Cohorts
from framp_private.protections import PlainSum, Plan
from framp_private.randomness import Streams

BUDGETS = (1.0, 1 / 4, 1 / 16, 1 / 64)
"""The four budgets of the FRAMP and FIARSE protocols; client i gets the i-th in turn."""

UNPROTECTED = Plan(PlainSum(), PlainSum(), PlainSum(), None)
"""Every value in the clear, and no metrics: epsilon is infinite."""


@dataclass(frozen=True)
class Method:
    """A recipe. `hypernetwork` None means a shared backbone; `exchanges` False means that nothing leaves a client."""

    name: str
    hypernetwork: HypernetworkShape | None
    submodel: SubmodelRule
    trainer: LocalSGD | DpSGD | GradientSum
    descriptor: DescriptorRule = DescriptorRule()
    step: ServerStep = ServerStep()
    pullback: Pullback = Pullback.SERVER
    weighting: Weighting = "counts"
    prototype_records: int | None = None
    exchanges: bool = True


def framp() -> Method:
    """FRAMP (arXiv 2604.11278): hypernetwork, global top-k of the generated weights, alignment to class prototypes.

    theta_0 learns alone for most of the run; then the hypernetwork turns it into each client's own model
    (docs/design.md says what was tried).
    """
    return Method(
        name="framp",
        hypernetwork=HypernetworkShape(trunk="random"),
        submodel=SubmodelRule(importance="fiarse"),
        trainer=LocalSGD(learning_rate=0.8, decay="cosine", alignment=Alignment(5.0), fiarse=True),
        step=ServerStep(optimizer="sgd", learning_rate=6.0, decay="constant", momentum=0.0, start=0.7),
    )


def fiarse() -> Method:
    """FIARSE (arXiv 2407.19389): one shared backbone, its global top-k per budget, threshold-controlled gradients."""
    trainer = LocalSGD(learning_rate=0.2, decay="cosine", momentum=0.9, alignment=Alignment(0.0), fiarse=True)
    return Method("fiarse", None, SubmodelRule(importance="fiarse"), trainer)


def fedavg() -> Method:
    """One shared backbone and, for each budget, the fixed magnitude mask of its initialisation."""
    trainer = LocalSGD(learning_rate=0.2, decay="cosine", momentum=0.9, alignment=Alignment(0.0))
    return Method("fedavg", None, SubmodelRule(static=True), trainer)


def local() -> Method:
    """No federation: each client trains the fixed mask of its budget alone, for the same number of steps."""
    trainer = LocalSGD(learning_rate=0.4, decay="cosine", alignment=Alignment(0.0))
    return replace(fedavg(), name="local", trainer=trainer, exchanges=False)


def framp_without_hypernetwork() -> Method:
    """Ablation: the shared backbone with FRAMP's mask and alignment."""
    return replace(framp(), name="framp-without-hypernetwork", hypernetwork=None)


def framp_without_alignment() -> Method:
    """Ablation: lambda = 0, no prototypes are exchanged."""
    return replace(framp(), name="framp-without-alignment", trainer=replace(framp().trainer, alignment=Alignment(0.0)))


def framp_layerwise() -> Method:
    """Ablation: every tensor keeps the budget's share instead of one ranking over the whole network."""
    return replace(framp(), name="framp-layerwise", submodel=replace(framp().submodel, scope="layerwise"))


def framp_static_mask() -> Method:
    """Ablation: the mask of the initialisation, never moved."""
    return replace(framp(), name="framp-static-mask", submodel=replace(framp().submodel, static=True))


RECIPES = (
    framp,
    fiarse,
    fedavg,
    local,
    framp_without_hypernetwork,
    framp_without_alignment,
    framp_layerwise,
    framp_static_mask,
)


def federate(
    method: Method,
    network: TargetNetwork,
    clients: Sequence[str],
    *,
    rounds: int,
    budgets: Sequence[float] = BUDGETS,
    clients_per_round: int | None = None,
    cohorts: Cohorts = "fixed",
    plan: Plan = UNPROTECTED,
    prototype_bound: PrototypeBound | None = None,
    declared: Mapping[str, int] | None = None,
    preparation: Aggregation | None = None,
    seed: int = 0,
) -> Federation:
    """Binds a method to a target network and the names of its clients.

    Args:
        clients: names in order; client i gets `budgets[i mod len(budgets)]`.
        rounds: planned rounds, >= 1. clients_per_round: default all. cohorts: how they are chosen.
        plan: a protection for each channel.
        prototype_bound: what one record may add to noised class sums. declared: public record numbers, by client.
        preparation: what made the records of graphs.
        seed: of initialisation, sampling and batches.

    Raises:
        ConfigError: no rounds, no clients or no budgets. PlanError, ModelError: see `Federation`.
    """
    if rounds < 1 or not clients or not budgets:
        raise ConfigError(
            f"rounds={rounds}, clients={len(clients)}, budgets={list(budgets)}: at least one of each is needed"
        )
    if len(set(clients)) != len(clients):
        raise ConfigError(f"clients={list(clients)}: each client needs a name of its own")
    shares: Mapping[str, float] = {name: budgets[place % len(budgets)] for place, name in enumerate(clients)}
    generator: Generator = SharedBackbone(network.n_parameters)
    if method.hypernetwork is not None:
        shape, size = method.hypernetwork, method.descriptor.size(network)
        if shape.prior is not None and method.descriptor.encoder != "labels":
            raise ConfigError("hypernetwork.prior reads class shares: use descriptor.encoder='labels'")
        generator = Hypernetwork(network.n_parameters, size, shape, network.classifier)
    return Federation(
        network=network,
        generator=generator,
        submodel=method.submodel,
        trainer=method.trainer,
        descriptor=method.descriptor,
        step=method.step,
        plan=plan,
        pullback=method.pullback,
        budgets=shares,
        cohort=clients_per_round if clients_per_round is not None else len(clients),
        rounds=rounds,
        streams=Streams(seed),
        cohorts=cohorts,
        weighting=method.weighting,
        prototype_records=method.prototype_records,
        prototype_bound=prototype_bound,
        declared=declared,
        preparation=preparation,
    )
