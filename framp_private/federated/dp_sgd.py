"""Local training under differential privacy: DP-SGD on a masked submodel (Abadi et al. 2016, algorithm 1).

One step, on the mask's k coordinates only::

    batch     = each record independently with probability q                  Poisson sampling, drawn from Entropy
    g_i       = gradient of record i's loss, alignment included, on the mask
    noisy     = sum_i clip(g_i, C) + N(0, (z C)^2) on the k coordinates       an empty batch is noise alone
    gradient  = noisy / (q * declared records)                                a public divisor

What follows (FIARSE's factor, momentum, decay) reads `noisy` and public values only, so it costs nothing more. A step
is a Poisson-sampled Gaussian event, and so is the release of all steps' results, the trained weights included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from torch import Tensor, nn
from torch.nn import functional

from framp_private.data.base import ClientData
from framp_private.errors import PrivacyParameterError
from framp_private.federated.local_training import (
    Alignment,
    AtHome,
    Decay,
    HomeSchedule,
    LocalSGD,
    decayed,
    fiarse_factor,
)
from framp_private.federated.micro_batches import Losses
from framp_private.federated.per_sample import Loss, MaskedOptimizer, Mode, chosen, right
from framp_private.federated.prototypes import GlobalPrototypes
from framp_private.models.target import TargetNetwork
from framp_private.privacy.clipping import check_clip, check_noise
from framp_private.privacy.events import Event, unprotected
from framp_private.privacy.sampling import poisson_sample
from framp_private.randomness import Streams

REACH = "DP-SGD bounds no node of a graph, whose features reach its neighbours' gradients"
GRAPHS = (
    f"{REACH}: such a run has epsilon = none. Use network=auto, which trains on noised aggregates of the neighbours, "
    "or privacy.protects=nothing, which runs it without a guarantee"
)
"""Why a graph network is not trained under a record-level guarantee."""


@dataclass(frozen=True)
class DpSGD:
    """DP-SGD: unit record, add/remove.

    Guarantees: adding or removing one training record moves each step's sum by at most `clip_norm` in L2; a record
    whose gradient is not finite adds zero; sampling and noise come from the client's `Entropy`.

    Args:
        steps: local steps per round. sampling_probability: of each record in each step, in (0, 1].
        clip_norm: L2 bound on one record's gradient over the mask. noise_multiplier: noise deviation over it.
        learning_rate: > 0, times `decay` over the run. momentum: >= 0, over the steps of one round.
        alignment: the prototype term, per record (`mse` or `cosine`). fiarse: see `LocalSGD`.
        mode: how per-record gradients are made; it changes the speed alone.

    Raises:
        PrivacyParameterError: a value outside its range, or an alignment that is not a sum over records.
    """

    steps: int = 10
    sampling_probability: float = 0.1
    clip_norm: float = 1.0
    noise_multiplier: float = 1.0
    learning_rate: float = 0.5
    decay: Decay = "constant"
    momentum: float = 0.0
    alignment: Alignment = Alignment()
    fiarse: bool = False
    mode: Mode = "auto"

    def __post_init__(self) -> None:
        check_clip(self.clip_norm)
        check_noise(self.noise_multiplier)
        if not 0 < self.sampling_probability <= 1:
            raise PrivacyParameterError(f"sampling_probability={self.sampling_probability} must lie in (0, 1]")
        if self.alignment.weight and self.alignment.distance == "l2":
            raise PrivacyParameterError(
                "alignment.distance='l2' is a distance of batch means, in which records meet: "
                "under DP-SGD use 'mse' or 'cosine'"
            )

    @property
    def record_bound(self) -> None:
        """None: later steps go on from what a record moved. Its own noise covers that, and nothing else needs to."""
        return None

    def event(self, size: int) -> Event:
        """The steps of one round, each a Poisson-sampled Gaussian on `size` coordinates."""
        step = GaussianDpEvent(self.noise_multiplier)
        sampled = step if self.sampling_probability == 1 else PoissonSampledDpEvent(self.sampling_probability, step)
        return Event(sampled, "record", noise_values=size).times(self.steps)

    def at_home(self, schedule: HomeSchedule) -> LocalSGD:
        """Plain training for the owner of the records: nothing of it leaves. Prototypes are too noisy to align to."""
        plain = LocalSGD(alignment=Alignment(0.0), fiarse=self.fiarse)
        return plain.at_home(schedule)

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
        """See `LocalTrainer`; `home` is needed.

        Raises:
            PrivacyParameterError: no `home`, or a graph, whose nodes reach their neighbours' gradients.
        """
        del streams
        if home is None:
            raise PrivacyParameterError("DP-SGD needs the client's Entropy and its declared record number")
        self._check(data)
        rate = self.learning_rate * decayed(self.decay, progress)
        threshold = float(weights[mask & network.maskable].abs().min()) if self.fiarse else 0.0
        network.load(weights * mask)
        optimizer = MaskedOptimizer(
            network,
            mask,
            home.entropy,
            clip_norm=self.clip_norm,
            noise_multiplier=self.noise_multiplier,
            expected_batch_size=self.sampling_probability * home.declared,
        )
        mode = self._mode(network, bool(mask.all()), data)
        current, velocity = network.weights, torch.zeros(network.n_parameters)
        for _ in range(self.steps):
            rows = data.train[poisson_sample(data.n_train, self.sampling_probability, home.entropy)]
            loss = self._loss(network, data, rows, prototypes) if len(rows) else None
            gradient = optimizer.noisy_gradient(loss, mode, home.plant)
            if home.observe is not None:
                home.observe("update", "clip_fraction", optimizer.clip_fraction)
                home.observe("update", "signal_to_noise", optimizer.signal_to_noise)
            if self.fiarse:
                gradient.mul_(fiarse_factor(current, threshold, network.maskable))
            velocity.mul_(self.momentum).add_(gradient)
            current.add_(velocity, alpha=-rate)
        return network.weights.clone()

    def _check(self, data: ClientData) -> None:
        """Raises `PrivacyParameterError` for records that the event does not hold for."""
        if data.edge_index is not None:
            raise PrivacyParameterError(GRAPHS)
        if self.mode == "loop":  # a record that is not finite would make zero gradients of all others not finite
            raise PrivacyParameterError("mode='loop' keeps no records apart: it is for GraphDpSGD, use mode='auto'")

    def _mode(self, network: TargetNetwork, full: bool, data: ClientData) -> Mode:
        """The mode that runs, tried before; raises `ModelError` for a network that lets records meet."""
        return right(self.mode, network, full, tuple(data.x.shape[1:]))

    def _loss(
        self, network: TargetNetwork, data: ClientData, rows: Tensor, prototypes: GlobalPrototypes | None
    ) -> Loss:
        """The losses of a batch, of which any part can be asked for."""
        return Losses(lambda some, module: self._losses(network, data, some, prototypes, module), rows)

    def _losses(
        self,
        network: TargetNetwork,
        data: ClientData,
        rows: Tensor,
        prototypes: GlobalPrototypes | None,
        module: nn.Module,
    ) -> Tensor:
        """(n,) each record's own loss, alignment included."""
        logits, features = self._forward(network, data, rows, module)
        losses = functional.cross_entropy(logits, data.y[rows], reduction="none")
        if prototypes is not None and self.alignment.weight:
            losses = losses + self.alignment.weight * self.alignment.losses(features, data.y[rows], prototypes)
        return losses

    def _forward(
        self, network: TargetNetwork, data: ClientData, rows: Tensor, module: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """Logits and representations of some records."""
        return network.forward(data.x[rows], module=module)


@dataclass(frozen=True)
class GraphDpSGD(DpSGD):
    """DP-SGD on a graph network, node by node: a baseline that guarantees nothing, and says so in its event.

    Each sampled node's gradient is clipped and noised as in `DpSGD`. But one node moves the gradients of all nodes that
    it reaches through the layers, each by up to twice the clip, and how many those are has no bound (DP-GNN, arXiv
    2111.15521, section 1). Records without edges are refused: for them `DpSGD` has a guarantee.
    """

    mode: Mode = "loop"

    def event(self, size: int) -> Event:
        """No guarantee, and why."""
        del size
        return unprotected("record", REACH)

    def _check(self, data: ClientData) -> None:
        if data.edge_index is None or data.x.is_sparse:
            raise PrivacyParameterError(
                "GraphDpSGD takes a graph with dense features: use features=projection, and DpSGD for other records"
            )

    def _mode(self, network: TargetNetwork, full: bool, data: ClientData) -> Mode:
        return chosen(self.mode, network, full)

    def _loss(
        self, network: TargetNetwork, data: ClientData, rows: Tensor, prototypes: GlobalPrototypes | None
    ) -> Loss:
        return partial(self._losses, network, data, rows, prototypes)

    def _forward(
        self, network: TargetNetwork, data: ClientData, rows: Tensor, module: nn.Module
    ) -> tuple[Tensor, Tensor]:
        return network.forward(data.x, data.edge_index, rows, module)
