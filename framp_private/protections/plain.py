"""No protection: values travel in the clear and the server adds them up. It must be asked for by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from framp_private.errors import BelowThreshold, PlanError, ProtocolError
from framp_private.privacy.checks import check_whole
from framp_private.privacy.events import Event, unprotected
from framp_private.protections.base import Exchange, Lift, Meeting, Protection, Seat, ServerView, Session, Total
from framp_private.randomness import Entropy
from framp_private.wire import decode, encode

BLOCK = 16
"""Clients whose values are lifted together: enough for one matrix product, few enough to stay flat in memory."""


@dataclass(frozen=True)
class Values:
    """The wire form of a value in the clear."""

    values: np.ndarray


@dataclass(frozen=True)
class PlainSum(Protection):
    """The plain sum: epsilon is infinite and the server sees every client's value.

    Args:
        minimum: survivors below which the total is refused; at 0 the sum over nobody is zero.

    Raises:
        PlanError: a negative minimum.
    """

    minimum: int = 1
    randomised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_whole(self, "minimum")
        if self.minimum < 0:
            raise PlanError(f"minimum={self.minimum} survivors: use 0 or more")

    def protect(self, value: np.ndarray, entropy: Entropy, seat: Seat | None = None) -> bytes:
        """The value itself, as float32; raises `ProtocolError` if it is not finite."""
        del entropy, seat
        _refuse_non_finite(value, "the value to send")
        return encode(Values(np.asarray(value, np.float32)))

    def reveal(self, payload: bytes) -> np.ndarray:
        """The value itself; raises `WireError` or `ProtocolError` if it is malformed or not finite."""
        values = decode(payload, Values).values
        if values.dtype != np.float32:
            raise ProtocolError(f"values arrived as {values.dtype}, must be float32")
        _refuse_non_finite(values, "a value that arrived")
        return values

    def open(
        self, cohort: Sequence[str], size: int | None, lift: Lift, exchange: Exchange, meeting: Meeting | None = None
    ) -> Session:
        """A running sum in float64; no trips before the values travel."""
        del exchange, meeting
        return _RunningSum(self, frozenset(cohort), size, lift)

    def event(self, cohort: Sequence[str], size: int = 0) -> Event:
        """No guarantee."""
        del cohort, size
        return unprotected("record")

    def server_view(self) -> ServerView:
        """Everything."""
        return ServerView("client", 1, "the server and whoever reads its memory", ("who took part", "sizes", "times"))


class _RunningSum(Session):
    def __init__(self, protection: PlainSum, cohort: frozenset[str], size: int | None, lift: Lift) -> None:
        self._protection, self._waiting, self._size, self._lift = protection, set(cohort), size, lift
        self._clients: list[str] = []
        self._values: list[np.ndarray] = []
        self._total: np.ndarray | None = None
        self._count = 0

    def add(self, client: str, payload: bytes) -> None:
        if client not in self._waiting:
            raise ProtocolError(f"client {client!r} is not awaited in this round: it is no member or sent twice")
        value = self._protection.reveal(payload)
        if self._size is not None and value.shape != (self._size,):
            raise ProtocolError(f"client {client!r} sent values of shape {value.shape}, must be ({self._size},)")
        self._waiting.remove(client)
        self._clients.append(client)
        self._values.append(value)
        if len(self._values) == BLOCK:
            self._flush()

    def close(self, exchange: Exchange) -> Total:
        del exchange
        self._flush()
        if self._total is None and not self._protection.minimum and self._size is not None:
            return Total(np.zeros(self._size), 0)
        if self._total is None or self._count < self._protection.minimum:
            raise BelowThreshold(
                f"survivors={self._count}, at least {max(1, self._protection.minimum)} are needed: "
                "repeat the round when more clients are reachable"
            )
        return Total(self._total, self._count)

    def _flush(self) -> None:
        if self._values:
            part = self._lift(self._clients, self._values)
            self._total = part if self._total is None else self._total + part
            self._count += len(self._values)
            self._clients, self._values = [], []


def _refuse_non_finite(value: np.ndarray, what: str) -> None:
    if not np.isfinite(value).all():
        raise ProtocolError(f"{what} holds NaN or infinity: training diverged, lower learning_rate")
