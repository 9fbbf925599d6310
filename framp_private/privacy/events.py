"""Events: what a release costs, as data. An event names its unit and its neighbouring relation; meanings never change.

The mechanism inside is a `dp_accounting.DpEvent`, which knows neither. Two accounts with different units or relations
are never added, so a ledger refuses an event that is not of its own.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import dp_accounting
from dp_accounting import ComposedDpEvent, DpEvent, NonPrivateDpEvent, NoOpDpEvent, SelfComposedDpEvent

from framp_private.errors import LedgerError, PrivacyParameterError
from framp_private.privacy.claims import Unit
from framp_private.privacy.selection import SelectionDpEvent
from framp_private.privacy.skellam import SkellamDpEvent

Relation = Literal["add/remove", "replace-one", "add/remove edge"]
RELATIONS: tuple[Relation, ...] = ("add/remove", "replace-one", "add/remove edge")
"""How two neighbours differ: by a whole unit, by a unit's values, or, of graphs, by one edge between given nodes."""
Row = dict[str, Any]

_KNOWN: dict[str, type[DpEvent]] = {
    name: getattr(dp_accounting, name)
    for name in (
        "ComposedDpEvent",
        "GaussianDpEvent",
        "LaplaceDpEvent",
        "NoOpDpEvent",
        "NonPrivateDpEvent",
        "PoissonSampledDpEvent",
        "SampledWithoutReplacementDpEvent",
        "SelfComposedDpEvent",
        "ZCDpEvent",
    )
} | {"SelectionDpEvent": SelectionDpEvent, "SkellamDpEvent": SkellamDpEvent}
_POISSON = "poisson"
"""Stands for a selection's infinite shape: JSON has no infinity."""


@dataclass(frozen=True)
class Event:
    """One kind of release.

    Args:
        mechanism: what it does, as dp_accounting names it.
        unit: what two neighbours differ in.
        relation: how they differ.
        noise_values: how many floating-point noise values one release draws; their cut tails go into delta.
        note: why there is no guarantee, where there is none.
    """

    mechanism: DpEvent
    unit: Unit
    relation: Relation = "add/remove"
    noise_values: int = 0
    note: str = ""
    KEYS: ClassVar[tuple[str, ...]] = ("mechanism", "unit", "relation", "noise_values", "note")
    """Of the row that `to_row` makes."""

    def __post_init__(self) -> None:
        if not isinstance(self.noise_values, int) or self.noise_values < 0:
            raise PrivacyParameterError(f"noise_values={self.noise_values} must be a whole number of at least 0")

    def times(self, count: int) -> Event:
        """`count` such releases as one event."""
        if count == 1:
            return self
        return replace(
            self, mechanism=SelfComposedDpEvent(self.mechanism, count), noise_values=count * self.noise_values
        )

    @property
    def private(self) -> bool:
        """Whether it carries any guarantee."""
        return not _clear(self.mechanism)

    def to_row(self) -> Row:
        """The form it has in a ledger."""
        return {
            "mechanism": to_row(self.mechanism),
            "unit": self.unit,
            "relation": self.relation,
            "noise_values": self.noise_values,
            "note": self.note,
        }


def _clear(mechanism: DpEvent) -> bool:
    """Whether a part of it, or of a candidate that may be chosen, carries no guarantee."""
    inside = [event_of(leaf) for leaf in leaves(mechanism)]
    chosen = [each for event in inside if isinstance(event, SelectionDpEvent) for each in event.candidates]
    return any(isinstance(event, NonPrivateDpEvent) for event in inside) or any(map(_clear, chosen))


def unprotected(unit: Unit, note: str = "sent in the clear") -> Event:
    """A release without any guarantee, and why."""
    return Event(NonPrivateDpEvent(), unit, note=note)


def no_cost(unit: Unit, relation: Relation, note: str) -> Event:
    """Something worth a row that releases nothing."""
    return Event(NoOpDpEvent(), unit, relation, note=note)


@dataclass(frozen=True)
class Budget:
    """How much may be spent on one account: epsilon > 0 at delta in (0, 1).

    large_delta: take a delta at which publishing a random record would be allowed; see `check_delta_of`.
    """

    epsilon: float
    delta: float
    large_delta: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise PrivacyParameterError(f"epsilon={self.epsilon} must be a positive finite number")
        check_delta(self.delta)


def check_delta(delta: float) -> None:
    """Raises `PrivacyParameterError` unless 0 < delta < 1."""
    if not 0 < delta < 1:
        raise PrivacyParameterError(f"delta={delta} must lie in (0, 1): take less than one over the number of records")


def leaves(mechanism: DpEvent, count: int = 1) -> Counter[str]:
    """Elementary events, in their canonical text, with how often each occurs; composition is undone."""
    if not isinstance(count, int) or count < 1:
        raise PrivacyParameterError(
            f"count={count} must be a whole number of at least 1: spending never goes backwards"
        )
    if isinstance(mechanism, SelfComposedDpEvent):
        if not isinstance(mechanism.count, int) or mechanism.count < 1:
            raise PrivacyParameterError(f"count={mechanism.count} must be a whole number of at least 1")
        return leaves(mechanism.event, count * mechanism.count)
    if isinstance(mechanism, ComposedDpEvent):
        found: Counter[str] = Counter()
        for event in mechanism.events:
            found += leaves(event, count)
        return found
    _check_parameters(mechanism)
    return Counter({json.dumps(to_row(mechanism), sort_keys=True): count})


def _check_parameters(mechanism: DpEvent) -> None:
    """Refuses an elementary event that no accountant can price."""
    q = getattr(mechanism, "sampling_probability", 0.5)
    noise = [getattr(mechanism, name, 1.0) for name in ("noise_multiplier", "rho", "variance", "l2", "l1")]
    if not 0 <= q <= 1 or not all(0 <= value < math.inf for value in noise):
        raise PrivacyParameterError(f"{mechanism} has a rate outside [0, 1] or noise that is negative or not finite")
    if isinstance(mechanism, SelectionDpEvent):  # its own parameters were checked when it was made
        for candidate in mechanism.candidates:
            leaves(candidate)
    inner = getattr(mechanism, "event", None)
    if isinstance(inner, DpEvent):
        _check_parameters(inner)


def event_of(leaf: str) -> DpEvent:
    """The elementary event of a canonical text; raises `LedgerError` for an unknown one."""
    return from_row(json.loads(leaf))


def to_row(mechanism: DpEvent) -> Row:
    """A `DpEvent` as JSON values; raises `LedgerError` for a kind that is not known here."""
    name = type(mechanism).__name__
    if _KNOWN.get(name) is not type(mechanism):
        raise LedgerError(f"event {name} is not known to the ledger: use one of {', '.join(_KNOWN)}")
    row: Row = {"kind": name}
    for attribute in type(mechanism).__attrs_attrs__:
        row[attribute.name] = _value_row(getattr(mechanism, attribute.name))
    if isinstance(mechanism, SelectionDpEvent) and math.isinf(mechanism.shape):
        row["shape"] = _POISSON
    return row


def from_row(row: Mapping[str, Any]) -> DpEvent:
    """The inverse of `to_row`; raises `LedgerError`."""
    try:
        made = _KNOWN[row["kind"]]
        values = {key: _row_value(value) for key, value in row.items() if key != "kind"}
        if made is SelectionDpEvent and values["shape"] == _POISSON:
            values["shape"] = math.inf
        return made(**values)
    except (KeyError, TypeError, ValueError, PrivacyParameterError) as error:
        raise LedgerError(f"{dict(row)} is no known event") from error


def _value_row(value: object) -> object:
    if isinstance(value, DpEvent):
        return to_row(value)
    return [to_row(item) for item in value] if isinstance(value, list | tuple) else value


def _row_value(value: object) -> object:
    if isinstance(value, Mapping):
        return from_row(value)
    return [from_row(item) for item in value] if isinstance(value, list) else value


def check_delta_of(budget: Budget, unit: Unit, sizes: Mapping[str, int]) -> None:
    """Raises `PrivacyParameterError` for a delta that promises nothing: above one over how many units there are.

    With n units, publishing one that is drawn at random is (0, 1/n)-private (Dwork and Roth 2014, section 2.3).

    Args:
        sizes: by client, how many records; for whole clients their number counts.
    """
    if budget.large_delta or not sizes:
        return
    name = min(sizes, key=lambda client: sizes[client])
    count = len(sizes) if unit == "client" else sizes[name]
    if budget.delta * count > 1:
        whose = f"{count} clients" if unit == "client" else f"the {count} training records of client {name!r}"
        raise PrivacyParameterError(
            f"delta={budget.delta:g} is too large for {whose}: at 1/{count} publishing one at random would be allowed; "
            "take far less, or say that it is meant with privacy.large_delta=true"
        )
