"""Where a number of a report stands: looked up by its path, so that value and source cannot drift apart.

::

    summary:accuracy.local.mean                 the value at a path of summary.json
    metrics:11.accuracy.test.mean               a row of metrics.jsonl, counted from 0
    min(summary:by_client.*.local)              of all values that the path fits, null left out
    key(summary:by_client.client-03)            a key itself: a name

Before the colon stands the name of the data, after it keys of mappings and places in lists; a star fits all of them. A
dot or backslash inside a key is written with a backslash before it.

    >>> data = Data("summary", {"by_client": {"a": {"local": 0.25}, "b": {"local": 0.75}}})
    >>> number(data, "by_client.a.local", ".1%").text
    '25.0%'
    >>> mean = derived("mean", data, "by_client.*.local", ".2f")
    >>> mean.text, mean.source, resolve(mean.source, {"summary": data.content})
    ('0.50', 'mean(summary:by_client.*.local)', 0.5)
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framp_private.report.document import Number, Value

Keys = str | Sequence[str | int]
"""Keys, or a string of them with dots between; keys that may hold a dot themselves are given as a sequence."""
NOTHING = "–"
"""What is shown for null."""
ANY = "*"


@dataclass(frozen=True)
class Data:
    """Something numbers are read from. name: in sources, without colon or bracket. content: of mappings and lists."""

    name: str
    content: Any

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^:()]+", self.name):
            raise ValueError(f"name={self.name!r} is empty, or holds a colon or bracket: sources are read by these")

    def __getitem__(self, path: Keys) -> Any:
        """The value at a path; raises `KeyError`."""
        return _one(self.content, keys_of(path))

    def has(self, path: Keys) -> bool:
        """Whether there is something at a path, null included."""
        try:
            self[path]
        except KeyError:
            return False
        return True

    def keys(self, path: Keys) -> list[str]:
        """The keys of the mapping at a path."""
        return list(self[path])


def number(data: Data, path: Keys, form: str = "") -> Number:
    """The value at a path, shown by a format specification; raises `KeyError` if there is none."""
    found = data[path]
    if isinstance(found, Mapping | list | tuple):
        raise KeyError(f"{data.name}:{path_of(path)} holds several values: name one of them")
    return _shown(found, form, f"{data.name}:{path_of(path)}")


def named(data: Data, path: Keys) -> Number:
    """The last key of a path, a name that may hold digits; raises `KeyError` if nothing stands there."""
    source = f"key({data.name}:{path_of(path)})"
    return _shown(resolve(source, {data.name: data.content}), "", source)


def derived(how: str | Sequence[str], data: Data, path: Keys, form: str = "") -> Number:
    """What functions of `HOW` make of all values that a path with stars fits, the last one first; see `number`."""
    names = [how] if isinstance(how, str) else list(how)
    source = f"{''.join(f'{name}(' for name in names)}{data.name}:{path_of(path)}{')' * len(names)}"
    return _shown(resolve(source, {data.name: data.content}), form, source)


def resolve(source: str, contents: Mapping[str, Any]) -> Any:
    """The value that a source stands for.

    Args:
        contents: the data by name.

    Raises:
        KeyError: nothing is there.
        ValueError: the source does not read.
    """
    read = re.fullmatch(r"((?:\w+\()*)([^:()]+):(.*)", source, re.DOTALL)
    how = read[1].split("(")[:-1] if read else []
    if read is None or not read[3].endswith(")" * len(how)):
        raise ValueError(f"source={source!r} is not name:path, or that in brackets behind a function")
    unknown = [name for name in how if name not in HOW and how != ["key"]]
    if unknown:
        raise ValueError(f"source={source!r} says {', '.join(unknown)}: known are key, alone, and {', '.join(HOW)}")
    keys = keys_of(read[3][: len(read[3]) - len(how)])
    if not how or how == ["key"]:
        found = _one(contents[read[2]], keys)
        return keys[-1] if how else found
    found = [value for value in _fitting(contents[read[2]], keys) if value is not None]
    for name in reversed(how):
        found = HOW[name](found)
    return found


def _top_shares(rows: Sequence[Sequence[float]]) -> list[float]:
    return [max(row) / max(sum(row), 1) for row in rows]


HOW: Mapping[str, Callable[[Any], Any]] = {
    "count": len,
    "min": lambda values: min(values, default=None),
    "max": lambda values: max(values, default=None),
    "sum": sum,
    "mean": lambda values: statistics.fmean(values) if values else None,
    "median": lambda values: statistics.median(values) if values else None,
    "total": lambda rows: [sum(row) for row in rows],
    "top_share": _top_shares,
}
"""What a source may make of many values. total, top_share: of lists of counts, each one's sum and largest part."""


def keys_of(path: Keys) -> tuple[str, ...]:
    """A path as keys."""
    if not isinstance(path, str):
        return tuple(str(key) for key in path)
    return tuple(re.sub(r"\\([.\\])", r"\1", key) for key in re.findall(r"(?:[^.\\]|\\.)+", path))


def path_of(path: Keys) -> str:
    """Keys as a string with dots between."""
    if isinstance(path, str):
        return path
    return ".".join(re.sub(r"([.\\])", r"\\\1", str(key)) for key in path)


def _one(content: Any, keys: Sequence[str]) -> Any:
    found = _fitting(content, keys)
    if ANY in keys:
        raise KeyError(f"{path_of(keys)} fits several values: say what to make of them")
    return found[0]


def _fitting(content: Any, keys: Sequence[str]) -> list[Any]:
    found = [content]
    for place, key in enumerate(keys):
        try:
            found = [inner for value in found for inner in _inside(value, key)]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise KeyError(f"nothing stands at {path_of(keys[: place + 1])}") from error
    return found


def _inside(value: Any, key: str) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values()) if key == ANY else [value[key]]
    if isinstance(value, list | tuple):
        return list(value) if key == ANY else [value[int(key) if key.isdecimal() else len(value)]]
    raise TypeError(f"{value!r} holds nothing")


def _shown(value: Value, form: str, source: str) -> Number:
    return Number(value, NOTHING if value is None else format(value, form), source, form)
