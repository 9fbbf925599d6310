"""What a run will send, store and take, worked out before any data is touched."""

from __future__ import annotations

import time
from typing import Any

import torch

from framp_private.assemble import federation_of, method_of, network_of, trained_schema
from framp_private.config import Config
from framp_private.costs import channel_costs, planned_claim
from framp_private.data.base import ClientData, Schema
from framp_private.data.partition import client_names
from framp_private.datasets import check_prepared, schema_of
from framp_private.evaluation import budget_name
from framp_private.federated.federation import Federation
from framp_private.federated.local_training import AtHome
from framp_private.federated.pullback import Pullback
from framp_private.models.mask_coding import entropy_bound_bits
from framp_private.models.submodel import kept
from framp_private.privacy.claims import no_guarantee, nothing_released, statement
from framp_private.protections import SecAgg
from framp_private.protections.base import Channel
from framp_private.protections.distributed import Distributed
from framp_private.protections.homomorphic import EncryptedSum
from framp_private.randomness import Entropy
from framp_private.secagg_costs import client_bytes


def describe_plan(config: Config, measure: bool = True) -> dict[str, Any]:
    """Plan, parameter counts, bytes per client and round, and an estimate of the seconds, from the config alone.

    A user's own folder has no schema before it is read; its sizes are null. `measure` times a few local steps on random
    records of the right shape.

    Raises:
        PlanError, ModelError, ConfigError: what would stop the run before its first round.
    """
    facts: dict[str, Any] = {
        "method": config.method,
        "dataset": config.dataset,
        "clients": config.clients,
        "rounds": config.rounds,
        "pullback": config.pullback,
    }
    check_prepared(config)
    schema = schema_of(config)
    if schema is None:
        return {
            **facts,
            "clients": None,
            "privacy": statement([no_guarantee("record")])
            if config.privacy is None
            else f"privacy: epsilon = {config.privacy.epsilon:g} asked for; noise is sized once the sites are read",
            "parameters": None,
            "per_round": None,
            "seconds": None,
            "channels": None,
            "epsilon_by_channel": None,
        }
    clients = client_names(config.clients, 0)
    if config.partition == "sites":
        clients = [f"site {i}" for i in range(1, max(2, config.clients) + 1)]
    declared = dict.fromkeys(clients, config.batch_size or 16)
    graph, schema = schema.kind == "graph", trained_schema(config, schema)
    federation = federation_of(config, network_of(config, schema), declared, graph=graph)
    used = federation.channels if method_of(config).exchanges else ()
    plan = {channel: type(federation.plan.protection(channel)).__name__ for channel in used}
    return {
        **facts,
        "privacy": statement(
            [planned_claim(federation, config.privacy.delta if config.privacy else None)]
            if used
            else [nothing_released("record")]
        ),
        "channels": plan,
        "epsilon_by_channel": channel_costs(federation, config.privacy.delta) if used and config.privacy else None,
        "parameters": {
            "target": federation.network.n_parameters,
            "maskable": federation.network.n_maskable,
            "phi": federation.generator.n_phi,
        },
        "per_round": {budget_name(b): _bytes(federation, b) for b in sorted(set(config.budgets))} if used else {},
        "seconds": _seconds(federation, schema, config) if measure else None,
    }


def _bytes(federation: Federation, budget: float) -> dict[str, int]:
    """Payload bytes of one client in one round, and of the protocol of a secure sum; headers add a few hundred."""
    network, prototypes = federation.network, 4 * federation.prototypes_size() if federation.aligns else 0
    up = sum(_sent(federation, channel, budget) for channel in federation.channels if channel != "descriptor")
    if federation.pullback is Pullback.CLIENT:
        return {"down": 4 * federation.generator.n_phi + prototypes, "up": up, "mask": 0, **_protocol(federation)}
    mask = int(entropy_bound_bits(network.n_parameters, kept(network, budget)) / 8)
    down = 4 * federation.update_size(budget) + mask + prototypes
    return {"down": down, "up": up, "mask": mask, **_protocol(federation)}


def _sent(federation: Federation, channel: Channel, budget: float) -> int:
    """What a client's value takes: masked integers as wide as their ring, ciphertexts at their largest, or float32."""
    size, cohort = federation.size_of(channel, budget), federation.cohort
    protection = federation.plan.protection(channel)
    if isinstance(protection, Distributed):
        return -(-size * protection.ring(size, cohort).bits // 8)
    carrier = protection.carrier
    if isinstance(carrier, SecAgg):
        return -(-size * carrier.ring(cohort).bits // 8)
    if isinstance(carrier, EncryptedSum):
        parameters = carrier.parameters(cohort)
        return parameters.ciphertexts(size) * parameters.most_bytes
    return 4 * size


def _protocol(federation: Federation) -> dict[str, int]:
    """Keys, shares and signatures of one client and round."""
    carriers = {federation.plan.protection(channel).carrier for channel in federation.channels}
    found = {"protocol_down": 0, "protocol_up": 0}
    for carrier in carriers:
        if isinstance(carrier, SecAgg):
            trips = client_bytes(carrier.design(federation.cohort), 0, 1)
            found["protocol_down"] += sum(row["down"] for row in trips.values())
            found["protocol_up"] += sum(row["up"] for row in trips.values())
    return found


def _seconds(federation: Federation, schema: Schema, config: Config) -> float:
    """Local steps of a whole run at the speed of a few steps on random records, plus a fifth for everything else."""
    streams = federation.streams.child("estimate")
    generator = streams.torch()
    if schema.kind == "graph":
        n, edges = 256, torch.randint(256, (2, 2048), generator=generator)
    else:
        n, edges = max(64, config.batch_size or 64), None
    x = torch.rand(n, *schema.input_shape, generator=generator)
    rows = torch.arange(n)
    data = ClientData(
        x.to_sparse() if schema.sparse else x,
        torch.randint(schema.n_classes, (n,), generator=generator),
        rows,
        rows[:0],
        rows,
        edges,
    )
    mask = torch.ones(federation.network.n_parameters, dtype=torch.bool)
    best, threads = float("inf"), torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(3):
        start = time.perf_counter()
        federation.trainer.train(
            federation.network, federation.theta_0, mask, data, None, streams, 0.0, AtHome(Entropy(), n)
        )
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(threads)
    return round(1.2 * best * federation.cohort * federation.rounds, 1)
