"""Node-level privacy for graphs: aggregate first, with noise, then treat each node as a record of its own.

Aggregation perturbation (GAP: Sajadmanesh et al., arXiv 2203.00949, algorithm 1), decoupled from training::

    X_0 = rows of unit norm                       a node's own features
    X_h = rows of unit norm of (A X_(h-1) + N(0, D z^2))     h = 1 .. hops, A the 0/1 adjacency with degrees at most D
    record of node v = [X_0[v] | X_1[v] | ... | X_hops[v]]

Removing a node with all its edges takes a row of unit norm out of at most D other rows, so each A X moves by at most
sqrt(D) in L2 (its own row goes with it). What follows reads the noisy aggregates, so only they carry one node's
features to other records, and training may count each node as one record.

The bound D is a property of the graph that the guarantee is about: a graph with larger degrees is cut to D before the
run, by `bound_degree`, and the claim is about nodes of the graph that remains.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from dp_accounting import GaussianDpEvent
from torch import Tensor

from framp_private.data.base import ClientData, Schema
from framp_private.errors import DataError, PrivacyParameterError
from framp_private.privacy.clipping import check_noise
from framp_private.privacy.events import Event
from framp_private.privacy.noise import standard_gaussian
from framp_private.randomness import Entropy, Streams

MOST_VALUES = 2**40
"""More noise values than any client's graph takes: the number of nodes is not public, and cut tails are negligible."""


@dataclass(frozen=True)
class Aggregation:
    """How a client turns its graph into records: once, before the first round.

    Args:
        hops: aggregations, >= 1. degree: D, >= 1. noise_multiplier: noise deviation over sqrt(D).

    Raises:
        PrivacyParameterError: a value outside its range.
    """

    hops: int
    degree: int
    noise_multiplier: float

    def __post_init__(self) -> None:
        check_noise(self.noise_multiplier)
        if self.hops < 1 or self.degree < 1:
            raise PrivacyParameterError(f"hops={self.hops}, degree={self.degree}: both must be at least 1")

    @property
    def sensitivity(self) -> float:
        """L2 bound on what one node with all its edges changes in one aggregate."""
        return float(self.degree**0.5)

    def event(self) -> Event:
        """All hops, each one Gaussian release, of at most `MOST_VALUES` values."""
        return Event(GaussianDpEvent(self.noise_multiplier), "record", noise_values=MOST_VALUES).times(self.hops)

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
        edges = bound_degree(data.edge_index, len(data.y), self.degree, streams)
        rows = [unit_rows(data.x)]
        for _ in range(self.hops):
            exact = aggregate(rows[-1], edges)
            noise = (
                standard_gaussian(exact.numel(), entropy).view_as(exact).mul_(self.noise_multiplier * self.sensitivity)
            )
            rows.append(unit_rows((exact + noise).float()))
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
    """(2, m) both directions of undirected edges, taken in a seeded order while both ends have fewer than `degree`.

    Self-loops and repeated edges are dropped.
    """
    low, high = edge_index.min(0).values, edge_index.max(0).values
    pairs = torch.unique(torch.stack([low, high])[:, low != high], dim=1)
    order = torch.randperm(pairs.shape[1], generator=streams.torch())
    count, kept = [0] * n_nodes, []
    for a, b in pairs[:, order].T.tolist():
        if count[a] < degree and count[b] < degree:
            count[a] += 1
            count[b] += 1
            kept.append((a, b))
    chosen = torch.tensor(kept, dtype=torch.int64).reshape(-1, 2).T
    return torch.cat([chosen, chosen.flip(0)], 1)
