"""Means over seeds with their intervals, and paired differences between two settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t

CONFIDENCE = 0.95


Range = tuple[float, float]
SHARE: Range = (0.0, 1.0)
"""Of accuracies."""
AMOUNT: Range = (0.0, math.inf)
"""Of bytes and seconds."""
ANY: Range = (-math.inf, math.inf)


def range_of(measure: str) -> Range:
    """What a measure can be, by its name."""
    if measure.startswith(("accuracy", "worst", "auroc", "balanced", "local", "union", "unseen", "after")):
        return SHARE
    return AMOUNT if measure.startswith(("bytes", "seconds", "epsilon", "traffic", "loss")) else ANY


@dataclass(frozen=True)
class Interval:
    """A mean over n replicates with its 95 % confidence interval (Student's t); no interval for a single one.

    The interval ends where the measure's range does: two seeds may leave an accuracy anywhere in 0 .. 1.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    def as_row(self) -> dict[str, Any]:
        """For JSON: what is infinite is null."""
        return {key: finite(value) for key, value in asdict(self).items()}


def interval(values: Sequence[float], within: Range = ANY) -> Interval:
    """Mean and interval of at least one value; `within` is what the measure can be."""
    found = np.asarray(values, float)
    mean = float(found.mean())
    if len(found) < 2 or not np.isfinite(found).all():
        return Interval(mean, None, None, len(found))
    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found)))
    return Interval(mean, max(mean - half, min(within[0], mean)), min(mean + half, max(within[1], mean)), len(found))


@dataclass(frozen=True)
class Difference:
    """Two settings over the seeds that both have: mean difference, interval, and the two-sided p of Student's paired t.

    p is None for fewer than two seeds, and where all differences are equal: t has no distribution then.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None

    def as_row(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def difference(first: Sequence[float], second: Sequence[float], within: Range = ANY) -> Difference:
    """First minus second, paired by place; both of one length. within: what each of them can be."""
    pairs = np.asarray(first, float) - np.asarray(second, float)
    most = within[1] - within[0]
    found = interval([float(pair) for pair in pairs], (-most, most))
    spread = float(pairs.std(ddof=1)) if len(pairs) > 1 else 0.0
    p = None
    if spread > 0:
        p = float(2 * t.sf(abs(found.mean) * math.sqrt(len(pairs)) / spread, len(pairs) - 1))
    return Difference(found.mean, found.low, found.high, found.n, p)


def finite(value: Any) -> Any:
    """A value as JSON has it: None for what is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
