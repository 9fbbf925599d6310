"""Scores against truth: AUC, TPR at a FPR, both with intervals, and refusals where a figure would mean nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import betaincinv
from scipy.stats import norm, rankdata, t

from threat_models.auditing.multi_run import clopper_pearson
from threat_models.errors import AuditError, NotResolvable

LEAST_FALSE_POSITIVES = 10
"""A TPR at a FPR needs so many non-members over the threshold; fewer say nothing of the FPR."""


Limits = Callable[[float], tuple[float, float]]
"""alpha -> both ends of the interval with confidence 1 - alpha."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval; `limits` gives it at any level, where that is known."""

    value: float
    low: float
    high: float
    limits: Limits | None = field(default=None, compare=False, repr=False)


def check_scores(scores: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of members and of non-members.

    Raises:
        AuditError: scores that are not finite, or shapes that differ. NotResolvable: one side is empty, or all scores
            are equal.
    """
    scores, members = np.asarray(scores, float), np.asarray(members, bool)
    if scores.shape != members.shape or scores.ndim != 1:
        raise AuditError(f"scores {scores.shape} and members {members.shape} must be two vectors of one length")
    if not np.isfinite(scores).all():
        raise AuditError(
            f"{int((~np.isfinite(scores)).sum())} scores are not finite: an attack must score every record"
        )
    if members.all() or not members.any():
        raise NotResolvable("there are only members or only non-members: nothing can be told apart")
    if scores.min() == scores.max():
        raise NotResolvable("all scores are equal: the attack says nothing, which is not the same as an AUC of 0.5")
    return scores[members], scores[~members]


def auc(scores: np.ndarray, members: np.ndarray, *, alpha: float = 0.05) -> Estimate:
    """The Mann-Whitney AUC, ties at one half, with an interval that holds at any size, on each side of it.

    An exact interval (Clopper and Pearson 1934) at the number of independent comparisons that the AUC is worth: at
    least min(m, n), into which its pairs can be split (Hoeffding 1963, section 5), and more where the variance of
    DeLong et al. (1988) says so, with Student's t for its degrees of freedom (Korn and Graubard 1998). Each side's
    variance is drawn towards the largest that this AUC can have by three made-up records, as few say little of it.
    With five records on a side even a perfect score is no proof: .025^(1/5) is under one half.

    Raises as `check_scores`.
    """
    inside, outside = check_scores(scores, members)
    n1, n0 = len(inside), len(outside)
    ranks = rankdata(np.concatenate([inside, outside]))
    value = float((ranks[:n1].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))
    above = (ranks[:n1] - rankdata(inside)) / n0  # of each member: the share of non-members below it
    below = 1 - (ranks[n1:] - rankdata(outside)) / n1

    def limits(level: float) -> tuple[float, float]:
        return exact_limits(value, _comparisons(value, above, below, level), level)

    return Estimate(value, *limits(alpha), limits)


MADE_UP = 3.0
"""Records by which a side's variance is drawn towards its largest."""


def _comparisons(value: float, above: np.ndarray, below: np.ndarray, alpha: float) -> float:
    """How many independent comparisons an AUC is worth, for an interval at 1 - alpha; see `auc`."""
    least, spread = min(len(above), len(below)), value * (1 - value)
    if least < 2 or spread <= 0:
        return float(least)
    parts = []
    for placements in (above, below):
        weight = 4 * spread * (len(placements) - 1)
        ratio = min(1.0, float(placements.var(ddof=1)) / spread)
        parts.append((weight * ratio + MADE_UP) / (weight + MADE_UP) / len(placements))
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(above) - 1) + parts[1] ** 2 / (len(below) - 1))
    return max(float(least), float(norm.isf(alpha / 2) / t.isf(alpha / 2, freedom)) ** 2 / sum(parts))


def exact_limits(value: float, trials: float, alpha: float) -> tuple[float, float]:
    """The exact interval of a share of `trials` independent trials, which need be no whole number."""
    hits = value * trials
    low = 0.0 if hits <= 0 else float(betaincinv(hits, trials - hits + 1, alpha / 2))
    high = 1.0 if value >= 1 else float(betaincinv(hits + 1, trials - hits, 1 - alpha / 2))
    return low, high


def roc(scores: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(fpr, tpr) of every threshold, from (0, 0) to (1, 1); tied scores are one step. Raises as `check_scores`."""
    check_scores(scores, members)
    scores, members = np.asarray(scores, float), np.asarray(members, bool)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    hits, misses = np.cumsum(members[order])[ends], np.cumsum(~members[order])[ends]
    return np.r_[0.0, misses / misses[-1]], np.r_[0.0, hits / hits[-1]]


def tpr_at_fpr(scores: np.ndarray, members: np.ndarray, fpr: float, *, alpha: float = 0.05) -> Estimate:
    """The largest TPR at a FPR of at most `fpr`, with the exact interval at that threshold.

    Raises:
        NotResolvable: fewer than ten non-members would be over the threshold. Else as `check_scores`.
    """
    _, outside = check_scores(scores, members)
    if len(outside) * fpr < LEAST_FALSE_POSITIVES:
        needed = math.ceil(LEAST_FALSE_POSITIVES / fpr)
        raise NotResolvable(f"TPR at FPR {fpr:g} takes {needed} non-members, there are {len(outside)}: not resolvable")
    curve = roc(scores, members)
    hits = round(float(curve[1][curve[0] <= fpr + 1e-12].max()) * int(np.sum(members)))
    n = int(np.sum(members))
    return Estimate(hits / n, *clopper_pearson(hits, n, alpha), lambda level: clopper_pearson(hits, n, level))


def worst_group(
    scores: np.ndarray, members: np.ndarray, groups: np.ndarray, *, least: int = 10
) -> Mapping[str, float | str | None]:
    """The group (class, client) with the largest AUC among those with `least` records on both sides.

    Pooled over people, a ROC is calibrated for nobody in particular (arXiv 2605.25819): the worst is named beside it.
    The largest of many is large by chance, too: it is a name to look at, without an interval, and decides nothing.
    """
    best: dict[str, float | str | None] = {"group": None, "auc": None}
    for group in np.unique(groups):
        chosen = np.asarray(groups) == group
        inside, outside = int(np.sum(members[chosen])), int(np.sum(~members[chosen]))
        if min(inside, outside) < least:
            continue
        try:
            found = auc(scores[chosen], members[chosen]).value
        except NotResolvable:
            continue
        if best["auc"] is None or found > float(best["auc"]):
            best = {"group": str(group), "auc": found}
    return best


def exact_match(guesses: np.ndarray, truth: np.ndarray, *, alpha: float = 0.05) -> Estimate:
    """The share of right guesses, with the exact interval.

    Raises:
        NotResolvable: nothing was guessed.
    """
    if len(truth) == 0:
        raise NotResolvable("nothing was guessed")
    hits = int(np.sum(np.asarray(guesses) == np.asarray(truth)))
    count = len(truth)
    return Estimate(
        hits / count, *clopper_pearson(hits, count, alpha), lambda level: clopper_pearson(hits, count, level)
    )


def share(values: np.ndarray, *, alpha: float = 0.05) -> Estimate:
    """The mean of (n,) values in [0, 1], one a client, with an interval that holds at any n.

    The exact interval of n independent trials: of all values in [0, 1] with one mean those at the ends spread most
    (Hoeffding 1963, theorem 1), so that it is wide for few clients.

    Raises:
        AuditError: a value outside [0, 1] or not finite. NotResolvable: there is none.
    """
    values = np.asarray(values, float)
    if len(values) == 0:
        raise NotResolvable("nobody was looked at")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1 + 1e-12):
        raise AuditError("a share lies outside of 0 .. 1")
    mean, n = float(min(1.0, values.mean())), len(values)
    return Estimate(mean, *exact_limits(mean, n, alpha), lambda level: exact_limits(mean, n, level))


def least(table: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """(m,) for each column of (n, m) the row of its least value; ties are drawn, and what is no number is the largest.

    No row is preferred for its place: a network that says nothing of anybody names everybody equally often.
    """
    values = np.where(np.isnan(table), np.inf, np.asarray(table, float))
    rng = np.random.default_rng(seed)
    ties = values == values.min(0)
    return np.asarray(np.where(ties, rng.random(values.shape), -1.0).argmax(0))


def total_variation(first: np.ndarray, second: np.ndarray) -> float:
    """Half the L1 distance of two distributions."""
    return float(np.abs(np.asarray(first) - np.asarray(second)).sum() / 2)


def psnr(picture: np.ndarray, original: np.ndarray, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = float(np.mean((np.asarray(picture, float) - np.asarray(original, float)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)
