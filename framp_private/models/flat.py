"""One flat float32 vector for all parameters of a module, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Tensors:
    """Name, shape and start of each parameter tensor in the flat vector, in the order of `named_parameters`.

    `maskable` is False for the tensors of normalisation layers, which no budget cuts.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    maskable: tuple[bool, ...]

    @property
    def total(self) -> int:
        """Length of the flat vector."""
        return self.starts[-1] + math.prod(self.shapes[-1])

    def slices(self) -> tuple[slice, ...]:
        """The part of the flat vector that each tensor takes."""
        ends = (*self.starts[1:], self.total)
        return tuple(slice(start, end) for start, end in zip(self.starts, ends, strict=True))

    def maskable_coordinates(self) -> Tensor:
        """(total,) bool: coordinates that a submodel may drop."""
        mask = torch.zeros(self.total, dtype=torch.bool)
        for part, keep in zip(self.slices(), self.maskable, strict=True):
            mask[part] = keep
        return mask


def describe(module: nn.Module) -> Tensors:
    """Where each parameter of the module lies in its flat vector."""
    norms = (part for part in module.modules() if "Norm" in type(part).__name__)
    fixed = {id(value) for part in norms for value in part.parameters(recurse=False)}
    rows = [(name, tuple(value.shape), id(value) not in fixed) for name, value in module.named_parameters()]
    starts = [0]
    for _, shape, _ in rows[:-1]:
        starts.append(starts[-1] + math.prod(shape))
    names, shapes, maskable = zip(*rows, strict=True)
    return Tensors(names, shapes, tuple(starts), maskable)


def flatten(module: nn.Module) -> Tensor:
    """(total,) float32: a copy of the module's parameters."""
    return torch.cat([value.detach().reshape(-1) for value in module.parameters()])


def bind(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Makes parameters and gradients views of two flat vectors, and returns those: writing to them moves the module."""
    weights = flatten(module)
    gradient = torch.zeros_like(weights)
    for value, part in zip(module.parameters(), describe(module).slices(), strict=True):
        value.data = weights[part].view_as(value)
        value.grad = gradient[part].view_as(value)
    return weights, gradient


def weighted(scale: Tensor, rows: Tensor) -> Tensor:
    """(d,) float64: the sum of (n, d) rows, each times its factor, a few columns at a time."""
    factors, total = scale.double(), torch.empty(rows.shape[1], dtype=torch.float64)
    for at in range(0, rows.shape[1], _COLUMNS):
        part = slice(at, at + _COLUMNS)
        torch.mv(rows[:, part].double().T, factors, out=total[part])
    return total


_COLUMNS = 1 << 14
"""Columns that are summed together."""
