"""Privacy for graphs: aggregate first, with noise, then treat each node as a record of its own.

Aggregation perturbation (GAP: Sajadmanesh et al., arXiv 2203.00949, algorithm 1), decoupled from training::

    X_0 = rows of unit norm                       a node's own features
    X_h = rows of unit norm of (A X_(h-1) + N(0, S^2 z^2))     h = 1 .. hops, A the 0/1 adjacency, S the sensitivity
    record of node v = [X_0[v] | X_1[v] | ... | X_hops[v]]

**Nodes.** Removing a node with all its edges takes a row of unit norm out of at most D other rows, D the largest
degree, so each A X moves by at most S = sqrt(D) in L2 (its own row goes with it). What follows reads the noisy
aggregates, so only they carry one node's features to other records, and training may count each node as one record.
The bound D is a property of the graph that the guarantee is about: a graph with larger degrees is cut to D before the
run, by `bound_degree`, and the claim is about nodes of the graph that remains.

**Edges.** Adding or removing one undirected edge moves two rows, each by a row of unit norm: S = sqrt(2), whatever the
degrees. Nothing else that is sent reads an edge, so the aggregates are the whole cost. Features and labels are given:
nothing is claimed for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from dp_accounting import GaussianDpEvent
from torch import Tensor

from framp_private.data.base import ClientData, Schema
from framp_private.errors import DataError, PrivacyParameterError
from framp_private.privacy.clipping import check_noise
from framp_private.privacy.events import Event, Relation
from framp_private.privacy.noise import on_grid, standard_gaussian
from framp_private.randomness import Entropy, Streams

MOST_VALUES = 2**40
"""More noise values than any client's graph takes: the number of nodes is not public, and cut tails are negligible."""


Protects = Literal["nodes", "edges"]


@dataclass(frozen=True)
class Aggregation:
    """How a client turns its graph into records: once, before the first round.

    Args:
        hops: aggregations, >= 1. degree: D, >= 1, for nodes; None for edges, whose sensitivity no degree enters.
        noise_multiplier: noise deviation over the sensitivity. protects: what one record of the guarantee is.

    Raises:
        PrivacyParameterError: a value outside its range.
    """

    hops: int
    degree: int | None
    noise_multiplier: float
    protects: Protects = "nodes"

    def __post_init__(self) -> None:
        check_noise(self.noise_multiplier)
        if self.hops < 1:
            raise PrivacyParameterError(f"hops={self.hops}: must be at least 1")
        bounded = self.degree is not None and self.degree >= 1
        if bounded != (self.protects == "nodes") or (self.degree is not None and not bounded):
            raise PrivacyParameterError(
                f"degree={self.degree}, protects={self.protects!r}: nodes need a degree of at least 1, edges take None"
            )

    @property
    def sensitivity(self) -> float:
        """L2 bound on what one node with all its edges, or one edge, changes in one aggregate."""
        return float((self.degree or 2) ** 0.5)

    @property
    def record(self) -> str:
        """What one record of the guarantee is."""
        if self.degree is None:
            return "an edge; features and labels are not protected"
        return f"a node with its edges, degrees cut to {self.degree}"

    @property
    def relation(self) -> Relation:
        """How two neighbouring graphs differ."""
        return "add/remove" if self.protects == "nodes" else "add/remove edge"

    def event(self) -> Event:
        """All hops, each one Gaussian release, of at most `MOST_VALUES` values."""
        gaussian = GaussianDpEvent(self.noise_multiplier)
        return Event(gaussian, "record", self.relation, noise_values=MOST_VALUES).times(self.hops)

    def schema(self, graph: Schema) -> Schema:
        """What the records are."""
        return Schema("table", ((self.hops + 1) * graph.input_shape[0],), graph.n_classes)

    def draw(self, data: ClientData, streams: Streams, entropy: Entropy) -> Tensor:
        """(n, hops * d) float32 the noisy aggregates of all hops; call it once per client and keep what it returns.

        Raises:
            DataError: no graph, or sparse features.
        """
        if data.edge_index is None or data.x.is_sparse:
            raise DataError("aggregation takes a graph with dense features: use features=projection")
        edges = both_ways(undirected(data.edge_index))
        if self.degree is not None:
            edges = bound_degree(data.edge_index, len(data.y), self.degree, streams)
        rows = [unit_rows(data.x)]
        for _ in range(self.hops):
            exact = aggregate(rows[-1], edges)
            deviation = self.noise_multiplier * self.sensitivity
            noise = standard_gaussian(exact.numel(), entropy).view_as(exact).mul_(deviation)
            rows.append(unit_rows(on_grid(exact + noise, deviation).float()))
        return torch.cat(rows[1:], 1)

    def records(self, data: ClientData, drawn: Tensor) -> ClientData:
        """One record a node, its own features before what `draw` made, with the same split and no edges."""
        return ClientData(torch.cat([unit_rows(data.x), drawn], 1), data.y, data.train, data.validation, data.test)


def aggregate(rows: Tensor, edges: Tensor) -> Tensor:
    """(n, d) float64: for each node the sum of its neighbours' rows; edges (2, m), both directions of each."""
    total = torch.zeros(rows.shape, dtype=torch.float64)
    return total.index_add_(0, edges[1], rows.double()[edges[0]])


def unit_rows(rows: Tensor) -> Tensor:
    """(n, d) float32 rows of norm at most 1; zero rows stay, rows that are not finite become zero."""
    exact = torch.nan_to_num(rows.double(), 0.0, 0.0, 0.0)
    norms = exact.norm(dim=1, keepdim=True)
    usable = torch.isfinite(rows).all(1, keepdim=True) & torch.isfinite(norms)
    # a hair below 1, so that rounding to float32 leaves no row above it
    return torch.where(usable, exact / norms.clamp(min=1e-12) * (1 - 2.0**-20), 0.0).float()


def bound_degree(edge_index: Tensor, n_nodes: int, degree: int, streams: Streams) -> Tensor:
    """(2, m) both directions of undirected edges, taken in a hashed order while both ends have fewer than `degree`.

    The order is by a keyed hash of an edge's two ends, so that it says nothing of how many others there are: removing a
    node leaves all other edges in their order, and what it changes beyond its own neighbours is what room it leaves.
    """
    pairs = undirected(edge_index)
    order = torch.from_numpy(np.argsort(_hashed(pairs, streams), kind="stable"))
    count, kept = [0] * n_nodes, []
    for a, b in pairs[:, order].T.tolist():
        if count[a] < degree and count[b] < degree:
            count[a] += 1
            count[b] += 1
            kept.append((a, b))
    return both_ways(torch.tensor(kept, dtype=torch.int64).reshape(-1, 2).T)


def _hashed(pairs: Tensor, streams: Streams) -> np.ndarray:
    """(m,) uint64 of each pair: SplitMix64 (Steele et al. 2014) of one end after the other, under a seeded key."""
    state = np.full(pairs.shape[1], streams.numpy().integers(2**63), np.uint64)
    for end in pairs.numpy().astype(np.uint64):
        state = (state ^ end) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def undirected(edge_index: Tensor) -> Tensor:
    """(2, m) each undirected edge once, the smaller end first; self-loops and repeated edges are dropped."""
    low, high = edge_index.min(0).values, edge_index.max(0).values
    pairs: Tensor = torch.unique(torch.stack([low, high])[:, low != high], dim=1)
    return pairs


def both_ways(pairs: Tensor) -> Tensor:
    """(2, 2 m) both directions of each edge."""
    return torch.cat([pairs, pairs.flip(0)], 1)
