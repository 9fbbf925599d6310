"""What a client's class shares alone say about its model: a structured part of the hypernetwork, without parameters.

For shares s (which may be noisy) and a floor f, u = log(max(s, f) / f) is zero for a class that the client hardly has.
It enters twice. The classifier's bias gets `strength` * u (logit adjustment, Menon et al., arXiv 2007.07314,
section 4), so that theta_0 learns what classes look like and not how frequent they are at one client. And the
classifier's rows of classes below twice the floor are scaled towards `absent`, so that a small budget's global top-k
spends its coordinates on the classes that the client has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from framp_private.errors import ModelError


@dataclass(frozen=True)
class Places:
    """Where the classifier lies in the target's weights: rows of (n_classes, feature_dim), and its bias."""

    weight: slice
    bias: slice


@dataclass(frozen=True)
class ClassPrior:
    """See the module.

    Args:
        strength: of the logarithm on the bias, >= 0. floor: the least share, in (0, 1).
        absent: what a class without records keeps of its rows, in (0, 1]; 1 leaves them alone.
    """

    strength: float = 1.0
    floor: float = 0.02
    absent: float = 1.0

    def __post_init__(self) -> None:
        if not (self.strength >= 0 and 0 < self.floor < 1 and 0 < self.absent <= 1):
            raise ModelError(
                f"hypernetwork.prior strength={self.strength}, floor={self.floor}, absent={self.absent}: strength is "
                "at least 0, floor lies in (0, 1) and absent in (0, 1]"
            )

    def bias(self, shares: Tensor) -> Tensor:
        """(n, n_classes) what is added to the classifier's bias."""
        return self.strength * self._logs(shares)

    def scale(self, shares: Tensor, places: Places, n_target: int) -> Tensor:
        """(n, n_target) factors on the target's weights: 1 everywhere but on rows of classes hardly there."""
        factors = torch.ones(len(shares), n_target)
        rows = self.absent + (1 - self.absent) * (self._logs(shares) / math.log(2)).clamp(0, 1)
        width = (places.weight.stop - places.weight.start) // shares.shape[1]
        factors[:, places.weight] = rows.repeat_interleave(width, 1)
        return factors

    def _logs(self, shares: Tensor) -> Tensor:
        return (shares.clamp(min=self.floor) / self.floor).log()
