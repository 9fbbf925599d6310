"""A federation small enough to run hundreds of times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from framp_private import FederatedDataset, Federation, HypernetworkShape, Method, TargetNetwork, federate, framp
from framp_private.engines.in_process import InProcess
from framp_private.federated.client import Client
from framp_private.randomness import Entropy

COLUMNS, CLASSES, BUDGETS = 6, 3, (1.0, 0.5, 0.25)
CENTRES = np.random.default_rng(5).normal(size=(CLASSES, COLUMNS)) * 1.5


def blobs(n: int, seed: int, classes: Sequence[int] = (0, 1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """n records around one centre per class."""
    rng = np.random.default_rng(seed)
    y = np.array([classes[i % len(classes)] for i in range(n)])
    return CENTRES[y] + rng.normal(size=(n, COLUMNS)), y


def tiny_dataset(n_clients: int = 6, n_unseen: int = 2, records: int = 36) -> FederatedDataset:
    mixes = [(0, 1), (1, 2), (0, 2), (0, 1, 2)]
    clients = {f"client-{i:02d}": blobs(records, i, mixes[i % 4]) for i in range(n_clients)}
    unseen = {f"unseen-{i:02d}": blobs(records, 100 + i) for i in range(n_unseen)}
    return FederatedDataset.from_arrays(clients, unseen=unseen, name="blobs", n_classes=CLASSES)


def build() -> nn.Module:
    return nn.Sequential(
        nn.Linear(COLUMNS, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, CLASSES)
    )


def tiny_method(**changes: object) -> Method:
    method = framp()
    trainer = replace(method.trainer, steps=3, batch_size=8, learning_rate=0.1)
    small = replace(method, trainer=trainer, hypernetwork=HypernetworkShape(trunk="random", hidden=8, chunk=16, rank=4))
    return replace(small, descriptor=replace(method.descriptor, steps=5), **changes)


def tiny_federation(
    dataset: FederatedDataset, method: Method | None = None, *, rounds: int = 4, seed: int = 0, **more: object
) -> Federation:
    return federate(
        method or tiny_method(),
        TargetNetwork(build),
        list(dataset.clients),
        rounds=rounds,
        budgets=BUDGETS,
        seed=seed,
        **more,
    )


def clients_of(federation: Federation, dataset: FederatedDataset) -> dict[str, Client]:
    return {name: Client(name, data, federation, Entropy()) for name, data in dataset.clients.items()}


def engine_of(federation: Federation, dataset: FederatedDataset, **more: object) -> InProcess:
    return InProcess(clients_of(federation, dataset), **more)
