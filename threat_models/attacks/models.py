"""What attacks ask of a network: logits, representations, losses and gradients of single records."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from framp_private import TargetNetwork


def logits_and_features(network: TargetNetwork, weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """(n, n_classes) logits and (n, d) representations in evaluation mode."""
    network.load(weights)
    network.module.eval()
    try:
        with torch.no_grad():
            return network.forward(x)
    finally:
        network.module.train()


def losses(network: TargetNetwork, weights: Tensor, x: Tensor, y: Tensor) -> np.ndarray:
    """(n,) cross entropies."""
    logits, _ = logits_and_features(network, weights, x)
    return functional.cross_entropy(logits, y, reduction="none").numpy().astype(float)


def confidence(logits: Tensor, y: Tensor) -> np.ndarray:
    """(n,) log p_y - log(1 - p_y), from logits so that neither end saturates (LiRA, arXiv 2112.03570, section V)."""
    logits = logits.double()
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.masked_fill(functional.one_hot(y, logits.shape[1]).bool(), -torch.inf)
    return np.asarray((own - others.logsumexp(1)).numpy())


def gradients(network: TargetNetwork, weights: Tensor, mask: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(n, n_parameters) gradient of each record's cross entropy at the weights, zero outside the mask."""
    network.load(weights)
    parameters = list(network.module.parameters())
    rows = []
    for place in range(len(y)):
        logits, _ = network.forward(x[place : place + 1])
        loss = functional.cross_entropy(logits, y[place : place + 1])
        found = torch.autograd.grad(loss, parameters)
        rows.append(torch.cat([part.flatten() for part in found]) * mask)
    return torch.stack(rows)


def cosine(a: Tensor, b: Tensor) -> np.ndarray:
    """(n,) cosine of each row of a with b, 0 where either is zero."""
    scale = a.norm(dim=-1) * b.norm(dim=-1)
    return np.asarray(torch.where(scale > 0, (a * b).sum(-1) / scale.clamp(min=1e-30), 0.0).double().numpy())
