"""A sweep's study: which trials there are, who runs them, and what came of them. Optuna holds it.

What the number of a trial stands for is known beforehand (`slots`). A trial is stored when it begins, as RUNNING and
with who runs it, and ends as COMPLETE, FAIL or PRUNED for good. Every step is taken under the storage's lock, by
whoever shares the study, so that no trial is lost, run twice or counted twice:

- *claim* begins the next trial, or one that was given back;
- *finish* and *fail* end a trial, whoever is first;
- *refresh* makes RUNNING trials whose process has died WAITING again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from framp_private.errors import StorageError
from framp_private.sweep.attributes import kept_error
from framp_private.sweep.optuna_trials import distribution_of, record_of, sampler_of, template, waiting
from framp_private.sweep.owners import Owner, Watch
from framp_private.sweep.pruning import hopeless
from framp_private.sweep.record import Record
from framp_private.sweep.slots import Slot
from framp_private.sweep.spec import Point, Sweep
from framp_private.sweep.storage import Storage

PRUNED = "pruned: screening found a point that is better in everything"


@dataclass(frozen=True)
class Claimed:
    """A trial that this process runs: its number, the run's point and seed, and how often its process died before."""

    number: int
    point: Point
    seed: int
    attempts: int


class Study:
    """One process's view of a study. Make it with `opening.open_study`."""

    def __init__(self, storage: Storage, sweep: Sweep, study_id: int, slots: Sequence[Slot], identity: str) -> None:
        self.storage, self.sweep, self.slots, self.owner = storage, sweep, slots, Owner.me()
        self.identity = identity
        self._id, self._watch, self._beats = study_id, Watch(), 0
        self._queue: deque[FrozenTrial] = deque()
        self._ids: dict[int, int] = {}
        self._held: set[int] = set()
        self._pruned: frozenset[int] | None = None if sweep.pruning else frozenset()

    def trials(self) -> list[Record]:
        """All trials as they are now, by number; those that nobody has begun are waiting."""
        stored = [record_of(trial, self.slots[trial.number]) for trial in self._read()]
        return stored + [waiting(number, self.slots[number]) for number in range(len(stored), len(self.slots))]

    def trial(self, number: int) -> Record:
        """One trial that was begun, as it is now."""
        found = self.storage.patiently(lambda: self.storage.trials.get_trial(self._ids[number]))
        return record_of(found, self.slots[number])

    def claim(self) -> Claimed | None:
        """The next trial to run, None if all are finished, running elsewhere, or wait for something."""
        with self._exclusive():
            while self._queue:
                trial = self._queue.popleft()
                again = self.storage.patiently(lambda trial=trial: self._take(trial))  # type: ignore[misc]
                if again is not None:
                    return self._hold(again)
            while self._beginnable():
                number = len(self._ids)
                begun = self.storage.patiently(lambda number=number: self._begin(number))  # type: ignore[misc]
                if begun is not None:
                    return self._hold(begun)
        return None

    def _hold(self, claimed: Claimed) -> Claimed:
        self._held.add(claimed.number)
        return claimed

    def refresh(self) -> bool:
        """Takes dead processes' trials back and looks for waiting ones; False once every trial is finished."""
        with self._exclusive():
            trials = self._read()
            self._ids = {trial.number: trial._trial_id for trial in trials}
            running = [trial for trial in trials if trial.state is TrialState.RUNNING]
            dead = self._dead(running) if running else []
            for trial in dead:
                self.storage.patiently(partial(self._put_back, trial._trial_id))
            left = [trial for trial in trials if trial.state is TrialState.WAITING] + dead
            self._queue = deque(sorted(left, key=lambda trial: trial.number))
            if self._pruned is None:
                self._settle_pruning(trials)
        return len(trials) < len(self.slots) or any(not trial.state.is_finished() for trial in trials)

    def others(self) -> int:
        """How many trials other living processes run now."""
        with self._exclusive():
            running = [trial for trial in self._read() if trial.state is TrialState.RUNNING]
            return len(running) - len(self._dead(running)) - sum(self._mine(trial) for trial in running)

    def note(self, number: int, key: str, value: Any) -> bool:
        """Writes something on a running trial; False if another process ended it meanwhile."""
        try:
            self.storage.patiently(lambda: self.storage.trials.set_trial_user_attr(self._ids[number], key, value))
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        return True

    def holds(self, number: int) -> bool:
        """Whether a trial is still this process's, who may have been taken for dead."""
        found = self.storage.patiently(lambda: self.storage.trials.get_trial(self._ids[number]))
        return self._is_held(found)

    def finish(self, number: int, row: Mapping[str, Any], values: Sequence[float]) -> bool:
        """Ends a trial with its result; False if another process ended it meanwhile, whose result stays."""
        return self._end(number, {"result": dict(row)}, TrialState.COMPLETE, values)

    def fail(self, number: int, error: str) -> bool:
        """Ends a trial that crashed, and keeps why; False if it is no longer this process's."""
        return self._end(number, {"error": kept_error(error)}, TrialState.FAIL, None)

    def release(self, number: int) -> None:
        """Gives a trial back that was not ended."""

        def give() -> None:
            trial = self.storage.trials.get_trial(self._ids[number])
            if self._is_held(trial):
                self._put_back(trial._trial_id)
                self._queue.append(trial)

        self._held.discard(number)
        with self._exclusive():
            self.storage.patiently(give)

    def beat(self) -> None:
        """Tells watchers on other machines that this process lives."""
        self._beats += 1
        key = f"beat:{self.owner.id}"
        self.storage.patiently(lambda: self.storage.trials.set_study_user_attr(self._id, key, self._beats))

    def _read(self) -> list[FrozenTrial]:
        return self.storage.patiently(lambda: self.storage.trials.get_all_trials(self._id, deepcopy=False))

    def _exclusive(self) -> AbstractContextManager[None]:
        return self.storage.exclusive(self.sweep.name)

    def _is_held(self, trial: FrozenTrial) -> bool:
        return trial.state is TrialState.RUNNING and self._mine(trial)

    def _mine(self, trial: FrozenTrial) -> bool:
        return bool(trial.user_attrs.get("owner", {}).get("id") == self.owner.id)

    def _dead(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those whose process lives no more or died while it claimed them, and this one's that it does not know of."""
        facts = self.storage.patiently(lambda: self.storage.trials.get_study_user_attrs(self._id))
        found = []
        for trial in running:
            row = trial.user_attrs.get("owner")
            owner = Owner.of_row(row) if row else None
            lost = owner is not None and owner.id == self.owner.id and trial.number not in self._held
            if owner is None or lost or not self._watch.alive(owner, facts.get(f"beat:{owner.id}")):
                found.append(trial)
        return found

    def _put_back(self, trial_id: int) -> None:
        self.storage.trials.set_trial_user_attr(trial_id, "owner", {})
        self.storage.trials.set_trial_state_values(trial_id, TrialState.WAITING)

    def _beginnable(self) -> bool:
        """Whether there is a trial that nobody has begun, and that need not wait for the screening."""
        number = len(self._ids)
        return number < len(self.slots) and (self._pruned is not None or self.slots[number].screening)

    def _begin(self, number: int) -> Claimed | None:
        """Stores the next trial as this process's; None if another process has begun it, or if it is pruned."""
        trials = self.storage.trials
        try:
            self._ids[number] = trials.get_trial_id_from_study_id_trial_number(self._id, number)
            return None
        except KeyError:
            slot = self.slots[number]
        if not slot.screening and slot.place in (self._pruned or ()):
            made = template(self.sweep, slot, TrialState.PRUNED, {"error": PRUNED})
            self._ids[number] = trials.create_new_trial(self._id, made)
            return None
        made = template(self.sweep, slot, TrialState.RUNNING, {"owner": {**self.owner.to_row(), "seed": slot.seed}})
        trial_id = self._ids[number] = trials.create_new_trial(self._id, made)
        if trials.get_trial_id_from_study_id_trial_number(self._id, number) != trial_id:
            raise StorageError(f"study {self.sweep.name!r}: two processes were inside its lock; stop one, and go on")
        point = self._suggest(trial_id, number) if slot.point is None else slot.point
        return Claimed(number, point, slot.seed, 0)

    def _take(self, trial: FrozenTrial) -> Claimed | None:
        """Claims a trial that was given back; None if it no longer waits."""
        trials, trial_id, number = self.storage.trials, trial._trial_id, trial.number
        try:
            if not trials.set_trial_state_values(trial_id, TrialState.RUNNING):
                return None
        except optuna.exceptions.UpdateFinishedTrialError:
            return None
        trials.set_trial_user_attr(trial_id, "owner", self.owner.to_row())
        now = trials.get_trial(trial_id)
        slot, attempts = self.slots[number], int(now.user_attrs.get("attempts", 0))
        point: Point = slot.point or (now.params if len(now.params) == len(self.sweep.axes) else {})
        return Claimed(number, point or self._suggest(trial_id, number), slot.seed, attempts)

    def _suggest(self, trial_id: int, number: int) -> Point:
        """Draws an adaptive point, or repeats what its first replicate drew; it is in the storage when this returns."""
        storage, first = self.storage.trials, number - number % len(self.sweep.seeds)
        if first != number:
            leader = storage.get_trial(self._ids[first])
            if len(leader.params) == len(self.sweep.axes):
                for name, value in leader.params.items():
                    distribution = leader.distributions[name]
                    storage.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)
                return dict(leader.params)
            self._suggest(leader._trial_id, first)  # its process died before it had drawn
            return self._suggest(trial_id, number)
        study = optuna.load_study(study_name=self.sweep.name, storage=storage, sampler=sampler_of(self.sweep, number))
        trial = optuna.Trial(study, trial_id)
        return {axis.name: trial._suggest(axis.name, distribution_of(axis)) for axis in self.sweep.axes}

    def _end(self, number: int, facts: Mapping[str, Any], state: TrialState, values: Sequence[float] | None) -> bool:
        trials, trial_id = self.storage.trials, self._ids[number]
        self._held.discard(number)

        def end() -> bool:
            if state is TrialState.FAIL and not self._is_held(trials.get_trial(trial_id)):
                return False  # whoever holds it now may still succeed
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
        """Decides what is pruned, once all of the screening has ended."""
        count = sum(slot.screening for slot in self.slots)
        records = [record_of(trial, self.slots[trial.number]) for trial in trials[:count]]
        if len(records) == count and all(record.finished for record in records):
            self._pruned = hopeless(
                self.sweep, [(each.place, each.result) for each in records if each.state == "complete"]
            )
