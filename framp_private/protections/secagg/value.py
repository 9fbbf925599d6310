"""`SecAgg`: the parameters of secure aggregation as one value, and what follows from them for a cohort."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from framp_private.crypto.ring import Ring
from framp_private.errors import PlanError, PrivacyParameterError, ProtocolError
from framp_private.privacy.checks import check_real, check_whole
from framp_private.privacy.events import Event, unprotected
from framp_private.protections.base import (
    Exchange,
    Lift,
    Meeting,
    Member,
    Protection,
    Seat,
    ServerView,
    Session,
    plain_lift,
)
from framp_private.protections.secagg import client, planning
from framp_private.protections.secagg.messages import Delivery
from framp_private.protections.secagg.server import Gathering, MaskedSum
from framp_private.protections.secagg.state import State, Terms
from framp_private.protections.secagg.statements import round_context
from framp_private.randomness import Entropy
from framp_private.wire import decode


@dataclass(frozen=True)
class SecAgg(Protection):
    """The server learns the sum of the clients' values and who took part, however many drop out down to the threshold.

    Guarantees, for what is opened in a round: one sum, over clients that all saw the same keys and the same request, of
    whom at least `least_survivors` pinned members have signed that they are in it.

    - Against a server that follows the protocol: nothing but that sum is learned, as long as fewer than the threshold
      of any client's neighbourhood collude with it.
    - Against one that does not: the same, as long as at most the `corrupt` share of the cohort colludes with it, that
      is 2 t - n - 1 of the n members of a complete graph, and as many of the cohort by the quorum of a sparse one, up
      to the failure probabilities that `planning` states. But such a server may send all clients a crafted
      model, so without noise nothing is claimed for single records or clients.

    Args:
        threshold: share of a neighbourhood, itself included, that must survive: t = floor(threshold (k + 1)) + 1. In
            [0.5, 1). None takes (1 + corrupt) / 2 on the complete graph, and what `planning.design` says elsewhere.
        neighbours: k; None takes all others up to 64 clients and what `planning.design` says above.
        bound: largest size of a value, per coordinate. step: what values are rounded to, at most.
        ring_bits: width of the ring; None takes the fewest in which the cohort's sum cannot wrap.
        beyond: what becomes of a value beyond the bound or not finite: `refuse` it, which fails because of what the
            values are and so has no place under a guarantee, or `clip` it, to the bound or to zero.
        minimum: smallest planned cohort that a client takes part in, at least 3.
        survivors: share of the planned cohort that must be active, or nothing is opened; clients count the signatures
            themselves. More than half of the cohort and its corrupt are needed in any case.
        corrupt, dropout: largest shares of the cohort that collude with a server which may cheat, and that drop out.

    Raises:
        PlanError, PrivacyParameterError: a value of another type or outside its range.
    """

    threshold: float | None = None
    neighbours: int | None = None
    bound: float = 1.0
    step: float = 1e-4
    ring_bits: int | None = None
    beyond: Literal["refuse", "clip"] = "refuse"
    minimum: int = 3
    survivors: float = 0.0
    corrupt: float = 0.1
    dropout: float = 0.2
    randomised: ClassVar[bool] = True
    one_request: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_real(self, "threshold", optional=True)
        for name in ("bound", "step", "survivors", "corrupt", "dropout"):
            check_real(self, name)
        check_whole(self, "minimum")
        for name in ("neighbours", "ring_bits"):
            check_whole(self, name, optional=True)
        planning.check(self.threshold, self.dropout, self.corrupt, self.minimum)
        if self.neighbours is not None and self.neighbours < 2:
            raise PlanError(f"neighbours={self.neighbours} must be at least 2, or None for all")
        if not 0 <= self.survivors < 1:
            raise PlanError(f"survivors={self.survivors} is a share of the cohort: 0 or more, and less than 1")
        if self.beyond not in ("refuse", "clip"):
            raise PlanError(f"beyond={self.beyond!r} must be 'refuse' or 'clip'")
        self.ring(self.minimum)

    def design(self, cohort: int) -> planning.Design:
        """Graph, threshold and what they stand, for a planned cohort. Raises what `terms` raises."""
        if cohort < self.minimum:
            raise PlanError(f"cohort={cohort} is below the minimum of {self.minimum}: ask more clients in a round")
        if self.neighbours is None:
            if cohort > planning.COMPLETE_TO:
                return planning.design(cohort, threshold=self.threshold, dropout=self.dropout, corrupt=self.corrupt)
        elif self.neighbours < cohort - 1:
            return self._sparse(cohort, self.neighbours)
        opening = planning.opening_of(cohort, (1 + self.corrupt) / 2 if self.threshold is None else self.threshold)
        bad = planning.count_of(self.corrupt, cohort)
        if planning.cheating(cohort, opening) < bad:
            raise PlanError(
                f"threshold={self.threshold} opens with {opening} of {cohort}, of which corrupt={self.corrupt:g} are "
                f"{bad}: two halves could open two views of one round; use a threshold of (1 + corrupt) / 2 or more"
            )
        found = planning.failure(cohort, cohort - 1, opening, self.dropout, self.corrupt)
        return planning.designed(cohort, cohort - 1, opening, self.dropout, self.corrupt, found)

    def _sparse(self, cohort: int, neighbours: int) -> planning.Design:
        """The design with a given number of neighbours, if what would show a value stays rare."""
        opening = planning.opening_of(
            neighbours + 1, (1 + self.corrupt) / 2 if self.threshold is None else self.threshold
        )
        found = planning.failure(cohort, neighbours, opening, self.dropout, self.corrupt)
        if not planning.rare(found):
            raise PlanError(
                f"neighbours={neighbours} of {cohort} clients, threshold={opening} of {neighbours + 1}: with corrupt="
                f"{self.corrupt:g} a client's value could be shown with probability {found.privacy:.1e}, and parts of "
                f"the cohort be summed by themselves with {found.separation:.1e}; leave neighbours out, or take more"
            )
        return planning.designed(cohort, neighbours, opening, self.dropout, self.corrupt, found)

    def terms(self, cohort: int) -> Terms:
        """Graph, threshold and quorum for a planned cohort.

        Raises:
            PlanError: a cohort below the minimum, or a graph or threshold at which the corrupt could open two views.
        """
        made = self.design(cohort)
        survivors = max(made.quorum, math.ceil(self.survivors * cohort - 1e-9))
        present = survivors
        if made.neighbours < cohort - 1:  # the graph was planned for those who may be missing, and no more
            present = max(present, cohort - planning.count_of(self.dropout, cohort))
        return Terms(cohort, made.neighbours, made.threshold, self.minimum, survivors, present)

    def least_survivors(self, cohort: int) -> int:
        """How many clients any sum that is opened is over, at least: pinned members who signed that they are in it."""
        return self.terms(cohort).survivors

    def ring(self, cohort: int) -> Ring:
        """The integers that a cohort's values are summed in. Raises `PrivacyParameterError` for a ring too narrow."""
        return self.widened(Ring.fitting(cohort, self.bound, self.step), cohort)

    def widened(self, fitted: Ring, cohort: int) -> Ring:
        """A ring that fits a cohort's values, at the width that was asked for. Raises what `ring` raises."""
        if self.ring_bits is None:
            return fitted
        if self.ring_bits < fitted.bits:
            raise PrivacyParameterError(
                f"ring_bits={self.ring_bits}: the sum of {cohort} clients needs {fitted.bits} bits not to wrap"
            )
        return Ring(self.ring_bits, fitted.step, fitted.levels)

    def check(self, cohort: int, guarded: bool, size: int = 0) -> None:
        """Raises `PlanError` or `PrivacyParameterError` unless it can carry rounds of a cohort."""
        del size
        self.terms(cohort)
        self.ring(cohort)
        if guarded and self.beyond == "refuse":
            raise PlanError(
                "a secure sum that refuses values beyond its bound ends a round because of what the records are: under "
                "a guarantee use SecAgg(beyond='clip')"
            )

    def answer(
        self, message: bytes, held: bytes, member: Member, planned: int, round_index: int, fresh: bool
    ) -> tuple[bytes, bytes]:
        """The client's half of the stages `keys`, `shares`, `confirm` and `unmask`."""
        state = State.from_bytes(held)
        if state is not None and state.context != round_context(member.run, round_index):
            state = None
        reply, moved = client.answer(message, state, member, self.terms(planned), fresh)
        if moved.context != round_context(member.run, round_index):
            raise ProtocolError("a message of secure aggregation names another round than the one it came in")
        return reply, moved.to_bytes()

    def receive(self, brief: bytes, asked: bytes, held: bytes, member: Member, planned: int, round_index: int) -> bytes:
        """The client's half of the stage `masked`, up to its values."""
        state = State.from_bytes(held)
        if state is None or state.context != round_context(member.run, round_index):
            raise ProtocolError("a round of secure aggregation begins with keys")
        return client.receive(decode(brief, Delivery), asked, state, member, self.terms(planned)).to_bytes()

    def protect(self, value: np.ndarray, entropy: Entropy, seat: Seat | None = None) -> bytes:
        """The masked vector; raises `PlanError` without a seat in a round, `ProtocolError` for an unfit value."""
        del entropy
        if seat is None:
            raise PlanError("a secure sum is no single message: it takes a round's keys")
        values = np.ravel(value)
        if self.beyond == "clip":
            values = seat.cut(values, self.bound)
        return self.mask(values, self.ring(seat.planned), seat)

    def mask(self, values: np.ndarray, ring: Ring, seat: Seat) -> bytes:
        """A masked vector in a ring of the caller's; raises what `protect` raises."""
        state = State.from_bytes(seat.held)
        if state is None or state.asked != hashlib.sha256(seat.asked).digest():
            raise ProtocolError("masks are for the one request that they were made for")
        return client.masked(values, seat.channel, ring, state)

    def reveal(self, payload: bytes) -> np.ndarray:
        """Refused: the server sees no client's value."""
        raise PlanError("a secure sum shows no client's value")

    def open(
        self, cohort: Sequence[str], size: int | None, lift: Lift, exchange: Exchange, meeting: Meeting | None = None
    ) -> Session:
        """Makes the trips `keys` and `shares`, once for all channels of this value. Raises `BelowThreshold`."""
        del exchange
        if size is None:
            raise PlanError("a secure sum takes values of one size")
        return self.session(cohort, size, lift, meeting, self.ring(len(cohort)))

    def session(self, cohort: Sequence[str], size: int, lift: Lift, meeting: Meeting | None, ring: Ring) -> Session:
        """What `open` gives, in a ring of the caller's."""
        if meeting is None or lift is not plain_lift:
            raise PlanError("a secure sum takes values of one size that add up as they are, and a roster: see Pullback")
        gathering = meeting.shared.get(self)
        if gathering is None:
            terms = self.terms(len(cohort))
            gathering = Gathering(cohort, terms, meeting.roster, meeting.run, meeting.round_index, meeting.asked)
            gathering.collect_keys(meeting.exchange)
            gathering.collect_shares(meeting.exchange)
            meeting.shared[self] = gathering
        return MaskedSum(gathering, meeting, size, ring)

    def event(self, cohort: Sequence[str], size: int = 0) -> Event:
        """No guarantee for the sum itself: noise has to be added for that."""
        del cohort, size
        return unprotected("record", "a secure sum without noise: the sum itself is exact")

    def server_view(self) -> ServerView:
        """Sums over at least the threshold of the smallest cohort."""
        least = self.least_survivors(self.minimum)
        near = 0.5 if self.threshold is None else self.threshold  # t is more than half of any neighbourhood
        trust = (
            f"honest-but-curious server, with at most {near:g} of any client's neighbours colluding; of the cohort "
            f"at most {self.corrupt:g} where the server does not follow the protocol"
        )
        metadata = ("who took part", "who dropped out and when", "who shares with whom, drawn by clients at random")
        return ServerView("sum", least, trust, (*metadata, "sizes", "times"))
