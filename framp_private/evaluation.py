"""The experimenter's evaluation: accuracies measured in simulation, with access that no server has.

It is no part of the protocol: nothing here travels, and in a deployment the metrics channel stays empty or protected.

- *local*: the model that is served to a client, on that client's test records; mean over clients.
- *union*: the same models on everybody's test records. *unseen*: models for held-out clients, from their
descriptor alone, at each budget.
- *after local training*: the served model trained further at home, which releases nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor

from framp_private.data.base import ClientData, FederatedDataset
from framp_private.federated.federation import Federation
from framp_private.federated.local_training import HomeSchedule
from framp_private.federated.prototypes import GlobalPrototypes
from framp_private.federated.server import ServerState
from framp_private.models.target import TargetNetwork
from framp_private.randomness import Entropy

Table = dict[str, float | None]
"""Accuracy by budget name and under "mean"; None where there is nothing to measure."""


def budget_name(budget: float) -> str:
    """1 -> "1", 0.015625 -> "1/64", 0.3 -> "0.3"."""
    fraction = Fraction(budget).limit_denominator(4096)
    return str(fraction) if fraction.numerator == 1 and abs(float(fraction) - budget) < 1e-12 else f"{budget:g}"


def budget_of(name: str) -> float:
    """The inverse of `budget_name`: "1/64" -> 0.015625."""
    return float(Fraction(name))


@dataclass(frozen=True, eq=False)
class Model:
    """A personalised submodel: (n_parameters,) weights that are zero outside the (n_parameters,) bool mask."""

    weights: Tensor
    mask: Tensor


Served = Callable[[str, ClientData, float], Model]
"""(client, its data, budget) -> the model it is served."""


@dataclass(frozen=True, eq=False)
class Serving:
    """The models a federation serves in one state; descriptors of clients are made once and kept in `descriptors`."""

    federation: Federation
    state: ServerState
    descriptors: dict[str, Tensor]

    def __call__(self, name: str, data: ClientData, budget: float) -> Model:
        """Generates from the client's descriptor and masks at the budget; no training."""
        federation = self.federation
        if federation.personalised and name not in self.descriptors:
            self.descriptors[name] = (
                self.state.descriptors[name] if name in self.state.descriptors else self._describe(name, data)
            )
        weights = federation.weights(self.state.served, self.descriptors.get(name, torch.zeros(0)), budget)
        mask = federation.mask(weights, budget, self.state.moments)
        return Model(weights * mask, mask)

    def _describe(self, name: str, data: ClientData) -> Tensor:
        """What the server would know of a client that enrols now: with the channel's noise, where it has any."""
        federation, protection = self.federation, self.federation.plan.descriptor
        value = federation.describe(name, data)
        if protection is not None and protection.randomised:
            value = protection.reveal(protection.protect(value, Entropy()))
        return federation.descriptor_of(value, data.n_train)


def logits(network: TargetNetwork, weights: Tensor, data: ClientData, rows: Tensor, block: int = 128) -> Tensor:
    """(len(rows), n_classes) under the given weights, without gradient."""
    network.load(weights)
    network.module.eval()
    with torch.no_grad():
        if data.edge_index is not None:
            made = network.forward(data.x, data.edge_index, rows)[0]
        else:
            made = torch.cat([network.forward(data.x[part])[0] for part in torch.split(rows, block)])
    network.module.train()
    return made


def accuracy(network: TargetNetwork, weights: Tensor, data: ClientData, rows: Tensor) -> float:
    """Share of rows whose label is the largest logit."""
    return float((logits(network, weights, data, rows).argmax(1) == data.y[rows]).double().mean())


def by_budget(budgets: Mapping[str, float], values: Mapping[str, float]) -> Table:
    """Means over the clients of each budget, None where it has none, and over all clients."""
    names = sorted(set(budgets.values()))
    table: Table = {}
    for budget in names:
        scores = [value for client, value in values.items() if budgets[client] == budget]
        table[budget_name(budget)] = float(np.mean(scores)) if scores else None
    return {**table, "mean": float(np.mean(list(values.values())))}


def local_accuracies(
    federation: Federation, served: Served, dataset: FederatedDataset, split: str = "test"
) -> dict[str, float]:
    """Each client's accuracy on its own records of `split`; a client without such records is left out."""
    scores = {}
    for name, data in dataset.clients.items():
        rows: Tensor = getattr(data, split)
        if len(rows):
            scores[name] = accuracy(
                federation.network, served(name, data, federation.budgets[name]).weights, data, rows
            )
    return scores


def union_accuracies(federation: Federation, served: Served, dataset: FederatedDataset) -> dict[str, float]:
    """Each client's model on the test records of all clients together."""
    union = list(_union_tests(dataset))
    scores = {}
    for name, data in dataset.clients.items():
        weights = served(name, data, federation.budgets[name]).weights
        right = sum(
            float((logits(federation.network, weights, part, rows).argmax(1) == part.y[rows]).sum())
            for part, rows in union
        )
        scores[name] = right / sum(len(rows) for _, rows in union)
    return scores


def unseen_accuracies(federation: Federation, served: Served, dataset: FederatedDataset) -> Table | None:
    """Mean over unseen clients at each budget; None without unseen clients."""
    if not dataset.unseen:
        return None
    table: Table = {}
    for budget in sorted(set(federation.budgets.values())):
        scores = [
            accuracy(federation.network, served(name, data, budget).weights, data, data.test)
            for name, data in dataset.unseen.items()
        ]
        table[budget_name(budget)] = float(np.mean(scores))
    return {**table, "mean": float(np.mean([value for value in table.values() if value is not None]))}


HOME_PIECES = 50
"""A step size that decays at home does so in so many stairs."""


def home_trained(
    federation: Federation,
    model: Model,
    prototypes: GlobalPrototypes,
    name: str,
    data: ClientData,
    schedule: HomeSchedule,
) -> Model:
    """A served model after more steps at home, on its own mask; nothing is released."""
    weights, aligned = model.weights, prototypes if federation.aligns else None
    steps, pieces = schedule.steps, min(schedule.steps, HOME_PIECES) if schedule.decay != "constant" else 1
    for piece in range(pieces):
        done, then = steps * piece // pieces, steps * (piece + 1) // pieces
        trainer = federation.trainer.at_home(replace(schedule, steps=then - done))
        streams = federation.streams.child("home", name, piece)
        weights = trainer.train(federation.network, weights, model.mask, data, aligned, streams, piece / pieces)
    return Model(weights, model.mask)


def table_metrics(federation: Federation, served: Served, dataset: FederatedDataset) -> dict[str, float | None]:
    """For tables: AUROC (one against the rest, mean over classes) and balanced accuracy over all clients' own tests."""
    scores, labels = [], []
    for name, data in dataset.clients.items():
        weights = served(name, data, federation.budgets[name]).weights
        scores.append(logits(federation.network, weights, data, data.test).softmax(1))
        labels.append(data.y[data.test])
    probability, truth = torch.cat(scores).double().numpy(), torch.cat(labels).numpy()
    present = [label for label in range(probability.shape[1]) if 0 < (truth == label).sum() < len(truth)]
    scored = [roc_auc_score(truth == label, probability[:, label]) for label in present]
    auroc = float(np.mean(scored)) if scored else None
    return {"auroc": auroc, "balanced_accuracy": float(balanced_accuracy_score(truth, probability.argmax(1)))}


def _union_tests(dataset: FederatedDataset) -> Iterable[tuple[ClientData, Tensor]]:
    """One block of all test records; graphs stay apart, as a node is nothing without its graph."""
    clients = list(dataset.clients.values())
    if clients[0].edge_index is not None:
        return [(data, data.test) for data in clients]
    x = torch.cat([data.x[data.test] for data in clients])
    y = torch.cat([data.y[data.test] for data in clients])
    rows = torch.arange(len(y))
    return [(ClientData(x, y, rows, rows[:0], rows), rows)]
