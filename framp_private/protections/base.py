"""The protection interface: what a client does before sending, what the server does with what arrives, what it costs.

A protection is a frozen value that holds both halves, so that neither can be forgotten or drift from the other::

    client   value --protect--> bytes                                  exactly once per round and channel
    server   open(cohort) -> session; session.add(client, bytes); session.close(exchange) -> Total
    ledger   event(cohort)                                             what the release costs
    report   server_view()                                             what the server sees, and whom that trusts

`open` and `close` get an `exchange`, so that a protocol may make as many trips as it needs before and after the values
travel; one that does is an `Interactive`, and its client half answers them. Sessions take one client at a time: memory
does not grow with the cohort.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from framp_private.crypto.keys import Identity, PublicIdentity
from framp_private.privacy.events import Event
from framp_private.randomness import Entropy

Channel = Literal["descriptor", "update", "prototypes", "metrics"]
CHANNELS: tuple[Channel, ...] = ("descriptor", "update", "prototypes", "metrics")

Exchange = Callable[[Mapping[str, bytes]], Iterator[tuple[str, bytes]]]
"""Delivers a request to each named client and yields the replies as they come; a client that yields none dropped out.

Requests may be a lazy mapping whose values are made when they are asked for.
"""


class Lazy(Mapping[str, bytes]):
    """Requests that are made when they are asked for, so that memory does not grow with the cohort."""

    def __init__(self, names: Iterable[str], make: Callable[[str], bytes]) -> None:
        self._names, self._make = dict.fromkeys(names), make

    def __getitem__(self, name: str) -> bytes:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


Lift = Callable[[Sequence[str], Sequence[np.ndarray]], np.ndarray]
"""Turns the values of some clients into the sum of their contributions: the identity sum, or a pullback."""


def plain_lift(clients: Sequence[str], values: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of the values themselves."""
    del clients
    total = values[0].astype(np.float64)
    for value in values[1:]:
        total += value
    return total


@dataclass(frozen=True)
class Total:
    """What a channel delivers: a sum, never an average.

    Args:
        value: the sum over survivors, float64.
        count: how many survived.
        measurements: numbers about the sum that the protection may show, by name.
    """

    value: np.ndarray
    count: int
    measurements: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ServerView:
    """What the server learns from a channel.

    Args:
        granularity: `client` if it sees each client's value, `sum` if only the total.
        minimum_cohort: how many clients a total is over, at least.
        trust: which party must behave for that to hold.
        metadata: what stays visible beside the values.
    """

    granularity: Literal["client", "sum"]
    minimum_cohort: int
    trust: str
    metadata: tuple[str, ...]


@dataclass(frozen=True)
class Pin:
    """What was pinned of an encrypted sum's key before the run, where nobody can swap it.

    digest: SHA-256 of the public context. public, secret: the contexts themselves, at whoever can decrypt.
    """

    digest: bytes
    public: bytes = field(default=b"", repr=False)
    secret: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, eq=False)
class Meeting:
    """One channel's place in a round, at the server: for protocols with trips of their own.

    Args:
        channel: whose values. run: names the federation. round_index: of the run. roster: pinned keys by client.
        exchange: carries the protocol's own messages. shared: what channels with one protocol have in common.
        pin: of the key, where values are encrypted. asked: the request for values, where all clients get the same.
    """

    channel: Channel
    run: bytes
    round_index: int
    roster: Mapping[str, PublicIdentity]
    exchange: Exchange
    shared: dict[Any, Any]
    pin: Pin | None = None
    asked: bytes = b""


@dataclass(frozen=True, eq=False)
class Member:
    """One client in one run, as its protocols see it. run: names the federation. roster: everybody's pinned key.

    pin: of the key, where values are encrypted.
    """

    name: str
    identity: Identity
    roster: Mapping[str, PublicIdentity]
    run: bytes
    entropy: Entropy
    pin: Pin | None = None


@dataclass(frozen=True)
class Seat:
    """One channel's place in a round, at a client.

    planned: size of the cohort. held: what its protocol keeps. asked: the request that the value answers.
    round_index: of the run. member: who sits there, for protocols that sign. saturated: takes the share of a value's
    coordinates that were cut off at a bound.
    """

    channel: Channel
    planned: int
    held: bytes = field(repr=False)
    asked: bytes = field(repr=False)
    round_index: int = 0
    member: Member | None = field(default=None, repr=False)
    saturated: Callable[[float], None] | None = field(default=None, repr=False)

    def cut(self, values: np.ndarray, bound: float) -> np.ndarray:
        """float64 values cut off at -bound and bound, zero where not finite; and counts how many were."""
        exact = np.asarray(values, np.float64)
        if self.saturated is not None and exact.size:
            self.saturated(1.0 - float(np.mean(np.abs(exact) <= bound)))
        return np.clip(np.nan_to_num(exact, nan=0.0, posinf=0.0, neginf=0.0), -bound, bound)


class Session(Protocol):
    """The server's half of one round on one channel."""

    def brief(self, client: str) -> bytes | None:
        """What the protocol sends along with the request for a client's value; None if that client is out already."""
        del client
        return b""

    def add(self, client: str, payload: bytes) -> None:
        """Takes one client's protected value; raises `ProtocolError` if it cannot be what that client owes."""

    def close(self, exchange: Exchange) -> Total:
        """The total over all clients added; raises `BelowThreshold` if they are too few."""


class Protection(Protocol):
    """See the module docstring. Implementations are frozen dataclasses.

    `randomised` says that `protect` draws from `Entropy`, so that what it made must be stored and resent,
    never made again. `noises_in_shares` says that the guarantee needs others to add their noise. `noises_total` says
    that the server draws noise, so that no round may be repeated once what came of it was sent. Where the clip adapts
    from round to round, `starting_clip` is positive, `at` is the protection with the clip of some round, and `after`
    the clip of the next.
    """

    randomised: ClassVar[bool]
    noises_total: ClassVar[bool] = False
    noises_in_shares: ClassVar[bool] = False

    @property
    def carrier(self) -> Protection:
        """The innermost protection, which makes the sum."""
        inner: Protection | None = getattr(self, "inner", None)
        return self if inner is None else inner.carrier

    def check(self, cohort: int, guarded: bool, size: int = 0) -> None:
        """Raises `PlanError` or `PrivacyParameterError` unless it can carry `size` values of each of a cohort.

        With `guarded`, it must do so without looking at the records.
        """
        inner: Protection | None = getattr(self, "inner", None)
        if inner is not None:
            inner.check(cohort, guarded, size)

    @property
    def starting_clip(self) -> float:
        """The clip of the first round where it adapts, else 0."""
        return 0.0

    def at(self, clip_norm: float) -> Protection:
        """This protection with the clip of some round; itself where the clip does not adapt."""
        del clip_norm
        return self

    def after(self, now: float, total: Total, planned: float) -> float:
        """The clip of the next round, from this round's clip and total and the planned, public number of clients."""
        del total, planned
        return now

    def protect(self, value: np.ndarray, entropy: Entropy, seat: Seat | None = None) -> bytes:
        """What leaves the client for `value` (any shape, float32). Redrawing noise averages it away: call it once."""

    def reveal(self, payload: bytes) -> np.ndarray:
        """One client's value as the server may see it; raises `PlanError` if it may not."""

    def open(
        self, cohort: Sequence[str], size: int | None, lift: Lift, exchange: Exchange, meeting: Meeting | None = None
    ) -> Session:
        """Starts a round; `size` is the number of values each client owes, None where they differ."""

    def event(self, cohort: Sequence[str], size: int = 0) -> Event:
        """What one release of `size` values costs, with its unit and relation; `unprotected` without a guarantee."""

    def server_view(self) -> ServerView:
        """What the server sees."""


@runtime_checkable
class Interactive(Protocol):
    """A protection that makes trips of its own. Its client half keeps `held` between the messages of one round.

    one_request: whether it takes rounds in which all clients get the same request.
    """

    one_request: ClassVar[bool]

    def answer(
        self, message: bytes, held: bytes, member: Member, planned: int, round_index: int, fresh: bool
    ) -> tuple[bytes, bytes]:
        """The reply to one of its messages, and what to hold then; `fresh` if this round was not answered yet."""

    def receive(self, brief: bytes, asked: bytes, held: bytes, member: Member, planned: int, round_index: int) -> bytes:
        """What to hold after the brief that came with a round's request for values, `asked`."""
