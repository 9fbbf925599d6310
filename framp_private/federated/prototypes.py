"""Class prototypes: clients upload sums and counts for every class, the server divides after it has added.

A client's upload has one row per class, absent classes included, so that its size tells nothing and one record
changes one row. Features are those of the trained submodel, taken in a fresh pass after the last local step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from framp_private.data.base import ClientData
from framp_private.models.target import TargetNetwork

Weighting = Literal["counts", "unweighted"]


@dataclass(frozen=True)
class GlobalPrototypes:
    """What clients align to.

    Args:
        values: (n_classes, feature_dim) float32.
        present: (n_classes,) bool; a class nobody has shown yet has no prototype and is not aligned.
    """

    values: Tensor
    present: Tensor

    @classmethod
    def none(cls, n_classes: int, feature_dim: int) -> GlobalPrototypes:
        """The state before the first round."""
        return cls(torch.zeros(n_classes, feature_dim), torch.zeros(n_classes, dtype=torch.bool))

    def after(self, total: np.ndarray) -> GlobalPrototypes:
        """Divides the summed upload (n_classes * (feature_dim + 1),); a class absent this round keeps its prototype."""
        rows = torch.from_numpy(total.reshape(len(self.values), -1))
        counts = rows[:, -1:]
        seen = counts[:, 0] > 0
        means = (rows[:, :-1] / counts.clamp(min=1)).float()
        return GlobalPrototypes(torch.where(seen[:, None], means, self.values), self.present | seen)


def local_prototypes(network: TargetNetwork, data: ClientData, rows: Tensor, weighting: Weighting) -> np.ndarray:
    """(n_classes * (feature_dim + 1),) float32: per class the sum of features, then the count.

    `rows` are the records that count. `unweighted` sends each present class's mean with weight one (FedProto's
    released code): small clients count as much as large ones.
    """
    features, labels = features_of(network, data, rows)
    sums = torch.zeros(network.n_classes, network.feature_dim + 1)
    sums[:, :-1].index_add_(0, labels, features)
    sums[:, -1] = torch.bincount(labels, minlength=network.n_classes)
    if weighting == "unweighted":
        sums = sums / sums[:, -1:].clamp(min=1)
    return sums.reshape(-1).numpy()


def features_of(network: TargetNetwork, data: ClientData, rows: Tensor, block: int = 128) -> tuple[Tensor, Tensor]:
    """Representations (len(rows), feature_dim) and labels (len(rows),) without gradient; small blocks stay in cache."""
    with torch.no_grad():
        if data.edge_index is not None:
            return network.forward(data.x, data.edge_index, rows)[1], data.y[rows]
        parts = [network.forward(data.x[part])[1] for part in torch.split(rows, block)]
        return torch.cat(parts), data.y[rows]
