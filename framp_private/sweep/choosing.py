"""What the whole sweep has spent: one account for each unit and neighbouring relation, over every trial.

Each trial has ledgers of its own. Whoever compares trials has seen them all, so that they compose; where only the best
run of a number drawn at random is published, that costs less (Papernot and Steinke 2022, arXiv 2110.03620;
docs/accounting.md). A trial's whole plan is spent here before its run begins, and stays spent if it dies: in the study
first, which all machines share, then in this machine's ledgers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dp_accounting import ComposedDpEvent, SelfComposedDpEvent

from framp_private.crypto.keys import Identity
from framp_private.errors import ConfigError
from framp_private.federated.row_signer import RowSigner
from framp_private.privacy.chain import Head
from framp_private.privacy.claims import Unit
from framp_private.privacy.events import Budget, Event, Relation, event_of
from framp_private.privacy.ledger import Ledger
from framp_private.privacy.selection import SelectionDpEvent
from framp_private.randomness import Entropy
from framp_private.sweep.record import Record
from framp_private.sweep.spec import Choosing

Plan = Mapping[str, Any]
"""A run's plan as `trial.planned` makes it; empty if it releases nothing."""
BEST = "the best of the repetitions"


def event_of_plan(plan: Plan) -> Event:
    """A whole run's releases as one event."""
    parts = [SelfComposedDpEvent(event_of(leaf), count) for leaf, count in sorted(plan["events"].items())]
    return Event(ComposedDpEvent(parts), plan["unit"], plan["relation"], plan["noise_values"])


def label_of(number: int, draw: int) -> str:
    """Of a trial's spend; a trial that had to be begun anew elsewhere has drawn noise twice."""
    return f"trial {number:04d}" if draw == 0 else f"trial {number:04d}, begun anew {draw}"


class SweepAccounts:
    """The sweep's ledgers in a folder, signed by a key beside them."""

    def __init__(self, folder: Path, name: str, choosing: Choosing) -> None:
        self._folder, self._name, self._choosing = folder, name, choosing

    def spend(self, plan: Plan, label: str) -> None:
        """Spends a run's plan; nothing if the label was spent before or the run releases nothing.

        Raises:
            PrivacyBudgetExhausted: the sweep has a budget that this would exceed.
        """
        if plan:
            self._open(plan["unit"], plan["relation"], plan["delta"]).spend(event_of_plan(plan), label)

    def spend_best(self, plans: Sequence[Plan]) -> None:
        """Spends, once and before the first run, what publishing the best repetition will cost.

        Args:
            plans: of every setting that may be drawn.

        Raises:
            ConfigError: they protect different units, or one of them guarantees nothing.
        """
        kinds = {(plan.get("unit"), plan.get("relation"), plan.get("delta")) for plan in plans}
        if len(kinds) != 1 or not all(plan and plan["delta"] is not None for plan in plans):
            raise ConfigError(
                "choosing.publish=best needs every setting to guarantee the same unit, relation and delta: these "
                "differ, "
                "or one of them guarantees nothing"
            )
        whole = [event_of_plan(plan) for plan in plans]
        values = math.ceil(self._choosing.mean * max(event.noise_values for event in whole))  # on average, of all runs
        mechanism = SelectionDpEvent(
            [event.mechanism for event in whole], mean=self._choosing.mean, shape=self._choosing.shape
        )
        event = Event(mechanism, whole[0].unit, whole[0].relation, values)
        self._open(whole[0].unit, whole[0].relation, plans[0]["delta"]).spend(event, BEST)

    def settle(self, trials: Sequence[Record]) -> None:
        """Takes in what other machines have spent, as the study tells."""
        for trial in trials:
            for draw, plan in enumerate(trial.spent):
                self.spend(plan, label_of(trial.number, draw))

    def report(self, trials: Sequence[Record]) -> dict[str, Any]:
        """What choosing costs, by account: epsilon of the whole, of the dearest single run, and the rule."""
        plans = [plan for trial in trials for plan in trial.spent if plan]
        rows = []
        for unit, relation in sorted({(plan["unit"], plan["relation"]) for plan in plans}):
            of_account = [plan for plan in plans if (plan["unit"], plan["relation"]) == (unit, relation)]
            deltas = [plan["delta"] for plan in of_account if plan["delta"] is not None]
            row: dict[str, Any] = {"unit": unit, "relation": relation, "runs": len(of_account)}
            row |= {"without_guarantee": len(of_account) - len(deltas), "delta": min(deltas) if deltas else None}
            ledger = self._open(unit, relation, row["delta"])
            spent = ledger.epsilon(row["delta"]) if len(deltas) == len(of_account) else math.inf
            head, bounded = ledger.verify(), spent
            if 0 < len(deltas) < len(of_account):
                bounded = self._composed([plan for plan in of_account if plan["delta"] is not None], row["delta"])
            row |= {"epsilon": spent if math.isfinite(spent) else None, "ledger": _head(head)}
            row["epsilon_with_guarantee"] = bounded if math.isfinite(bounded) else None
            row["ledger"]["file"] = str(self._path(unit, relation).relative_to(self._folder))
            rows.append(row)
        return {"records": self._choosing.records, "publish": self._choosing.publish, "accounts": rows}

    def _composed(self, plans: Sequence[Plan], delta: float) -> float:
        """Epsilon of these runs together, which the account's other runs have no part in."""
        ledger = Ledger.open(None, unit=plans[0]["unit"], relation=plans[0]["relation"])
        ledger.spend_all({str(place): event_of_plan(plan) for place, plan in enumerate(plans)})
        return ledger.epsilon(delta)

    def _path(self, unit: str, relation: str) -> Path:
        return self._folder / "ledgers" / f"{unit}-{relation.replace('/', '-').replace(' ', '-')}.jsonl"

    def _open(self, unit: Unit, relation: Relation, delta: float | None) -> Ledger:
        path = self._path(unit, relation)
        path.parent.mkdir(parents=True, exist_ok=True)
        signer = RowSigner(Identity.of_file(self._folder / "keys" / "sweep.key", Entropy()))
        limit = self._choosing.budget
        budget = Budget(limit, delta if delta is not None else 1e-5) if limit is not None else None
        owner = f"sweep {self._name}"
        return Ledger.open(path, unit=unit, relation=relation, owner=owner, budget=budget, signer=signer)


def _head(head: Head) -> dict[str, Any]:
    return {"rows": head.rows, "hash": head.hash}
