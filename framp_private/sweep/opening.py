"""Opening a sweep's study, whoever made it, or refusing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from framp_private.errors import StorageError
from framp_private.privacy.selection import draw_repetitions
from framp_private.randomness import Entropy
from framp_private.sweep.slots import Slot, slots_of
from framp_private.sweep.spec import Sweep
from framp_private.sweep.storage import Storage
from framp_private.sweep.study import Study
from framp_private.version import __version__

FORMAT = 3
"""Of what a study holds besides Optuna's own tables; another one is refused."""


def open_study(storage: Storage, sweep: Sweep) -> Study:
    """Opens the sweep's study, and makes it if there is none.

    Raises:
        StorageError: the storage holds another sweep of this name, or one that another version made.
    """
    with storage.exclusive(sweep.name):
        study_id, slots, identity = storage.patiently(lambda: _opened(storage, sweep))
    study = Study(storage, sweep, study_id, slots, identity)
    study.refresh()
    return study


def has_study(storage: Storage, sweep: Sweep) -> bool:
    """Whether the storage holds a study of the sweep's name."""
    return sweep.name in storage.patiently(lambda: optuna.get_all_study_names(storage.trials))


def find_study(storage: Storage, sweep: Sweep) -> Study:
    """The sweep's study as it is, to look at. Raises `StorageError` if there is none, or another sweep's."""
    try:
        study_id = storage.patiently(lambda: storage.trials.get_study_id_from_name(sweep.name))
    except KeyError:
        raise StorageError(
            f"{storage.shown} holds no study {sweep.name!r}: start it with `framp-private sweep`"
        ) from None
    facts = storage.patiently(lambda: storage.trials.get_study_user_attrs(study_id))
    _check(storage, sweep, facts)
    return Study(storage, sweep, study_id, _slots(sweep, facts), str(facts["identity"]))


def _opened(storage: Storage, sweep: Sweep) -> tuple[int, list[Slot], str]:
    trials = storage.trials
    directions = [optuna.study.StudyDirection[o.direction.upper()] for o in sweep.objectives]
    try:
        study_id = trials.get_study_id_from_name(sweep.name)
    except KeyError:
        study_id = trials.create_new_study(directions, sweep.name)
    facts = dict(trials.get_study_user_attrs(study_id))
    if "digest" not in facts:  # new, or its process died before it had written everything
        if trials.get_all_trials(study_id, deepcopy=False):
            raise StorageError(
                f"{storage.shown} holds a study {sweep.name!r} that no sweep made: give the sweep another name"
            )
        facts |= {
            "format": FORMAT,
            "version": __version__,
            "sweep": sweep.as_row(),
            "identity": Entropy().bytes(8).hex(),
        }
        if sweep.choosing.publish == "best" and "drawn" not in facts:
            facts["drawn"] = _drawn(sweep)
        for key, value in {**facts, "digest": sweep.digest}.items():
            trials.set_study_user_attr(study_id, key, value)
        facts["digest"] = sweep.digest
    _check(storage, sweep, facts)
    return study_id, _slots(sweep, facts), str(facts["identity"])


def _check(storage: Storage, sweep: Sweep, facts: Mapping[str, Any]) -> None:
    if (facts.get("format"), facts.get("version")) != (FORMAT, __version__):
        raise StorageError(
            f"study {sweep.name!r} in {storage.shown} was made by version {facts.get('version')} (format "
            f"{facts.get('format')}), this is {__version__} (format {FORMAT}): finish it with the version that began "
            "it, or give the sweep another name"
        )
    if facts.get("digest") != sweep.digest:
        before, now = facts.get("sweep", {}), sweep.as_row()
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key)) or ["the order of its axes"]
        raise StorageError(
            f"study {sweep.name!r} in {storage.shown} is of another sweep, which differs in {', '.join(changed)}: give "
            "this one another name, or go on with the other's file"
        )


def _drawn(sweep: Sweep) -> list[list[Any]]:
    """Where only the best is published: what was drawn in secret, and is stored so that it is drawn once."""
    entropy = Entropy()
    count = draw_repetitions(sweep.choosing.mean, sweep.choosing.shape, entropy)
    return [[slot.place, slot.seed, dict(slot.point or {})] for slot in slots_of(sweep, count, entropy)]


def _slots(sweep: Sweep, facts: Mapping[str, Any]) -> list[Slot]:
    if sweep.choosing.publish == "all":
        return slots_of(sweep)
    return [Slot(place, seed, point) for place, seed, point in facts["drawn"]]
