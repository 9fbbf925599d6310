"""Attacks on graph models (A11): links, nodes and degrees, on made-up graphs and through the trial itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from framp_private import (
    ClientData,
    FederatedDataset,
    Schema,
    Streams,
    TargetNetwork,
    fedavg,
    federate,
)
from framp_private.models.graph import gcn
from threat_models import metrics
from threat_models.attacks import graphs
from threat_models.attacks.models import confidence
from threat_models.trials import Subject, attack_run


def block_graph(seed: int = 0, n: int = 240):
    """Nodes of 12 dense groups, of sizes that differ; features are noise around nothing. With the groups at last."""
    rng = np.random.default_rng(seed)
    blocks = rng.choice(12, n, p=np.arange(1, 13) / 78)
    adjacency = np.triu((blocks[:, None] == blocks) & (rng.random((n, n)) < 0.8), 1)
    adjacency = adjacency | adjacency.T
    return adjacency, rng.normal(size=(n, 8)), blocks


def posteriors(adjacency: np.ndarray, raw: np.ndarray) -> np.ndarray:
    own = adjacency | np.eye(len(raw), dtype=bool)
    smooth = 3 * (own @ raw) / own.sum(1, keepdims=True)
    return np.exp(smooth) / np.exp(smooth).sum(1, keepdims=True)


def test_a11_degrees_show_in_posteriors_of_averages_and_not_without_edges() -> None:
    adjacency, raw, _ = block_graph()
    degree = adjacency.sum(1)
    high = degree > np.median(degree)
    # an average over many neighbours is nearer to the mean of all: less sure, and so the sign of the score turns
    found = metrics.auc(-graphs.degree_bits(posteriors(adjacency, raw)), high).value
    assert found > 0.8
    without = metrics.auc(-graphs.degree_bits(posteriors(np.zeros_like(adjacency), raw)), high).value
    assert abs(without - 0.5) < 0.12


def test_a11_nodes_that_were_trained_on_are_surer_with_and_without_their_neighbours() -> None:
    rng = np.random.default_rng(1)
    x, y = torch.from_numpy(rng.normal(size=(120, 40))).float(), torch.from_numpy(rng.integers(0, 4, 120))
    partner = torch.from_numpy(rng.permutation(120))
    member = np.arange(120) < 60

    def hop(rows: torch.Tensor) -> torch.Tensor:
        return 0.7 * rows + 0.3 * rows[partner]

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(hop(x))[:60], y[:60]).backward()
        optimizer.step()
    with torch.no_grad():
        whole, alone = confidence(model(hop(x)), y), confidence(model(x), y)
        untrained = confidence(nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 4))(x), y)
    assert metrics.auc(graphs.node_membership(alone, whole), member).value > 0.9
    assert metrics.auc(graphs.node_membership(untrained, untrained), member).value < 0.7


def test_a11_links_by_a_distance_of_the_wrong_sign_miss() -> None:
    adjacency, raw, _ = block_graph(1)
    pairs = np.array([(i, j) for i in range(0, 240, 2) for j in range(i + 1, 240, 3)])
    linked = adjacency[pairs[:, 0], pairs[:, 1]]
    scores = graphs.steal_links(posteriors(adjacency, raw), pairs)
    assert metrics.auc(scores, linked).value > 0.9 > metrics.auc(-scores, linked).value
    mixed = metrics.auc(scores, np.random.default_rng(2).permutation(linked))
    assert abs(mixed.value - 0.5) <= 3 * (mixed.high - mixed.low) / 3.92


def test_a11_on_released_graph_models_links_and_nodes_are_told() -> None:
    """The trial itself, on networks that fit their training nodes; with untrained ones it finds no node."""
    rng = np.random.default_rng(3)
    clients, released, young = {}, {}, {}
    network = TargetNetwork(partial(gcn, 30, 4))
    for name in ("a", "b"):
        adjacency, _, blocks = block_graph(int(rng.integers(100)), n=160)
        edges = torch.from_numpy(np.array(np.nonzero(adjacency)))
        order = torch.from_numpy(rng.permutation(160))
        data = ClientData(
            torch.from_numpy(rng.normal(size=(160, 30))).float(),
            torch.from_numpy(np.where(rng.random(160) < 0.7, blocks % 4, rng.integers(0, 4, 160))),
            train=order[:80],
            validation=order[:0],
            test=order[80:],
            edge_index=edges,
        )
        clients[name] = data
        young[name] = network.initial_weights(Streams(0)).numpy()
        released[name] = graph_fit(network, data).numpy()
    dataset = FederatedDataset("graphs", Schema("graph", (30,), 4), clients, {})
    federation = federate(
        replace(fedavg(), trainer=replace(fedavg().trainer, batch_size=None)), network, ["a", "b"], rounds=1
    )

    def found(weights) -> dict[str, float]:
        return {row.asset: row.value for row in attack_run(Subject(federation, dataset, [], weights), ["A11"])}

    # nodes split anew, without a look at which were trained on: within three standard errors of chance
    mixed = {}
    for name, data in clients.items():
        order = torch.from_numpy(rng.permutation(160))
        mixed[name] = replace(data, train=order[:80], test=order[80:])
    shuffled = Subject(federation, replace(dataset, clients=mixed), [], released)
    row = next(row for row in attack_run(shuffled, ["A11"]) if row.asset == "node membership")
    assert abs(row.value - 0.5) <= 3 * (row.high - row.low) / 3.92
    trained = found(released)
    assert trained["edge"] > 0.7 and trained["node membership"] > 0.65
    assert abs(found(young)["node membership"] - 0.5) < 0.1


def graph_fit(network: TargetNetwork, data: ClientData, steps: int = 400) -> torch.Tensor:
    torch.manual_seed(0)
    network.load(network.initial_weights(Streams(0)))
    optimizer = torch.optim.Adam(network.module.parameters(), 0.02)
    for _ in range(steps):
        network.gradient.zero_()
        logits, _ = network.forward(data.x, data.edge_index)
        nn.functional.cross_entropy(logits[data.train], data.y[data.train]).backward()
        optimizer.step()
    return network.weights.detach().clone()
