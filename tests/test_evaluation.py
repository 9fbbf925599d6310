"""Every number of the final table against a slow, separate way to the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from framp_private import LocalSGD, Options, Run, local, train
from framp_private.evaluation import table_metrics
from framp_private.federated.local_training import HomeSchedule
from tests.tiny import BUDGETS, tiny_dataset, tiny_federation

DATASET = tiny_dataset()
HOME = Options(home_steps=7, home_learning_rate=0.03, evaluate_every=2)


@pytest.fixture(scope="module")
def finished() -> Run:
    return train(tiny_federation(DATASET, rounds=6), DATASET, options=HOME)


def right(run: Run, weights: Tensor, data, rows: Tensor) -> float:  # noqa: ANN001
    """Share of rows whose label has the largest output of an ordinary module, one row at a time."""
    module = run.simulation.federation.network.as_module(weights)
    hits = [int(module(data.x[row][None])[0].argmax()) == int(data.y[row]) for row in rows.tolist()]
    return sum(hits) / len(hits)


def test_local_and_union(finished: Run) -> None:
    for name, row in finished.summary["by_client"].items():
        data, weights = DATASET.clients[name], finished.weights(name).weights
        assert row["local"] == pytest.approx(right(finished, weights, data, data.test))
        everyone = list(DATASET.clients.values())
        hits = sum(right(finished, weights, other, other.test) * len(other.test) for other in everyone)
        assert row["union"] == pytest.approx(hits / sum(len(other.test) for other in everyone))


def test_unseen_clients_are_served_at_each_budget_from_their_descriptor(finished: Run) -> None:
    federation, state = finished.simulation.federation, finished.simulation.state
    found = finished.summary["accuracy"]["unseen"]
    for budget, label in zip(BUDGETS, ("1", "1/2", "1/4"), strict=True):
        scores = []
        for name, data in DATASET.unseen.items():
            streams = federation.streams.child("descriptor", name)
            z = federation.descriptor.compute(federation.network, federation.theta_0, data, streams)
            weights = federation.weights(state.phi, z, budget)
            scores.append(right(finished, weights * federation.mask(weights, budget, None), data, data.test))
        assert found[label] == pytest.approx(np.mean(scores))
    assert len({found[label] for label in ("1", "1/2", "1/4")}) > 1  # budgets make a difference here


def test_home_training_goes_on_from_the_served_model_on_its_mask(finished: Run) -> None:
    federation, state = finished.simulation.federation, finished.simulation.state
    moved = 0.0
    for name, row in finished.summary["by_client"].items():
        served, data = finished.weights(name), DATASET.clients[name]
        trainer = federation.trainer
        assert isinstance(trainer, LocalSGD)
        plain = replace(trainer, steps=7, learning_rate=0.03, momentum=0.0, decay="constant", batch_size=16)
        streams = federation.streams.child("home", name, 0)
        weights = plain.train(federation.network, served.weights, served.mask, data, state.prototypes, streams, 0.0)
        assert row["after_local_training"] == pytest.approx(right(finished, weights, data, data.test))
        moved += float((weights - served.weights).norm())
    assert moved > 0.1


def test_a_decaying_step_at_home_falls_in_stairs_and_takes_all_steps() -> None:
    taken: list[tuple[int, float]] = []

    class Counting(LocalSGD):
        def train(self, network, weights, mask, data, prototypes, streams, progress, home=None):  # noqa: ANN001, ANN202
            taken.append((self.steps, progress))
            return weights

        def at_home(self, schedule: HomeSchedule) -> LocalSGD:
            return Counting(steps=schedule.steps, decay=schedule.decay)

    from framp_private.evaluation import Model, home_trained

    federation = replace(tiny_federation(DATASET), trainer=Counting())
    model = Model(federation.theta_0, torch.ones_like(federation.theta_0, dtype=torch.bool))
    data, none = DATASET.clients["client-00"], None
    home_trained(federation, model, none, "client-00", data, HomeSchedule(123, 1.0, "cosine"))  # type: ignore[arg-type]
    assert sum(steps for steps, _ in taken) == 123
    assert [progress for _, progress in taken] == sorted(progress for _, progress in taken) and taken[0][1] == 0


def test_local_trains_each_client_from_the_common_start_on_its_own_mask() -> None:
    federation = tiny_federation(DATASET, local(), rounds=3)
    run = train(federation, DATASET, exchanges=False, options=HOME)
    for name, data in DATASET.clients.items():
        mask = federation.submodel.mask(federation.network, federation.theta_0, federation.budgets[name])
        weights = federation.theta_0 * mask
        for index in range(3):
            streams = federation.streams.child("local", name, index)
            weights = federation.trainer.train(federation.network, weights, mask, data, None, streams, index / 3)
        assert torch.equal(weights, run.weights(name).weights)
        assert not torch.equal(weights, federation.theta_0 * mask)


def test_auroc_is_the_share_of_ordered_pairs_and_balanced_accuracy_the_mean_recall(finished: Run) -> None:
    simulation = finished.simulation
    scores, labels = [], []
    for name, data in DATASET.clients.items():
        module = simulation.federation.network.as_module(finished.weights(name).weights)
        scores.append(module(data.x[data.test]).softmax(1).detach().numpy())
        labels.append(data.y[data.test].numpy())
    p, y = np.concatenate(scores).astype(float), np.concatenate(labels)
    areas = []
    for label in range(3):
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in p[y == label, label] for b in p[y != label, label]]
        areas.append(np.mean(pairs))
    recalls = [np.mean(p[y == label].argmax(1) == label) for label in range(3)]
    found = table_metrics(simulation.federation, simulation.serves, DATASET)
    assert found["auroc"] == pytest.approx(np.mean(areas))
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
