"""A sweep's study: which trials there are, who runs them, and what came of them. Optuna holds it.

A trial is WAITING, RUNNING, and then COMPLETE, FAIL or PRUNED for good. Every step is taken under the storage's lock,
by whoever shares the study, so that no trial is lost, run twice or counted twice:

- *claim* turns one WAITING trial into RUNNING and writes who runs it;
- *finish* and *fail* end a trial, if it is still this process's;
- *reclaim* turns RUNNING trials whose process has died back into WAITING.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from framp_private.errors import StorageError
from framp_private.privacy.selection import draw_repetitions
from framp_private.randomness import Entropy, Streams
from framp_private.sweep.axes import Axis, Choices
from framp_private.sweep.owners import Owner, Watch
from framp_private.sweep.pruning import hopeless
from framp_private.sweep.record import Record, State
from framp_private.sweep.slots import Slot, slots_of
from framp_private.sweep.spec import REFERENCE, Point, Sweep
from framp_private.sweep.storage import Storage
from framp_private.version import __version__

_STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}
PRUNED = "pruned: screening found a point that is better in everything"
FORMAT = 1
"""Of what a study holds besides Optuna's own tables; another one is refused."""


@dataclass(frozen=True)
class Claimed:
    """A trial that this process runs: its number, the run's point and seed, and how often it was begun before."""

    number: int
    point: Point
    seed: int
    screening: bool
    attempts: int


class Study:
    """One process's view of a study. Make it with `open_study`."""

    def __init__(self, storage: Storage, sweep: Sweep, study_id: int) -> None:
        self.storage, self.sweep, self.owner = storage, sweep, Owner.me()
        self._id, self._watch, self._beats = study_id, Watch(), 0
        self._queue: deque[int] = deque()
        self._known: list[FrozenTrial] = []
        self._pruned: frozenset[int] | None = None if sweep.pruning else frozenset()

    def trials(self) -> list[Record]:
        """All trials as they are now, by number."""
        return [record_of(trial) for trial in self._read()]

    def trial(self, number: int) -> Record:
        """One trial as it is now."""
        trial_id = self._known[number]._trial_id
        return record_of(self.storage.patiently(lambda: self.storage.trials.get_trial(trial_id)))

    def claim(self) -> Claimed | None:
        """The next trial to run, None if all are finished, running elsewhere, or wait for something."""
        with self._exclusive():
            while self._queue:
                number = self._queue.popleft()
                claimed = self.storage.patiently(lambda number=number: self._take(number))  # type: ignore[misc]
                if claimed is not None:
                    return claimed
        return None

    def refresh(self) -> bool:
        """Takes dead processes' trials back and looks for waiting ones; False once every trial is finished."""
        with self._exclusive():
            trials = self._read()
            self._known = trials
            running = [trial for trial in trials if trial.state is TrialState.RUNNING]
            dead = self._dead(running) if running else []
            for trial in dead:
                self._put_back(trial._trial_id)
            waiting = [trial for trial in trials if trial.state is TrialState.WAITING]
            self._queue = deque(sorted(trial.number for trial in [*waiting, *dead]))
            if self._pruned is None:
                self._settle_pruning(trials)
        return any(not trial.state.is_finished() for trial in trials)

    def others(self) -> int:
        """How many trials other living processes run now."""
        with self._exclusive():
            running = [trial for trial in self._read() if trial.state is TrialState.RUNNING]
            return len(running) - len(self._dead(running)) - sum(self._mine(trial) for trial in running)

    def note(self, number: int, key: str, value: Any) -> None:
        """Writes something on a running trial."""
        self.storage.patiently(
            lambda: self.storage.trials.set_trial_user_attr(self._known[number]._trial_id, key, value)
        )

    def finish(self, number: int, row: Mapping[str, Any], values: Sequence[float]) -> bool:
        """Ends a trial with its result; False if another process ended it meanwhile, whose result stays."""
        return self._end(number, {"result": dict(row)}, TrialState.COMPLETE, values)

    def fail(self, number: int, error: str) -> bool:
        """Ends a trial that crashed, and keeps why."""
        return self._end(number, {"error": error}, TrialState.FAIL, None)

    def release(self, number: int) -> None:
        """Gives a trial back that was not ended."""

        def give() -> None:
            trial = self.storage.trials.get_trial(self._known[number]._trial_id)
            if trial.state is TrialState.RUNNING and self._mine(trial):
                self._put_back(trial._trial_id)

        with self._exclusive():
            self.storage.patiently(give)
        self._queue.append(number)

    def beat(self) -> None:
        """Tells watchers on other machines that this process lives."""
        self._beats += 1
        key = f"beat:{self.owner.id}"
        self.storage.patiently(lambda: self.storage.trials.set_study_user_attr(self._id, key, self._beats))

    def _read(self) -> list[FrozenTrial]:
        return self.storage.patiently(lambda: self.storage.trials.get_all_trials(self._id, deepcopy=False))

    def _exclusive(self) -> Any:
        return self.storage.exclusive(self.sweep.name)

    def _mine(self, trial: FrozenTrial) -> bool:
        return bool(trial.user_attrs.get("owner", {}).get("id") == self.owner.id)

    def _dead(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those whose process lives no more, or died while it claimed them."""
        facts = self.storage.patiently(lambda: self.storage.trials.get_study_user_attrs(self._id))
        found = []
        for trial in running:
            row = trial.user_attrs.get("owner")
            owner = Owner.of_row(row) if row else None
            if owner is None or not self._watch.alive(owner, facts.get(f"beat:{owner.id}")):
                found.append(trial)
        return found

    def _put_back(self, trial_id: int) -> None:
        self.storage.trials.set_trial_user_attr(trial_id, "owner", {})
        self.storage.trials.set_trial_state_values(trial_id, TrialState.WAITING)

    def _take(self, number: int) -> Claimed | None:
        """Claims a trial that was waiting at the last look; None if it no longer is, or cannot be run yet."""
        trials, trial = self.storage.trials, self._known[number]
        slot = trial.user_attrs["slot"]
        if not slot["screening"] and self._pruned is None:
            return None  # until all of the screening is in; `refresh` looks again
        point = self._point(trial)
        if point is None or not self._run(trial._trial_id):
            return None
        if not slot["screening"] and slot["place"] in (self._pruned or ()):
            trials.set_trial_user_attr(trial._trial_id, "error", PRUNED)
            trials.set_trial_state_values(trial._trial_id, TrialState.PRUNED)
            return None
        trials.set_trial_user_attr(trial._trial_id, "owner", self.owner.to_row())
        if not point:
            point = self._suggest(trial._trial_id, number)
        attempts = int(trial.user_attrs.get("attempts", 0))
        return Claimed(number, point, int(slot["seed"]), bool(slot["screening"]), attempts)

    def _run(self, trial_id: int) -> bool:
        """From WAITING to RUNNING; False if somebody else was first."""
        try:
            return self.storage.trials.set_trial_state_values(trial_id, TrialState.RUNNING)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def _point(self, trial: FrozenTrial) -> Point | None:
        """A trial's point: an empty one if its sampler is still to draw it, None if another replicate is to do so."""
        slot = trial.user_attrs["slot"]
        if REFERENCE in slot:
            return {REFERENCE: slot[REFERENCE]}
        if trial.params:
            return {axis.name: trial.params[axis.name] for axis in self.sweep.axes}
        first = self._first(trial.number)
        if first == trial.number:
            return {}
        return {} if self.storage.trials.get_trial(self._known[first]._trial_id).params else None

    def _first(self, number: int) -> int:
        """The number of the first replicate of an adaptive point."""
        return number - number % len(self.sweep.seeds)

    def _suggest(self, trial_id: int, number: int) -> Point:
        """Draws an adaptive point, or repeats what its first replicate drew; it is in the storage when this returns."""
        storage, first = self.storage.trials, self._first(number)
        if first != number:
            leader = storage.get_trial(self._known[first]._trial_id)
            for name, value in leader.params.items():
                distribution = leader.distributions[name]
                storage.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)
            return dict(leader.params)
        study = optuna.load_study(study_name=self.sweep.name, storage=storage, sampler=_sampler(self.sweep, number))
        trial = optuna.Trial(study, trial_id)
        point: dict[str, Any] = {}
        for axis in self.sweep.axes:
            point[axis.name] = trial._suggest(axis.name, distribution_of(axis))
        return point

    def _end(self, number: int, facts: Mapping[str, Any], state: TrialState, values: Sequence[float] | None) -> bool:
        trials, trial_id = self.storage.trials, self._known[number]._trial_id

        def end() -> bool:
            try:
                for key, value in facts.items():
                    trials.set_trial_user_attr(trial_id, key, value)
                return trials.set_trial_state_values(trial_id, state, values)
            except optuna.exceptions.UpdateFinishedTrialError:  # by another process, or by an attempt before this one
                found = trials.get_trial(trial_id)
                return found.state is state and self._mine(found)

        with self._exclusive():
            return self.storage.patiently(end)

    def _settle_pruning(self, trials: Sequence[FrozenTrial]) -> None:
        screened = [trial for trial in trials if trial.user_attrs["slot"]["screening"]]
        if all(trial.state.is_finished() for trial in screened):
            rows = [
                (trial.user_attrs["slot"]["place"], trial.user_attrs["result"])
                for trial in screened
                if trial.state is TrialState.COMPLETE
            ]
            self._pruned = hopeless(self.sweep, rows)


def record_of(trial: FrozenTrial) -> Record:
    """A trial as Optuna has it, as a value."""
    facts, slot = trial.user_attrs, trial.user_attrs["slot"]
    return Record(
        trial.number,
        _STATES[trial.state],
        slot["place"],
        slot["seed"],
        slot["screening"],
        slot.get(REFERENCE),
        trial.params,
        tuple(trial.values or ()),
        facts.get("result", {}) if trial.state is TrialState.COMPLETE else {},
        facts.get("error", "") if trial.state.is_finished() else "",
        tuple(facts.get("spent", ())),
    )


def open_study(storage: Storage, sweep: Sweep) -> Study:
    """Opens the sweep's study, and plans it if nobody has.

    Raises:
        StorageError: the storage holds another sweep of this name, or one that another version made.
    """
    with storage.exclusive(sweep.name):
        study_id = storage.patiently(lambda: _opened(storage, sweep))
    study = Study(storage, sweep, study_id)
    study.refresh()
    return study


def find_study(storage: Storage, sweep: Sweep) -> Study:
    """The sweep's study as it is, to look at. Raises `StorageError` if there is none."""
    try:
        study_id = storage.patiently(lambda: storage.trials.get_study_id_from_name(sweep.name))
    except KeyError:
        raise StorageError(
            f"{storage.shown} holds no study {sweep.name!r}: start it with `framp-private sweep`"
        ) from None
    return Study(storage, sweep, study_id)


def distribution_of(axis: Axis) -> BaseDistribution:
    """An axis as Optuna has it."""
    if isinstance(axis, Choices):
        return CategoricalDistribution(axis.labels)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _opened(storage: Storage, sweep: Sweep) -> int:
    trials = storage.trials
    directions = [optuna.study.StudyDirection[o.direction.upper()] for o in sweep.objectives]
    try:
        study_id = trials.get_study_id_from_name(sweep.name)
    except KeyError:
        study_id = trials.create_new_study(directions, sweep.name)
    facts = trials.get_study_user_attrs(study_id)
    if "planned" not in facts:
        return _plan(storage, sweep, study_id, facts)
    if (facts.get("format"), facts.get("version")) != (FORMAT, __version__):
        raise StorageError(
            f"study {sweep.name!r} in {storage.shown} was made by version {facts.get('version')} (format "
            f"{facts.get('format')}), this is {__version__} (format {FORMAT}): finish it with the version that began "
            f"it, "
            "or give the sweep another name"
        )
    if facts.get("digest") != sweep.digest:
        before, now = facts.get("sweep", {}), sweep.as_row()
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key)) or ["the order of its axes"]
        raise StorageError(
            f"study {sweep.name!r} in {storage.shown} is of another sweep, which differs in {', '.join(changed)}: give "
            "this one another name, or go on with the other's file"
        )
    return int(study_id)


def _plan(storage: Storage, sweep: Sweep, study_id: int, facts: Mapping[str, Any]) -> int:
    """Writes every trial, going on where a process that died meanwhile stopped."""
    trials = storage.trials
    written = trials.get_all_trials(study_id, deepcopy=False)
    if not facts:
        if written:
            raise StorageError(
                f"{storage.shown} holds a study {sweep.name!r} that no sweep made: give the sweep another name"
            )
        for key, value in {"format": FORMAT, "version": __version__, "sweep": sweep.as_row()}.items():
            trials.set_study_user_attr(study_id, key, value)
    for place, slot in enumerate(_slots(storage, sweep, study_id, facts)):
        if place >= len(written):
            trials.create_new_trial(study_id, _template(sweep, slot))
    trials.set_study_user_attr(study_id, "digest", sweep.digest)
    trials.set_study_user_attr(study_id, "planned", True)
    return study_id


def _slots(storage: Storage, sweep: Sweep, study_id: int, facts: Mapping[str, Any]) -> list[Slot]:
    """Where only the best is published, what was drawn in secret is stored first, so that it is drawn once."""
    if sweep.choosing.publish == "all":
        return slots_of(sweep)
    if "drawn" not in facts:
        entropy = Entropy()
        count = draw_repetitions(sweep.choosing.mean, sweep.choosing.shape, entropy)
        made = slots_of(sweep, count, entropy)
        storage.trials.set_study_user_attr(study_id, "drawn", [[s.place, s.seed, dict(s.point or {})] for s in made])
        return made
    return [Slot(place, seed, point) for place, seed, point in facts["drawn"]]


def _template(sweep: Sweep, slot: Slot) -> FrozenTrial:
    facts: dict[str, Any] = {"place": slot.place, "seed": slot.seed, "screening": slot.screening}
    params: Mapping[str, Any] = slot.point or {}
    if REFERENCE in params:
        facts, params = {**facts, **params}, {}
    spaces = {axis.name: distribution_of(axis) for axis in sweep.axes if axis.name in params}
    return create_trial(state=TrialState.WAITING, params=dict(params), distributions=spaces, user_attrs={"slot": facts})


def _sampler(sweep: Sweep, number: int) -> optuna.samplers.BaseSampler:
    """The adaptive sampler, seeded for one trial so that what was drawn does not hang on which process drew it."""
    seed = Streams(sweep.sampler_seed).child("sampler", number).integer() % 2**31
    if sweep.sampler == "nsga2":
        size = max(4, min(20, (sweep.points or 8) // 4))
        return optuna.samplers.NSGAIISampler(population_size=size, seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(4, min(10, (sweep.points or 8) // 3)))
