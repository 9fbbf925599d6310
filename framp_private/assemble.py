"""A validated config -> the values that run: network, method, plan, federation. And back: a recipe -> its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from framp_private.config import Config, HypernetworkConfig, parse, read_file
from framp_private.data.base import Schema
from framp_private.errors import ConfigError
from framp_private.federated.aggregation import Aggregation
from framp_private.federated.descriptor import DescriptorRule
from framp_private.federated.dp_sgd import GRAPHS
from framp_private.federated.federation import Federation
from framp_private.federated.local_training import Alignment, LocalSGD
from framp_private.federated.pullback import Pullback, ServerStep
from framp_private.methods import RECIPES, Method, federate
from framp_private.models.prior import ClassPrior
from framp_private.models.psi import HypernetworkShape
from framp_private.models.submodel import SubmodelRule
from framp_private.models.tabular import mlp
from framp_private.models.target import TargetNetwork
from framp_private.models.vision import lenet, linear, perceptron, resnet18, small_cnn
from framp_private.presets import DEFAULT, PRESETS, name_of
from framp_private.privacy.events import Budget, check_delta_of
from framp_private.privatise import Asked, Secure, privatise
from framp_private.protections import (
    BFVSum,
    CKKSSum,
    DistributedGaussian,
    DistributedSkellam,
    PlainSum,
    Plan,
    Protection,
    SecAgg,
)
from framp_private.protections.distributed import Distributed
from framp_private.protections.homomorphic import EncryptedSum

Settings = dict[str, Any]


def make_config(
    *, file: Path | None = None, preset: str | None = None, assignments: Mapping[str, Any] | None = None
) -> Config:
    """Defaults, then the method's recipe, then the preset, then the file, then assignments.

    Without a preset and without a file the preset is `presets.DEFAULT`, unless the assignments name a
    data set of their own.

    Raises:
        ConfigError: an unknown preset, method or key, or a refused value.
    """
    given = dict(assignments or {})
    written = read_file(file) if file is not None else {}
    if preset is None and file is None and "dataset" not in given:
        preset = DEFAULT
    method = str(given.get("method", written.get("method", "framp")))
    recipes = {recipe().name: recipe for recipe in RECIPES}
    recipe = settings_of(recipes[method]()) if method in recipes else {}
    return parse([recipe, _preset(preset, method), written, given])


def settings_of(method: Method) -> Settings:
    """A recipe as the config keys that `method_of` turns back into it."""
    trainer = asdict(method.trainer)
    alignment = trainer.pop("alignment")
    trainer.pop("fiarse")
    descriptor = asdict(method.descriptor)
    descriptor.pop("batch_size")
    return {
        "method": method.name,
        "local_steps": trainer.pop("steps"),
        **trainer,
        "hypernetwork": asdict(method.hypernetwork) if method.hypernetwork else None,
        "descriptor": descriptor,
        "submodel": asdict(method.submodel),
        "server": asdict(method.step),
        "pullback": method.pullback.value,
        "alignment": {**alignment, "prototypes": method.weighting, "records": method.prototype_records},
    }


def method_of(config: Config) -> Method:
    """The recipe with the config's parts."""
    trainer = LocalSGD(
        steps=config.local_steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        decay=config.decay,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        rethreshold=config.rethreshold,
        fiarse=config.submodel.importance == "fiarse",
        alignment=Alignment(config.alignment.weight, config.alignment.distance),
    )
    shape = config.hypernetwork
    return Method(
        name=config.method,
        hypernetwork=_shape(shape) if shape else None,
        submodel=SubmodelRule(**config.submodel.model_dump()),
        trainer=trainer,
        descriptor=DescriptorRule(**config.descriptor.model_dump(), batch_size=config.batch_size),
        step=ServerStep(**config.server.model_dump()),
        pullback=Pullback(config.pullback),
        weighting=config.alignment.prototypes,
        prototype_records=config.alignment.records,
        exchanges=config.method != "local",
    )


def _shape(config: HypernetworkConfig) -> HypernetworkShape:
    prior = ClassPrior(**config.prior.model_dump()) if config.prior is not None else None
    return HypernetworkShape(**{**config.model_dump(), "prior": prior})


def network_of(config: Config, schema: Schema) -> TargetNetwork:
    """The target network for these records; `auto` picks by their kind. Raises `ConfigError` if the two do not fit."""
    name = config.network
    if name == "auto":
        name = {"table": "mlp", "graph": "sage"}.get(schema.kind) or ("cnn" if schema.input_shape[-1] < 28 else "lenet")  # type: ignore[assignment]
    kinds = {
        "cnn": "image",
        "lenet": "image",
        "linear": "image",
        "perceptron": "image",
        "resnet18": "image",
        "gcn": "graph",
        "sage": "graph",
        "mlp": "table",
    }
    if kinds[name] == "graph" and schema.kind == "table" and config.privacy is not None:
        raise ConfigError(f"network={name!r}: {GRAPHS}")
    if kinds[name] != schema.kind:
        raise ConfigError(
            f"network={name!r} takes {kinds[name]} records, dataset={config.dataset!r} has "
            f"{schema.kind} records: use network=auto"
        )
    return TargetNetwork(_builder(name, schema))


def trained_schema(config: Config, schema: Schema) -> Schema:
    """What a run trains on: under a guarantee for nodes, records that were made of a graph."""
    wanted = config.privacy
    if wanted is None or wanted.protects == "nothing" or schema.kind != "graph" or not method_of(config).exchanges:
        return schema
    return Aggregation(wanted.hops, 1, 1.0).schema(schema)


def plan_of(config: Config) -> Plan:
    """The protection of each channel of a run without a guarantee.

    Raises:
        ConfigError: a protection that needs `privacy`.
    """
    known: dict[str, Protection | None] = {"auto": PlainSum(), "plain": PlainSum(), "none": None}
    known |= {"secagg": _secagg(config), **_encrypted(config)}
    made: dict[str, Protection | None] = {}
    for channel, name in config.protections.model_dump().items():
        if name not in known:
            raise ConfigError(
                f"protections.{channel}={name!r} sizes its noise for a guarantee: say which, with privacy.epsilon=..."
            )
        made[channel] = known[name]
    return Plan(**made)


def federation_of(
    config: Config, network: TargetNetwork, declared: Mapping[str, int], *, graph: bool = False
) -> Federation:
    """The federation of a config.

    Args:
        declared: clients in order, with the number of training records that each declares. graph: records are nodes.

    Raises:
        ConfigError, PlanError, PrivacyParameterError: see `privatise` and `Federation`.
    """
    method, bound, preparation = method_of(config), None, None
    if config.privacy is not None and method.exchanges:
        wanted = config.privacy
        check_delta_of(Budget(wanted.epsilon, wanted.delta, wanted.large_delta), wanted.unit, declared)
        silenced = _silenced(config, wanted.unit if wanted.protects == "nodes" else wanted.protects)
        asked = Asked(config.clients_per_round or len(declared), len(declared), config.cohorts)
        private = privatise(
            method,
            network,
            wanted,
            config.rounds,
            declared,
            asked,
            graph=graph,
            secure=_secure(config),
            served=config.protections.descriptor == "local-gaussian",
        )
        method, plan, bound = private.method, private.plan, private.prototype_bound
        plan, preparation = replace(plan, **dict.fromkeys(silenced)), private.preparation
    else:
        plan = plan_of(config)
    return federate(
        method,
        network,
        list(declared),
        rounds=config.rounds,
        budgets=config.budgets,
        clients_per_round=config.clients_per_round,
        cohorts=config.cohorts if method.exchanges else "fixed",
        plan=plan,
        prototype_bound=bound,
        declared=declared,
        preparation=preparation,
        seed=config.seed,
    )


IN_SHARES: Mapping[str, type[Distributed]] = {
    "distributed-gaussian": DistributedGaussian,
    "distributed-skellam": DistributedSkellam,
}
"""Noise in shares, by what the config calls it."""

_FITTING: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "record": {
        "update": ("dp-sgd", *IN_SHARES),
        "prototypes": ("local-gaussian", *IN_SHARES, "bfv", "ckks"),
        "descriptor": ("local-gaussian",),
    },
    "client": {
        "update": ("central-gaussian", *IN_SHARES),
        "prototypes": ("central-gaussian", *IN_SHARES),
        "descriptor": ("local-gaussian",),
    },
    "edges": {"update": (), "prototypes": (), "descriptor": ()},
    "nothing": {"update": ("dp-sgd",), "prototypes": ("plain",), "descriptor": ("plain",)},
}
"""By what is protected, the protections that keep the guarantee on each channel; `auto` means the first.

But not for a client's descriptor, which stays home: there `auto` leaves it as it is, and the models that clients are
served outside of the guarantee.
"""


def _silenced(config: Config, protected: str) -> list[str]:
    """Channels that the config forbids. Raises `ConfigError` for one whose protection contradicts the guarantee."""
    chosen = config.protections.model_dump()
    for channel, fitting in _FITTING[protected].items():
        if chosen[channel] not in ("auto", "none", *fitting):
            raise ConfigError(
                f"protections.{channel}={chosen[channel]!r} does not keep the guarantee that privacy asks for, of unit "
                f"{protected}: use protections.{channel}=auto, or privacy=none"
            )
    return [channel for channel, name in chosen.items() if name == "none"]


def _secure(config: Config) -> Secure | None:
    """The secure sum under which clients add their own noise; None where a server adds it, or each client its own.

    Raises:
        ConfigError: one channel's noise is distributed and the other's is of another kind, or in the wrong order; or an
            encrypted channel beside DP-SGD.
    """
    update, prototypes = config.protections.update, config.protections.prototypes
    chosen = {update, prototypes} - {"none"}
    if config.privacy is not None and config.privacy.unit == "record":
        own = PlainSum() if prototypes == "local-gaussian" else _encrypted(config).get(prototypes)
        if update not in IN_SHARES:
            if prototypes in IN_SHARES or isinstance(own, EncryptedSum):
                raise ConfigError(
                    f"protections.prototypes={prototypes!r} goes with protections.update=distributed-gaussian: set both"
                )
            return None
        if prototypes in IN_SHARES and prototypes != update:
            raise ConfigError(
                f"protections.prototypes={prototypes!r} shares one secure sum with protections.update={update!r}: "
                "leave it at auto"
            )
        return Secure(_secagg(config), config.secagg.colluding, own, IN_SHARES[update])
    if not chosen & set(IN_SHARES):
        return None
    if update not in IN_SHARES or not chosen <= {update, "auto"}:
        raise ConfigError(
            "distributed noise is for update and prototypes together: set protections.update=distributed-gaussian and "
            "leave protections.prototypes at auto"
        )
    return Secure(_secagg(config), config.secagg.colluding, noise=IN_SHARES[update])


def _secagg(config: Config) -> SecAgg:
    settings = config.secagg.model_dump()
    del settings["colluding"]
    return SecAgg(**settings)


def _encrypted(config: Config) -> dict[str, EncryptedSum]:
    """Encrypted sums by what the config calls them."""
    chosen = config.encryption
    kinds = {"bfv": BFVSum, "ckks": CKKSSum}
    return {name: kind(chosen.key_holder, chosen.bound, survivors=chosen.survivors) for name, kind in kinds.items()}


def _builder(name: str, schema: Schema) -> Callable[[], nn.Module]:
    shape, n_classes, sparse = schema.input_shape, schema.n_classes, schema.sparse
    if schema.kind == "graph":
        from framp_private.models.graph import gcn, graph_sage  # takes seconds to import

        layers = gcn if name == "gcn" else graph_sage
        return partial(layers, shape[0], n_classes, sparse_input=sparse)
    if schema.kind == "table":
        return partial(mlp, shape[0], n_classes)
    pictures = {"cnn": small_cnn, "lenet": lenet, "linear": linear, "perceptron": perceptron, "resnet18": resnet18}[
        name
    ]
    return partial(pictures, shape[0], shape[-1], n_classes)


def _preset(name: str | None, method: str) -> Settings:
    if name is None:
        return {}
    known = {name_of(preset): preset for preset in PRESETS}
    if name not in known:
        raise ConfigError(f"preset={name!r} is not known: use one of {', '.join(known)}")
    return known[name](method)
