"""Noise from a trusted server on a sum of whole clients' contributions, under a clip that is fixed or adapts.

The adaptive clip follows a quantile of the contributions' norms (Andrew, Thakkar, McMahan and Ramaswamy 2021, arXiv
1905.03871, algorithm 1): each client sends, beside its contribution clipped to C, half a unit with a sign, + where the
contribution was within C. Both sums are noised, and

    C <- C * exp(-rate * (noisy share within C - quantile))

is post-processing. One client moves (sum / (z_v C), signs / s) by at most sqrt(1 / z_v^2 + 1 / (4 s^2)) in L2, s the
deviation on the summed signs. With z_v = (z^-2 - (2 s)^-2)^(-1/2) both together are one Gaussian release of multiplier
z (theorem 1): the quantile costs more noise on the values, and the event stays the same whatever C becomes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from dp_accounting import GaussianDpEvent

from framp_private.errors import PlanError, PrivacyParameterError, ProtocolError
from framp_private.privacy.checks import check_real
from framp_private.privacy.clipping import clip_vector
from framp_private.privacy.events import Event
from framp_private.privacy.noise import add_gaussian
from framp_private.protections.base import Exchange, Lift, Meeting, Seat, ServerView, Session, Total
from framp_private.protections.gaussian import Gaussian
from framp_private.randomness import Entropy

WITHIN = "signs of contributions within the clip"
"""Name of the noised sum of signs among a total's measurements."""

RANGE = 1e6
"""An adaptive clip stays within this factor of where it began."""


@dataclass(frozen=True)
class AdaptiveClip:
    """The clip follows a quantile of the norms of clients' contributions.

    Args:
        quantile: share of contributions that should lie within the clip, in (0, 1).
        rate: step in the logarithm of the clip, > 0.
        deviation: of the noise on the summed signs, > 0; the paper takes a twentieth of the cohort.

    Raises:
        PrivacyParameterError: a value outside its range.
    """

    quantile: float = 0.5
    rate: float = 0.2
    deviation: float = 5.0

    def __post_init__(self) -> None:
        for name in ("quantile", "rate", "deviation"):
            check_real(self, name)  # a string or a complex number has no order
        if not (0 < self.quantile < 1 and 0 < self.rate < math.inf and 0 < self.deviation < math.inf):
            raise PrivacyParameterError(
                f"quantile={self.quantile}, rate={self.rate}, deviation={self.deviation}: the quantile lies in (0, 1), "
                "the others are positive and finite"
            )

    def after(self, clip_norm: float, signs: float, planned: float, start: float) -> float:
        """The next clip from a noised sum of signs over a planned, public number of clients."""
        within = min(max(signs / planned + 0.5, 0.0), 1.0)
        moved = clip_norm * math.exp(-self.rate * (within - self.quantile))
        return min(max(moved, start / RANGE), start * RANGE)


@dataclass(frozen=True)
class CentralGaussian(Gaussian):
    """Each client's contribution is clipped as a whole; a trusted server adds noise to the sum.

    Unit client, add/remove. The divisor of what follows is the planned cohort, never the number of survivors.

    Args:
        clip_norm: L2 bound on one client's contribution, in (0, inf); where it adapts, of the first round.
        noise_multiplier: noise standard deviation over clip_norm, in (0, inf); where the clip adapts, of values and
            signs together.
        inner: what carries the clipped contributions.
        adaptive: how the clip follows the contributions; None keeps it.

    Raises:
        PrivacyParameterError: a bound or a multiplier outside its range, or signs with too little noise for it.
    """

    adaptive: AdaptiveClip | None = None
    randomised: ClassVar[bool] = False
    noises_total: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner.server_view().granularity == "sum":
            raise PlanError(
                "CentralGaussian is for a server that sees contributions and checks their clip, and rounding in a "
                "secure sum would raise them above it: use DistributedGaussian"
            )
        if self.adaptive is not None and 2 * self.adaptive.deviation <= self.noise_multiplier:
            raise PrivacyParameterError(
                f"deviation={self.adaptive.deviation:g} of the clip's signs must be above half the noise_multiplier="
                f"{self.noise_multiplier:.4g}: with less, the signs alone cost more than both may"
            )

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise on each value."""
        if self.adaptive is None:
            return super().deviation
        left = self.noise_multiplier**-2 - (2 * self.adaptive.deviation) ** -2
        return float(self.clip_norm * left**-0.5)

    @property
    def starting_clip(self) -> float:
        """`clip_norm` where it adapts, else 0."""
        return self.clip_norm if self.adaptive is not None else 0.0

    def at(self, clip_norm: float) -> CentralGaussian:
        """The same with the clip of a later round, where it adapts."""
        return self if self.adaptive is None else replace(self, clip_norm=clip_norm)

    def after(self, now: float, total: Total, planned: float) -> float:
        """The clip of the next round; unchanged where it does not adapt."""
        if self.adaptive is None:
            return now
        return self.adaptive.after(now, total.measurements[WITHIN], planned, self.clip_norm)

    def protect(self, value: np.ndarray, entropy: Entropy, seat: Seat | None = None) -> bytes:
        """The contribution with an L2 norm of at most `clip_norm`; one that is not finite becomes zero."""
        clipped = clip_vector(value, self.clip_norm)
        if self.adaptive is not None:
            within = float(np.linalg.norm(value.astype(np.float64))) <= self.clip_norm  # NaN is not
            clipped = np.append(clipped.reshape(-1), np.float32(0.5 if within else -0.5))
        return self.inner.protect(clipped, entropy, seat)

    def reveal(self, payload: bytes) -> np.ndarray:
        """One client's clipped contribution; raises `ProtocolError` if its norm is above the clip."""
        value = self.inner.reveal(payload)
        if self.adaptive is not None:
            if not value.size or abs(float(value[-1])) != 0.5:
                raise ProtocolError("a contribution arrived whose last value is no sign of half a unit")
            value = value[:-1]
        norm = float(np.linalg.norm(value.astype(np.float64)))
        if norm > self.clip_norm:
            raise ProtocolError(f"a contribution arrived with norm {norm:.6g}, above clip_norm={self.clip_norm:g}")
        return value

    def open(
        self, cohort: Sequence[str], size: int | None, lift: Lift, exchange: Exchange, meeting: Meeting | None = None
    ) -> Session:
        """A session that checks every norm and noises the total."""
        sent = size + 1 if size is not None and self.adaptive is not None else size
        return _NoisedSum(self, self.inner.open(cohort, sent, lift, exchange, meeting))

    def event(self, cohort: Sequence[str], size: int = 0) -> Event:
        """One Gaussian release by the federation of `size` values, and of the signs where the clip adapts."""
        del cohort
        return Event(GaussianDpEvent(self.noise_multiplier), "client", noise_values=size + (self.adaptive is not None))

    def server_view(self) -> ServerView:
        """Everything: the server is trusted with each client's clipped contribution."""
        return replace(self.inner.server_view(), trust="the server: it sees contributions and adds the noise")


class _NoisedSum(Session):
    def __init__(self, protection: CentralGaussian, inner: Session) -> None:
        self._protection, self._inner = protection, inner

    def add(self, client: str, payload: bytes) -> None:
        self._protection.reveal(payload)
        self._inner.add(client, payload)

    def close(self, exchange: Exchange) -> Total:
        total, protection = self._inner.close(exchange), self._protection
        if protection.adaptive is None:
            return replace(total, value=add_gaussian(total.value, protection.deviation, Entropy()).astype(np.float64))
        values, signs = total.value[:-1], total.value[-1:]
        noised = add_gaussian(values, protection.deviation, Entropy()).astype(np.float64)
        noised_signs = float(add_gaussian(signs, protection.adaptive.deviation, Entropy())[0])
        shown = {"clip_norm": protection.clip_norm, WITHIN: noised_signs}
        return replace(total, value=noised, measurements={**total.measurements, **shown})
