"""A target network for tables."""

from __future__ import annotations

from torch import nn


def mlp(inputs: int, n_classes: int, hidden: int = 64) -> nn.Module:
    """Two hidden ReLU layers of the same width on a table with `inputs` columns."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, n_classes),
    )
