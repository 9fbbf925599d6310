"""A client's descriptor: a short vector that says what its data are like, computed once and fixed.

Coordinates compare between clients only if all start from one initialisation, hence the common seed. What the
paper leaves open is an option here (docs/design.md); the default is a short warm-up of the task network, then the mean
representation of the training records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from framp_private.data.base import ClientData
from framp_private.federated.local_training import Alignment, LocalSGD
from framp_private.federated.prototypes import features_of
from framp_private.models.target import TargetNetwork
from framp_private.randomness import Streams


@dataclass(frozen=True)
class DescriptorRule:
    """How a descriptor is made.

    Args:
        encoder: `warmup` trains the common initialisation on the client's records first; `frozen` does not.
        steps, learning_rate, batch_size: of the warm-up.
        class_wise: one mean per class, concatenated (zeros where a class is absent), instead of one mean.
    """

    encoder: Literal["warmup", "frozen"] = "warmup"
    steps: int = 50
    learning_rate: float = 0.1
    batch_size: int | None = 16
    class_wise: bool = False

    def size(self, network: TargetNetwork) -> int:
        """Length of the descriptor."""
        return network.feature_dim * (network.n_classes if self.class_wise else 1)

    def compute(self, network: TargetNetwork, initial: Tensor, data: ClientData, streams: Streams) -> Tensor:
        """(size,) float32 from the common (n_parameters,) initial weights; reads training records only."""
        network.load(initial)
        if self.encoder == "warmup":
            trainer = LocalSGD(self.steps, self.batch_size, self.learning_rate, alignment=Alignment(weight=0.0))
            trainer.train(network, initial, torch.ones_like(initial, dtype=torch.bool), data, None, streams, 0.0)
        features, labels = features_of(network, data, data.train)
        if not self.class_wise:
            return features.mean(0)
        rows = torch.zeros(network.n_classes, network.feature_dim).index_add_(0, labels, features)
        counts = torch.bincount(labels, minlength=network.n_classes).clamp(min=1)
        return (rows / counts[:, None]).reshape(-1)
