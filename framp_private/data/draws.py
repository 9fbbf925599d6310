"""Who gets which records: draws of class mixes, as frozen values that are called with labels and a generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from framp_private.errors import DataError

Draw = Callable[[np.ndarray, int, int, np.random.Generator], list[np.ndarray]]
"""(labels, n_classes, n_clients, generator) -> indices of each client's records."""


@dataclass(frozen=True)
class BalancedDirichlet:
    """Clients of equal size whose class mixes are Dir(alpha); an exhausted class is renormalised away."""

    alpha: float

    def __call__(
        self, labels: np.ndarray, n_classes: int, n_clients: int, generator: np.random.Generator
    ) -> list[np.ndarray]:
        """Draws the clients one record at a time in turn, so that no client is left with the remains."""
        _positive_alpha(self.alpha)
        mixes = generator.dirichlet(np.full(n_classes, self.alpha), n_clients)
        pools = [list(generator.permutation(np.flatnonzero(labels == label))) for label in range(n_classes)]
        left = np.array([len(pool) for pool in pools])
        chosen: list[list[int]] = [[] for _ in range(n_clients)]
        for _ in range(len(labels) // n_clients):
            for client in range(n_clients):
                weights = np.where(left > 0, mixes[client] + 1e-12, 0.0)
                label = int(generator.choice(n_classes, p=weights / weights.sum()))
                chosen[client].append(pools[label].pop())
                left[label] -= 1
        return [np.sort(np.array(part)) for part in chosen]


@dataclass(frozen=True)
class ClassDirichlet:
    """Each class is split over clients with shares Dir(alpha): sizes differ (Hsu et al., arXiv 1909.06335)."""

    alpha: float
    min_records: int = 10

    def __call__(
        self, labels: np.ndarray, n_classes: int, n_clients: int, generator: np.random.Generator
    ) -> list[np.ndarray]:
        """Redraws up to 1,000 times until every client has `min_records`; raises `DataError` if none fits."""
        _positive_alpha(self.alpha)
        for _ in range(1000):
            parts: list[list[np.ndarray]] = [[] for _ in range(n_clients)]
            for label in range(n_classes):
                places = generator.permutation(np.flatnonzero(labels == label))
                shares = generator.dirichlet(np.full(n_clients, self.alpha))
                cuts = (np.cumsum(shares)[:-1] * len(places)).astype(int)
                for client, piece in enumerate(np.split(places, cuts)):
                    parts[client].append(piece)
            chosen = [np.sort(np.concatenate(part)) for part in parts]
            if min(len(part) for part in chosen) >= self.min_records:
                return chosen
        raise DataError(
            f"alpha={self.alpha} leaves a client of {n_clients} with fewer than {self.min_records} records: "
            "raise alpha, use fewer clients, or the balanced partition"
        )


@dataclass(frozen=True)
class ClassesPerClient:
    """Every client holds `k` classes, in shares drawn from U(.4, .6) and normalised (pFedHN's protocol)."""

    k: int

    def __call__(
        self, labels: np.ndarray, n_classes: int, n_clients: int, generator: np.random.Generator
    ) -> list[np.ndarray]:
        """Deals classes round robin from shuffled decks, so that each class has as many clients as any other (+-1)."""
        if not 1 <= self.k <= n_classes:
            raise DataError(f"classes_per_client={self.k} must lie in 1 .. {n_classes}")
        owners: list[list[int]] = [[] for _ in range(n_classes)]
        for client in range(n_clients):
            ranked = sorted(range(n_classes), key=lambda label: (len(owners[label]), generator.random()))
            for label in ranked[: self.k]:
                owners[label].append(client)
        parts: list[list[np.ndarray]] = [[] for _ in range(n_clients)]
        for label, holders in enumerate(owners):
            if holders:
                places = generator.permutation(np.flatnonzero(labels == label))
                shares = generator.uniform(0.4, 0.6, len(holders))
                cuts = (np.cumsum(shares / shares.sum())[:-1] * len(places)).astype(int)
                for client, piece in zip(holders, np.split(places, cuts), strict=True):
                    parts[client].append(piece)
        return [np.sort(np.concatenate(part)) for part in parts]


def _positive_alpha(alpha: float) -> None:
    if not (0 < alpha < float("inf")):
        raise DataError(f"alpha={alpha} must be a positive number: small values give each client few classes")
