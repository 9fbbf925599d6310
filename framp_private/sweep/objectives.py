"""What a trial is judged by: numbers of a finished run, each with the direction in which it is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from framp_private.evaluation import budget_of

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Objective:
    """A number of a run.

    Args:
        name: as in a sweep's file. direction: in which it is better. of: reads it off a trial's row; None if the run
            has no such number. words: what it is. private: it depends on records beyond what was released.
        exact: it reads training records without noise, so that no claim of a run covers it.
    """

    name: str
    direction: Literal["maximize", "minimize"]
    of: Callable[[Row], float | None]
    words: str
    private: bool = True
    exact: bool = False


def _accuracy(kind: str, budget: str = "mean") -> Callable[[Row], float | None]:
    return lambda row: _number(row["accuracy"][kind][budget])


def _smallest(row: Row) -> float | None:
    name = min((key for key in row["accuracy"]["local"] if key != "mean"), key=budget_of)
    return _number(row["accuracy"]["local"][name])


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _epsilon(row: Row) -> float:
    """Of the unit that the run protects; infinite without a guarantee."""
    return math.inf if row["epsilon"] is None else float(row["epsilon"])


OBJECTIVES: tuple[Objective, ...] = (
    Objective("accuracy.local", "maximize", _accuracy("local"), "served model on its client's own test records"),
    Objective("accuracy.union", "maximize", _accuracy("union"), "served models on everybody's test records"),
    Objective(
        "accuracy.after_local_training",
        "maximize",
        _accuracy("after_local_training"),
        "served model trained further at home",
        exact=True,
    ),
    Objective("accuracy.worst_client", "maximize", lambda row: _number(row["worst_client"]), "worst client, local"),
    Objective("accuracy.smallest_budget", "maximize", _smallest, "clients of the smallest budget, local"),
    Objective(
        "accuracy.validation",
        "maximize",
        lambda row: _number(row["validation"]),
        "served model on validation records after the last round",
    ),
    Objective("epsilon", "minimize", _epsilon, "spent, of the unit that is protected", private=False),
    Objective("bytes", "minimize", lambda row: float(row["bytes"]), "carried both ways, whole run", private=False),
    Objective("seconds", "minimize", lambda row: float(row["seconds"]), "wall clock of the trial", private=False),
    Objective(
        "empirical_epsilon",
        "minimize",
        lambda row: _number(row["empirical_epsilon"]),
        "largest lower bound that an audit of the run reached",
        exact=True,
    ),
)
"""Every objective there is."""


def values(objectives: tuple[Objective, ...], row: Row) -> list[float] | None:
    """One number for each objective, None if the run lacks one of them."""
    found = [objective.of(row) for objective in objectives]
    return None if any(value is None for value in found) else [value for value in found if value is not None]
