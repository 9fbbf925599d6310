"""A client's descriptor: a short vector that says what its data are like, computed once and fixed.

Coordinates compare between clients only if all start from one initialisation, hence the common seed. What the
paper leaves open is an option here (docs/design.md); the default is a short warm-up of the task network, then the mean
representation of the training records.

A private descriptor is a sum over records: each record's vector is clipped, so that adding or removing the record
moves the sum by at most that norm; the channel's noise is added to the sum; and only then is it divided, by the number
of records that the client declared. Its encoder must be public (`frozen` or `labels`), because a warm-up on the
records would let one record move all the others' vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from framp_private.data.base import ClientData
from framp_private.errors import PrivacyParameterError
from framp_private.federated.local_training import Alignment, LocalSGD
from framp_private.federated.prototypes import features_of
from framp_private.models.target import TargetNetwork
from framp_private.privacy.clipping import clip_rows
from framp_private.randomness import Streams

Encoder = Literal["warmup", "frozen", "labels"]


@dataclass(frozen=True)
class DescriptorRule:
    """How a descriptor is made.

    Args:
        encoder: `warmup` trains the common initialisation on the client's records first; `frozen` does not;
            `labels` takes a record's label as its vector, so that the descriptor is the client's class shares.
        steps, learning_rate, batch_size: of the warm-up.
        class_wise: one mean per class, concatenated (zeros where a class is absent), instead of one mean.
    """

    encoder: Encoder = "warmup"
    steps: int = 50
    learning_rate: float = 0.1
    batch_size: int | None = 16
    class_wise: bool = False

    @property
    def public(self) -> bool:
        """Whether one record's vector depends on no other record."""
        return self.encoder != "warmup"

    def size(self, network: TargetNetwork) -> int:
        """Length of the descriptor."""
        if self.encoder == "labels":
            return network.n_classes
        return network.feature_dim * (network.n_classes if self.class_wise else 1)

    def compute(self, network: TargetNetwork, initial: Tensor, data: ClientData, streams: Streams) -> Tensor:
        """(size,) float32 from the common (n_parameters,) initial weights; reads training records only."""
        network.load(initial)
        if self.encoder == "warmup":
            trainer = LocalSGD(self.steps, self.batch_size, self.learning_rate, alignment=Alignment(weight=0.0))
            trainer.train(network, initial, torch.ones_like(initial, dtype=torch.bool), data, None, streams, 0.0)
        rows, labels = self._rows(network, data)
        if not self.class_wise or self.encoder == "labels":
            return rows.mean(0)
        sums = torch.zeros(network.n_classes, network.feature_dim).index_add_(0, labels, rows)
        counts = torch.bincount(labels, minlength=network.n_classes).clamp(min=1)
        return (sums / counts[:, None]).reshape(-1)

    def clipped_sum(self, network: TargetNetwork, initial: Tensor, data: ClientData, clip_norm: float) -> Tensor:
        """(size,) float64: the sum of the records' vectors, each clipped to `clip_norm`; the encoder must be public.

        Adding or removing one record moves it by at most `clip_norm` in L2.
        """
        if data.edge_index is not None and self.encoder != "labels":
            raise PrivacyParameterError(
                "a node's features reach other nodes' vectors through edges, so that no bound on one node holds: "
                "use descriptor.encoder='labels'"
            )
        network.load(initial)
        rows, labels = self._rows(network, data, steady=True)
        clipped = clip_rows(rows, clip_norm).double()
        if not self.class_wise or self.encoder == "labels":
            return clipped.sum(0)
        sums = torch.zeros(network.n_classes, network.feature_dim, dtype=torch.float64)
        return sums.index_add_(0, labels, clipped).reshape(-1)

    def _rows(self, network: TargetNetwork, data: ClientData, steady: bool = False) -> tuple[Tensor, Tensor]:
        """(n, d) vectors of the training records, and their labels."""
        if self.encoder == "labels":
            labels = data.y[data.train]
            return torch.nn.functional.one_hot(labels, network.n_classes).float(), labels
        return features_of(network, data, data.train, steady=steady)
