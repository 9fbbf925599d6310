"""What is claimed, what an audit found, and the only four things that it may say of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from threat_models.auditing.one_run import reach
from threat_models.errors import AuditError

Assumption = Literal["none", "gaussian-curve", "gaussian-scores"]
"""What a bound stands on: nothing but the coins; a Gaussian trade-off curve; or scores that are Gaussian themselves."""

State = Literal["refuted", "consistent", "cannot_refute", "estimate_only", "not_claimed"]
"""The last is of a run that claims nothing: there is nothing to refute, and a report says NOT DP."""


@dataclass(frozen=True)
class PrivacyClaim:
    """One claim that is audited.

    Args:
        epsilon: infinite where there is no guarantee. delta: in [0, 1).
        unit: record or client. adjacency: the neighbouring relation.
        mechanism: `gaussian` where every release of the scope is a Gaussian mechanism, else `other`: estimators that
            need a Gaussian refuse the rest.
        scope: which releases are covered.

    Raises:
        AuditError: epsilon negative or NaN, delta outside [0, 1).
    """

    epsilon: float
    delta: float
    unit: Literal["record", "client"]
    adjacency: str
    mechanism: Literal["gaussian", "other"]
    scope: str

    def __post_init__(self) -> None:
        if not self.epsilon >= 0 or not 0 <= self.delta < 1:
            raise AuditError(
                f"epsilon={self.epsilon}, delta={self.delta}: a claim has epsilon >= 0 and delta in [0, 1)"
            )

    def as_row(self) -> dict[str, Any]:
        """For JSON: an infinite epsilon is null."""
        return {**asdict(self), "epsilon": self.epsilon if math.isfinite(self.epsilon) else None}


@dataclass(frozen=True)
class Bound:
    """A lower bound on epsilon.

    Args:
        value: with confidence 1 - alpha epsilon is at least this. reach: the largest value any outcome could have
            given; infinite where there is no limit.
        estimator: its name. assumption: what it stands on.
        m, r, v: canaries, guesses registered beforehand, right ones; r and v are None where nothing is guessed.
        sound: False where the interval's own coverage was found wanting: then it is an estimate and refutes nothing.
    """

    value: float
    estimator: str
    assumption: Assumption
    alpha: float
    reach: float
    m: int
    r: int | None = None
    v: int | None = None
    sound: bool = True

    def as_row(self) -> dict[str, Any]:
        """For JSON: infinities are the string `unbounded`."""
        row = asdict(self)
        for name in ("value", "reach"):
            if not math.isfinite(row[name]):
                row[name] = "unbounded"
        return row


@dataclass(frozen=True)
class Verdict:
    """state: see `judge`. largest: what so many canaries could have shown at most. by: the estimator that
    refutes, or of a consistent one what was left out."""

    state: State
    largest: float
    by: str | None = None

    @property
    def words(self) -> str:
        """One line for tables and reports."""
        if self.state == "refuted":
            return f"refuted by {self.by}"
        if self.state == "cannot_refute":
            return f"cannot refute (max {self.largest:.2f})"
        if self.state == "not_claimed":
            return "NOT DP: nothing is claimed"
        if self.state == "estimate_only":
            return "estimate only: no bound with a valid confidence was possible"
        rest = f"; {self.by}" if self.by else ""
        return f"consistent: no evidence against the claim, which is no proof of it{rest}"


def judge(claim: PrivacyClaim, bounds: Sequence[Bound], alpha: float) -> Verdict:
    """What bounds say of a claim, at an overall error of at most alpha.

    `refuted`: a sound bound whose assumption the claim meets lies above it. `cannot_refute`: none of them could have,
    whatever the outcome; its largest is what so many canaries could show with every guess right, if that is more.
    `estimate_only`: there is no sound bound. `consistent`: else.

    Raises:
        AuditError: the bounds' alphas add up to more than alpha: each look at the data costs its share.
    """
    counted = [
        bound for bound in bounds if bound.sound and (bound.assumption == "none" or claim.mechanism == "gaussian")
    ]
    if sum(bound.alpha for bound in counted) > alpha * (1 + 1e-9):
        raise AuditError(f"the bounds use {sum(b.alpha for b in counted):.4f} of alpha={alpha}: split it among them")
    if not counted:
        return Verdict("estimate_only", 0.0)
    largest = max(bound.reach for bound in counted)
    best = max(counted, key=lambda bound: bound.value)
    if best.value > claim.epsilon:
        return Verdict("refuted", largest, best.estimator + (": NOT DP" if best.value > NOT_DP else ""))
    if largest > claim.epsilon:
        return Verdict("consistent", largest)
    every_guess = max(reach(bound.m, alpha) for bound in counted)
    return Verdict("cannot_refute", every_guess if largest < every_guess <= claim.epsilon else largest)


NOT_DP = 50.0
"""A lower bound over this is of no noise at all: e^50 to one."""
