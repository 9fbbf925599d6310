"""Many sampled Gaussian releases exactly: their epsilon, by another road than the ledger's, and their best test.

The privacy loss of one step is a function of a Gaussian, so its distribution is known in closed form on any grid; that
of many steps is a convolution, which is a power of the transform (Koskela, Jälkö and Honkela, arXiv 1906.03049;
Gopi, Lee and Wutschitz, arXiv 2106.02848). Losses are rounded to the nearest place of the grid: the error of T steps is
of the order of sqrt(T) places. Losses that would leave the grid are told before: nothing wraps around.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from threat_models.errors import AuditError

PLACES, MOST = 2**19, 60.0
"""Places of the grid, and the loss at which it ends on both sides: a place is 2.3e-4."""


@dataclass(frozen=True)
class Release:
    """`count` Gaussian releases of multiplier z > 0, of which each record is in with chance q in (0, 1]."""

    z: float
    q: float
    count: int


@dataclass(frozen=True)
class ApproximateDp:
    """One release of which nothing is known but that it is (epsilon, delta)-DP: the worst that this admits.

    With chance delta everything is told; else the loss is epsilon or minus epsilon, as of randomised response (Kairouz,
    Oh and Viswanath, arXiv 1311.0776, theorem 3.4).
    """

    epsilon: float
    delta: float


Releases = Sequence[Release | ApproximateDp]


def epsilon(releases: Releases, delta: float) -> float:
    """The least epsilon at delta for one record added or removed; infinite over the end of the grid.

    Raises:
        AuditError: z, q, count or delta out of range.
    """
    wrong = any(isinstance(r, Release) and (not r.z > 0 or not 0 < r.q <= 1 or r.count < 0) for r in releases)
    if not 0 < delta < 1 or wrong:
        raise AuditError(f"{releases}, delta={delta}: z > 0, 0 < q <= 1, count >= 0 and 0 < delta < 1")
    return max(_epsilon(*_composed(releases, removed), delta) for removed in (True, False))


def auc(releases: Releases) -> float:
    """The area under the curve of the best test of one record, which no attack's can be over (Neyman and Pearson).

    1 where losses leave the grid.
    """
    inside, outside, told = _pair(tuple(releases))
    below = told + np.cumsum(outside) - outside  # without the record nothing is told for certain either
    return float(min(1.0, told + (inside * (below + outside / 2)).sum()))


def power(releases: Releases, fpr: float) -> float:
    """The largest TPR of a test of one record at a FPR in [0, 1]; 1 where losses leave the grid."""
    inside, outside, told = _pair(tuple(releases))
    spent, found = np.cumsum(outside[::-1]), told + np.cumsum(inside[::-1])
    return float(min(1.0, np.interp(fpr, np.r_[0.0, spent, 1.0], np.r_[told, found, 1.0])))


@lru_cache(maxsize=32)
def _pair(releases: tuple[Release | ApproximateDp, ...]) -> tuple[np.ndarray, np.ndarray, float]:
    """Chances of each loss with the record and without it, whose ratio is e^loss up to rounding; and of all being told.

    Without the record the same share says for certain that it is not there, under every loss.
    """
    inside, told = _composed(releases, True)
    outside, _ = _composed(releases, False)
    return inside, np.roll(outside[::-1], 1), told


_EDGES = np.linspace(-MOST, MOST, PLACES, endpoint=False)
_STEP = 2 * MOST / PLACES

WIDE = 8.0
"""Standard deviations of the total loss that must fit on the grid."""


def _composed(releases: Releases, removed: bool) -> tuple[np.ndarray, float]:
    """(PLACES,) chances of the total loss, place `PLACES / 2` being zero; and the chance that all is told."""
    total, kept, mean, variance = np.ones(PLACES // 2 + 1, complex), 1.0, 0.0, 0.0
    for each in releases:
        chances, count = (_of_one(each, removed), each.count) if isinstance(each, Release) else (_worst(each), 1)
        kept *= 1 - each.delta if isinstance(each, ApproximateDp) else 1.0
        step = float(chances @ _EDGES)
        mean, variance = mean + count * step, variance + count * float(chances @ (_EDGES - step) ** 2)
        total *= np.fft.rfft(np.fft.ifftshift(chances)) ** count  # so that a loss of zero is the first place
    if abs(mean) + WIDE * variance**0.5 > MOST:
        return np.zeros(PLACES), 1.0
    return kept * np.fft.fftshift(np.clip(np.fft.irfft(total, PLACES), 0, None)), 1 - kept


def _worst(release: ApproximateDp) -> np.ndarray:
    chances = np.zeros(PLACES)
    if release.epsilon >= MOST:
        chances[-1] = 1.0
        return chances
    right = 1 / (1 + np.exp(-release.epsilon))
    up = round(release.epsilon / _STEP)
    chances[PLACES // 2 + up] += right
    chances[PLACES // 2 - up] += 1 - right
    return chances


def _of_one(release: Release, removed: bool) -> np.ndarray:
    """Of one step: the loss log(1 - q + q e^((2x - 1) / 2 z^2)) grows with x, N(0, z^2) without and N(1, z^2) with."""
    edges = np.append(_EDGES, MOST) - _STEP / 2
    if removed:
        x = _place(edges, release)
        below = (1 - release.q) * ndtr(x / release.z) + release.q * ndtr((x - 1) / release.z)
    else:
        below = 1 - ndtr(_place(-edges, release) / release.z)
    below[0], below[-1] = 0.0, 1.0
    return np.asarray(np.diff(below))


def _place(loss: np.ndarray, release: Release) -> np.ndarray:
    """x at which the loss of a step is as given; -inf where it never is so low."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = (np.exp(loss) - (1 - release.q)) / release.q
        return np.where(inner > 0, release.z**2 * np.log(np.maximum(inner, 1e-300)) + 0.5, -np.inf)


def _epsilon(chances: np.ndarray, told: float, delta: float) -> float:
    def spent(at: float) -> float:
        over = at < _EDGES
        return told + float((chances[over] * -np.expm1(at - _EDGES[over])).sum())

    if spent(0.0) <= delta:
        return 0.0
    if spent(0.98 * MOST) > delta:
        return float("inf")
    return float(brentq(lambda at: spent(at) - delta, 0.0, 0.98 * MOST, xtol=1e-6))
