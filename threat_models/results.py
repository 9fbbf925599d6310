"""One line of an audit: what an attack reached, what chance and the claim admit, and how the leak is called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from scipy.special import expit, logit
from scipy.stats import norm

from threat_models.metrics import Estimate, Limits

Leak = Literal["none", "bounded", "unclear", "open", "violation"]
"""none: not in the view, or no better than chance. bounded: under a ceiling that the claim gives. unclear: over chance
by more than one would expect, but not surely, and nothing bounds it. open: surely better than chance, and nothing
bounds it. violation: surely over the ceiling."""


@dataclass(frozen=True)
class Result:
    """One attack on one asset by one adversary.

    Args:
        id: of the catalogue. value, low, high: the statistic and its interval; None where nothing could be attacked.
        baseline: what chance reaches. ceiling: what the claim admits; None without one.
        worst: the worst client, class or record, by name. words: what there is to add: why not, or how.
        curve: (fpr, tpr) of a membership test, thinned; empty for anything else. members: how many it had.
    """

    id: str
    adversary: str
    asset: str
    statistic: str
    value: float | None
    low: float | None
    high: float | None
    baseline: float | None
    ceiling: float | None
    leak: Leak
    worst: dict[str, Any] = field(default_factory=dict)
    words: str = ""
    curve: tuple[tuple[float, float], ...] = ()
    members: int | None = None
    limits: Limits | None = field(default=None, compare=False, repr=False)

    def as_row(self) -> dict[str, Any]:
        """For JSON; what is not finite is null, and said in `words`."""
        row = asdict(replace(self, limits=None))
        del row["limits"]
        for name in ("value", "low", "high", "baseline", "ceiling"):
            if row[name] is not None and not math.isfinite(row[name]):
                row[name] = None
        return row


def judged(
    id: str,
    adversary: str,
    asset: str,
    statistic: str,
    estimate: Estimate,
    *,
    baseline: float,
    ceiling: float | None,
    worst: dict[str, Any] | None = None,
    words: str = "",
    curve: tuple[tuple[float, float], ...] = (),
    members: int | None = None,
) -> Result:
    """A result of which more is worse: its leak follows from interval, chance and ceiling."""
    leak: Leak = "none"
    if ceiling is not None:
        leak = _against(ceiling, estimate.value, estimate.low, estimate.limits, CHANCE)
    elif estimate.low > baseline + 1e-9:
        leak = "open"
    elif estimate.value - baseline > UNCLEAR * (estimate.value - estimate.low) / 1.96 + 1e-9:
        leak = "unclear"
    return Result(
        id,
        adversary,
        asset,
        statistic,
        estimate.value,
        estimate.low,
        estimate.high,
        baseline,
        ceiling,
        leak,
        worst or {},
        words,
        curve,
        members,
        estimate.limits,
    )


UNCLEAR = 1.28
"""Standard errors over chance from which on a figure is not called none: one in ten by chance."""

CHANCE = 5e-4
"""That a figure is called over its ceiling wrongly, unless `shared` says otherwise."""


def _against(ceiling: float, value: float, low: float, limits: Limits | None, chance: float) -> Leak:
    """Whether the interval's lower end at the wanted level is over the ceiling.

    Where the interval is known at 95 % alone, its end is moved on the logit scale, where shares are nearly normal.
    """
    deviations = float(norm.isf(chance))
    if limits is not None:
        surely = limits(2 * chance)[0]
    elif 0 < low < value < 1:
        surely = float(expit(logit(value) - (logit(value) - logit(low)) * deviations / 1.96))
    else:
        surely = value - (value - low) * deviations / 1.96
    return "violation" if surely > ceiling + 1e-9 else "bounded"


def shared(results: Sequence[Result], alpha: float) -> list[Result]:
    """The same results, judged so that one of those with a ceiling is called a violation wrongly with chance alpha.

    Nearly: limits are asymptotic, and scores of records that one release made are not quite independent.
    """
    tested = sum(row.ceiling is not None for row in results)
    chance = alpha / max(1, tested)
    return [
        replace(row, leak=_against(row.ceiling, row.value, row.low, row.limits, chance))
        if row.ceiling is not None and row.value is not None and row.low is not None
        else row
        for row in results
    ]


def unseen(id: str, adversary: str, asset: str, statistic: str, why: str) -> Result:
    """A result of an attack that had nothing to work on."""
    return Result(id, adversary, asset, statistic, None, None, None, None, None, "none", {}, why)
