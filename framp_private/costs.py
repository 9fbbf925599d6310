"""What the channels of a federation cost: each alone, all together, and round by round."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from framp_private.federated.accounts import claim_of
from framp_private.federated.federation import Federation
from framp_private.privacy import accounting
from framp_private.privacy.claims import THIS_RUN, Claim, no_guarantee
from framp_private.privacy.events import Event, leaves
from framp_private.protections import Channel


def planned_claim(federation: Federation, delta: float | None) -> Claim:
    """What the run may claim once all its planned releases are made."""
    if delta is None:
        return no_guarantee(federation.unit, why=federation.why)
    spent = _spent(federation.planned(next(iter(federation.budgets))), delta)
    return claim_of(federation, spent, delta, THIS_RUN)


def channel_costs(federation: Federation, delta: float) -> dict[str, dict[str, Any]]:
    """What each channel alone costs a client in the whole run; channel epsilons do not add up."""
    client = next(iter(federation.budgets))
    rows: dict[str, dict[str, Any]] = {}
    rounds = federation.rounds
    plan: dict[str, tuple[Event, int]] = {
        name: (federation.event(name, client), 1 if name == "descriptor" else rounds) for name in federation.channels
    }
    named = {"preparation": "aggregation", "home/descriptor": "descriptor"}
    prepared = {named[label]: (event, 1) for label, event in federation.at_home(client).items()}
    for channel, (event, count) in {**plan, **prepared}.items():
        alone = accounting.epsilon(leaves(event.mechanism, count), event.relation, delta)
        rows[channel] = {
            "unit": event.unit,
            "relation": event.relation,
            "epsilon": alone if math.isfinite(alone) else None,
            "delta": delta,
            "releases": count,
            "trust_model": federation.trust,
            **_noise(federation, channel),
        }
    return rows


def epsilon_by_round(federation: Federation, delta: float, points: int = 8) -> list[tuple[int, float]]:
    """(rounds done, epsilon) of a client that takes part in all of them, at evenly spaced rounds and the last."""
    client, rounds = next(iter(federation.budgets)), federation.rounds
    shown = sorted({max(1, round(rounds * place / points)) for place in range(1, points + 1)})
    plan = federation.planned(client)
    return [(done, _spent([(event, 1 if count == 1 else done) for event, count in plan], delta)) for done in shown]


def _spent(plan: Sequence[tuple[Event, int]], delta: float) -> float:
    """What events with their counts cost together."""
    counts: Counter[str] = Counter()
    for event, count in plan:
        counts += leaves(event.mechanism, count)
    values = sum(count * event.noise_values for event, count in plan)
    relation = plan[0][0].relation if plan else "add/remove"
    return accounting.epsilon(counts, relation, delta, values)


def _noise(federation: Federation, channel: str) -> dict[str, float | None]:
    """Clip norm and noise multiplier of what noises a channel: the trainer, its protection, or preparation."""
    source: object = federation.preparation
    if channel != "aggregation":
        source = federation.plan.protection(cast(Channel, channel))
        if channel == "update" and federation.trainer.event(0) is not None:
            source = federation.trainer
    return {name: getattr(source, name, None) for name in ("clip_norm", "noise_multiplier", "sampling_probability")}
