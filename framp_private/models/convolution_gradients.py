"""Per-record weight gradients of a convolution, by the fastest of three ways on a CPU, and the windows that it sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from framp_private.models.flat import weighted


@dataclass
class Formed:
    """Each record's gradient of a convolution's weight, in whatever order it was made fastest.

    rows: (parts, n, numbers in a part). axes: the weight's axes (o, c, kh, kw) in the order of (part, numbers).
    """

    rows: Tensor
    axes: tuple[int, ...]
    shape: torch.Size

    def squared(self, mask: Tensor | None) -> Tensor:
        """(n,) squared norms on a mask of the weight's shape, to which it cuts the rows."""
        if mask is not None:
            self.rows.mul_(mask.permute(self.axes).reshape(len(self.rows), 1, -1))
        norms: Tensor = torch.linalg.vector_norm(self.rows, dim=2)
        return norms.square().sum(0)

    def weighted(self, scale: Tensor) -> Tensor:
        """The sum over records of scale_i times gradient i, in the weight's shape, float64."""
        total = torch.stack([weighted(scale, part) for part in self.rows])
        order = sorted(range(4), key=self.axes.__getitem__)
        return total.view([self.shape[axis] for axis in self.axes]).permute(order)


def formed(x: Tensor, back: Tensor, layer: nn.Conv2d) -> Formed:
    """Each record's weight gradient, by the fastest of three ways on a CPU."""
    (n, _, h, w), shape = back.shape, layer.weight.shape
    if shape[1] >= _GROUPED and h * w >= _PLACES and shape.numel() <= _SMALL:
        return Formed(_by_groups(x, back, layer).view(1, n, -1), (0, 1, 2, 3), shape)
    if layer.stride == (1, 1):
        return Formed(_by_rows(x, back, layer), (2, 1, 3, 0), shape)
    return Formed(_by_windows(x, back, layer), (0, 1, 2, 3), shape)


def _by_groups(x: Tensor, back: Tensor, layer: nn.Conv2d) -> Tensor:
    """(n o, c, kh, kw): one convolution in which every record is a group of its own."""
    (n, o), (_, c, kh, kw) = back.shape[:2], layer.weight.shape
    flat, out = x.reshape(1, n * c, *x.shape[2:]), back.reshape(1, n * o, *back.shape[2:])
    how = (list(layer.stride), list(layer.padding), [1, 1], False, [0, 0], n, [False, True, False])
    made: Tensor = torch.ops.aten.convolution_backward(out, flat, x.new_empty(n * o, c, kh, kw), None, *how)[1]
    return made


def _by_rows(x: Tensor, back: Tensor, layer: nn.Conv2d) -> Tensor:
    """(kh, n, c kw o): one product for each row of the kernel, of a stride of one.

    The kernel's columns are shifts that are copied, its rows are shifts by whole rows, which need no copy.
    """
    (n, o, h, w), (_, c, kh, kw) = back.shape, layer.weight.shape
    padded = _padded(x, layer)
    made = x.new_empty(kh, n, c * kw, o)
    for at in range(0, n, TOGETHER):
        few = slice(at, at + TOGETHER)
        shifted = padded[few].unfold(3, kw, 1).permute(0, 1, 4, 2, 3).reshape(-1, c * kw, padded.shape[2] * w)
        gradient = back[few].flatten(2).transpose(1, 2)
        for row in range(kh):
            torch.bmm(shifted[:, :, row * w : (row + h) * w], gradient, out=made[row, few])
    return made.flatten(2)


def _by_windows(x: Tensor, back: Tensor, layer: nn.Conv2d) -> Tensor:
    """(1, n, o c kh kw): the product with all that each output place sees, copied."""
    n, o = back.shape[:2]
    made = x.new_empty(n, o, layer.weight[0].numel())
    for at in range(0, n, TOGETHER):
        few = slice(at, at + TOGETHER)
        torch.bmm(back[few].flatten(2), windows(x[few], layer).transpose(1, 2), out=made[few])
    return made.view(1, n, -1)


_SMALL = 1 << 16
"""Numbers in one record's gradient of a layer beyond which memory is what takes the time."""

_GROUPED, _PLACES = 8, 128
"""Channels and output places from which on grouping is faster."""

TOGETHER = 16
"""Records that are worked on at a time, so that they stay in cache."""


def windows(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """(n, c * kh * kw, places): what each output place sees; faster than `unfold` on a CPU."""
    (kh, kw), (sh, sw) = layer.kernel_size, layer.stride
    seen = _padded(x, layer).unfold(2, kh, sh).unfold(3, kw, sw)  # (n, c, h', w', kh, kw)
    n, c, h, w = seen.shape[:4]
    return seen.permute(0, 1, 4, 5, 2, 3).reshape(n, c * kh * kw, h * w)


def _padded(x: Tensor, layer: nn.Conv2d) -> Tensor:
    assert not isinstance(layer.padding, str)
    ph, pw = layer.padding
    return functional.pad(x, (pw, pw, ph, ph)) if ph or pw else x
