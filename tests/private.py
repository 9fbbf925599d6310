"""A small private federation, and what its clients put on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from framp_private import Alignment, DescriptorRule, FederatedDataset, Federation, TargetNetwork, federate, framp
from framp_private.engines.in_process import InProcess
from framp_private.federated import server
from framp_private.federated.client import Client, ClientState
from framp_private.federated.dp_sgd import DpSGD
from framp_private.federated.messages import EnrolReply, EnrolRequest, TrainReply
from framp_private.federated.prototypes import PrototypeBound
from framp_private.federated.server import ServerState
from framp_private.models.psi import HypernetworkShape
from framp_private.protections import LocalGaussian, PlainSum, Plan
from framp_private.randomness import Entropy
from framp_private.wire import decode, encode
from tests.tiny import CLASSES, COLUMNS, tiny_dataset

CLIP, NOISE = 0.8, 1.7
"""Of DP-SGD; clip * noise is not 1, and not its own square."""
SUM_CLIP, SUM_NOISE = 1.5, 1.3
"""Of the noised sums."""
RATE, STEPS = 0.5, 1
DATASET = tiny_dataset(6, 0)


def wide() -> nn.Module:
    """Wide enough that one update is thousands of noise values."""
    return nn.Sequential(nn.Linear(COLUMNS, 300), nn.ReLU(), nn.Linear(300, 20), nn.ReLU(), nn.Linear(20, CLASSES))


def trainer(**changes: object) -> DpSGD:
    made = DpSGD(STEPS, 1.0, CLIP, NOISE, RATE, alignment=Alignment(0.5))
    return replace(made, **changes)


def federation(
    dataset: FederatedDataset = DATASET, *, rounds: int = 4, budgets: Sequence[float] = (1.0, 0.5), **changes: object
) -> Federation:
    """FRAMP with noise on every channel."""
    method = replace(
        framp(),
        trainer=trainer(**changes),
        hypernetwork=HypernetworkShape(trunk="random", hidden=4),
        descriptor=DescriptorRule(encoder="frozen"),
    )
    noised = LocalGaussian(SUM_CLIP, SUM_NOISE)
    return federate(
        method,
        TargetNetwork(wide),
        list(dataset.clients),
        rounds=rounds,
        budgets=budgets,
        plan=Plan(noised, PlainSum(), noised, None),
        prototype_bound=PrototypeBound(SUM_CLIP),
        declared={name: data.n_train for name, data in dataset.clients.items()},
    )


def client_of(made: Federation, name: str, dataset: FederatedDataset = DATASET, **more: object) -> Client:
    return Client(name, dataset.clients[name], made, Entropy(), **more)


def state_of(made: Federation, round_index: int = 0) -> ServerState:
    """A server that knows made-up descriptors."""
    size = made.descriptor.size(made.network)
    descriptors = {name: torch.linspace(0, 1, size) for name in made.budgets}
    return replace(ServerState.initial(made), descriptors=descriptors, round_index=round_index)


def train_request(made: Federation, name: str, round_index: int = 0) -> bytes:
    return server.make_requests(made, state_of(made, round_index), [name])[name]


def uploads(
    made: Federation, name: str, round_index: int = 0, dataset: FederatedDataset = DATASET
) -> dict[str, np.ndarray]:
    """The values of each channel as they stand in the bytes of a client's replies."""
    client, plain = client_of(made, name, dataset), PlainSum()
    enrolled, _ = client.handle(encode(EnrolRequest(made.digest)), ClientState.new())
    trained, _ = client.handle(train_request(made, name, round_index), ClientState.new())
    reply = decode(trained, TrainReply)
    return {
        "descriptor": plain.reveal(decode(enrolled, EnrolReply).descriptor),
        "update": plain.reveal(reply.update),
        "prototypes": plain.reveal(reply.prototypes),
    }


def deviations(made: Federation, name: str) -> dict[str, float]:
    """The standard deviation of the noise that each channel declares."""
    declared = made.declared
    assert declared is not None
    return {
        "descriptor": SUM_CLIP * SUM_NOISE,
        "update": RATE * CLIP * NOISE / declared[name],
        "prototypes": SUM_CLIP * SUM_NOISE,
    }


def engine_of(made: Federation, dataset: FederatedDataset = DATASET, **more: object) -> InProcess:
    return InProcess({name: client_of(made, name, dataset) for name in dataset.clients}, **more)
