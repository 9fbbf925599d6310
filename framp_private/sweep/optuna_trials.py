"""Between a sweep's values and Optuna's: axes as distributions, slots as templates, stored trials as records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from framp_private.randomness import Streams
from framp_private.sweep.axes import Axis, Choices
from framp_private.sweep.record import Record, State
from framp_private.sweep.slots import Slot
from framp_private.sweep.spec import REFERENCE, Sweep

_STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}


def record_of(trial: FrozenTrial, slot: Slot) -> Record:
    """A stored trial, and what its number stands for."""
    facts = trial.user_attrs
    return Record(
        trial.number,
        _STATES[trial.state],
        slot.place,
        slot.seed,
        slot.screening,
        (slot.point or {}).get(REFERENCE),
        trial.params,
        tuple(trial.values or ()),
        facts.get("result", {}) if trial.state is TrialState.COMPLETE else {},
        facts.get("error", "") if trial.state.is_finished() else "",
        tuple(facts.get("spent", ())),
    )


def waiting(number: int, slot: Slot) -> Record:
    """A trial that nobody has begun, and that is stored nowhere."""
    point = slot.point or {}
    reference = point.get(REFERENCE)
    params = {} if reference is not None else point
    return Record(number, "waiting", slot.place, slot.seed, slot.screening, reference, params)


def template(sweep: Sweep, slot: Slot, state: TrialState, facts: Mapping[str, Any]) -> FrozenTrial:
    """What is stored when a trial begins, or is pruned."""
    params: Mapping[str, Any] = slot.point or {}
    if REFERENCE in params:
        facts, params = {**facts, **params}, {}
    spaces = {axis.name: distribution_of(axis) for axis in sweep.axes if axis.name in params}
    return create_trial(state=state, params=dict(params), distributions=spaces, user_attrs=dict(facts))


def distribution_of(axis: Axis) -> BaseDistribution:
    """An axis."""
    if isinstance(axis, Choices):
        return CategoricalDistribution(axis.labels)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def sampler_of(sweep: Sweep, number: int) -> optuna.samplers.BaseSampler:
    """The adaptive sampler, seeded for one trial so that what was drawn does not hang on which process drew it."""
    seed = Streams(sweep.sampler_seed).child("sampler", number).integer() % 2**31
    if sweep.sampler == "nsga2":
        size = max(4, min(20, (sweep.points or 8) // 4))
        return _Evolution({axis.name: distribution_of(axis) for axis in sweep.axes}, size, seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(4, min(10, (sweep.points or 8) // 3)))


class _Evolution(optuna.samplers.NSGAIISampler):
    """Knows all axes beforehand: it would look for those that every finished trial has, and references have none."""

    def __init__(self, space: Mapping[str, BaseDistribution], population: int, seed: int) -> None:
        super().__init__(population_size=population, seed=seed)
        self._axes = {name: each for name, each in space.items() if not each.single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All axes that have more than one value."""
        return self._axes
