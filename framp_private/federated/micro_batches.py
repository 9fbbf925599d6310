"""Micro-batches of one size: how many records are computed together, and how the last ones are filled up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from framp_private.models.target import TargetNetwork


@dataclass(frozen=True)
class Losses:
    """The losses of some records, of which any part can be asked for. It is a `Loss` of all of them.

    of: rows and a module -> (n,) losses, one a record. rows: (n,) int64.
    """

    of: Callable[[Tensor, nn.Module], Tensor]
    rows: Tensor

    def __call__(self, module: nn.Module) -> Tensor:
        """(n,) losses of all records."""
        return self.of(self.rows, module)

    def at(self, rows: Tensor) -> Losses:
        """Those of other rows."""
        return replace(self, rows=rows)


SMALL = 1 << 18
"""Parameters up to which records come 64 at a time, and 16 beyond."""


def micro_batch(network: TargetNetwork, mode: str) -> int:
    """Records that are computed together: a fixed number for a network and a mode."""
    if mode == "single":
        return 1
    return 64 if network.n_parameters <= SMALL else 16


def padded(rows: Tensor, size: int) -> Tensor:
    """(size,) the rows, and the first of them again."""
    return torch.cat([rows, rows[:1].expand(size - len(rows))])
