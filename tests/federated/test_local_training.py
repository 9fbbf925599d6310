"""Local training against a slow, naive loop over an ordinary module."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from framp_private import Alignment, ClientData, LocalSGD, SubmodelRule, TargetNetwork
from framp_private.federated.local_training import batches, decayed
from framp_private.federated.prototypes import GlobalPrototypes
from framp_private.randomness import Streams
from tests.tiny import build, tiny_dataset

NETWORK = TargetNetwork(build)
DATA = tiny_dataset().clients["client-03"]
WEIGHTS = NETWORK.initial_weights(Streams(0))
MASK = SubmodelRule().mask(NETWORK, WEIGHTS, 0.5)
PROTOTYPES = GlobalPrototypes(torch.rand(3, NETWORK.feature_dim), torch.tensor([True, False, True]))
STREAMS = Streams(0).child("x")

TRAINERS = {
    "plain": LocalSGD(steps=7, batch_size=8, alignment=Alignment(0.0)),
    "momentum": LocalSGD(steps=7, batch_size=8, momentum=0.9, weight_decay=0.01, alignment=Alignment(0.0)),
    "mse": LocalSGD(steps=7, batch_size=8, alignment=Alignment(0.5)),
    "l2": LocalSGD(steps=7, batch_size=8, alignment=Alignment(0.5, "l2")),
    "cosine": LocalSGD(steps=7, batch_size=8, alignment=Alignment(0.5, "cosine")),
    "full batch": LocalSGD(steps=3, batch_size=None, alignment=Alignment(0.5)),
    "fiarse": LocalSGD(steps=7, batch_size=8, fiarse=True, alignment=Alignment(0.0)),
    "rethreshold": LocalSGD(steps=7, batch_size=8, fiarse=True, rethreshold=True, alignment=Alignment(0.0)),
    "decayed": LocalSGD(steps=7, batch_size=8, decay="cosine", alignment=Alignment(0.0)),
}


def naive_alignment(alignment: Alignment, features: Tensor, labels: Tensor) -> Tensor:
    total = torch.zeros(())
    if alignment.distance == "l2":
        for label in set(labels.tolist()):
            if PROTOTYPES.present[label]:
                mean = torch.stack([f for f, y in zip(features, labels, strict=True) if y == label]).mean(0)
                total = total + ((mean - PROTOTYPES.values[label]) ** 2).sum()
        return total
    for feature, label in zip(features, labels.tolist(), strict=True):
        if PROTOTYPES.present[label]:
            target = PROTOTYPES.values[label]
            if alignment.distance == "mse":
                total = total + ((feature - target) ** 2).mean()
            else:
                total = total + 1 - feature @ target / (feature.norm() * target.norm())
    return total / len(labels)


def naive_training(trainer: LocalSGD, progress: float) -> Tensor:
    """One coordinate at a time where it matters: autograd on an independent module, masks applied to whole tensors."""
    x, velocity = WEIGHTS * MASK, torch.zeros_like(WEIGHTS)
    free = MASK & NETWORK.maskable
    tau = float(x[free].abs().min())
    rate = trainer.learning_rate * decayed(trainer.decay, progress)
    for rows in batches(DATA, trainer.steps, trainer.batch_size, STREAMS):
        used = torch.where(NETWORK.maskable & (x.abs() < tau), 0.0, x) if trainer.rethreshold else x
        module = NETWORK.as_module(used).train()
        features = module[:-1](DATA.x[rows])
        loss = functional.cross_entropy(module[-1](features), DATA.y[rows])
        if trainer.alignment.weight:
            loss = loss + trainer.alignment.weight * naive_alignment(trainer.alignment, features, DATA.y[rows])
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(module.parameters()))])
        gradient = (gradient + trainer.weight_decay * x) * MASK
        if trainer.fiarse:
            for i in range(len(x)):
                if NETWORK.maskable[i]:
                    size = float(x[i].abs())
                    gradient[i] *= 1 + 2 * size * tau / (size + tau) ** 2
                    if trainer.rethreshold and size < tau:
                        gradient[i] = 0.0
        velocity = trainer.momentum * velocity + gradient
        x = x - rate * velocity
    return torch.where(NETWORK.maskable & (x.abs() < tau), 0.0, x) if trainer.rethreshold else x


@pytest.mark.parametrize("name", TRAINERS)
def test_it_is_the_naive_loop(name: str) -> None:
    trainer = TRAINERS[name]
    trained = trainer.train(NETWORK, WEIGHTS, MASK, DATA, PROTOTYPES, STREAMS, 0.25)
    torch.testing.assert_close(trained, naive_training(trainer, 0.25), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TRAINERS)
def test_weights_outside_the_mask_stay_zero_and_the_rest_moves(name: str) -> None:
    trained = TRAINERS[name].train(NETWORK, WEIGHTS, MASK, DATA, PROTOTYPES, STREAMS, 0.0)
    assert bool((trained[~MASK] == 0).all())
    assert bool((trained[MASK] != WEIGHTS[MASK]).any())


@pytest.mark.parametrize("name", TRAINERS)
def test_it_changes_no_argument_and_repeats_itself(name: str) -> None:
    weights = WEIGHTS.clone()
    first = TRAINERS[name].train(NETWORK, weights, MASK, DATA, PROTOTYPES, STREAMS, 0.0)
    assert torch.equal(weights, WEIGHTS)
    assert torch.equal(first, TRAINERS[name].train(NETWORK, weights, MASK, DATA, PROTOTYPES, STREAMS, 0.0))


@pytest.mark.parametrize("distance", ["mse", "l2", "cosine"])
def test_a_class_without_a_prototype_adds_nothing(distance: str) -> None:
    prototypes = GlobalPrototypes(torch.rand(3, 5), torch.tensor([True, False, True]))
    assert float(Alignment(1.0, distance).loss(torch.rand(4, 5), torch.tensor([1, 1, 1, 1]), prototypes)) == 0.0


def test_a_pass_uses_every_record_at_most_once() -> None:
    n = DATA.n_train
    rows = list(batches(DATA, 2 * (n // 4), 4, STREAMS))
    for half in (rows[: n // 4], rows[n // 4 :]):
        seen = torch.cat(half).tolist()
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(DATA.train.tolist())
    assert [len(r) for r in batches(DATA, 3, None, STREAMS)] == [n] * 3
    assert [len(r) for r in batches(DATA, 3, 10**6, STREAMS)] == [n] * 3


def test_graphs_train_on_the_nodes_of_the_training_part() -> None:
    from framp_private.models.graph import gcn

    network = TargetNetwork(lambda: gcn(4, 2, hidden=6))
    x, edges = torch.rand(8, 4), torch.tensor([[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4]])
    y = torch.tensor([0, 1] * 4)
    weights = network.initial_weights(Streams(0))
    mask = torch.ones(network.n_parameters, dtype=torch.bool)
    trainer = LocalSGD(steps=2, alignment=Alignment(0.0))
    results = []
    for flipped in (False, True):  # labels outside the training part do not matter
        labels = torch.where(torch.arange(8) >= 4, 1 - y, y) if flipped else y
        data = ClientData(x, labels, torch.arange(4), torch.arange(0), torch.arange(4, 8), edges)
        results.append(trainer.train(network, weights, mask, data, None, STREAMS, 0.0))
    assert torch.equal(*results)


def test_decay_falls_from_one_to_zero() -> None:
    for decay in ("linear", "cosine"):
        values = [decayed(decay, p / 10) for p in range(11)]
        assert values[0] == 1.0 and values[-1] == pytest.approx(0.0) and values == sorted(values, reverse=True)
    assert decayed("constant", 0.9) == 1.0
    assert replace(TRAINERS["plain"], decay="linear") != TRAINERS["plain"]
