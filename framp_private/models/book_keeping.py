"""Clipped per-record gradient sums in one backward pass: book-keeping (Bu et al., arXiv 2210.00038, section 3).

The backward pass stops at the layers' outputs: it computes what flows back to earlier layers and no weight gradient.
From each layer's input a and output gradient b follow the per-record norms, and then one weighted product gives the
clipped sum::

    linear     G_i = b_i a_i^T              norm^2 on a mask M: b_i^2 M a_i^2, without forming G_i
    conv       G_i = b_i unfold(a_i)^T      formed, or where that is dearer its norm from two Gram matrices, or, on a
                                            mask, from one record after the other
    norm       G_i = sum over places of b_i (normalised a_i), and of b_i

So a step costs about what one without clipping costs. All layers with parameters must be of these kinds and be called
once in a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from framp_private.models.convolution_gradients import TOGETHER, formed, windows
from framp_private.models.flat import Tensors, weighted

Factors = Callable[[Tensor], Tensor]
"""(n,) squared norms -> (n,) clipping factors."""


@dataclass
class Call:
    """One layer's part in a forward and backward pass: its input and the gradient of its output."""

    layer: nn.Module
    given: Tensor
    back: Tensor | None = None


def supported(module: nn.Module) -> bool:
    """Whether every parameter lies in a layer of a known kind, and none is shared."""
    owned = 0
    for layer in module.modules():
        own = list(layer.parameters(recurse=False))
        if own and not _known(layer):
            return False
        owned += len(own)
    return owned == len(list(module.parameters()))


@contextmanager
def recording(module: nn.Module) -> Iterator[dict[str, Call]]:
    """Inside, a forward pass records every layer's input, and a backward pass its output gradient and no weight's.

    Raises:
        RuntimeError: a layer is called twice.
    """
    calls: dict[str, Call] = {}
    handles = [
        layer.register_forward_hook(_recorder(calls, name))
        for name, layer in module.named_modules()
        if any(True for _ in layer.parameters(recurse=False))
    ]
    moving = [value for value in module.parameters() if value.requires_grad]
    for value in moving:
        value.requires_grad_(False)
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
        for value in moving:
            value.requires_grad_(True)


def clipped_sum(calls: dict[str, Call], tensors: Tensors, mask: Tensor | None, factors: Factors) -> Tensor:
    """(total,) float64: the sum of per-record gradients, each scaled by its factor, on the mask.

    Sums over records are formed in float64, so that what one record adds is not rounded by how many others there are.

    Args:
        calls: filled by a forward and a backward pass of the *sum* of the records' losses.
        tensors: the module's. mask: (total,) of 0 and 1, float32, None for all.
        factors: from squared norms over the mask.
    """
    places = dict(zip(tensors.names, zip(tensors.slices(), tensors.shapes, strict=True), strict=True))
    parts = [
        _part(call, name, None if mask is None else lambda key: mask[places[key][0]].view(places[key][1]))
        for name, call in calls.items()
    ]
    squared = torch.stack([part.squared().double() for part in parts]).sum(0)
    scale = factors(squared).float()
    finite = bool(torch.isfinite(squared).all())  # of every number that a norm is made of, too
    total = torch.zeros(tensors.total, dtype=torch.float64)
    for part in parts:
        if not finite:
            part.clean()
        for key, value in part.weighted(scale).items():
            total[places[key][0]] = value.reshape(-1)
    return total if mask is None else total.mul_(mask)


Masks = Callable[[str], Tensor] | None


def _part(call: Call, name: str, masks: Masks) -> _Linear | _Conv | _Norm:
    if call.back is None:
        raise RuntimeError(f"nothing flows back to layer {name!r}")
    kind = _Conv if isinstance(call.layer, nn.Conv2d) else _Linear if isinstance(call.layer, nn.Linear) else _Norm
    return kind(call, f"{name}." if name else "", masks)


class _Linear:
    """Inputs (n, ..., i), output gradients (n, ..., o)."""

    def __init__(self, call: Call, prefix: str, masks: Masks) -> None:
        assert call.back is not None
        self._bias, self._prefix, self._masks = getattr(call.layer, "bias", None) is not None, prefix, masks
        self._a, self._b = call.given, call.back
        self._formed: Tensor | None = None
        if self._a.dim() > 2:
            a, b = self._a.flatten(1, -2), self._b.flatten(1, -2)
            self._formed, self._b = b.transpose(1, 2) @ a, b.sum(1)

    def squared(self) -> Tensor:
        mask = self._masks(f"{self._prefix}weight") if self._masks else None
        if self._formed is not None:
            formed = self._formed if mask is None else self._formed * mask
            found = formed.square().sum((1, 2))
        elif mask is None:
            found = self._a.square().sum(1) * self._b.square().sum(1)
        else:
            found = ((self._b.square() @ mask) * self._a.square()).sum(1)
        return found + _squared(self._b, self._masks, f"{self._prefix}bias") if self._bias else found

    def clean(self) -> None:
        _clean(self._a, self._b, self._formed)

    def weighted(self, scale: Tensor) -> dict[str, Tensor]:
        b = self._b.double() * scale[:, None]
        if self._formed is None:
            weight = b.T @ self._a.double()
        else:
            weight = weighted(scale, self._formed.flatten(1)).view(self._formed.shape[1:])
        made = {f"{self._prefix}weight": weight}
        return made | ({f"{self._prefix}bias": b.sum(0)} if self._bias else {})


class _Conv:
    """Inputs (n, c, h, w), output gradients (n, o, h', w')."""

    def __init__(self, call: Call, prefix: str, masks: Masks) -> None:
        layer = call.layer
        assert isinstance(layer, nn.Conv2d) and call.back is not None
        self._bias, self._prefix, self._masks, self._shape = layer.bias is not None, prefix, masks, layer.weight.shape
        self._b = call.back.flatten(2)  # (n, o, t)
        self._shift = self._b.sum(2)
        (_, o, t), k = self._b.shape, self._shape[1:].numel()
        large = masks is not None and len(self._b) * o * k > _IN_CACHE
        self._windows = windows(call.given, layer) if large or (masks is None and t * (k + o) < k * o) else None
        self._formed = formed(call.given, call.back, layer) if self._windows is None else None

    def squared(self) -> Tensor:
        if self._windows is not None:
            if self._masks is not None:
                found = self._one_by_one(self._masks(f"{self._prefix}weight").flatten(1))
            else:  # a sum of Grams cancels: float32 would lose half its digits
                u, b = self._windows.double(), self._b.double()
                found = ((u.transpose(1, 2) @ u) * (b.transpose(1, 2) @ b)).sum((1, 2))
            found = (found.clamp(min=0).sqrt() + self._slack(self._windows)).square()
        else:
            assert self._formed is not None
            mask = self._masks(f"{self._prefix}weight") if self._masks else None
            found = self._formed.squared(mask)
        return found + _squared(self._shift, self._masks, f"{self._prefix}bias") if self._bias else found

    def _one_by_one(self, mask: Tensor) -> Tensor:
        """(n,) squared norms of gradients that are too many to be kept: each is formed, and forgotten."""
        assert self._windows is not None
        formed, found = torch.empty_like(mask, dtype=torch.float64), []
        for b, u in zip(self._b, self._windows, strict=True):
            torch.mm(b.double(), u.double().T, out=formed)
            found.append(formed.square_().mul_(mask).sum())
        return torch.stack(found)

    def _slack(self, windows: Tensor) -> Tensor:
        """(n,) what float64 may get wrong of each record, in norm and in `weighted`, where its places cancel.

        The norm is made in another way than the sum, so that what cancels in one need not in the other: n t terms of
        size |b| |u| at a relative error of 2^-53 each, with a factor of eight to spare.
        """
        sizes = [torch.linalg.vector_norm(part.flatten(1).double(), dim=1) for part in (self._b, windows)]
        found: Tensor = sizes[0] * sizes[1] * (len(windows) * windows.shape[2] * 2.0**-50)
        return found

    def clean(self) -> None:
        _clean(self._b, self._shift, self._windows, self._formed.rows if self._formed else None)

    def weighted(self, scale: Tensor) -> dict[str, Tensor]:
        if self._windows is not None:
            weight = self._summed(scale, self._b, self._windows).view(self._shape)
        else:
            assert self._formed is not None
            weight = self._formed.weighted(scale)
        made = {f"{self._prefix}weight": weight}
        return made | ({f"{self._prefix}bias": weighted(scale, self._shift)} if self._bias else {})

    def _summed(self, scale: Tensor, b: Tensor, windows: Tensor) -> Tensor:
        """(o, k) float64, few records at a time; float32 would keep errors of cancelling places that no norm saw."""
        total = windows.new_zeros(b.shape[1], windows.shape[1], dtype=torch.float64)
        for at in range(0, len(b), TOGETHER):
            rows = slice(at, at + TOGETHER)
            scaled = b[rows].double() * scale[rows, None, None]
            total += torch.einsum("not,nkt->ok", scaled, windows[rows].double())
        return total


class _Norm:
    """GroupNorm and LayerNorm: one scale and one shift for each channel or coordinate."""

    def __init__(self, call: Call, prefix: str, masks: Masks) -> None:
        layer, back = call.layer, call.back
        assert back is not None
        self._prefix, self._masks = prefix, masks
        if isinstance(layer, nn.GroupNorm):
            normed = functional.group_norm(call.given, layer.num_groups, eps=layer.eps)
            self._weight, self._shift = (x.flatten(2).sum(2) for x in (back * normed, back))
        else:
            assert isinstance(layer, nn.LayerNorm)
            normed = functional.layer_norm(call.given, layer.normalized_shape, eps=layer.eps)
            extra = tuple(range(1, back.dim() - len(layer.normalized_shape)))
            self._weight, self._shift = (x.sum(extra) if extra else x for x in (back * normed, back))
            self._weight, self._shift = self._weight.flatten(1), self._shift.flatten(1)
        self._bias = getattr(layer, "bias", None) is not None

    def squared(self) -> Tensor:
        found = _squared(self._weight, self._masks, f"{self._prefix}weight")
        return found + _squared(self._shift, self._masks, f"{self._prefix}bias") if self._bias else found

    def clean(self) -> None:
        _clean(self._weight, self._shift)

    def weighted(self, scale: Tensor) -> dict[str, Tensor]:
        made = {f"{self._prefix}weight": weighted(scale, self._weight)}
        return made | ({f"{self._prefix}bias": weighted(scale, self._shift)} if self._bias else {})


def _squared(rows: Tensor, masks: Masks, key: str) -> Tensor:
    """(n,) squared norms of rows on the part of the mask that belongs to `key`."""
    return rows.square().sum(1) if masks is None else (rows.square() * masks(key).flatten()).sum(1)


_IN_CACHE = 1 << 22
"""Numbers in a batch of one layer's gradients beyond which they are not kept."""


def _clean(*values: Tensor | None) -> None:
    """A record that is not finite has factor zero, and zero times infinity must be zero."""
    for value in values:
        if value is not None:
            torch.nan_to_num_(value, 0.0, 0.0, 0.0)


def _recorder(calls: dict[str, Call], name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if name in calls:
            raise RuntimeError(f"layer {name!r} is called twice in one forward pass")
        if not inputs:
            raise RuntimeError(f"layer {name!r} is called by keyword")
        call = calls[name] = Call(layer, inputs[0].detach())
        if not output.requires_grad:
            output.requires_grad_()

        def keep(gradient: Tensor) -> None:
            call.back = gradient

        output.register_hook(keep)  # type: ignore[no-untyped-call]

    return record


def _known(layer: nn.Module) -> bool:
    if not all(value.requires_grad for value in layer.parameters(recurse=False)):
        return False
    if type(layer) is nn.Conv2d:
        plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
        return plain and not isinstance(layer.padding, str)
    return type(layer) in (nn.Linear, nn.GroupNorm, nn.LayerNorm)
