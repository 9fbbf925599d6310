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
from framp_private.crypto.secret_files import private_of
from framp_private.errors import ConfigError, LedgerError, PrivacyBudgetExhausted
from framp_private.federated.row_signer import RowSigner
from framp_private.privacy.chain import Head
from framp_private.privacy.claims import Unit
from framp_private.privacy.events import Budget, Event, Relation, event_of
from framp_private.privacy.ledger import Ledger
from framp_private.privacy.selection import SelectionDpEvent
from framp_private.randomness import Entropy
from framp_private.sweep.record import Record
from framp_private.sweep.spec import ADAPTIVE, Sweep

Plan = Mapping[str, Any]
"""A run's plan as `trial.planned` makes it; empty if it releases nothing."""
NO_DELTA = 1e-5
"""What a run without a guarantee is held against: it exceeds every budget at any delta."""
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

    def __init__(self, folder: Path, sweep: Sweep) -> None:
        self._folder, self._name, self._choosing = folder, sweep.name, sweep.choosing
        self._adaptive = sweep.sampler in ADAPTIVE or sweep.pruning is not None
        self._best: Plan | None = None

    def check(self, plan: Plan, trials: Sequence[Record]) -> None:
        """Raises `PrivacyBudgetExhausted` if the sweep has a budget that a run's plan would exceed; writes nothing.

        Budgets hold at the smallest delta of the account's runs, as the report has it.
        """
        limit = self._choosing.budget
        if limit is None or not plan:
            return
        own = [each for trial in trials for each in trial.spent if each and _kind(each) == _kind(plan)]
        deltas = [each["delta"] for each in (*own, plan) if each["delta"] is not None]
        budget, event = Budget(limit, min(deltas, default=NO_DELTA)), event_of_plan(plan)
        exceeds = self._open(plan["unit"], plan["relation"]).would_exceed(event, budget)
        if self._adaptive and not exceeds:  # as it will be reported: by RDP, from the second run on
            bounded = all(each["delta"] is not None for each in (*own, plan))
            exceeds = not bounded or self._composed([*own, plan], budget.delta) > limit
        if exceeds:
            raise PrivacyBudgetExhausted(
                f"the next run would bring the sweep's account of unit {plan['unit']} over epsilon={limit:g}: "
                "nothing of it was released; stop here, or plan fewer or noisier runs"
            )

    def spend(self, plan: Plan, label: str) -> None:
        """Spends a run's plan; nothing if the label was spent before or the run releases nothing."""
        if plan:
            self._spend_all(plan["unit"], plan["relation"], {label: plan})

    def spend_best(self, plans: Sequence[Plan]) -> None:
        """Spends, once and before the first run, what publishing the best repetition will cost.

        Args:
            plans: of every setting that may be drawn.

        Raises:
            ConfigError: they protect different units, or one of them guarantees nothing.
            PrivacyBudgetExhausted: it costs more than the sweep's budget.
        """
        kinds = {(plan.get("unit"), plan.get("relation"), plan.get("delta")) for plan in plans}
        if len(kinds) != 1 or not all(plan and plan["delta"] is not None for plan in plans):
            raise ConfigError(
                "choosing.publish=best needs every setting to guarantee the same unit, relation and delta: these "
                "differ, or one of them guarantees nothing"
            )
        whole, first = [event_of_plan(plan) for plan in plans], plans[0]
        values = math.ceil(self._choosing.mean * max(event.noise_values for event in whole))  # on average, of all runs
        candidates = [event.mechanism for event in whole]
        mechanism = SelectionDpEvent(candidates, mean=self._choosing.mean, shape=self._choosing.shape)
        event = Event(mechanism, first["unit"], first["relation"], values)
        ledger = self._open(first["unit"], first["relation"])
        self._best, limit = first, self._choosing.budget
        if limit is not None and not ledger.has(BEST) and ledger.would_exceed(event, Budget(limit, first["delta"])):
            raise PrivacyBudgetExhausted(
                f"publishing the best run would cost more than choosing.budget={limit:g}: nothing was released; plan "
                "fewer repetitions, or noisier runs"
            )
        ledger.spend(event, BEST)

    def knows(self, plan: Plan, label: str) -> bool:
        """Whether a label was spent before."""
        return bool(plan) and self._open(plan["unit"], plan["relation"]).has(label)

    def settle(self, trials: Sequence[Record]) -> None:
        """Takes in what other machines have spent, as the study tells. Where the best is published, that is nothing."""
        if self._choosing.publish == "best":
            return
        kinds: dict[tuple[Unit, Relation], dict[str, Plan]] = {}
        for trial in trials:
            for draw, plan in enumerate(trial.spent):
                if plan:
                    kinds.setdefault(_kind(plan), {})[label_of(trial.number, draw)] = plan
        for (unit, relation), plans in kinds.items():
            self._spend_all(unit, relation, plans)

    def report(self, trials: Sequence[Record]) -> dict[str, Any]:
        """What choosing costs, by account: epsilon of the whole, of the part with a guarantee, and the rule.

        An account's epsilon is None if any run of the sweep lies outside of it: that one has no guarantee of its terms.
        """
        plans = [plan for trial in trials for plan in trial.spent if plan]
        if self._choosing.publish == "best":
            plans = [self._best] if self._best is not None else []
        rows = [self._account(unit, relation, plans) for unit, relation in sorted({_kind(plan) for plan in plans})]
        return {"records": self._choosing.records, "publish": self._choosing.publish, "accounts": rows}

    def _account(self, unit: Unit, relation: Relation, plans: Sequence[Plan]) -> dict[str, Any]:
        own = [plan for plan in plans if _kind(plan) == (unit, relation)]
        bounded = [plan for plan in own if plan["delta"] is not None]
        delta = min((plan["delta"] for plan in bounded), default=None)
        ledger, best = self._open(unit, relation), self._choosing.publish == "best"
        part = math.inf
        if best and delta is not None:
            part = ledger.epsilon(delta)
        elif delta is not None:
            part = self._composed(bounded, delta)
        whole = part if len(bounded) == len(plans) else math.inf
        head = ledger.verify()
        return {
            "unit": unit,
            "relation": relation,
            "runs": len(own),
            "without_guarantee": len(own) - len(bounded),
            "outside": len(plans) - len(own),
            "delta": delta,
            "trust_models": sorted({str(plan["trust_model"]) for plan in bounded if plan.get("trust_model")}),
            "epsilon": whole if math.isfinite(whole) else None,
            "epsilon_with_guarantee": part if math.isfinite(part) else None,
            "ledger": {**_head(head), "file": str(self._path(unit, relation).relative_to(self._folder))},
        }

    def _spend_all(self, unit: Unit, relation: Relation, plans: Mapping[str, Plan]) -> None:
        ledger = self._open(unit, relation)
        new = {label: event_of_plan(plan) for label, plan in plans.items() if not ledger.has(label)}
        if not new:
            return
        if self._adaptive:  # several plans: then the ledger goes by RDP, which holds for runs chosen on the way
            for label, event in new.items():
                ledger.declare([(event, 1)], label)
        ledger.spend_all(new)

    def _composed(self, plans: Sequence[Plan], delta: float) -> float:
        """Epsilon of these runs together, which the account's other runs have no part in."""
        ledger = Ledger.open(None, unit=plans[0]["unit"], relation=plans[0]["relation"])
        events = {str(place): event_of_plan(plan) for place, plan in enumerate(plans)}
        if self._adaptive:
            for label, event in events.items():
                ledger.declare([(event, 1)], label)
        ledger.spend_all(events)
        return ledger.epsilon(delta)

    def _path(self, unit: str, relation: str) -> Path:
        return self._folder / "ledgers" / f"{unit}-{relation.replace('/', '-').replace(' ', '-')}.jsonl"

    def _open(self, unit: Unit, relation: Relation) -> Ledger:
        path = self._path(unit, relation)
        path.parent.mkdir(parents=True, exist_ok=True)
        key = private_of(self._folder) / "keys" / "sweep.key"
        if path.is_file() and not key.is_file():
            raise LedgerError(f"{path} is there, and {key}, which signs it, is not: bring it back, or look only")
        signer = RowSigner(Identity.of_file(key, Entropy()))
        return Ledger.open(path, unit=unit, relation=relation, owner=f"sweep {self._name}", signer=signer)


def _kind(plan: Plan) -> tuple[Unit, Relation]:
    return plan["unit"], plan["relation"]


def _head(head: Head) -> dict[str, Any]:
    return {"rows": head.rows, "hash": head.hash}
