"""Gaussian noise on a channel from each client, for records; what trusted servers do is in `protections/central.py`.

Clip and noise stand in one value, because two numbers that must agree otherwise drift apart. The standard deviation
of the noise is clip_norm * noise_multiplier on each coordinate (Dwork and Roth 2014, appendix A; accounted exactly
by the ledger, not by that appendix's tail bound).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np
from dp_accounting import GaussianDpEvent

from framp_private.errors import PrivacyParameterError
from framp_private.privacy.claims import Unit
from framp_private.privacy.clipping import check_clip, check_noise
from framp_private.privacy.events import Event
from framp_private.privacy.noise import add_gaussian
from framp_private.protections.base import Exchange, Lift, Meeting, Protection, Seat, ServerView, Session
from framp_private.protections.plain import PlainSum
from framp_private.randomness import Entropy


@dataclass(frozen=True)
class Gaussian(Protection):
    """What both have: a bound, the noise for it, and what carries the result."""

    clip_norm: float
    noise_multiplier: float
    inner: Protection = PlainSum()

    def __post_init__(self) -> None:
        check_clip(self.clip_norm)
        check_noise(self.noise_multiplier)

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise on each coordinate."""
        return self.clip_norm * self.noise_multiplier


@dataclass(frozen=True)
class LocalGaussian(Gaussian):
    """Each client adds its own noise to a value of its own before it leaves: add/remove of the `unit`.

    Guarantees: adding or removing one record moves the value by at most `clip_norm` in L2, as long as it is a sum that
    was formed with `clip_norm` as each record's bound, or for whole clients was clipped to it (who forms it asks this
    value for it); the noise is fresh for each call. It holds against every server. Entries that are not finite leave as
    noise alone.

    Args:
        clip_norm: L2 bound on one record's share of the sum, or on a client's whole value, in (0, inf).
        noise_multiplier: noise standard deviation over clip_norm, in (0, inf).
        inner: what carries the noised sum. unit: record, or client.

    Raises:
        PrivacyParameterError: a bound or a multiplier outside its range, or another unit.
    """

    unit: Unit = "record"
    randomised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit not in ("record", "client"):
            raise PrivacyParameterError(f"unit={self.unit!r} must be 'record' or 'client'")

    def protect(self, value: np.ndarray, entropy: Entropy, seat: Seat | None = None) -> bytes:
        """The noised sum; call it once per release."""
        finite = np.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0)
        return self.inner.protect(add_gaussian(finite, self.deviation, entropy), entropy, seat)

    def reveal(self, payload: bytes) -> np.ndarray:
        """One client's noised sum."""
        return self.inner.reveal(payload)

    def open(
        self, cohort: Sequence[str], size: int | None, lift: Lift, exchange: Exchange, meeting: Meeting | None = None
    ) -> Session:
        """The inner protection's session: noised values are summed like any others."""
        return self.inner.open(cohort, size, lift, exchange, meeting)

    def event(self, cohort: Sequence[str], size: int = 0) -> Event:
        """One Gaussian release of `size` values for each client."""
        del cohort
        return Event(GaussianDpEvent(self.noise_multiplier), self.unit, noise_values=size)

    def server_view(self) -> ServerView:
        """What the inner protection shows, with each value noised."""
        view = self.inner.server_view()
        return replace(view, trust="nobody: each client adds its own noise")


Outer = TypeVar("Outer", bound=Gaussian)


def chain(outer: Outer, inner: Protection) -> Outer:
    """`outer` around `inner`: what the client makes of a value passes through both, outermost first."""
    return replace(outer, inner=inner)
