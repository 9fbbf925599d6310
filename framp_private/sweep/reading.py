"""From a sweep's file to a `Sweep`, with the file, the key, the rule and the cure in every refusal."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framp_private.config import read_file
from framp_private.errors import ConfigError
from framp_private.sweep.axes import check_disjoint, read_axis, read_bundle
from framp_private.sweep.objectives import OBJECTIVES, Objective
from framp_private.sweep.spec import ADAPTIVE, Choosing, Pruning, Sweep

KEYS = (
    "name",
    "preset",
    "set",
    "axes",
    "references",
    "seeds",
    "sampler",
    "points",
    "sampler_seed",
    "objectives",
    "pruning",
    "choosing",
)
SAMPLERS = ("grid", "random", *ADAPTIVE)


def read_sweep(path: Path) -> Sweep:
    """A sweep's file, checked: every point of it is a valid configuration.

    Raises:
        ConfigError: it cannot be read, has an unknown key, or names what does not exist.
    """
    written = read_file(path)
    written.setdefault("name", path.stem)
    try:
        return sweep_of(written)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def sweep_of(written: Mapping[str, Any]) -> Sweep:
    """The same from a mapping.

    Raises:
        ConfigError: see `read_sweep`.
    """
    for key, value in written.items():
        _known(str(key), KEYS, "")
        _check_plain(str(key), value)
    name = written.get("name", "sweep")
    if not isinstance(name, str) or not name or not all(c.isalnum() or c in "-_." for c in name) or name[0] == ".":
        raise ConfigError(f"name={name!r}: letters, digits, dashes, dots and underscores, as it names a folder")
    sampler = written.get("sampler", "grid")
    if sampler not in SAMPLERS:
        raise ConfigError(f"sampler={sampler!r} is not known: use one of {', '.join(SAMPLERS)}")
    axes = _mapping(written, "axes")
    if "seed" in axes:
        raise ConfigError("axis seed: seeds are replicates of every point, list them under `seeds`")
    default = ["accuracy.validation" if sampler in ADAPTIVE else "accuracy.local", "epsilon"]
    sweep = Sweep(
        name=name,
        preset=written.get("preset"),
        settings=read_bundle("set", _mapping(written, "set")),
        axes=tuple(read_axis(str(key), value) for key, value in axes.items()),
        references={str(k): read_bundle(f"references.{k}", v) for k, v in _mapping(written, "references").items()},
        seeds=_seeds(written.get("seeds", [0]), "seeds"),
        sampler=sampler,
        points=_count(written.get("points"), "points"),
        sampler_seed=_count(written.get("sampler_seed", 0), "sampler_seed") or 0,
        objectives=tuple(_objective(str(given)) for given in written.get("objectives") or default),
        pruning=_pruning(written.get("pruning")),
        choosing=_choosing(_mapping(written, "choosing")),
    )
    if not sweep.axes and not sweep.references:
        raise ConfigError("axes={} leaves nothing to vary: name a setting and its values")
    check_disjoint(sweep.axes)
    sweep.check()
    return sweep


def _objective(name: str) -> Objective:
    found = {objective.name: objective for objective in OBJECTIVES}
    short = {key.removeprefix("accuracy."): key for key in found}
    name = short.get(name, name)
    _known(name, tuple(found), "objectives: ")
    return found[name]


def _pruning(given: Any) -> Pruning | None:
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ConfigError(f"pruning={given!r}: write pruning: {{seeds: [100, 101], margin: 0.05}}")
    for key in given:
        _known(str(key), ("seeds", "margin"), "pruning.")
    return Pruning(
        _seeds(given.get("seeds", []), "pruning.seeds"), _positive(given.get("margin", 0.05), "pruning.margin")
    )


def _choosing(given: Mapping[str, Any]) -> Choosing:
    for key in given:
        _known(str(key), ("records", "publish", "mean", "shape", "budget"), "choosing.")
    row = dict(given)
    for key, allowed in (("records", ("private", "public")), ("publish", ("all", "best"))):
        if row.get(key, allowed[0]) not in allowed:
            raise ConfigError(f"choosing.{key}={row[key]!r}: use one of {', '.join(allowed)}")
    if row.get("shape") == "poisson":
        row["shape"] = math.inf
    for key in ("mean", "shape", "budget"):
        if row.get(key) is not None:
            row[key] = _positive(row[key], f"choosing.{key}", zero=key == "shape")
    return Choosing(**row)


def _check_plain(where: str, value: Any) -> None:
    """Refuses what YAML reads as something else than text, numbers, lists and mappings, such as a date."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"{where} holds something that is no text and no number, such as a date: put it in quotes"
        ) from None


def _known(key: str, known: tuple[str, ...], where: str) -> None:
    if key not in known:
        near = difflib.get_close_matches(key, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise ConfigError(f"{where}{key} is not known in a sweep: {hint}")


def _mapping(written: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = written.get(key)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"{key}={found!r} must be a mapping: one `name: value` for each")
    return found


def _seeds(given: Any, name: str) -> tuple[int, ...]:
    if not isinstance(given, list | tuple) or not all(isinstance(s, int) and not isinstance(s, bool) for s in given):
        raise ConfigError(f"{name}={given!r} must be a list of whole numbers")
    return tuple(given)


def _count(given: Any, name: str) -> int | None:
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise ConfigError(f"{name}={given!r} must be a whole number from 0")
    return given


def _positive(given: Any, name: str, zero: bool = False) -> float:
    fine = isinstance(given, int | float) and not isinstance(given, bool) and (given >= 0 if zero else given > 0)
    if not fine:
        raise ConfigError(f"{name}={given!r} must be a number {'from' if zero else 'above'} 0")
    return float(given)
