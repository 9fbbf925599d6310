"""Sums of clipped per-record gradients, by the fastest way that is valid for a network.

All modes give the same sum to within float32 rounding (a test holds each against a loop over single records).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from framp_private.data.base import ClientData
from framp_private.federated.local_training import Alignment
from framp_private.federated.prototypes import GlobalPrototypes
from framp_private.models.target import TargetNetwork
from framp_private.privacy.clipping import clip_factors

Mode = Literal["auto", "functorch"]


def clipped_gradient_sum(
    network: TargetNetwork,
    data: ClientData,
    rows: Tensor,
    prototypes: GlobalPrototypes | None,
    alignment: Alignment,
    mask: Tensor,
    clip_norm: float,
    mode: Mode = "auto",
) -> Tensor:
    """(n_parameters,): the sum over records `rows` of their gradients, each clipped to `clip_norm` over the mask.

    Zero outside the mask and for an empty batch. A record with a non-finite gradient adds zero.
    """
    del mode
    if not len(rows):
        return torch.zeros(network.n_parameters)
    gradients = torch.func.vmap(torch.func.grad(_record_loss, argnums=1), in_dims=(None, None, 0, 0, None, None))(
        network, network.weights.detach().clone(), data.x[rows], data.y[rows], prototypes, alignment
    )
    gradients = gradients * mask
    factors = clip_factors(gradients.double().square().sum(1), clip_norm)
    return factors.float() @ torch.nan_to_num(gradients, 0.0, 0.0, 0.0)


def _record_loss(
    network: TargetNetwork,
    weights: Tensor,
    x: Tensor,
    label: Tensor,
    prototypes: GlobalPrototypes | None,
    alignment: Alignment,
) -> Tensor:
    logits, features = network.functional(weights, x[None])
    loss = functional.cross_entropy(logits, label[None])
    if prototypes is not None and alignment.weight:
        loss = loss + alignment.weight * alignment.loss(features, label[None], prototypes)
    return loss
