"""What a round costs beyond its local steps: the in-process engine against a bare PyTorch loop, in one run.

Both do the same local steps: same network, records, batch size, masks, alignment to prototypes and FIARSE's factor.
The bare loop is what one would write by hand: an ordinary module and `torch.optim.SGD`. The engine adds generation,
masks, coding, wire bytes, prototypes, pullback and the step on phi. Turns alternate, so that a noisy machine slows
both; the median of the paired ratios is the figure.

    python benchmarks/engine_overhead.py [--rounds 10] [--preset digits]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch.nn import functional

from framp_private import Federation, load_dataset, make_config
from framp_private.assemble import federation_of, network_of
from framp_private.data.base import FederatedDataset
from framp_private.federated.local_training import batches
from framp_private.federated.prototypes import GlobalPrototypes
from framp_private.simulation import Simulation


def bare_round(federation: Federation, dataset: FederatedDataset, prototypes: GlobalPrototypes, index: int) -> None:
    """The local steps of one round, by hand."""
    network, trainer = federation.network, federation.trainer
    features: list[torch.Tensor] = []
    for name, data in dataset.clients.items():
        mask = federation.mask(federation.theta_0, federation.budgets[name], None)
        module = network.as_module(federation.theta_0 * mask).train()
        head = module.get_submodule(network.classifier_name)
        head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        parameters = list(module.parameters())
        parts = [mask[s].view_as(p).float() for p, s in zip(parameters, network.tensors.slices(), strict=True)]
        tau = float(federation.theta_0[mask].abs().min())
        optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=trainer.momentum)
        for rows in batches(data, trainer.steps, trainer.batch_size, federation.streams.child("bare", name, index)):
            optimizer.zero_grad()
            loss = functional.cross_entropy(module(data.x[rows]), data.y[rows])
            if trainer.alignment.weight:
                target = prototypes.values[data.y[rows]]
                loss = loss + trainer.alignment.weight * functional.mse_loss(features.pop(), target)
            features.clear()
            loss.backward()
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.grad.mul_(part)
                if trainer.fiarse:
                    size = parameter.detach().abs()
                    parameter.grad.mul_(1 + 2 * size * tau / (size + tau + 1e-12) ** 2)
            optimizer.step()


def main() -> None:
    """Prints medians and the ratio, with psi resting and with psi moving."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--data-root", type=Path)
    arguments = parser.parse_args()
    for start in (0.7, 0.0):
        server = {"start": start, "learning_rate": 1e-3}
        config = make_config(preset=arguments.preset, assignments={"server": server, "learning_rate": 1e-3})
        torch.set_num_threads(config.threads)
        dataset = load_dataset(config, arguments.data_root)
        federation = federation_of(
            config, network_of(config, dataset.schema), {name: data.n_train for name, data in dataset.clients.items()}
        )
        simulation = Simulation(federation, dataset)
        simulation.enrol()
        engine, bare = [], []
        for index in range(arguments.rounds + 1):
            began = time.perf_counter()
            simulation.step()
            middle = time.perf_counter()
            bare_round(federation, dataset, simulation.state.prototypes, index)
            ended = time.perf_counter()
            if index:  # the first turn warms up
                engine.append(middle - began)
                bare.append(ended - middle)
        ratio = statistics.median(e / b for e, b in zip(engine, bare, strict=True))
        moving = "psi at rest" if start else "psi moving"
        print(
            f"{arguments.preset}, {moving}: engine {statistics.median(engine):.3f} s a round, "
            f"bare loop {statistics.median(bare):.3f} s, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
