"""What the summary of a sweep, and a comparison, must hold for their reports: named key by key where it is missing.

::

    with readable(path, cure):          # whatever goes wrong inside is a RunError that names the file and the cure
        check(found, SUMMARY)           # a KeyError or TypeError that names the place: points.3.claim.delta

What a check cannot see, as a point that a frontier names and that is not there, fails while the report is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framp_private.comparison import HASHES
from framp_private.errors import RunError
from framp_private.report.sources import Keys, keys_of, path_of

Shape = Any
"""A mapping of required keys to their shapes, `Every`, `Each`, `OrNull`, a type, or a tuple of types."""


@dataclass(frozen=True)
class Each:
    """A list of things of one shape."""

    shape: Shape


@dataclass(frozen=True)
class Every:
    """A mapping of any keys to things of one shape."""

    shape: Shape


@dataclass(frozen=True)
class OrNull:
    """A thing of a shape, or null."""

    shape: Shape


NUMBER = (int, float)
SCALAR = OrNull((str, int, float, bool))
MEAN = {"mean": NUMBER, "low": OrNull(NUMBER), "high": OrNull(NUMBER)}
CLAIM = {"epsilon": NUMBER, "delta": NUMBER, "relation": str, "trust_model": str, "scope": str}
POINT = {
    "reference": OrNull(str),
    "axes": Every(SCALAR),
    "replicates": int,
    "pruned": bool,
    "unit": OrNull(str),
    "epsilon": OrNull(NUMBER),
    "claim": OrNull(CLAIM),
    "objectives": Every({**MEAN, "mean": OrNull(NUMBER)}),
    "accuracies": Every(Every(Every(NUMBER))),
}
REACHED = {
    "intervals": {"local": Every(MEAN)},
    "server_view": Every({"protection": str, "granularity": str, "trust": str}),
    "worst_client": MEAN,
    "bytes": MEAN,
    "seconds": MEAN,
}
"""What a point has besides if any run of it ended well."""
ROW = {"number": int, "state": str, "place": int, "seed": int, "screening": bool}
RESULT = {"result": Every(object)}
ACCOUNT = {
    "unit": str,
    "relation": str,
    "runs": int,
    "without_guarantee": int,
    "outside": int,
    "trust_models": Each(str),
    "delta": OrNull(NUMBER),
    "epsilon": OrNull(NUMBER),
    "epsilon_with_guarantee": OrNull(NUMBER),
    "ledger": {"rows": int, "hash": str, "file": str},
}
SUMMARY = {
    "sweep": str,
    "version": str,
    "digest": str,
    "confidence": NUMBER,
    "spec": {"axes": Every(object), "seeds": Each(int)},
    "objectives": Each({"name": str, "words": str}),
    "trials": {"planned": int, "done": int, "failed": int, "pruned": int, "running": int, "waiting": int},
    "points": Each(POINT),
    "frontier": Each({"unit": str, "budget": str, "points": Each({"place": int, "state": str})}),
    "provenance": Each({"versions": OrNull(Every(SCALAR)), "code_sha256": OrNull(str)}),
    "refuted": Each(int),
    "rows": Each(ROW),
    "choosing": {"records": str, "publish": str, "accounts": Each(ACCOUNT)},
    "chosen": OrNull({"axes": Every(SCALAR), "value": OrNull(NUMBER)}),
}
MEASURE = {"mean": NUMBER, "low": OrNull(NUMBER), "high": OrNull(NUMBER), "n": int, "p": OrNull(NUMBER)}
SETTING = {
    "differs": Every(SCALAR),
    "seeds": Each((str, int)),
    "unit": OrNull(str),
    "claim": OrNull(CLAIM),
    "means": Every(MEAN),
    "method": str,
    "dataset": str,
    "server_view": Every({"protection": str, "granularity": str, "trust": str}),
    "runs": Each({"seed": int, "folder": str, **dict.fromkeys(HASHES, OrNull(str))}),
}
COMPARISON = {
    "confidence": NUMBER,
    "settings": Each(SETTING),
    "differences": Each({"setting": int, "measures": Every(MEASURE)}),
    "comparable": Each(str),
}


@contextmanager
def readable(path: Path, cure: str) -> Iterator[None]:
    """Turns what a file that was altered, or is of another version, makes of a report into a `RunError`.

    Args:
        path: of the file, and cure: how to have it written anew; both for the message.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration) as error:
        what = error.args[0] if isinstance(error, KeyError) and error.args else error
        kind = "" if isinstance(error, KeyError | ValueError | TypeError) else f"{type(error).__name__}: "
        raise RunError(f"{path} was altered or is of another version ({kind}{what}): {cure}") from error


def check_summary(summary: Mapping[str, Any]) -> None:
    """Whether a sweep's summary holds what its report reads. Raises `KeyError` or `TypeError` that names the place."""
    check(summary, SUMMARY)
    for place, point in enumerate(summary["points"]):
        if point["objectives"]:
            check(point, REACHED, ("points", place))
    for place, row in enumerate(summary["rows"]):
        if row["state"] == "complete":
            check(row, RESULT, ("rows", place))


def check(found: Any, shape: Shape, at: Keys = ()) -> None:
    """Raises `KeyError` for the first key that is missing, and `TypeError` for the first value of another type."""
    keys = keys_of(at)
    if isinstance(shape, OrNull):
        if found is not None:
            check(found, shape.shape, keys)
        return
    kinds = _kinds(shape)
    fits = any(isinstance(found, kind) for kind in kinds)
    if not fits or (isinstance(found, bool) and not {bool, object} & set(kinds)):  # true is no number
        raise TypeError(f"{path_of(keys) or 'the whole'} is {_kind(found)} and not {_words(kinds)}")
    if isinstance(shape, Each):
        for place, each in enumerate(found):
            check(each, shape.shape, (*keys, str(place)))
    elif isinstance(shape, Every):
        for key, each in found.items():
            check(each, shape.shape, (*keys, key))
    elif isinstance(shape, dict):
        for key, inner in shape.items():
            if key not in found:
                raise KeyError(f"nothing stands at {path_of((*keys, key))}")
            check(found[key], inner, (*keys, key))


NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}


def _kinds(shape: Shape) -> tuple[type, ...]:
    if isinstance(shape, Each):
        return (list,)
    if isinstance(shape, Every | dict):
        return (dict,)
    return shape if isinstance(shape, tuple) else (shape,)


def _kind(found: Any) -> str:
    return "null" if found is None else NAMES.get(type(found), "a mapping")


def _words(kinds: tuple[type, ...]) -> str:
    return " or ".join(NAMES.get(each, "a mapping") for each in kinds if not (each is int and float in kinds))
