"""A trial as a value: what the study knows of it, whichever database that is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["waiting", "running", "complete", "failed", "pruned"]
STATES: tuple[State, ...] = ("waiting", "running", "complete", "failed", "pruned")
FINISHED: tuple[State, ...] = ("complete", "failed", "pruned")


@dataclass(frozen=True)
class Record:
    """One trial.

    Args:
        number: in the study, from 0. place: of its point, which replicates share. seed: of the run.
        screening: it decides what is pruned, and is in no mean. reference: its label, if it is beside the axes.
        params: label or number by axis; empty if it is still to be drawn.
        values: of the objectives, and result: the row of `trial.row_of`; both of a complete one alone.
        error: why it failed or was pruned. spent: plans that were spent on it, one for each time it was begun.
    """

    number: int
    state: State
    place: int
    seed: int
    screening: bool = False
    reference: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    values: Sequence[float] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    spent: Sequence[Mapping[str, Any]] = ()

    @property
    def finished(self) -> bool:
        """Whether it has ended for good."""
        return self.state in FINISHED
