"""Local training of a submodel: masked SGD on cross entropy plus alignment to the global prototypes.

A `LocalTrainer` takes the weights a client was given and returns trained ones; coordinates outside the mask are zero
before, during and after. Other trainers (a private one, say) implement the same Protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from framp_private.data.base import ClientData
from framp_private.errors import ConfigError
from framp_private.federated.prototypes import GlobalPrototypes
from framp_private.models.target import TargetNetwork
from framp_private.privacy.events import Event
from framp_private.randomness import Entropy, Streams

Decay = Literal["constant", "linear", "cosine"]


def decayed(decay: Decay, progress: float) -> float:
    """The factor on a step size at `progress` in [0, 1) of the run; `linear` and `cosine` fall from 1 to 0."""
    if decay == "constant":
        return 1.0
    return 1 - progress if decay == "linear" else (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Alignment:
    """The term that pulls representations towards their class's global prototype (FRAMP; FedProto, arXiv 2105.00243).

    Args:
        weight: lambda; 0 switches the term, and the prototype channel, off.
        distance: `mse` per record, mean over coordinates; `l2` squared, of each class's batch mean; `cosine` 1 - cos.
    """

    weight: float = 1.0
    distance: Literal["mse", "l2", "cosine"] = "mse"

    def loss(self, features: Tensor, labels: Tensor, prototypes: GlobalPrototypes) -> Tensor:
        """A scalar; records of classes without a prototype add zero. The prototypes get no gradient."""
        if self.distance != "l2":
            return self.losses(features, labels, prototypes).mean()
        members = functional.one_hot(labels, len(prototypes.values)).to(features.dtype)
        counts = members.sum(0)
        means = (members.T @ features) / counts.clamp(min=1)[:, None]
        distances = (means - prototypes.values).square().sum(1)
        return (distances * (counts > 0) * prototypes.present).sum()

    def losses(self, features: Tensor, labels: Tensor, prototypes: GlobalPrototypes) -> Tensor:
        """(n,) each record's own term, for the distances that have one: `mse` and `cosine`."""
        known = prototypes.present[labels].to(features.dtype)
        target = prototypes.values[labels]
        if self.distance == "mse":
            return (features - target).square().mean(1) * known
        return (1 - functional.cosine_similarity(features, target)) * known


Observe = Callable[[str, str, float], None]
"""(channel, name, value) of something measured at a client."""


@dataclass(frozen=True)
class AtHome:
    """What only the client has.

    Args:
        entropy: its source of noise. declared: the public number of records it declared, a divisor.
        observe: takes clip fractions and signal-to-noise ratios. They are data: shown in simulation, kept home
            in a deployment.
        plant: what an auditor adds to the clipped sum of a step before its noise.
    """

    entropy: Entropy
    declared: int
    observe: Observe | None = None
    plant: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class HomeSchedule:
    """How a served model is trained further by its owner: `learning_rate` times `decay` over the steps at home."""

    steps: int = 50
    learning_rate: float = 0.05
    decay: Decay = "constant"
    batch_size: int | None = 16


class LocalTrainer(Protocol):
    """Trains a submodel on one client's records."""

    @property
    def alignment(self) -> Alignment:
        """The prototype term."""

    @property
    def record_bound(self) -> float | None:
        """What adding or removing one record may move given minus trained by, in L2; None without a bound."""

    def event(self, size: int) -> Event | None:
        """What the trained weights of one round cost, for `size` kept coordinates; None if training adds no noise."""

    def at_home(self, schedule: HomeSchedule) -> LocalTrainer:
        """What goes on training the served model for its owner alone: nothing of it leaves, so nothing is noised."""

    def train(
        self,
        network: TargetNetwork,
        weights: Tensor,
        mask: Tensor,
        data: ClientData,
        prototypes: GlobalPrototypes | None,
        streams: Streams,
        progress: float,
        home: AtHome | None = None,
    ) -> Tensor:
        """Trained (n_parameters,) weights, zero outside the bool mask; the network is left loaded with them."""


@runtime_checkable
class Summing(Protocol):
    """A trainer whose delta, given minus trained, is a sum over records that must not be recovered by subtraction."""

    def delta(
        self,
        network: TargetNetwork,
        weights: Tensor,
        mask: Tensor,
        data: ClientData,
        prototypes: GlobalPrototypes | None,
        home: AtHome | None = None,
    ) -> Tensor:
        """(n_parameters,) float64, zero outside the mask. The network is left loaded with the given weights.

        What is computed under them afterwards, class sums say, then depends on no record but its own: trained weights
        without noise would not do.
        """


@dataclass(frozen=True)
class LocalSGD:
    """Plain SGD on the kept coordinates.

    Args:
        steps: local steps per round. batch_size: records per step; None takes all of them (graphs always do).
        learning_rate: > 0, times `decay` over the run. momentum, weight_decay: >= 0.
        alignment: the prototype term.
        fiarse: multiply the gradient of a kept coordinate x by 1 + 2|x|tau / (|x| + tau)^2, with tau the smallest
            magnitude kept at the start (FIARSE, arXiv 2407.19389, section 3.2).
        rethreshold: a coordinate that falls below tau rests at zero and gets no gradient, as in FIARSE's forward pass.
    """

    steps: int = 10
    batch_size: int | None = 16
    learning_rate: float = 0.1
    decay: Decay = "constant"
    momentum: float = 0.0
    weight_decay: float = 0.0
    alignment: Alignment = Alignment()
    fiarse: bool = False
    rethreshold: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0 or (self.batch_size is not None and self.batch_size < 1) or not self.learning_rate >= 0:
            raise ConfigError(
                f"steps={self.steps}, batch_size={self.batch_size}, learning_rate={self.learning_rate}: "
                "steps and step size are at least 0, a batch has at least one record"
            )

    @property
    def record_bound(self) -> None:
        """None: a batch's mean gradient has no bound for each record."""
        return None

    def event(self, size: int) -> Event | None:
        """None: no noise."""
        del size
        return None

    def at_home(self, schedule: HomeSchedule) -> LocalSGD:
        """The same without momentum, on a schedule of its own."""
        return replace(
            self,
            steps=schedule.steps,
            learning_rate=schedule.learning_rate,
            decay=schedule.decay,
            batch_size=schedule.batch_size,
            momentum=0.0,
        )

    def train(
        self,
        network: TargetNetwork,
        weights: Tensor,
        mask: Tensor,
        data: ClientData,
        prototypes: GlobalPrototypes | None,
        streams: Streams,
        progress: float,
        home: AtHome | None = None,
    ) -> Tensor:
        """See `LocalTrainer`. Batches are drawn without replacement, reshuffled when the records run out."""
        del home
        keep = mask.to(weights.dtype)
        rate = self.learning_rate * decayed(self.decay, progress)
        threshold = float(weights[mask & network.maskable].abs().min()) if self.fiarse or self.rethreshold else 0.0
        network.load(weights * keep)
        current = network.weights.clone() if self.rethreshold else network.weights
        velocity = torch.zeros_like(current) if self.momentum else None
        with streams.as_torch_default() if network.stochastic else nullcontext():
            for rows in batches(data, self.steps, self.batch_size, streams):
                gradient = self._gradient(network, data, rows, prototypes)
                if self.weight_decay:
                    gradient.add_(current, alpha=self.weight_decay)
                gradient.mul_(keep)
                if self.fiarse:
                    gradient.mul_(fiarse_factor(current, threshold, network.maskable))
                if self.rethreshold:
                    gradient.mul_(current.abs().ge(threshold).logical_or_(~network.maskable))
                if velocity is not None:
                    gradient = velocity.mul_(self.momentum).add_(gradient)
                current.add_(gradient, alpha=-rate)
                if self.rethreshold:
                    network.load(_live(current, threshold, network.maskable))
        return network.weights.clone()

    def _gradient(
        self, network: TargetNetwork, data: ClientData, rows: Tensor, prototypes: GlobalPrototypes | None
    ) -> Tensor:
        network.gradient.zero_()
        if data.edge_index is None:
            logits, features = network.forward(data.x[rows])
        else:
            logits, features = network.forward(data.x, data.edge_index, rows)
        labels = data.y[rows]
        loss = functional.cross_entropy(logits, labels)
        if prototypes is not None and self.alignment.weight:
            loss = loss + self.alignment.weight * self.alignment.loss(features, labels, prototypes)
        loss.backward()  # type: ignore[no-untyped-call]
        return network.gradient


def batches(data: ClientData, steps: int, batch_size: int | None, streams: Streams) -> Iterator[Tensor]:
    """`steps` index tensors into the client's records; whole graphs and `batch_size=None` give all training records."""
    if batch_size is None or data.edge_index is not None or batch_size >= data.n_train:
        for _ in range(steps):
            yield data.train
        return
    generator = streams.torch()
    per_pass = data.n_train // batch_size
    for step in range(steps):
        if step % per_pass == 0:
            order = data.train[torch.randperm(data.n_train, generator=generator)]
        at = step % per_pass * batch_size
        yield order[at : at + batch_size]


def fiarse_factor(weights: Tensor, threshold: float, maskable: Tensor) -> Tensor:
    """FIARSE's factor (see `LocalSGD`): 1 on normalisation layers, and where weight and threshold are both zero."""
    size = weights.abs()
    factor = 1 + 2 * size * threshold / (size + threshold).square().clamp(min=1e-24)
    return torch.where(maskable, factor, 1.0)


def _live(weights: Tensor, threshold: float, maskable: Tensor) -> Tensor:
    return torch.where(maskable & (weights.abs() < threshold), 0.0, weights)
