"""Noise that clients add before a secure sum, so that nobody has to be trusted with it: unit client or record.

Each client clips its contribution, rounds it to a grid and adds a discrete Gaussian of its own; the server opens the
sum of all (Kairouz, Liu and Steinke 2021, arXiv 2102.06387, "the distributed discrete Gaussian")::

    x  ->  y = clip(x, C) / g             g so fine that rounding costs next to nothing
       ->  r = round y up or down at random, again until |r| <= D      D^2 = (C/g)^2 + d/4 + C/g + sqrt(d)/2
       ->  r + N_Z(0, s^2)                s^2 = (z C / g)^2 / (n_min - t)
    sum of those of all survivors, in the ring, times g

For single records, x is a sum over a client's records, each of which moves it by C at most: it is not clipped as a
whole but rounded to the nearest integers, and D = C / g + sqrt(d), as a record may change how every coordinate rounds.

n_min clients survive at least, or nothing is opened: the secure sum's rule, which clients enforce themselves. t clients
may tell others their share of the noise. So the sum holds at least n_min - t unknown shares, whose variance is (z C)^2.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from dp_accounting import ZCDpEvent

from framp_private.crypto.ring import Ring
from framp_private.errors import PlanError, PrivacyParameterError
from framp_private.privacy.checks import check_real, check_whole
from framp_private.privacy.claims import Unit
from framp_private.privacy.clipping import clip_vector
from framp_private.privacy.discrete import LARGEST as WIDEST_GAUSSIAN
from framp_private.privacy.discrete import discrete_gaussian
from framp_private.privacy.events import Event
from framp_private.privacy.skellam import LARGEST as WIDEST_SKELLAM
from framp_private.privacy.skellam import SkellamDpEvent, skellam
from framp_private.protections.base import Exchange, Lift, Meeting, Seat, ServerView, Session, Total
from framp_private.protections.gaussian import Gaussian
from framp_private.protections.secagg.value import SecAgg
from framp_private.randomness import Entropy

FAR = 20.0
"""Standard deviations of one client's noise that the ring has room for: more, which is cut off, has probability below
2^-280, and below 2^-190 for Skellam noise of a variance of 400 or more."""


@dataclass(frozen=True)
class Distributed(Gaussian):
    """Clients add integer noise, in shares, to contributions that are bounded, before they are summed.

    Guarantees: add/remove of the `unit`, against a server that follows the protocol, everybody who sees the sum, and
    `colluding` clients, however many drop out. Contributions that are not finite count as zero.

    Args:
        clip_norm: L2 bound on one client's contribution, which is clipped to it, or on one record's share of the
            contribution, which whoever formed it has seen to; in (0, inf).
        noise_multiplier: of the noise that is unknown to all who collude, standard deviation over clip_norm.
        inner: the secure sum; it says how many survive at least.
        colluding: clients who may give their shares of the noise away, at least 1: each knows its own.
        unit: whose contribution `clip_norm` bounds. records: for records, how many a client's sum has room for; sums
            beyond are cut off at that size, coordinate by coordinate, which moves no record's share further.
        fineness: grid steps to one clip_norm / sqrt(d), at least 1; more costs bits and saves next to nothing.

    Raises:
        PrivacyParameterError: a value outside its range.
    """

    inner: SecAgg = field(default_factory=SecAgg)
    colluding: int = 1
    fineness: float = 100.0
    unit: Unit = "client"
    records: int = 1
    randomised: ClassVar[bool] = True
    noises_in_shares: ClassVar[bool] = True
    widest: ClassVar[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.inner, SecAgg):
            raise PlanError(f"distributed noise goes into the integers of SecAgg, not of {type(self.inner).__name__}")
        if (self.inner.bound, self.inner.step) != (SecAgg.bound, SecAgg.step):
            raise PlanError(
                f"bound={self.inner.bound}, step={self.inner.step}: where clients add noise, both follow from "
                "clip_norm, noise and fineness; leave them out of the SecAgg inside"
            )
        # what a client's noise may exceed is cut off, as an error would tell of the value: the value says so itself
        object.__setattr__(self, "inner", replace(self.inner, beyond="clip"))
        check_real(self, "fineness")
        check_whole(self, "colluding")
        check_whole(self, "records")
        if self.unit not in ("client", "record"):
            raise PrivacyParameterError(f"unit={self.unit!r} must be 'client' or 'record'")
        if self.colluding < 1 or not 1 <= self.fineness < math.inf or self.records < 1:
            raise PrivacyParameterError(
                f"colluding={self.colluding}, fineness={self.fineness}, records={self.records}: all are at least 1, as "
                "every client knows its own share"
            )

    def check(self, cohort: int, guarded: bool, size: int = 0) -> None:
        """Raises `PlanError` unless enough clients survive for the noise to have unknown shares.

        And `PrivacyParameterError` for a share wider than what can be drawn exactly.
        """
        del guarded  # what it gives to the sum fits the ring, whatever the records are
        self.inner.terms(cohort)
        self.unknown(cohort)
        if size:
            self.ring(size, cohort)
        if size and self.share_deviation(size, cohort) > self.widest:
            raise PrivacyParameterError(
                f"a share of noise of {self.share_deviation(size, cohort):g} units is wider than {self.widest:g}: "
                "use a lower fineness"
            )

    def unknown(self, cohort: int) -> int:
        """How many shares of the noise nobody knows but who drew them, at least; raises `PlanError` for none."""
        count = self.inner.least_survivors(cohort) - self.colluding
        if count < 1:
            raise PlanError(
                f"{self.inner.least_survivors(cohort)} of {cohort} clients survive at least and colluding="
                f"{self.colluding}: no share of the noise is unknown; ask more clients, or raise survivors"
            )
        return count

    def grid(self, size: int) -> float:
        """What one unit of the integers stands for."""
        return self.clip_norm / (self.fineness * math.sqrt(max(1, size)))

    def bound(self, size: int) -> float:
        """D: how far one client or record moves the integers (ibid., section on rounding, beta = exp(-1/2))."""
        scaled, side = self.clip_norm / self.grid(size), math.sqrt(max(1, size))
        if self.unit == "record":
            return scaled + side
        return min(math.sqrt(scaled**2 + side**2 / 4 + scaled + side / 2), scaled + side)

    def share_deviation(self, size: int, cohort: int) -> float:
        """Standard deviation of one client's noise, in units."""
        return self.deviation / self.grid(size) / math.sqrt(self.unknown(cohort))

    def ring(self, size: int, cohort: int) -> Ring:
        """Integers in which no sum of a cohort wraps, as wide as the secure sum's `ring_bits` if it has some.

        Raises `PrivacyParameterError` for a ring too narrow.
        """
        room = math.ceil(self._largest(size) + FAR * self.share_deviation(size, cohort))
        return self.inner.widened(Ring.fitting(cohort, float(room), 1.0), cohort)

    def _largest(self, size: int) -> float:
        """The largest size of a client's integers before noise."""
        return self.bound(size) if self.unit == "client" else self.records * self.clip_norm / self.grid(size) + 1

    def rounded(self, value: np.ndarray, entropy: Entropy) -> np.ndarray:
        """(n,) int64 the contribution in units, before noise; entries that are not finite count as zero."""
        flat, grid = np.ravel(value), self.grid(value.size)
        if self.unit == "client":
            scaled = clip_vector(flat, self.clip_norm).astype(np.float64) / grid
            return conditional_rounding(scaled, self.bound(value.size), entropy)
        finite = np.nan_to_num(np.asarray(flat, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        most = math.floor(self._largest(value.size))
        return np.clip(np.rint(finite / grid), -most, most).astype(np.int64)

    def protect(self, value: np.ndarray, entropy: Entropy, seat: Seat | None = None) -> bytes:
        """The masked, noised contribution; call it once per release."""
        if seat is None:
            raise PlanError("a secure sum is no single message: it takes a round's keys")
        size = value.size
        rounded = self.rounded(value, entropy)
        noise = self.share(size, seat.planned, entropy)
        ring = self.ring(size, seat.planned)
        return self.inner.mask(seat.cut(rounded + noise, ring.levels), ring, seat)

    def reveal(self, payload: bytes) -> np.ndarray:
        """Refused: the server sees no client's value."""
        return self.inner.reveal(payload)

    def open(
        self, cohort: Sequence[str], size: int | None, lift: Lift, exchange: Exchange, meeting: Meeting | None = None
    ) -> Session:
        """The secure sum's session on this channel's integers."""
        del exchange
        if size is None:
            raise PlanError("a secure sum takes values of one size")
        return _Scaled(self.inner.session(cohort, size, lift, meeting, self.ring(size, len(cohort))), self.grid(size))

    @abstractmethod
    def share(self, size: int, cohort: int, entropy: Entropy) -> np.ndarray:
        """(size,) int64 one client's noise, of `share_deviation`, in units."""

    def server_view(self) -> ServerView:
        """Noised sums alone."""
        view = self.inner.server_view()
        given = "1 client gives its" if self.colluding == 1 else f"{self.colluding} clients give their"
        trust = f"{view.trust}, of whom at most {given} noise away"
        return replace(view, trust=trust)


@dataclass(frozen=True)
class DistributedGaussian(Distributed):
    """Shares are discrete Gaussians, whose sum is close to one, and accounted as far from it as it is."""

    widest: ClassVar[float] = WIDEST_GAUSSIAN

    def share(self, size: int, cohort: int, entropy: Entropy) -> np.ndarray:
        """See `Distributed`."""
        return discrete_gaussian(size, self.share_deviation(size, cohort), entropy)

    def event(self, cohort: Sequence[str], size: int = 0) -> Event:
        """Concentrated DP of a sum of n discrete Gaussians of deviation s (ibid., theorem 1).

        rho = e^2 / 2 with e = min(sqrt(D^2 / (n s^2) + tau d / 2), D / (sqrt(n) s) + tau sqrt(d)) and
        tau = 10 sum over k = 1 .. n - 1 of exp(-2 pi^2 s^2 k / (k + 1)): how far the sum is from a discrete Gaussian.
        """
        count = self.unknown(len(cohort))
        s, bound = self.share_deviation(size, len(cohort)), self.bound(size)
        tau = 10 * math.fsum(math.exp(-2 * (math.pi * s) ** 2 * k / (k + 1)) for k in range(1, count))
        ratio = bound / (math.sqrt(count) * s)
        epsilon = min(math.sqrt(ratio**2 + tau * size / 2), ratio + tau * math.sqrt(size))
        return Event(ZCDpEvent(epsilon**2 / 2), self.unit)


@dataclass(frozen=True)
class DistributedSkellam(Distributed):
    """Shares are Skellam, whose sum is Skellam exactly (Agarwal, Kairouz and Liu 2021, arXiv 2110.04995).

    Its tails are heavier than a Gaussian's, which costs where a unit of the grid is not small against the noise.
    """

    widest: ClassVar[float] = math.sqrt(WIDEST_SKELLAM)

    def share(self, size: int, cohort: int, entropy: Entropy) -> np.ndarray:
        """See `Distributed`."""
        return skellam(size, self.share_deviation(size, cohort) ** 2, entropy)

    def event(self, cohort: Sequence[str], size: int = 0) -> Event:
        """The sum of all unknown shares; integers at most D apart in L2 are at most min(D^2, sqrt(d) D) apart in L1."""
        bound = self.bound(size)
        variance = self.unknown(len(cohort)) * self.share_deviation(size, len(cohort)) ** 2
        return Event(SkellamDpEvent(variance, bound, min(bound**2, math.sqrt(size) * bound)), self.unit)


class _Scaled(Session):
    def __init__(self, inner: Session, grid: float) -> None:
        self._inner, self._grid = inner, grid

    def brief(self, client: str) -> bytes | None:
        return self._inner.brief(client)

    def add(self, client: str, payload: bytes) -> None:
        self._inner.add(client, payload)

    def close(self, exchange: Exchange) -> Total:
        total = self._inner.close(exchange)
        return replace(total, value=total.value * self._grid)


def conditional_rounding(values: np.ndarray, bound: float, entropy: Entropy) -> np.ndarray:
    """(n,) int64: each value rounded up or down at random, without bias, drawn again until the norm is within bound.

    At most 2.6 draws in the mean; how many there were depends on the values and shows in the time it takes.
    """
    low = np.floor(values)
    share = values - low
    while True:
        buffer = bytearray(8 * values.size)
        if values.size:
            entropy.keystream().fill(buffer)
        uniform = (np.frombuffer(buffer, "<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53
        rounded = low + (uniform < share)
        if float(rounded @ rounded) <= bound**2:
            return np.asarray(rounded, np.int64)
