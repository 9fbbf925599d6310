"""Class prototypes: clients upload sums and counts for every class, the server divides after it has added.

A client's upload has one row per class, absent classes included, so that its size tells nothing and one record
changes one row. Features are those of the trained submodel, taken in a fresh pass after the last local step.

Where the channel is noised, `PrototypeBound` limits what one record adds: its features to norm R and its count to w, so
that adding or removing it moves the upload by at most sqrt(R^2 + w^2) in L2, which is the protection's clip norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from framp_private.data.base import ClientData
from framp_private.errors import PrivacyParameterError
from framp_private.federated.micro_batches import padded
from framp_private.federated.separate_records import block_of
from framp_private.models.target import TargetNetwork
from framp_private.privacy.clipping import SHRINK, clip_rows

Weighting = Literal["counts", "unweighted"]


@dataclass(frozen=True)
class PrototypeBound:
    """What one record may add to its class's row.

    Args:
        clip_norm: L2 bound on both together: sqrt(R^2 + w^2).
        count_share: the share of clip_norm^2 that the count takes, in (0, 1): w = clip_norm * sqrt(count_share).
        floor: a class whose noisy total is under so many records keeps the prototype it had.
    """

    clip_norm: float
    count_share: float = 0.2
    floor: float = 1.0

    @property
    def feature_norm(self) -> float:
        """R, the bound on a record's features."""
        return float(self.clip_norm * (1 - self.count_share) ** 0.5)

    @property
    def count_weight(self) -> float:
        """w, what a record adds to its class's count."""
        return float(self.clip_norm * self.count_share**0.5 * SHRINK)


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

    def after(self, total: np.ndarray, bound: PrototypeBound | None = None) -> GlobalPrototypes:
        """Divides the summed upload (n_classes * (feature_dim + 1),); a class absent this round keeps its prototype.

        With a bound, counts are in units of its weight, and noisy: classes under its floor count as absent.
        """
        rows = torch.from_numpy(total.reshape(len(self.values), -1))
        counts = rows[:, -1:] / (bound.count_weight if bound else 1.0)
        seen = counts[:, 0] >= (bound.floor if bound else 1e-9)
        means = (rows[:, :-1] / counts.clamp(min=bound.floor if bound else 1.0)).float()
        return GlobalPrototypes(torch.where(seen[:, None], means, self.values), self.present | seen)


def local_prototypes(
    network: TargetNetwork,
    data: ClientData,
    rows: Tensor,
    weighting: Weighting,
    bound: PrototypeBound | None = None,
) -> np.ndarray:
    """(n_classes * (feature_dim + 1),): per class the sum of features, then the count.

    `rows` are the records that count. `unweighted` sends each present class's mean with weight one (FedProto's
    released code): small clients count as much as large ones. With a bound, one record moves the result by at most
    its `clip_norm` in L2; a record whose features are not finite adds its count alone.
    """
    if bound is not None and data.edge_index is not None:
        raise PrivacyParameterError("a node's features reach other nodes' representations: no bound on one node holds")
    features, labels = features_of(network, data, rows, steady=bound is not None)
    sums = torch.zeros(network.n_classes, network.feature_dim + 1)
    counts = torch.bincount(labels, minlength=network.n_classes)
    if bound is not None:
        sums = sums.double()  # a long float32 sum would round differently once a record is gone
        sums[:, :-1].index_add_(0, labels, clip_rows(features, bound.feature_norm).double())
        sums[:, -1] = counts * bound.count_weight
        return sums.reshape(-1).numpy()
    sums[:, :-1].index_add_(0, labels, features)
    sums[:, -1] = counts
    if weighting == "unweighted":
        sums = sums / sums[:, -1:].clamp(min=1)
    return sums.reshape(-1).numpy()


def features_of(
    network: TargetNetwork, data: ClientData, rows: Tensor, block: int = 64, *, steady: bool = False
) -> tuple[Tensor, Tensor]:
    """Representations (len(rows), feature_dim) and labels (len(rows),), in evaluation mode and without gradient.

    Records always come in blocks of one size, the last filled up: matrix products round by the shape of what they are
    given, and under weights that a server made up one record more or less would move all others' representations.

    steady: where products round by the place in a block, too, records are taken one by one.
    """
    if steady and data.edge_index is None:
        block = block_of(network, tuple(data.x.shape[1:]), block)
    network.module.eval()
    try:
        with torch.no_grad():
            if data.edge_index is not None:
                return network.forward(data.x, data.edge_index, rows)[1], data.y[rows]
            parts = [_block(network, data.x, part, block) for part in torch.split(rows, block) if len(part)]
            return torch.cat([*parts, torch.zeros(0, network.feature_dim)]), data.y[rows]
    finally:
        network.module.train()


def _block(network: TargetNetwork, x: Tensor, rows: Tensor, size: int) -> Tensor:
    """(len(rows), feature_dim) representations, made in a batch of `size`."""
    return network.forward(x[padded(rows, size)])[1][: len(rows)]
