"""Runs that audits look at, small ones made on the spot, and simulations in memory with their views."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from framp_private import (
    FederatedDataset,
    Options,
    PlainSum,
    Plan,
    TargetNetwork,
    federate,
    framp,
    make_config,
    run_config,
)
from framp_private.federated.prototypes import PrototypeBound
from framp_private.protections import LocalGaussian
from framp_private.randomness import SeededEntropy
from framp_private.simulation import Simulation
from tests.tiny import CLASSES
from threat_models.adversaries import HonestServer
from threat_models.auditing.gaussian import mu_of
from threat_models.view import View


def made(folder: Path, preset: str, **settings) -> Path:
    config = make_config(preset=preset, assignments={"evaluate_every": 100, "home_steps": 1, **settings})
    run_config(config, out=folder, options=Options(record_transcript=True))
    return folder


def simulated(federation, dataset, rounds: int = 1, **more):
    """The honest server's view of some rounds in memory, and the simulation."""
    from framp_private.transcript import Delivery

    log: list = []

    class Keep:
        def begin(self, name: str) -> None:
            self.name = name

        def write(self, delivery: Delivery) -> None:
            log.append((self.name, delivery))

    simulation = Simulation(federation, dataset, transcript=Keep(), **more)
    simulation.enrol()
    for _ in range(rounds):
        simulation.step()
    return View.of(HonestServer(), federation, log), simulation


def wide(dataset: FederatedDataset, epsilon: float, features: int):
    """One round of class sums in 3 x `features` coordinates, noised for an epsilon."""
    z = 1 / mu_of(epsilon, 1e-5)
    method = replace(framp(), hypernetwork=None)
    network = TargetNetwork(lambda: nn.Sequential(nn.Linear(6, features), nn.ReLU(), nn.Linear(features, CLASSES)))
    return federate(
        replace(method, trainer=replace(method.trainer, steps=1, batch_size=8)),
        network,
        list(dataset.clients),
        rounds=1,
        plan=Plan(None, PlainSum(), LocalGaussian(2.0, z), None),
        prototype_bound=PrototypeBound(2.0, count_share=0.02),
        declared={name: data.n_train for name, data in dataset.clients.items()},
    )


def unguarded(dataset, epsilon: float, features: int):
    """Prototypes alone are noised; updates are sent under DP-SGD, as the plan demands."""
    from framp_private.federated.dp_sgd import DpSGD

    base = wide(dataset, epsilon, features)
    trainer = DpSGD(1, 1.0, 1.0, 3.0, 0.1, alignment=base.trainer.alignment)
    return replace(base, trainer=trainer)


def accuracy(federation, dataset, rounds: int, seed: int, **more) -> float:
    """Of served models on the clients' own training records, canaries not among them; noise by a seed."""
    trained = more.pop("trained", dataset)
    _, simulation = simulated(federation, trained, rounds, entropy=SeededEntropy(seed), **more)
    right = []
    for client, data in dataset.clients.items():
        federation.network.load(simulation.serves(client, data, federation.budgets[client]).weights)
        with torch.no_grad():
            said = federation.network.forward(data.x[data.train])[0].argmax(1)
        right.append(float((said == data.y[data.train]).float().mean()))
    return float(np.mean(right))
