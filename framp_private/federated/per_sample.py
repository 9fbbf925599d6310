"""Clipped sums of per-record gradients, and the noise on them, through Opacus (Yousefpour et al., arXiv 2109.12298).

`MaskedOptimizer` is Opacus's `DPOptimizer` with two changes: norms, clipping and noise cover a mask's coordinates
only, and noise comes from the operating system. What it clips comes from one of several grad-sample modes, which
differ in speed alone (a test holds each against a loop over single records):

| mode | per-record gradients by | valid for |
|---|---|---|
| `bookkeeping` | `models/book_keeping.py`: one backward pass | Linear, Conv2d, GroupNorm, LayerNorm |
| `hooks` | Opacus hooks, functorch for layers they do not know | any module |
| `ew` | Opacus expanded weights | modules whose layers PyTorch expands |
| `functorch` | Opacus, functorch for all layers | any module |
| `loop` | one backward pass per record | any module, graph networks included |
| `ghost` | Opacus ghost norms and a second backward pass | a full mask |
| `auto` | the fastest that is valid: `bookkeeping`, else `hooks` | any module |
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleExpandedWeights
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from framp_private.errors import ModelError
from framp_private.models.book_keeping import clipped_sum, recording, supported
from framp_private.models.target import TargetNetwork
from framp_private.privacy.clipping import clip_factors
from framp_private.privacy.noise import standard_gaussian
from framp_private.randomness import Entropy

Mode = Literal["auto", "bookkeeping", "hooks", "ew", "functorch", "ghost", "loop"]
Loss = Callable[[nn.Module], Tensor]
"""Calls the given module on a batch under the loaded weights: (n,) losses, one a record."""
Factors = Callable[[Tensor], Tensor]
"""(n,) squared norms -> (n,) clipping factors."""
Plant = Callable[[Tensor], Tensor]
"""(n_parameters,) clipped sum -> the same with canaries."""


def chosen(mode: Mode, network: TargetNetwork, full: bool) -> Mode:
    """The mode that will run: `auto` resolved. Raises `ModelError` for one that is not valid for the network."""
    known = supported(network.module)
    if mode == "auto":
        return "bookkeeping" if known else "hooks"
    if mode == "bookkeeping" and not known:
        raise ModelError("mode='bookkeeping' knows Linear, Conv2d, GroupNorm and LayerNorm layers: use mode='auto'")
    if mode == "ghost" and not full:
        raise ModelError("mode='ghost' has norms over all coordinates, and the mask drops some: use mode='auto'")
    return mode


class MaskedOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimizer on a mask, with noise from `Entropy`.

    After `noisy_gradient` the network's flat gradient holds (clipped sum + noise) / expected batch size on the mask and
    zero elsewhere. What moves the weights by it is the caller's business.
    """

    def __init__(
        self,
        network: TargetNetwork,
        mask: Tensor,
        entropy: Entropy,
        *,
        clip_norm: float,
        noise_multiplier: float,
        expected_batch_size: float,
    ) -> None:
        super().__init__(
            torch.optim.SGD(network.module.parameters(), lr=1.0),
            noise_multiplier=noise_multiplier,
            max_grad_norm=clip_norm,
            expected_batch_size=expected_batch_size,
            loss_reduction="mean",
        )
        self._network, self._entropy, self._mask = network, entropy, None if bool(mask.all()) else mask
        self._factor = None if self._mask is None else mask.float()
        self._n_noisy = int(mask.sum())
        self._clipped = torch.zeros(network.n_parameters)
        self.clip_fraction = 0.0

    @property
    def signal_to_noise(self) -> float:
        """Norm of the last clipped sum over the expected norm of the noise on it."""
        deviation = self.noise_multiplier * self.max_grad_norm * max(1, self._n_noisy) ** 0.5
        return float(self._clipped.norm()) / float(deviation)

    def noisy_gradient(self, loss: Loss | None, mode: Mode, plant: Plant | None = None) -> Tensor:
        """(n_parameters,) one step's gradient; `loss` None is the empty batch: noise alone.

        plant: sees the clipped sum and returns it with an auditor's canaries in it.
        """
        if loss is None:
            self._clipped, self.clip_fraction = torch.zeros(self._network.n_parameters), 0.0
        else:
            self._clipped = _SUMS[mode](self._network, loss, self._factor, self._factors)
        if plant is not None:
            self._clipped = plant(self._clipped)
        self.add_noise()
        self.scale_grad()
        return self._network.gradient

    def _factors(self, squared_norms: Tensor) -> Tensor:
        self.clip_fraction = float((squared_norms > self.max_grad_norm**2).double().mean())
        return clip_factors(squared_norms, self.max_grad_norm)

    def add_noise(self) -> None:
        """Noise on the mask's coordinates, added in float64."""
        noise = standard_gaussian(self._n_noisy, self._entropy).mul_(self.noise_multiplier * self.max_grad_norm)
        if self._mask is None:
            self._network.gradient.copy_(noise.add_(self._clipped))
            return
        self._network.gradient.zero_()
        self._network.gradient[self._mask] = noise.add_(self._clipped[self._mask]).float()

    def scale_grad(self) -> None:
        """Division by the public, expected batch size."""
        self._network.gradient.div_(self.expected_batch_size)


def summed_clipped(
    network: TargetNetwork, mask: Tensor, loss: Loss, clip_norm: float, mode: Mode
) -> tuple[Tensor, float]:
    """(n_parameters,) sum of per-record gradients, each cut to the mask and clipped; and the share that was clipped."""
    seen = [0.0]

    def factors(squared_norms: Tensor) -> Tensor:
        seen.append(float((squared_norms > clip_norm**2).double().mean()))
        return clip_factors(squared_norms, clip_norm)

    full = bool(mask.all())
    found = _SUMS[chosen(mode, network, full)](network, loss, None if full else mask.float(), factors)
    return found, seen[-1]


def _bookkeeping(network: TargetNetwork, loss: Loss, mask: Tensor | None, factors: Factors) -> Tensor:
    with recording(network.module) as calls:
        loss(network.module).sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            return clipped_sum(calls, network.tensors, mask, factors)


def _from_grad_samples(wrap: Callable[[nn.Module], GradSampleModule]) -> Callable[..., Tensor]:
    def summed(network: TargetNetwork, loss: Loss, mask: Tensor | None, factors: Factors) -> Tensor:
        with _wrapped(network, wrap) as wrapped:
            loss(wrapped).sum().backward()  # type: ignore[no-untyped-call]
            rows = torch.cat([value.grad_sample.flatten(1) for value in network.module.parameters()], 1)  # type: ignore[attr-defined]
        return _clipped(rows, mask, factors)

    return summed


def _loop(network: TargetNetwork, loss: Loss, mask: Tensor | None, factors: Factors) -> Tensor:
    losses, parameters = loss(network.module), list(network.module.parameters())
    found = (torch.autograd.grad(each, parameters, retain_graph=True) for each in losses)
    return _clipped(torch.stack([torch.cat([part.flatten() for part in parts]) for parts in found]), mask, factors)


def _clipped(rows: Tensor, mask: Tensor | None, factors: Factors) -> Tensor:
    """(n_parameters,) the sum of (n, n_parameters) gradients, each cut to the mask and scaled by its factor."""
    if mask is not None:
        rows = rows * mask
    scale = factors(rows.double().square().sum(1)).float()
    return scale @ torch.nan_to_num(rows, 0.0, 0.0, 0.0)


def _ghost(network: TargetNetwork, loss: Loss, mask: Tensor | None, factors: Factors) -> Tensor:
    with _wrapped(
        network, lambda module: GradSampleModuleFastGradientClipping(module, loss_reduction="sum")
    ) as wrapped:
        losses = loss(wrapped)
        losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        scale = factors(wrapped.get_norm_sample().double().square())
        if bool((scale > 0).all()):
            wrapped.disable_hooks()
            network.gradient.zero_()
            (losses * scale.float()).sum().backward()  # type: ignore[no-untyped-call]
            return network.gradient.clone()
    # zero times a gradient that is not finite would not be zero in a shared backward pass
    return _SUMS["hooks"](network, loss, mask, factors)


@contextmanager
def _wrapped(network: TargetNetwork, wrap: Callable[[nn.Module], GradSampleModule]) -> Iterator[GradSampleModule]:
    """Opacus's hooks on the network's module inside, and gradients as they were afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = wrap(network.module)
        try:
            yield wrapped
        finally:
            wrapped.to_standard_module()


_SUMS: dict[str, Callable[..., Tensor]] = {
    "bookkeeping": _bookkeeping,
    "hooks": _from_grad_samples(lambda module: GradSampleModule(module, loss_reduction="sum")),
    "functorch": _from_grad_samples(
        lambda module: GradSampleModule(module, loss_reduction="sum", force_functorch=True)
    ),
    "ew": _from_grad_samples(lambda module: GradSampleModuleExpandedWeights(module, loss_reduction="sum")),
    "ghost": _ghost,
    "loop": _loop,
}
