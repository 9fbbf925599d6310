"""Values that cost nothing more: functions of what was released before, and of what the guarantee does not cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from dp_accounting import NoOpDpEvent

from framp_private.privacy.events import Event
from framp_private.protections.base import Exchange, Lift, Meeting, Protection, Seat, ServerView, Session
from framp_private.protections.plain import PlainSum
from framp_private.randomness import Entropy


@dataclass(frozen=True)
class PostProcessed(Protection):
    """Adds no noise and costs nothing, because noise was added upstream: unit record, add/remove edge.

    Guarantees nothing by itself. A federation takes it only where its clients prepared their graphs with noise on every
    sum over edges (`Aggregation(protects="edges")`): whatever they send afterwards reads edges through those sums alone
    (Dwork and Roth 2014, proposition 2.1).

    Args:
        inner: what carries the values.
    """

    inner: Protection = PlainSum()
    randomised: ClassVar[bool] = False

    def protect(self, value: np.ndarray, entropy: Entropy, seat: Seat | None = None) -> bytes:
        """What `inner` makes of it; entries that are not finite leave as zero."""
        return self.inner.protect(np.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0), entropy, seat)

    def reveal(self, payload: bytes) -> np.ndarray:
        """One client's value."""
        return self.inner.reveal(payload)

    def open(
        self, cohort: Sequence[str], size: int | None, lift: Lift, exchange: Exchange, meeting: Meeting | None = None
    ) -> Session:
        """The session of `inner`."""
        return self.inner.open(cohort, size, lift, exchange, meeting)

    def event(self, cohort: Sequence[str], size: int = 0) -> Event:
        """No further cost."""
        del cohort, size
        return Event(NoOpDpEvent(), "record", "add/remove edge", note="reads edges through noised sums alone")

    def server_view(self) -> ServerView:
        """What `inner` shows; edges are protected against every server."""
        return replace(self.inner.server_view(), trust="nobody: each client noised its sums over edges before")
