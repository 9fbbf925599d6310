"""Trials on runs whose records are nodes of graphs (A11): links and membership, from released models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from framp_private import ClientData
from threat_models.attacks import graphs
from threat_models.attacks.models import confidence
from threat_models.errors import NotResolvable
from threat_models.results import Result
from threat_models.trials.subject import Subject, pooled

PAIRS = 2000
"""Linked pairs, and as many that are not, of each client."""


def links_and_nodes(subject: Subject) -> Iterator[Result]:
    """A11: who is linked, by the correlation of posteriors; and which nodes were trained on, with and without edges."""
    view, network = subject.external, subject.facts.network
    links: dict[str, np.ndarray] = {}
    linked: dict[str, np.ndarray] = {}
    nodes: dict[str, np.ndarray] = {}
    members: dict[str, np.ndarray] = {}
    for place, (name, data) in enumerate(subject.dataset.clients.items()):
        network.load(torch.from_numpy(view.released[name].copy()))
        logits, alone = _logits(subject, data, data.edge_index), _logits(subject, data, _no_edges(data))
        pairs, linked[name] = _pairs(data, seed=place)
        links[name] = graphs.steal_links(torch.softmax(logits, 1).numpy(), pairs)
        rows = torch.cat([data.train, data.test])
        whole, own = (confidence(each[rows], data.y[rows]) for each in (logits, alone))
        nodes[name], members[name] = graphs.node_membership(own, whole), np.arange(len(rows)) < len(data.train)
    yield pooled("A11", view, "edge", links, linked, None, "correlation of posteriors")
    yield pooled("A11", view, "node membership", nodes, members, None, "confidence with and without edges")


def _logits(subject: Subject, data: ClientData, edges: Tensor | None) -> Tensor:
    network = subject.facts.network
    network.module.eval()
    try:
        with torch.no_grad():
            return network.forward(data.x, edges)[0]
    finally:
        network.module.train()


def _no_edges(data: ClientData) -> Tensor:
    return torch.zeros(2, 0, dtype=torch.int64)


def _pairs(data: ClientData, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(m, 2) pairs and whether each is linked."""
    assert data.edge_index is not None
    rng, n = np.random.default_rng(seed), len(data.y)
    edges = data.edge_index.numpy().T
    edges = edges[edges[:, 0] < edges[:, 1]]
    if not len(edges):
        raise NotResolvable("a client's graph has no edge")
    known = {(int(a), int(b)) for a, b in edges}
    chosen = edges[rng.permutation(len(edges))[:PAIRS]]
    drawn = rng.integers(0, n, (4 * len(chosen), 2))
    apart = [pair for pair in drawn if pair[0] != pair[1] and tuple(sorted(map(int, pair))) not in known]
    others = apart[: len(chosen)]
    return np.r_[chosen, np.array(others).reshape(-1, 2)], np.arange(len(chosen) + len(others)) < len(chosen)
