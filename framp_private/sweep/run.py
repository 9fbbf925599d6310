"""A whole sweep on this machine: claim, run, finish, until no trial is left; others may work on the same study.

::

    study.claim -> worker: run_trial -> study.finish        until study.refresh says that all are finished

A worker asks before it spends; what it asks for is in the study and in the sweep's ledgers before it may go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from framp_private.config import Config
from framp_private.datasets import load_dataset
from framp_private.errors import (
    ConfigError,
    DataError,
    FrampError,
    MissingData,
    PrivacyBudgetExhausted,
    RunError,
    StorageError,
)
from framp_private.report.html import render_html
from framp_private.report.sweep import sweep_document
from framp_private.sweep.choosing import SweepAccounts, label_of
from framp_private.sweep.disk import room_in
from framp_private.sweep.folder import SweepFolder
from framp_private.sweep.locks import file_lock
from framp_private.sweep.objectives import values
from framp_private.sweep.opening import has_study, open_study
from framp_private.sweep.owners import BEAT_SECONDS
from framp_private.sweep.pool import Pool, Worker
from framp_private.sweep.record import Record
from framp_private.sweep.results import summarise
from framp_private.sweep.spec import Sweep
from framp_private.sweep.storage import Storage, open_storage
from framp_private.sweep.study import Claimed, Study
from framp_private.sweep.trial import RunTrial, Task, planned, run_trial
from framp_private.sweep.worker import Message
from framp_private.version import __version__

MOST_DEATHS = 3
"""So many times a trial's process may die before the trial counts as failed."""

OnChange = Callable[[Sequence[Record]], None]
"""Called with all trials now and then, for a live view."""
_LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Machine:
    """What this machine gives to a sweep.

    Args:
        workers: processes. threads: of each. data_root: where data sets are. storage: a database's address; None keeps
            the study in the folder. patience: seconds that a storage may be out of reach. on_change: see there.
    """

    workers: int = 1
    threads: int = 1
    data_root: Path | None = None
    storage: str | None = field(default=None, repr=False)
    patience: float = 60.0
    on_change: OnChange | None = None

    def __post_init__(self) -> None:
        if self.workers < 1 or self.threads < 1:
            raise ConfigError(f"workers={self.workers}, threads={self.threads}: both are at least 1")


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    machine: Machine = Machine(),
    resume: bool = False,
    run: RunTrial = run_trial,
) -> dict[str, Any]:
    """Runs every trial of a sweep that nobody else runs, and returns the summary once all are finished.

    Args:
        out: the sweep's folder. resume: go on with a sweep that was begun there and that nobody works on now.
        run: what a trial does, importable by name from a module.

    Raises:
        RunError: the folder holds another sweep, or one that was begun, without `resume`.
        MissingData, DataError: a data set of the sweep is not there, or cannot be read.
        StorageError: the study's storage fails, or the disk is full; what was finished is kept.
        PrivacyBudgetExhausted: the sweep's own budget does not allow the next trial.
        KeyboardInterrupt: passed on, after the trials that were running are given back.
    """
    folder = SweepFolder(out)
    begun = folder.begun
    _check_folder(sweep, folder, machine, resume)
    if not folder.finished:
        _check_data(sweep, machine.data_root)
    with room_in(out):
        folder.make()
        storage = open_storage(machine.storage or folder.default, machine.patience)
        try:
            if begun:
                _check_kept(sweep, folder, storage)
            study = open_study(storage, sweep)
            with file_lock(out / "study.db.lock", machine.patience):  # another command may start here, too
                folder.start(sweep, storage.file, storage.shown, study.identity)
            if study.identity != folder.identity:
                raise RunError(
                    f"out={out} and {storage.shown} belong to two sweeps of the name {sweep.name!r}: each was begun by "
                    "itself; restore the folder's own study, or begin the sweep anew in another folder"
                )
            _check_joined(study, folder, begun, resume)
            return _driven(study, folder, machine, run)
        finally:
            storage.close()


def _check_folder(sweep: Sweep, folder: SweepFolder, machine: Machine, resume: bool) -> None:
    """Refuses what the folder and the storage show before either is opened. Raises `RunError`."""
    if resume and not folder.begun and machine.storage is None:
        raise RunError(f"out={folder.path} holds no sweep to go on with: check the path, or leave --resume away")
    folder.check(sweep)
    where = folder.located() if folder.begun else folder.database
    if machine.storage is None and isinstance(where, str) and not where.startswith("sqlite"):
        raise RunError(f"out={folder.path} keeps its trials in {where}: name it with --storage, with its password")
    if folder.begun and folder.own and machine.storage is None and not folder.database.is_file():
        raise RunError(
            f"out={folder.path} was begun, and {folder.database} holds no study {sweep.name!r} any more: restore it, "
            "or begin the sweep anew in another folder"
        )


def _check_kept(sweep: Sweep, folder: SweepFolder, storage: Storage) -> None:
    """A sweep that was begun is gone on with in its own study: a new one would not know what was spent.

    Raises:
        RunError: the storage is another one, or holds no such study.
    """
    if not folder.same(storage.file, storage.shown):
        raise RunError(f"out={folder.path} keeps its trials in {folder.located()}, not in {storage.shown}")
    if not has_study(storage, sweep):
        raise RunError(
            f"out={folder.path} was begun, and {storage.shown} holds no study {sweep.name!r} any more: restore it, or "
            "begin the sweep anew in another folder"
        )


def _driven(study: Study, folder: SweepFolder, machine: Machine, run: RunTrial) -> dict[str, Any]:
    accounts = SweepAccounts(folder.path, study.sweep)
    try:
        _Driver(study, folder, accounts, machine, run).drive()
    except PrivacyBudgetExhausted:
        _conclude(study, folder, accounts)  # what was found up to here is there to be read
        raise
    return _conclude(study, folder, accounts)


def _conclude(study: Study, folder: SweepFolder, accounts: SweepAccounts) -> dict[str, Any]:
    """Writes the summary and the report of all trials as they are now."""
    with study.storage.exclusive(study.sweep.name):
        trials = study.trials()
        accounts.settle(trials)
        summary = summarise(study.sweep, trials, accounts.report(trials))
        folder.finish(summary)
        folder.show(render_html(sweep_document(summary, __version__, folder.path)))
    return summary


def _check_data(sweep: Sweep, root: Path | None) -> None:
    """Reads every data set of the sweep once, as one that is missing would fail its trials for good."""
    configs = [sweep.config(point, sweep.seeds[0]) for point in sweep.one_by_one()]
    for config in {config.dataset: config for config in reversed(configs)}.values():
        try:
            load_dataset(config, root)
        except MissingData:
            raise
        except DataError:  # a partition that does not fit is the matter of its trials
            continue


def _check_joined(study: Study, folder: SweepFolder, begun: bool, resume: bool) -> None:
    """A sweep that was begun and that nobody works on is gone on with only when that is asked for."""
    if begun and not resume and not folder.finished and study.others() == 0:
        raise RunError(f"out={folder.path} holds an unfinished sweep: add --resume to go on, or choose another folder")


class _Driver:
    """The loop of one process; it holds nothing that the study does not."""

    def __init__(
        self, study: Study, folder: SweepFolder, accounts: SweepAccounts, machine: Machine, run: RunTrial
    ) -> None:
        self._study, self._folder, self._accounts, self._machine, self._run = study, folder, accounts, machine, run
        self._audited = any(objective.name == "empirical_epsilon" for objective in study.sweep.objectives)
        self._deaths: dict[int, int] = {}
        self._exhausted: str | None = None  # then nothing more is begun, and what was paid for runs to its end
        self._beaten = self._looked = self._refreshed = 0.0

    def drive(self) -> None:
        """Until every trial of the study is finished, by whomever."""
        if self._study.sweep.choosing.publish == "best":
            self._spend_best()
        if not self._study.refresh():
            self._look(force=True)
            return
        machine = self._machine
        with Pool(machine.workers, self._run, machine.threads, self._folder.log) as pool:
            try:
                while self._step(pool):
                    pass
            except BaseException:
                tasks = [task.number for task in pool.tasks]
                pool.__exit__()  # before its trials are given back
                self._give_back(tasks)
                raise
        self._look(force=True)

    def _step(self, pool: Pool) -> bool:
        """Fills idle workers, hears what there is to hear; False once nothing is left."""
        starved = self._exhausted is not None
        for worker in [] if starved else pool.idle:
            claimed = self._study.claim()
            if claimed is None:
                starved = True
                break
            self._start(pool, worker, claimed)
        for task, worker, message in pool.hear(0.5 if pool.tasks else 0.0):
            self._answer(task, worker, message)
        now = time.monotonic()
        if now - self._beaten > BEAT_SECONDS:
            self._beaten = now
            self._study.beat()
        self._look()
        if self._exhausted is not None and not pool.tasks:
            raise PrivacyBudgetExhausted(self._exhausted)
        if starved and (not pool.tasks or now - self._refreshed > _LOOK_SECONDS):
            self._refreshed = now
            unfinished = self._study.refresh()
            if not pool.tasks:
                if not unfinished:
                    return False
                time.sleep(0.2)
        return True

    def _start(self, pool: Pool, worker: Worker, claimed: Claimed) -> None:
        try:
            config: Config = self._study.sweep.config(claimed.point, claimed.seed)
        except FrampError as error:
            self._study.fail(claimed.number, str(error))
            return
        self._deaths.setdefault(claimed.number, claimed.attempts)
        folder, machine = self._folder.trial(claimed.number), self._machine
        pool.give(worker, Task(claimed.number, config, folder, machine.threads, machine.data_root, self._audited))

    def _answer(self, task: Task, worker: Worker, message: Message) -> None:
        kind, content = message
        if kind == "spend":
            answer = self._spend(task, content)
            with suppress(OSError):  # a worker that has died is heard of next
                worker.conversation.send(answer)
        elif kind == "done":
            found = values(self._study.sweep.objectives, content)
            if found is None:
                missing = [o.name for o in self._study.sweep.objectives if o.of(content) is None]
                self._study.fail(
                    task.number, f"the run has no {', '.join(missing)}: it was not measured or does not apply"
                )
            else:
                self._study.finish(task.number, content, found)
        elif kind == "failed":
            self._study.fail(task.number, content)
        elif kind == "died":
            self._bury(task, content)
        elif kind != "taken":
            self._study.release(task.number)
            if kind == "exhausted":
                self._exhausted = content
                return
            raise StorageError(
                f"the disk is full: trial {task.number} could not be written ({content.splitlines()[0]}); make room "
                "and go on with --resume"
            )

    def _bury(self, task: Task, status: int | None) -> None:
        """A trial whose process died is run again, unless that keeps happening."""
        deaths = self._deaths[task.number] = self._deaths.get(task.number, 0) + 1
        how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        if deaths >= MOST_DEATHS:
            self._study.fail(task.number, f"its process died {deaths} times, the last time with {how}: see workers.log")
            return
        if not self._study.holds(task.number):
            return
        self._study.note(task.number, "attempts", deaths)
        self._study.release(task.number)

    def _spend(self, task: Task, plan: Mapping[str, Any]) -> Message | None:
        """Writes what a run is about to spend; why it may not, else None."""
        study, sweep = self._study, self._study.sweep
        if not plan or sweep.choosing.publish == "best":  # there, the best of all was spent before the first
            return None
        begun = (task.folder / "config.yaml").is_file()
        with study.storage.exclusive(sweep.name):
            spent = list(study.trial(task.number).spent)
            if begun and spent:
                return None  # the run goes on, and its own ledgers know what it has drawn
            if not study.holds(task.number):
                return "taken", "another process has taken this trial over"
            trials = study.trials()
            self._accounts.settle(trials)
            try:
                self._accounts.check(plan, trials)
            except PrivacyBudgetExhausted as error:
                return "exhausted", f"{error} (choosing.budget={sweep.choosing.budget:g})"
            label = label_of(task.number, len(spent))
            if self._accounts.knows(plan, label):
                raise StorageError(
                    f"{study.storage.shown} is older than {self._folder.path / 'ledgers'}: {label} was spent before, "
                    "and the study does not know; restore the newer study, or begin the sweep anew in another folder"
                )
            study.note(task.number, "spent", [*spent, dict(plan)])
            self._accounts.spend(plan, label)
        return None

    def _spend_best(self) -> None:
        sweep = self._study.sweep
        configs = [sweep.config(point, sweep.seeds[0]) for point in sweep.grid()]
        root = self._machine.data_root
        plans = [planned(Task(0, config, self._folder.path, data_root=root), config) for config in configs]
        with self._study.storage.exclusive(sweep.name):
            self._accounts.spend_best(plans)

    def _give_back(self, numbers: Sequence[int]) -> None:
        study, storage = self._study, self._study.storage
        study.storage = replace(storage, patience=min(5.0, storage.patience))
        try:
            for number in numbers:
                study.release(number)
        except FrampError:  # the storage is what failed: whoever goes on finds that this process is gone
            return
        finally:
            study.storage = storage

    def _look(self, force: bool = False) -> None:
        now = time.monotonic()
        if self._machine.on_change is not None and (force or now - self._looked > _LOOK_SECONDS):
            self._looked = now
            self._machine.on_change(self._study.trials())
