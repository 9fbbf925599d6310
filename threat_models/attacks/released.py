"""Attacks on what is published: representatives of classes (C7, E4), removed records (E6), the report itself (E7)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def representative(
    model: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    label: int,
    *,
    steps: int = 200,
    rate: float = 0.1,
    smoothness: float = 0.01,
) -> Tensor:
    """C7, E4: (1, *shape) in [0, 1]: the input of which a model is surest that it is of a class.

    Gradient ascent on log p_y with a penalty on roughness (Fredrikson et al., CCS 2015, algorithm 1). It shows what
    a class is like; of a class that is one person's records, it shows that person. No claim on records bounds it.
    """
    x = torch.full((1, *shape), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), torch.tensor([label]))
        if x.dim() == 4:
            loss = loss + smoothness * (x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    return x.detach()


def forgotten(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """E6: (n,) scores of having been removed between two releases: how much surer the first model was.

    Unlearning a record by training again releases a second model, and the difference is about that record alone.
    """
    return np.asarray(before - after)


def artefacts(report: dict[str, Any], names: Sequence[str], records: np.ndarray) -> list[str]:
    """E7: what a report holds of single people: names of record owners, or numbers of one record in a row.

    Args:
        report: `audit.json`. names: that may not occur (of people, record numbers; client names may). records: (n, d)
            feature rows, of which no six neighbouring values with three different ones among them may stand in a row.
    """
    text = json.dumps({key: value for key, value in report.items() if key != "pictures"})
    found = [f"the name {name!r}" for name in names if re.search(rf"\b{re.escape(name)}\b", text)]
    numbers = np.array([float(value) for value in _NUMBER.findall(text)])
    if len(numbers) < IN_A_ROW:
        return found
    windows = np.lib.stride_tricks.sliding_window_view(numbers, IN_A_ROW)
    for place, row in enumerate(np.asarray(records, float)):
        own = np.lib.stride_tricks.sliding_window_view(row, IN_A_ROW)
        different = np.array([len(np.unique(window)) for window in own])
        telling = own[different.argmax()]
        if different.max() >= 3 and (np.abs(windows - telling).max(1) < 1e-3).any():
            found.append(f"features of record {place}")
    return found


_NUMBER, IN_A_ROW = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"), 6
