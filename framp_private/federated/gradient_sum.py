"""One gradient step whose noise all clients share: the sum over records, each clipped, and no noise of a client's own.

In a round each client makes, on its masked submodel and for all its training records at once,

    delta_i = rate / records * sum_r clip(g_r, C)        r: client i's records

and a secure sum adds the delta_i up with one noise that the clients draw in shares (`protections/distributed.py`). So a
record of any client hides behind the whole federation's noise, where under DP-SGD it hides behind its own client's:
with n clients, the same epsilon costs sqrt(n) times less noise against the same signal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from framp_private.data.base import ClientData
from framp_private.errors import PrivacyParameterError
from framp_private.federated.dp_sgd import GRAPHS
from framp_private.federated.local_training import Alignment, AtHome, HomeSchedule, LocalSGD
from framp_private.federated.micro_batches import Losses
from framp_private.federated.per_sample import Mode, summed_clipped
from framp_private.federated.prototypes import GlobalPrototypes
from framp_private.models.target import TargetNetwork
from framp_private.privacy.clipping import check_clip
from framp_private.privacy.events import Event
from framp_private.randomness import Streams


@dataclass(frozen=True)
class GradientSum:
    """See the module. Unit record, add/remove, once a protection has added the noise.

    Guarantees: adding or removing one training record moves `delta` by at most `record_bound` in L2, whatever weights
    were given; a record whose gradient is not finite adds zero.

    Args:
        clip_norm: L2 bound on one record's gradient over the mask.
        learning_rate: > 0. records: a public number, the same for all clients, that sums are divided by.
        alignment: the prototype term, per record (`mse` or `cosine`). fiarse: see `LocalSGD`; at home alone.
        mode: how per-record gradients are made; it changes the speed alone.

    Raises:
        PrivacyParameterError: a value outside its range, or an alignment that is not a sum over records.
    """

    clip_norm: float = 1.0
    learning_rate: float = 0.5
    records: int = 1
    alignment: Alignment = Alignment()
    fiarse: bool = False
    mode: Mode = "auto"

    def __post_init__(self) -> None:
        check_clip(self.clip_norm)
        if not 0 < self.learning_rate < math.inf or self.records < 1 or self.mode == "loop":
            raise PrivacyParameterError(
                f"learning_rate={self.learning_rate}, records={self.records}, mode={self.mode!r}: a positive rate, at "
                "least one record, and a mode that keeps records apart"
            )
        if self.alignment.weight and self.alignment.distance == "l2":
            raise PrivacyParameterError(
                "alignment.distance='l2' is a distance of batch means, in which records meet: use 'mse' or 'cosine'"
            )

    @property
    def steps(self) -> int:
        """One: its gradient is what is summed."""
        return 1

    @property
    def record_bound(self) -> float:
        """What one record may add to a client's delta, in L2."""
        return self.clip_norm * self.learning_rate / self.records

    def event(self, size: int) -> Event | None:
        """None: the noise comes later, and once for all."""
        del size
        return None

    def at_home(self, schedule: HomeSchedule) -> LocalSGD:
        """Plain training for the owner of the records: nothing of it leaves. Prototypes are too noisy to align to."""
        return LocalSGD(alignment=Alignment(0.0), fiarse=self.fiarse).at_home(schedule)

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
        """See `LocalTrainer`: one step, in float64. What is sent is `delta`."""
        del streams, progress
        given = (weights * mask).double()
        return given - self.delta(network, weights, mask, data, prototypes, home)

    def delta(
        self,
        network: TargetNetwork,
        weights: Tensor,
        mask: Tensor,
        data: ClientData,
        prototypes: GlobalPrototypes | None,
        home: AtHome | None = None,
    ) -> Tensor:
        """See `Summing`: the step itself. Subtracted weights would round it to a grid that the server chooses.

        Raises:
            PrivacyParameterError: a graph, whose nodes reach their neighbours' gradients.
        """
        if data.edge_index is not None:
            raise PrivacyParameterError(GRAPHS)
        network.load(weights * mask)

        def losses(rows: Tensor, module: nn.Module) -> Tensor:
            logits, features = network.forward(data.x[rows], module=module)
            labels = data.y[rows]
            each = functional.cross_entropy(logits, labels, reduction="none")
            if prototypes is not None and self.alignment.weight:
                each = each + self.alignment.weight * self.alignment.losses(features, labels, prototypes)
            return each

        total = torch.zeros(network.n_parameters, dtype=torch.float64)
        if data.n_train:
            total, clipped = summed_clipped(network, mask, Losses(losses, data.train), self.clip_norm, self.mode)
            if home is not None and home.observe is not None:
                home.observe("update", "clip_fraction", clipped)
        return total * mask * (self.learning_rate / self.records)
