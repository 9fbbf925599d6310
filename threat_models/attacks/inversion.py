"""Gradient inversion: records from what training on them uploads (A6).

The update of one step of plain SGD on one record is rate times the record's gradient, so an observed delta divided by
the public rate is a gradient. Attacks are functions of a differentiable module and that gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from threat_models.errors import NotResolvable

Gradients = Sequence[Tensor]
"""One tensor a parameter, in the module's order."""


def split(flat: Tensor, module: nn.Module) -> list[Tensor]:
    """A flat (n_parameters,) gradient in the shapes of the module's parameters."""
    sizes = [value.numel() for value in module.parameters()]
    return [part.view_as(value) for part, value in zip(torch.split(flat, sizes), module.parameters(), strict=True)]


def analytic_linear(weight_gradient: Tensor, bias_gradient: Tensor) -> Tensor:
    """The input of a linear layer from its gradient: x = G_W[i] / G_b[i], at the largest |G_b[i]|.

    Exact for one record (Phong et al. 2018; Geiping et al., arXiv 2003.14053, proposition 3.1). Cost: one division.

    Raises:
        NotResolvable: every bias gradient is zero.
    """
    place = int(bias_gradient.abs().argmax())
    if bias_gradient[place] == 0:
        raise NotResolvable("the layer's bias has no gradient: the record does not reach it")
    return weight_gradient[place] / bias_gradient[place]


def dlg(
    module: nn.Module,
    gradient: Gradients,
    shape: tuple[int, ...],
    label: Tensor,
    *,
    restarts: int = 3,
    iterations: int = 120,
    seed: int = 0,
) -> tuple[Tensor, float]:
    """Deep leakage from gradients: L-BFGS on |grad(x) - g|^2 (Zhu et al., arXiv 1906.08935; iDLG for the label).

    Returns the best (1, *shape) picture of all restarts and its objective. Takes a network that is twice
    differentiable: with ReLU use `cosine_inversion`. On an 8 x 8 toy 100 dB without noise, 12 dB at noise .01 of the
    clip, under the mean picture's 10.7 dB from .1 on. Cost: some hundred double backward passes a restart.
    """

    def objective(x: Tensor) -> Tensor:
        loss = functional.cross_entropy(module(x), label)
        found = torch.autograd.grad(loss, list(module.parameters()), create_graph=True)
        total = torch.zeros(())
        for part, given in zip(found, gradient, strict=True):
            total = total + (part - given).square().sum()
        return total

    best: tuple[Tensor, float] = (torch.zeros(1, *shape), float("inf"))
    for start in range(restarts):
        x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed + start)).requires_grad_()
        found = _lbfgs(objective, x, iterations)
        if found[1] < best[1]:
            best = found
    return best


def _lbfgs(objective: Callable[[Tensor], Tensor], x: Tensor, iterations: int) -> tuple[Tensor, float]:
    optimizer = torch.optim.LBFGS(
        [x],
        lr=1.0,
        max_iter=iterations,
        history_size=100,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-14,
        tolerance_change=1e-18,
    )

    def closure() -> float:
        optimizer.zero_grad()
        value = objective(x)
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    value = float(objective(x).detach())
    return x.detach().clone(), value if np.isfinite(value) else float("inf")


def cosine_inversion(
    module: nn.Module,
    gradient: Gradients,
    shape: tuple[int, ...],
    label: Tensor,
    *,
    steps: int = 300,
    smoothness: float = 1e-3,
    rate: float = 0.1,
    seed: int = 0,
) -> Tensor:
    """Inverting gradients: Adam with signed steps on 1 - cos(grad(x), g) + TV(x) (Geiping et al., arXiv 2003.14053).

    Works with ReLU and on averages over several steps. Returns (1, *shape) in [0, 1]. Cost: `steps` double backward
    passes.
    """
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=rate)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [steps // 2, 3 * steps // 4], 0.2)
    target = torch.cat([part.flatten() for part in gradient])
    for _ in range(steps):
        optimizer.zero_grad()
        loss = functional.cross_entropy(module(x), label)
        found = torch.autograd.grad(loss, list(module.parameters()), create_graph=True)
        flat = torch.cat([part.flatten() for part in found])
        value = 1 - functional.cosine_similarity(flat, target, dim=0)
        if smoothness and x.dim() == 4:
            value = value + smoothness * (x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean())
        value.backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        x.grad.sign_()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    return x.detach()


def fedavg_inversion(
    network: Callable[[Sequence[Tensor], Tensor], Tensor],
    weights: Sequence[Tensor],
    delta: Gradients,
    shape: tuple[int, ...],
    labels: Tensor,
    *,
    local_steps: int,
    rate: float,
    iterations: int = 150,
    seed: int = 0,
) -> tuple[Tensor, float]:
    """Records from several local steps: the steps are simulated, and the records optimised until the delta fits.

    Dimitrov et al. (arXiv 2206.12395) with whole-batch steps. Returns ((n, *shape) records, objective).

    Args:
        network: (weights, x) -> logits, differentiable in both. delta: given minus trained, by parameter.
        labels: (n,), known or guessed (`labels.from_bias_gradient`). rate: the public local rate.
    """

    def objective(x: Tensor) -> Tensor:
        current = [value.detach().requires_grad_() for value in weights]
        start = current
        for _ in range(local_steps):
            found = torch.autograd.grad(
                functional.cross_entropy(network(current, x), labels), current, create_graph=True
            )
            current = [value - rate * step for value, step in zip(current, found, strict=True)]
        total = torch.zeros(())
        for before, after, given in zip(start, current, delta, strict=True):
            total = total + ((before - after - given) / rate).square().sum()
        return total

    x = torch.rand(len(labels), *shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    return _lbfgs(objective, x, iterations)
