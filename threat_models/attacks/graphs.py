"""Attacks on graph models, from posteriors of nodes (A11): links, nodes, degrees.

Node splits must be random: a split by time or community makes members differ from non-members without any training
(arXiv 2601.17130).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(1 - (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _cosine(a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True))


DISTANCES: dict[str, Distance] = {
    "cosine": _cosine,
    "euclidean": lambda a, b: np.linalg.norm(a - b, axis=1),
    "correlation": _correlation,
    "chebyshev": lambda a, b: np.abs(a - b).max(1),
    "braycurtis": lambda a, b: np.abs(a - b).sum(1) / np.maximum(np.abs(a + b).sum(1), 1e-30),
    "canberra": lambda a, b: (np.abs(a - b) / np.maximum(np.abs(a) + np.abs(b), 1e-30)).sum(1),
    "cityblock": lambda a, b: np.abs(a - b).sum(1),
    "sqeuclidean": lambda a, b: ((a - b) ** 2).sum(1),
}
"""The eight distances of Stealing Links from Graph Neural Networks (He et al., arXiv 2005.02131, section 4.3)."""


def steal_links(posteriors: np.ndarray, pairs: np.ndarray, distance: str = "correlation") -> np.ndarray:
    """A11: (m,) scores of links: minus the distance of both nodes' posteriors, for linked nodes say the like.

    AUC over .95 was published without defence; edge-level DP bounds it. Cost: one distance a pair.

    Args:
        posteriors: (n, n_classes). pairs: (m, 2).
    """
    return -DISTANCES[distance](posteriors[pairs[:, 0]], posteriors[pairs[:, 1]])


def node_membership(zero_hop: np.ndarray, two_hop: np.ndarray) -> np.ndarray:
    """A11: (n,) membership of nodes: confidence with the graph plus confidence without it.

    A model is surest of training nodes with and without their neighbours (Olatunji et al., arXiv 2101.06570; He et
    al., arXiv 2102.05429).
    """
    return np.asarray(zero_hop + two_hop)


def degree_bits(posteriors: np.ndarray) -> np.ndarray:
    """A11: (n,) scores of a high degree: minus the entropy, for an average over many neighbours is surer."""
    p = np.clip(posteriors, 1e-12, 1)
    return np.asarray((p * np.log(p)).sum(1))
