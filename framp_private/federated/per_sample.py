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
| `vmap` | `torch.func`, each record with weights of its own, which are all the same | modules that `torch.func` takes |
| `single` | one forward and one backward pass per record, each alone in its batch | any module |
| `ghost` | Opacus ghost norms and a second backward pass | a full mask |
| `auto` | the fastest that is right for the network, by `separate_records` | any module that takes records apart |

**What one record's gradient may depend on.** On that record and the weights, and on nothing else, to the last bit: a
server may send weights at which a change of rounding is a change of any size. Matrix products round by the shape of
what they are given, so records always come in micro-batches of one size, which follows from the network alone; the last
one is filled up with a repeated record whose factor is zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleExpandedWeights
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.func import functional_call

from framp_private.errors import ModelError
from framp_private.federated.micro_batches import Losses, micro_batch, padded
from framp_private.federated.separate_records import Ways, found
from framp_private.models.book_keeping import clipped_sum, recording, supported
from framp_private.models.flat import weighted
from framp_private.models.target import TargetNetwork
from framp_private.privacy.clipping import clip_factors
from framp_private.privacy.noise import on_grid, standard_gaussian
from framp_private.randomness import Entropy

Mode = Literal["auto", "bookkeeping", "hooks", "ew", "functorch", "vmap", "ghost", "loop", "single"]
Loss = Callable[[nn.Module], Tensor]
"""Calls the given module on a batch under the loaded weights: (n,) losses, one a record."""


Factors = Callable[[Tensor], Tensor]
"""(n,) squared norms -> (n,) clipping factors."""
Plant = Callable[[Tensor], Tensor]
"""(n_parameters,) clipped sum -> the same with canaries."""


def chosen(mode: Mode, network: TargetNetwork, full: bool) -> Mode:
    """The mode that will run: `auto` resolved. Raises `ModelError` for one that is not valid for the network.

    What `auto` is for a network that was not tried yet, its layers suggest; `right` tries.
    """
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
        self._over = self._seen = 0
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
        self._over, self._seen = 0, 0
        if loss is None:
            self._clipped = torch.zeros(self._network.n_parameters)
        else:
            self._clipped = sum_in_parts(self._network, loss, self._factor, self._factors, mode)
        self.clip_fraction = self._over / max(1, self._seen)
        if plant is not None:
            self._clipped = plant(self._clipped)
        self.add_noise()
        self.scale_grad()
        return self._network.gradient

    def _factors(self, squared_norms: Tensor) -> Tensor:
        self._over += int((squared_norms > self.max_grad_norm**2).sum())
        self._seen += len(squared_norms)
        return clip_factors(squared_norms, self.max_grad_norm)

    def add_noise(self) -> None:
        """Noise on the mask's coordinates, added in float64 and rounded to a public grid."""
        deviation = self.noise_multiplier * self.max_grad_norm
        noise = standard_gaussian(self._n_noisy, self._entropy).mul_(deviation)
        if self._mask is None:
            self._network.gradient.copy_(on_grid(noise.add_(self._clipped), deviation))
            return
        self._network.gradient.zero_()
        self._network.gradient[self._mask] = on_grid(noise.add_(self._clipped[self._mask]), deviation).float()

    def scale_grad(self) -> None:
        """Division by the public, expected batch size."""
        self._network.gradient.div_(self.expected_batch_size)


def summed_clipped(
    network: TargetNetwork, mask: Tensor, loss: Loss, clip_norm: float, mode: Mode
) -> tuple[Tensor, float]:
    """(n_parameters,) float64 sum of per-record gradients, each cut to the mask and clipped; and the share clipped.

    Raises:
        ModelError: see `right`.
    """
    over, seen = 0, 0

    def factors(squared_norms: Tensor) -> Tensor:
        nonlocal over, seen
        over += int((squared_norms > clip_norm**2).sum())
        seen += len(squared_norms)
        return clip_factors(squared_norms, clip_norm)

    full = bool(mask.all())
    used = right(mode, network, full, _shape_of(network, loss))
    return sum_in_parts(network, loss, None if full else mask.float(), factors, used), over / max(1, seen)


def right(mode: Mode, network: TargetNetwork, full: bool, shape: tuple[int, ...]) -> Mode:
    """The mode that will run for records of a shape, tried once on made-up ones; see `separate_records.found`.

    Where the mode that was asked for is not right for the network, or not on this machine, it is a slower one that is.

    Raises:
        ModelError: the mode is not valid for the network, or the network does not take each record for itself.
    """
    if mode == "auto":
        modes: tuple[Mode, ...] = ("bookkeeping", "hooks", "functorch", "vmap", "single")
        modes = modes if supported(network.module) else modes[1:]
    else:
        modes = (chosen(mode, network, full), "vmap", "single")
    key = (mode, tuple(shape))
    if key not in network.gradients:
        everything = Ways(
            modes,
            lambda made, of, rows, factors: sum_in_parts(network, Losses(of, rows), None, factors, made),  # type: ignore[arg-type]
            lambda made, of, rows, factors: _SUMS[made](network, Losses(of, rows), None, factors),
            lambda made: micro_batch(network, made),
        )
        network.gradients[key] = found(network, tuple(shape), everything)
    return network.gradients[key]  # type: ignore[return-value]


def _shape_of(network: TargetNetwork, loss: Loss) -> tuple[int, ...]:
    """The shape of one record, seen where a loss calls the network."""
    shapes: list[tuple[int, ...]] = []
    handle = network.module.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[1:])))
    try:
        with (
            torch.no_grad(),
            suppress(RuntimeError, LookupError, ValueError, TypeError),
        ):  # seen first
            (loss.at(loss.rows[:1]) if isinstance(loss, Losses) else loss)(network.module)
    finally:
        handle.remove()
    return shapes[0]


def sum_in_parts(network: TargetNetwork, loss: Loss, mask: Tensor | None, factors: Factors, mode: Mode) -> Tensor:
    """(n_parameters,) float64 the sum over records, in micro-batches of one size where the loss can be asked in parts.

    factors: is given the squared norms of real records alone.
    """
    if not isinstance(loss, Losses):
        return _SUMS[mode](network, loss, mask, factors).double()
    size, total = micro_batch(network, mode), torch.zeros(network.n_parameters, dtype=torch.float64)
    for rows in torch.split(loss.rows, size) if len(loss.rows) else ():
        total += _one_part(network, loss, rows, size, mask, factors, mode)
    return total


def _one_part(
    network: TargetNetwork, loss: Losses, rows: Tensor, size: int, mask: Tensor | None, factors: Factors, mode: Mode
) -> Tensor:
    """The sum over at most `size` records, in a batch of exactly that many.

    One that the network raises an error for counts as zero, as one that is not finite does, and is left out of the
    batch: an error that ends the run would tell of the record.
    """

    def of_live(squared_norms: Tensor) -> Tensor:
        found = torch.zeros_like(squared_norms)
        found[: len(rows)] = factors(squared_norms[: len(rows)])
        return found

    try:
        return _SUMS[mode](network, loss.at(padded(rows, size)), mask, of_live)
    except (RuntimeError, LookupError, ValueError, TypeError):
        fit = torch.tensor([row for row in rows.tolist() if _taken(network, loss, row)], dtype=rows.dtype)
        if len(fit) == len(rows):
            raise
    if not len(fit):
        return torch.zeros(network.n_parameters)
    return _one_part(network, loss, fit, size, mask, factors, mode)


def _taken(network: TargetNetwork, loss: Losses, row: int) -> bool:
    """Whether the network takes a record at all."""
    try:
        with torch.no_grad():
            loss.at(torch.tensor([row]))(network.module)
    except (RuntimeError, LookupError, ValueError, TypeError):
        return False
    return True


def _bookkeeping(network: TargetNetwork, loss: Loss, mask: Tensor | None, factors: Factors) -> Tensor:
    with recording(network.module) as calls:
        loss(network.module).sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            return clipped_sum(calls, network.tensors, mask, factors)


def _from_grad_samples(wrap: Callable[[nn.Module], GradSampleModule]) -> Callable[..., Tensor]:
    def summed(network: TargetNetwork, loss: Loss, mask: Tensor | None, factors: Factors) -> Tensor:
        with _wrapped(network, wrap) as wrapped:
            losses = loss(wrapped)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            rows = torch.cat([_per_record(value, len(losses)) for value in network.module.parameters()], 1)
        return _clipped(rows, mask, factors)

    return summed


def _per_record(value: nn.Parameter, n: int) -> Tensor:
    """(n, numbers) gradients of one parameter; zero for one that is frozen or that nothing was computed from."""
    made = getattr(value, "grad_sample", None)
    if made is None or not value.requires_grad:
        return torch.zeros(n, value.numel())
    if not isinstance(made, Tensor) or len(made) != n:
        raise RuntimeError(f"a layer gave {len(made)} gradients for {n} records: it folds records together")
    return made.flatten(1)


def _loop(network: TargetNetwork, loss: Loss, mask: Tensor | None, factors: Factors) -> Tensor:
    losses, parameters = loss(network.module), list(network.module.parameters())
    moving = [value for value in parameters if value.requires_grad]

    def gradient(each: Tensor) -> Tensor:
        if not each.requires_grad:
            return torch.zeros(network.n_parameters)
        found = torch.autograd.grad(each, moving, retain_graph=True, allow_unused=True)
        made = dict(zip(map(id, moving), found, strict=True))
        parts = ((value, made.get(id(value))) for value in parameters)
        return torch.cat([torch.zeros(v.numel()) if g is None else g.flatten() for v, g in parts])

    return _clipped(torch.stack([gradient(each) for each in losses]), mask, factors)


def _vmap(network: TargetNetwork, loss: Loss, mask: Tensor | None, factors: Factors) -> Tensor:
    """All records side by side, one product for each: none depends in shape or place in memory on the others."""
    if not isinstance(loss, Losses):
        return _SUMS["loop"](network, loss, mask, factors)
    module, n = network.module, len(loss.rows)
    with torch.no_grad():  # an index out of range raises here; below it would reach into another record's weights
        loss(module)
    moving = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}

    def one(weights: dict[str, Tensor], row: Tensor) -> Tensor:
        def called(x: Tensor) -> Any:
            return functional_call(module, weights, (x,))

        return loss.of(row[None], called)[0]  # type: ignore[arg-type]

    copies = {name: value.expand(n, *value.shape) for name, value in moving.items()}
    found = torch.func.vmap(torch.func.grad(one), randomness="error")(copies, loss.rows)
    parts = [
        found[name].flatten(1) if name in found else torch.zeros(n, value.numel())
        for name, value in module.named_parameters()
    ]
    return _clipped(torch.cat(parts, 1).detach(), mask, factors)


def _clipped(rows: Tensor, mask: Tensor | None, factors: Factors) -> Tensor:
    """(n_parameters,) the sum of (n, n_parameters) gradients, each cut to the mask and scaled by its factor."""
    if mask is not None:
        rows = rows * mask
    scale = factors(rows.double().square().sum(1)).float()
    return weighted(scale, torch.nan_to_num(rows, 0.0, 0.0, 0.0))


def _ghost(network: TargetNetwork, loss: Loss, mask: Tensor | None, factors: Factors) -> Tensor:
    with _wrapped(
        network, lambda module: GradSampleModuleFastGradientClipping(module, loss_reduction="sum")
    ) as wrapped:
        losses = loss(wrapped)
        losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        squared = wrapped.get_norm_sample().double().square()
        scale = factors(squared)
        if bool(torch.isfinite(squared).all()):
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
    "vmap": _vmap,
    "loop": _loop,
    "single": _loop,
}
