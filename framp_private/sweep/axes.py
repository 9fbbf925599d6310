"""Axes of a sweep: which settings vary, and over what.

Three forms, as they stand in a sweep's file::

    axes:
      privacy.epsilon: [1, 2, 4, 8]                       # a setting, dotted, and its values
      learning_rate: {low: 0.01, high: 1, log: true}      # a range, for samplers that draw
      guarantee:                                          # a name of one's own: each choice is a bundle of settings
        own noise: {preset: digits-private}
        one noise: {preset: digits-secure, rounds: 20}
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framp_private.config import fraction, known_settings, merge
from framp_private.errors import ConfigError

Settings = Mapping[str, Any]
SHORT: Mapping[str, str] = {"epsilon": "privacy.epsilon", "unit": "privacy.unit", "delta": "privacy.delta"}
"""Names by which people call some settings."""


@dataclass(frozen=True)
class Choices:
    """An axis of finitely many choices: labels, and the settings (nested, with `preset` as one more) of each."""

    name: str
    settings: Mapping[str, Settings]

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the file."""
        return tuple(self.settings)

    def written(self) -> Any:
        """As it stands in a file."""
        if self.name not in known_settings():
            return {label: dict(settings) for label, settings in self.settings.items()}
        values: list[Any] = []
        for value in self.settings.values():
            for part in self.name.split("."):
                value = value[part]  # noqa: PLW2901
            values.append(value)
        return values


@dataclass(frozen=True)
class Range:
    """An axis of all numbers from low to high, both included; `log` draws evenly in the logarithm."""

    name: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def settings(self, value: float) -> Settings:
        """The setting at a value."""
        return nested(self.name, int(value) if self.whole else float(value))

    def written(self) -> Any:
        """As it stands in a file."""
        ends = [int(end) if self.whole else end for end in (self.low, self.high)]
        return {"low": ends[0], "high": ends[1], "log": self.log}


Axis = Choices | Range


def read_axis(name: str, given: Any) -> Axis:
    """One entry of `axes`.

    Raises:
        ConfigError: it names no setting (the nearest one is offered), or its values are no list, range or choices.
    """
    if isinstance(given, Mapping) and not {"low", "high"} & set(given):
        return _bundles(name, given)
    field = SHORT.get(name, name)
    _check_setting(field, f"axis {name}")
    if isinstance(given, Mapping):
        return _range(field, given)
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise ConfigError(f"axis {name}={given!r} has no values: write a list, a range {{low, high}}, or named choices")
    values = fraction(list(given))
    labels = [value if isinstance(value, str) else json.dumps(value) for value in values]
    _check_distinct(name, labels)
    return Choices(field, {label: nested(field, value) for label, value in zip(labels, values, strict=True)})


def check_disjoint(axes: Sequence[Axis]) -> None:
    """No two axes set the same thing, as the order of a file would then decide what a point means.

    Raises:
        ConfigError: two of them do, wholly or in part.
    """
    set_by: dict[str, str] = {}
    for axis in axes:
        own = {axis.name} if isinstance(axis, Range) else {k for each in axis.settings.values() for k in _keys(each)}
        for key in sorted(own):
            for other, name in set_by.items():
                if f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}."):
                    raise ConfigError(
                        f"axes {name} and {axis.name} both set {max(key, other, key=len)}: let one of them do it; a "
                        "run to compare with, as one without protection, stands under `references`"
                    )
        set_by |= dict.fromkeys(own, axis.name)


def _keys(settings: Settings, above: str = "") -> list[str]:
    """Dotted keys of nested settings."""
    found: list[str] = []
    for key, value in settings.items():
        found += _keys(value, f"{above}{key}.") if isinstance(value, Mapping) else [f"{above}{key}"]
    return found


def nested(key: str, value: Any) -> dict[str, Any]:
    """A dotted key as nested settings."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _bundles(name: str, given: Mapping[str, Any]) -> Choices:
    if not given or not all(isinstance(settings, Mapping) for settings in given.values()):
        raise ConfigError(
            f"axis {name}={dict(given)!r} is neither a range {{low, high}} nor named choices: write settings for each "
            "name, as `own noise: {preset: digits-private}`"
        )
    known = known_settings()
    if name in known or name in SHORT:
        raise ConfigError(f"axis {name} names a setting and holds named choices: give it a name of its own")
    return Choices(name, {str(label): read_bundle(f"{name}.{label}", settings) for label, settings in given.items()})


def read_bundle(where: str, given: Any) -> dict[str, Any]:
    """Several settings, dotted or nested, and perhaps a `preset`, as nested settings. Raises `ConfigError`."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}={given!r} must be settings: one `key: value` for each")
    made: dict[str, Any] = {}
    for key, value in given.items():
        field = SHORT.get(str(key), str(key))
        if field != "preset":
            _check_setting(field, f"{where}.{key}")
        merge(made, nested(field, value))
    return made


def _range(field: str, given: Mapping[str, Any]) -> Range:
    unknown = set(given) - {"low", "high", "log"}
    if unknown:
        raise ConfigError(f"axis {field} has {sorted(unknown)[0]!r}: a range has low, high and, if wanted, log: true")
    ends = [given.get("low"), given.get("high")]
    if not all(isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in ends):
        raise ConfigError(f"axis {field} runs from {ends[0]!r} to {ends[1]!r}: a range needs two finite numbers")
    low, high = (float(end) for end in ends)  # type: ignore[arg-type]
    log = bool(given.get("log", False))
    if not low < high or (log and low <= 0):
        raise ConfigError(f"axis {field} runs from {low:g} to {high:g}: low must be below high, and above 0 for log")
    return Range(field, low, high, log, all(isinstance(end, int) for end in ends))


def _check_setting(field: str, written: str) -> None:
    known = known_settings()
    if field in known:
        return
    last = {name.rpartition(".")[2]: name for name in known}
    near = difflib.get_close_matches(field, known, 1, 0.6)
    near += [last[match] for match in difflib.get_close_matches(field.rpartition(".")[2], last, 1, 0.6)]
    hint = f"did you mean {near[0]!r}?" if near else "`framp-private presets --json` lists them"
    raise ConfigError(f"{written} names no setting: {hint}")


def _check_distinct(name: str, labels: Sequence[str]) -> None:
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError(f"axis {name} has {twice[0]} twice: every value stands once, replicates are `seeds`")
