"""Class sums and counts, and the division that only the server makes."""

from __future__ import annotations

import numpy as np
import torch

from framp_private import TargetNetwork
from framp_private.federated.prototypes import GlobalPrototypes, features_of, local_prototypes
from framp_private.randomness import Streams
from tests.tiny import build, clients_of, tiny_dataset, tiny_federation, tiny_method

NETWORK = TargetNetwork(build)
WEIGHTS = NETWORK.initial_weights(Streams(0))
DATASET = tiny_dataset()


def test_an_upload_has_a_row_for_every_class_absent_ones_included() -> None:
    NETWORK.load(WEIGHTS)
    data = DATASET.clients["client-00"]  # classes 0 and 1 only
    rows = local_prototypes(NETWORK, data, data.train, "counts").reshape(3, -1)
    module = NETWORK.as_module(WEIGHTS)
    with torch.no_grad():
        features = module[:-1](data.x[data.train]).numpy()
    labels = data.y[data.train].numpy()
    for label in range(3):
        np.testing.assert_allclose(rows[label, :-1], features[labels == label].sum(0), rtol=1e-5, atol=1e-5)
        assert rows[label, -1] == (labels == label).sum()
    assert not rows[2].any()


def test_the_global_prototype_is_the_mean_over_all_records() -> None:
    NETWORK.load(WEIGHTS)
    clients = list(DATASET.clients.values())
    total = np.sum([local_prototypes(NETWORK, data, data.train, "counts").astype(np.float64) for data in clients], 0)
    prototypes = GlobalPrototypes.none(3, NETWORK.feature_dim).after(total)
    pairs = [features_of(NETWORK, data, data.train) for data in clients]
    features, labels = torch.cat([f for f, _ in pairs]), torch.cat([y for _, y in pairs])
    for label in range(3):
        torch.testing.assert_close(prototypes.values[label], features[labels == label].mean(0), rtol=1e-5, atol=1e-5)
    assert bool(prototypes.present.all())


def test_unweighted_prototypes_count_every_client_once() -> None:
    NETWORK.load(WEIGHTS)
    rows = local_prototypes(
        NETWORK, DATASET.clients["client-00"], DATASET.clients["client-00"].train, "unweighted"
    ).reshape(3, -1)
    assert rows[:, -1].tolist() == [1.0, 1.0, 0.0]


def test_a_class_absent_from_a_round_keeps_its_prototype() -> None:
    first = GlobalPrototypes.none(2, 1).after(np.array([6.0, 2.0, 5.0, 1.0]))
    second = first.after(np.array([4.0, 4.0, 0.0, 0.0]))
    assert second.values.squeeze(1).tolist() == [1.0, 5.0]
    third = GlobalPrototypes.none(2, 1).after(np.array([4.0, 4.0, 0.0, 0.0]))
    assert third.present.tolist() == [True, False]


def test_blocks_do_not_change_features() -> None:
    NETWORK.load(WEIGHTS)
    data = DATASET.clients["client-01"]
    torch.testing.assert_close(
        features_of(NETWORK, data, data.train, block=5)[0], features_of(NETWORK, data, data.train)[0]
    )


def test_a_sample_of_records_is_drawn_anew_each_round_and_never_larger_than_asked() -> None:
    federation = tiny_federation(DATASET, tiny_method(prototype_records=10))
    client = clients_of(federation, DATASET)["client-00"]
    NETWORK.load(WEIGHTS)
    federation.network.load(WEIGHTS)
    rounds = [client._local_prototypes(index).reshape(3, -1) for index in (0, 0, 1)]
    assert all(rows[:, -1].sum() == 10 for rows in rounds)
    assert np.array_equal(rounds[0], rounds[1]) and not np.array_equal(rounds[0], rounds[2])
