"""The ledger: what was released, what it cost, and what may still be spent.

One account has one owner, one unit and one neighbouring relation. Rows are chained (`privacy/chain.py`) and
written ahead: a row is on disk before the release that it stands for leaves the process, so a crash in between
counts as spent. A label is spent once, ever; its release may be resent but never drawn again.

    >>> from dp_accounting import GaussianDpEvent
    >>> ledger = Ledger.open(None, unit="record", budget=Budget(1.0, 1e-5))
    >>> ledger.spend(GaussianDpEvent(10.0), "round 0")
    True
    >>> round(ledger.epsilon(1e-5), 2)
    0.41
    >>> ledger.would_exceed(GaussianDpEvent(1.0), Budget(1.0, 1e-5))
    True

Two numbers come out of it. `epsilon` is a PLD composition where one plan was declared before the first release and all
that was spent is part of it, as that needs events which were fixed beforehand; else RDP's. Decisions on the way use
RDP, which adds up in constant time and holds as a filter; where RDP refuses, a plan that was declared before the first
release may still pass as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dp_accounting import DpEvent

from framp_private.errors import LedgerError, PrivacyBudgetExhausted, PrivacyParameterError
from framp_private.privacy import accounting
from framp_private.privacy.chain import Chain, Check, Head, Signer, read_chain
from framp_private.privacy.claims import Unit
from framp_private.privacy.events import Budget, Event, Relation, check_delta, from_row, leaves

Row = dict[str, Any]
Rows = list[Row]


class Ledger:
    """One open account. Make it with `open`."""

    def __init__(self, chain: Chain, unit: Unit, relation: Relation, owner: str, budget: Budget | None) -> None:
        self.unit, self.relation, self.owner, self.budget = unit, relation, owner, budget
        self._chain = chain
        self._spent: dict[str, Row] = {}
        self._counts: Counter[str] = Counter()
        self._noise_values = 0
        self._rdp = accounting.rdp_vector({}, relation)
        self._plans: dict[str, Rows] = {}
        self._chosen_on_the_way = False

    @classmethod
    def open(
        cls,
        path: Path | None,
        *,
        unit: Unit,
        relation: Relation = "add/remove",
        owner: str = "federation",
        budget: Budget | None = None,
        repair: bool = True,
        signer: Signer | None = None,
    ) -> Ledger:
        """Opens or starts an account; without a path it lives in memory.

        Args:
            budget: what `spend` may not exceed; without one nothing is refused.
            repair: end a file that a crash cut inside its last line; who only reads leaves it alone.
            signer: signs every row. A signed account can be read without it, and spent on only with it.

        Raises:
            LedgerError: the file does not verify, or belongs to another unit, relation, owner or signer.
        """
        chain, rows = Chain.open(path, repair=repair, signer=signer)
        genesis = {"unit": unit, "relation": relation, "owner": owner}
        ledger = cls(chain, unit, relation, owner, budget)
        if not rows:
            chain.append([{"kind": "genesis", **genesis}])
            return ledger
        found = {key: rows[0].get(key) for key in genesis}
        if found != genesis:
            raise LedgerError(
                f"{path} is a ledger of {found}, not of {genesis}: one account has one unit, relation and owner"
            )
        for row in rows[1:]:
            ledger._take(row)
        return ledger

    @property
    def head(self) -> Head:
        """Row count and last hash."""
        return self._chain.head

    @property
    def signature(self) -> bytes:
        """The signer's, on the head; empty without a signer."""
        return self._chain.signature

    @property
    def releases(self) -> int:
        """How many labels were spent."""
        return len(self._spent)

    def verify(self, head: Head | None = None) -> Head:
        """The head, after checking that the account goes on from `head`, one that was known before.

        Raises:
            LedgerError: rows were cut off or replaced since.
        """
        if head is not None and not self._chain.continues(head):
            raise LedgerError(
                f"the ledger of {self.owner!r} has {self.head.rows} rows and never had the known head, row {head.rows} "
                f"({head.hash[:12]}): rows were cut off or replaced; spending stops"
            )
        return self.head

    def has(self, label: str) -> bool:
        """Whether a label was spent."""
        return label in self._spent

    def declare(self, plan: Iterable[tuple[Event, int]], label: str) -> None:
        """Records what is going to be released, before the first of it. Declaring the same label again is a no-op.

        Args:
            plan: events and how often each may happen. label: of this plan, a run's name.

        Raises:
            LedgerError: an event of another unit or relation, or the label stands for another plan.
        """
        rows = [{**self._own(event).to_row(), "count": count} for event, count in plan]
        if label not in self._plans:
            row = {"kind": "plan", "label": label, "events": rows}
            self._chain.append([row])
            self._take(row)
        elif self._plans[label] != rows:
            raise LedgerError(f"plan {label!r} was declared with other events: a run keeps the plan it began with")

    def spend(self, event: Event | DpEvent, label: str) -> bool:
        """Records a release before it happens. Returns False where the label was spent before by the same event.

        A bare `DpEvent` is taken to have the account's unit and relation.

        Raises:
            LedgerError: another unit or relation, an unknown event, or a label that stands for another event.
            PrivacyBudgetExhausted: the account has a budget and the release would exceed it; nothing is written.
        """
        return self.spend_all({label: event})

    def spend_all(self, releases: Mapping[str, Event | DpEvent]) -> bool:
        """Records several releases with one write, all or none; False where all were spent before. See `spend`."""
        new: dict[str, Event] = {}
        for label, given in releases.items():
            event = self._own(given)
            known = self._spent.get(label)
            if known is None:
                new[label] = event
            elif known != event.to_row():
                raise LedgerError(
                    f"label={label!r} was spent as {known}, not {event.to_row()}: a release has one event"
                )
        if not new:
            return False
        if self.budget is not None and self._exceeds(list(new.values()), self.budget):
            raise PrivacyBudgetExhausted(
                f"{', '.join(new)} would exceed the budget of {self.owner!r}, epsilon={self.budget.epsilon:g} at "
                f"delta={self.budget.delta:g} for unit {self.unit}: nothing was released; stop here, "
                "or plan fewer releases or more noise"
            )
        rows = [{"kind": "spend", "label": label, **event.to_row()} for label, event in new.items()]
        self._chain.append(rows)
        for row in rows:
            self._take(row)
        return True

    def epsilon(self, delta: float) -> float:
        """What was spent so far, at `delta` in (0, 1); infinite where something was released without a guarantee.

        A PLD composition (never more than RDP gives), which holds for events that were fixed before the first release.
        With several plans, one declared after the first release, none, or more than was planned: RDP alone, as then
        events may have been chosen on the way.

        Raises:
            PrivacyParameterError: delta outside (0, 1).
        """
        check_delta(delta)
        if self._planned(self._counts, self._noise_values) is None:
            return accounting.filter_epsilon(self._rdp, delta, self._noise_values)
        return accounting.epsilon(self._counts, self.relation, delta, self._noise_values)

    def would_exceed(self, event: Event | DpEvent, budget: Budget) -> bool:
        """Whether one more such release would cost more than `budget` in all; costs the same however long the ledger.

        Raises:
            LedgerError: another unit or relation, or an unknown event.
        """
        return self._exceeds([self._own(event)], budget)

    def _exceeds(self, events: list[Event], budget: Budget) -> bool:
        added: Counter[str] = Counter()
        for event in events:
            added += leaves(event.mechanism)
        noise_values = self._noise_values + sum(event.noise_values for event in events)
        vector = self._rdp + accounting.rdp_vector(added, self.relation)
        if accounting.filter_epsilon(vector, budget.delta, noise_values) <= budget.epsilon:
            return False
        plan = self._planned(self._counts + added, noise_values)
        # a part of a plan costs no more than the whole, whose epsilon is computed once; PLD filters nothing else
        return plan is None or accounting.epsilon(plan[0], self.relation, budget.delta, plan[1]) > budget.epsilon

    def _planned(self, counts: Counter[str], noise_values: int) -> tuple[Counter[str], int] | None:
        """The one plan that was declared before the first release, if these events are a part of it."""
        if self._chosen_on_the_way or len(self._plans) != 1:
            return None
        planned, values = _plan_totals(next(iter(self._plans.values())))
        return (planned, values) if counts <= planned and noise_values <= values else None

    def _own(self, given: Event | DpEvent) -> Event:
        event = given if isinstance(given, Event) else Event(given, self.unit, self.relation)
        if (event.unit, event.relation) != (self.unit, self.relation):
            raise LedgerError(
                f"an event of unit {event.unit}, {event.relation}, was given to an account of unit {self.unit}, "
                f"{self.relation}: units and relations are never added; spend it on an account of its own"
            )
        try:  # an unknown kind, or one that cannot be priced, is refused before anything is written
            accounting.rdp_vector(leaves(event.mechanism), self.relation)
        except ValueError as error:
            raise PrivacyParameterError(f"{event.mechanism} cannot be accounted: {error}") from error
        return event

    def _take(self, row: Row) -> None:
        """Counts a stored row in."""
        try:
            if row["kind"] == "plan":
                self._chosen_on_the_way |= bool(self._plans or self._spent)
                self._plans[row["label"]] = row["events"]
                return
            added = leaves(from_row(row["mechanism"]))
            self._spent[row["label"]] = {key: row[key] for key in Event.KEYS}
        except (KeyError, TypeError) as error:
            raise LedgerError(f"the ledger of {self.owner!r} holds a row that is no spend and no plan") from error
        self._counts += added
        self._noise_values += row["noise_values"]
        self._rdp = self._rdp + accounting.rdp_vector(added, self.relation)


def _plan_totals(rows: Rows) -> tuple[Counter[str], int]:
    """Elementary events of a whole plan, and the noise values it draws."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts += leaves(from_row(row["mechanism"]), row["count"])
    return counts, sum(row["count"] * row["noise_values"] for row in rows)


def verify(path: Path, head: Head | None = None, check: Check | None = None) -> Head:
    """Checks the chain of a stored ledger, and against `head` also that nothing was cut off, added or replaced.

    With `check` the signature of every row, too.

    Raises:
        LedgerError: with the first row that does not fit.
    """
    rows = read_chain(path, check)
    found = Head(len(rows), rows[-1]["hash"])
    if head is not None and found != head:
        raise LedgerError(
            f"{path} ends at row {found.rows} ({found.hash[:12]}), the known head is row {head.rows} "
            f"({head.hash[:12]}): rows were cut off, added or replaced"
        )
    return found
