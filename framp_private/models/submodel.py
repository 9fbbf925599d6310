"""Budget -> mask: which coordinates of the generated weights a client trains.

A budget is the share of maskable coordinates that a client can hold. The mask keeps exactly `int(budget x maskable)`
of them, the most important ones over the whole network (FIARSE, arXiv 2407.19389, section 3; FRAMP,
arXiv 2604.11278), and is a function of public or server-side values only: it is never recomputed from trained
weights, because its support would then tell what the client learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from framp_private.errors import ModelError
from framp_private.models.target import TargetNetwork

Importance = Literal["magnitude", "fiarse", "taylor", "fisher"]


@dataclass(frozen=True)
class SubmodelRule:
    """How a budget becomes a mask.

    Args:
        scope: `global` ranks all coordinates together, `layerwise` gives every tensor the budget's share.
        importance: `magnitude` and `fiarse` rank by |w| (`fiarse` also scales local gradients, see
            `local_training`); `taylor` by |w m| and `fisher` by w^2 v, with m and v running means of the
            aggregated update and of its square. Before the first update they rank by |w|.
        static: the mask is taken from the initial weights once and never moves.
    """

    scope: Literal["global", "layerwise"] = "global"
    importance: Importance = "magnitude"
    static: bool = False

    def mask(self, network: TargetNetwork, weights: Tensor, budget: float, moments: Moments | None = None) -> Tensor:
        """(n_parameters,) bool: exactly `kept(network, budget)` maskable coordinates and all others.

        Raises:
            ModelError: budget outside (0, 1], too small to keep one coordinate, or scores that are not finite.
        """
        n_kept = kept(network, budget)
        mask = ~network.maskable
        if self.scope == "global":
            candidates = network.maskable.nonzero().squeeze(1)
            scores = self._scores(weights, moments)
            mask[candidates[top_k(scores[candidates], n_kept)]] = True
            return mask
        scores = self._scores(weights, moments)
        parts = [part for part, keep in zip(network.tensors.slices(), network.tensors.maskable, strict=True) if keep]
        for part, count in zip(parts, _shares([part.stop - part.start for part in parts], n_kept), strict=True):
            mask[part] = top_k(scores[part], count)
        return mask

    def _scores(self, weights: Tensor, moments: Moments | None) -> Tensor:
        if moments is None or self.importance in ("magnitude", "fiarse"):
            return weights.abs()
        return (weights * moments.first).abs() if self.importance == "taylor" else weights.square() * moments.second

    @property
    def needs_moments(self) -> bool:
        """Whether the ranking reads the running moments of the aggregated update."""
        return self.importance in ("taylor", "fisher")


@dataclass(frozen=True)
class Moments:
    """Running means, decay 0.9, of the aggregated update and its square, each (n_parameters,) float32.

    Both are functions of values the clients already released.
    """

    first: Tensor
    second: Tensor

    def after(self, update: Tensor, decay: float = 0.9) -> Moments:
        """The moments once `update` has been seen."""
        return Moments(self.first.lerp(update, 1 - decay), self.second.lerp(update.square(), 1 - decay))


def kept(network: TargetNetwork, budget: float) -> int:
    """How many maskable coordinates the budget keeps.

    Raises:
        ModelError: budget outside (0, 1], or too small to keep a single coordinate.
    """
    if not 0 < budget <= 1:
        raise ModelError(
            f"budget={budget} must lie in (0, 1]: it is the share of the target network that a client can hold"
        )
    count = int(budget * network.n_maskable)
    if count == 0:
        raise ModelError(
            f"budget={budget} keeps none of {network.n_maskable} coordinates: use at least {1 / network.n_maskable:.2g}"
        )
    return count


def top_k(scores: Tensor, count: int) -> Tensor:
    """(n,) bool with exactly `count` True: the largest scores, equal ones in order of their index.

    Raises:
        ModelError: a score is not finite, or count is outside [0, n].
    """
    values = scores.detach().numpy()
    if not 0 <= count <= len(values):
        raise ModelError(f"count={count} must lie in [0, {len(values)}]")
    if not np.isfinite(values).all():
        raise ModelError(
            "importance scores are not finite: the generated weights have diverged, lower the learning rates"
        )
    if count == 0:
        return torch.zeros(len(values), dtype=torch.bool)
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    mask = values > threshold
    ties = np.flatnonzero(values == threshold)
    mask[ties[: count - int(mask.sum())]] = True
    return torch.from_numpy(mask)


def _shares(sizes: list[int], total: int) -> list[int]:
    """Splits `total` over parts in proportion to their sizes, largest remainders first, exactly."""
    exact = [total * size / sum(sizes) for size in sizes]
    counts = [int(value) for value in exact]
    order = sorted(range(len(sizes)), key=lambda part: (counts[part] - exact[part], part))
    for part in order[: total - sum(counts)]:
        counts[part] += 1
    return counts
