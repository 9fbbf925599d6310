"""A sweep as a value: what varies, over which seeds, drawn how, judged by what, and what choosing from it costs.

::

    name: digits-epsilon
    preset: digits-private            # where every trial starts from; `set` adds settings to it
    set: {evaluate_every: 40}
    axes: {privacy.epsilon: [1, 2, 4, 8], batch_size: [16, 64]}
    references: {no protection: {preset: digits}}
    seeds: [0, 1, 2]                  # replicates: means with intervals, never the best of them
    sampler: grid                     # or random, tpe, nsga2 with `points`
    objectives: [accuracy.local, epsilon]
    choosing: {records: private, publish: all}
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from framp_private.assemble import make_config
from framp_private.config import Config, merge
from framp_private.errors import ConfigError
from framp_private.presets import DEFAULT
from framp_private.randomness import Entropy, Streams
from framp_private.sweep.axes import Axis, Choices, Range, Settings
from framp_private.sweep.objectives import Objective

SamplerName = Literal["grid", "random", "tpe", "nsga2"]
ADAPTIVE = ("tpe", "nsga2")
Point = Mapping[str, Any]
"""By axis, a choice's label or a range's number; of a reference, `{"reference": label}`."""
REFERENCE = "reference"


@dataclass(frozen=True)
class Pruning:
    """Points that screening finds hopeless are not run.

    Screening has seeds of its own, which no reported mean reads: what is left is reported as if nothing had been
    pruned.

    Args:
        seeds: of the screening, none of them a replicate. margin: how much worse than a point that is as good in
            everything else; of the objectives that are measured.
    """

    seeds: tuple[int, ...]
    margin: float = 0.05

    def __post_init__(self) -> None:
        if not self.seeds or not 0 < self.margin < math.inf:
            raise ConfigError(
                f"pruning has seeds={list(self.seeds)}, margin={self.margin}: name seeds for the screening, and a "
                "margin above 0 by which a point must be worse"
            )


@dataclass(frozen=True)
class Choosing:
    """What somebody who picks a setting from the sweep has learned from the records.

    Args:
        records: `public` says that all records of the sweep, training included, were public, so that choosing costs
            nothing; `private` that they were not.
        publish: `all` runs may be shown, and compose; or the `best` alone, of a number of repetitions that is drawn
            (Papernot and Steinke 2022).
        mean, shape: of that number; see `privacy.selection`.
        budget: epsilon that each account of the sweep may spend on all trials together; None for no limit.
    """

    records: Literal["private", "public"] = "private"
    publish: Literal["all", "best"] = "all"
    mean: float = 10.0
    shape: float = 1.0
    budget: float | None = None

    def __post_init__(self) -> None:
        if not 1 < self.mean < math.inf or not self.shape >= 0 or math.isnan(self.shape):
            raise ConfigError(f"choosing has mean={self.mean}, shape={self.shape}: mean is above 1, shape at least 0")
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise ConfigError(f"choosing.budget={self.budget} must be a positive finite epsilon")
        if self.budget is not None and self.records == "public":
            raise ConfigError(f"choosing.budget={self.budget:g} bounds nothing where records=public: leave one away")


@dataclass(frozen=True)
class Sweep:
    """Read one with `read_sweep`; every point of it is a valid configuration.

    Args:
        name: of the study. preset, settings: where every trial starts from. axes: what varies. references: points
            beside the axes, by label. seeds: replicates of every point. sampler, points, sampler_seed: how points are
            drawn; points is the number that random and adaptive samplers draw. objectives: the first one ranks.
            pruning, choosing: see there.
    """

    name: str
    axes: tuple[Axis, ...]
    preset: str | None = None
    settings: Settings = field(default_factory=dict)
    references: Mapping[str, Settings] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    sampler: SamplerName = "grid"
    points: int | None = None
    sampler_seed: int = 0
    objectives: tuple[Objective, ...] = ()
    pruning: Pruning | None = None
    choosing: Choosing = Choosing()

    def __post_init__(self) -> None:
        self._check_seeds()
        drawn = self.sampler != "grid"
        if not self.objectives:
            raise ConfigError("objectives=[] judges nothing: name at least one, such as accuracy.local")
        if drawn and self.choosing.publish == "all" and (self.points is None or self.points < 1):
            raise ConfigError(f"sampler={self.sampler} draws points={self.points}: say how many, at least 1")
        ranges = [axis.name for axis in self.axes if isinstance(axis, Range)]
        if ranges and not drawn:
            raise ConfigError(
                f"axis {ranges[0]} is a range, which a grid has no end of: list its values, or use random"
            )
        if self.sampler in ADAPTIVE and self.pruning is not None:
            raise ConfigError(
                f"sampler={self.sampler} leaves hopeless regions by itself: pruning goes with grid and random"
            )
        exact = [objective.name for objective in self.objectives if objective.exact]
        steers = self.sampler in ADAPTIVE or self.pruning is not None or self.choosing.publish == "best"
        if exact and steers and self.choosing.records == "private":
            raise ConfigError(
                f"objectives: {exact[0]} reads training records without noise, so that what it steers is covered by no "
                "claim: choose by another objective, or say choosing.records=public if they are"
            )
        if self.choosing.publish == "best" and (self.sampler != "random" or len(self.seeds) > 1 or self.pruning):
            raise ConfigError(
                "choosing.publish=best draws each repetition's setting by itself: it goes with sampler=random, one "
                "seed and no pruning"
            )
        if self.choosing.publish == "best" and (self.references or ranges):
            raise ConfigError("choosing.publish=best draws from a fixed public list: no ranges and no references")

    def _check_seeds(self) -> None:
        screening = self.pruning.seeds if self.pruning else ()
        every = (*self.seeds, *screening)
        if not self.seeds or len(set(every)) < len(every) or any(seed < 0 for seed in every):
            raise ConfigError(
                f"seeds={list(self.seeds)}, pruning.seeds={list(screening)}: whole numbers from 0, each once in all"
            )

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides which trials there are, and in which order."""
        return hashlib.sha256(json.dumps(self.as_row()).encode()).hexdigest()

    def as_row(self) -> dict[str, Any]:
        """As `sweep.yaml` holds it; `sweep_of` reads it back."""
        choosing = asdict(self.choosing)
        choosing["shape"] = "poisson" if math.isinf(self.choosing.shape) else self.choosing.shape
        return {
            "name": self.name,
            "preset": self.preset,
            "set": dict(self.settings),
            "axes": {axis.name: axis.written() for axis in self.axes},
            "references": dict(self.references),
            "seeds": list(self.seeds),
            "sampler": self.sampler,
            "points": self.points,
            "sampler_seed": self.sampler_seed,
            "objectives": [objective.name for objective in self.objectives],
            "pruning": asdict(self.pruning) if self.pruning else None,
            "choosing": choosing,
        }

    def config(self, point: Point, seed: int) -> Config:
        """The configuration of a trial. Raises `ConfigError`.

        Unless records are public, trials that differ in no other setting of `partition.PARTITION` hold the same
        partition: a record that one of them trains on is never one that another is tested on.
        """
        layers = [self.settings]
        if REFERENCE in point:
            layers.append(self.references[point[REFERENCE]])
        else:
            by_name = {axis.name: axis for axis in self.axes}
            layers += [settings_at(by_name[name], value) for name, value in point.items()]
        merged: dict[str, Any] = {}
        for layer in layers:
            merge(merged, layer)
        preset = merged.pop("preset", self.preset)
        if preset is None and "dataset" not in merged:
            preset = DEFAULT
        if self.choosing.records == "private":
            merged.setdefault("data_seed", self.seeds[0])
        return make_config(preset=preset, assignments={**merged, "seed": seed})

    def grid(self) -> Iterator[Point]:
        """Every combination of the axes' choices, the last axis varying fastest."""
        names = [axis.name for axis in self.axes]
        labels = [axis.labels for axis in self.axes if isinstance(axis, Choices)]
        for chosen in itertools.product(*labels):
            yield dict(zip(names, chosen, strict=True))

    def drawn(self, place: int) -> Point:
        """The point that `random` draws at a place, for one seed of the sampler the same everywhere."""
        generator = Streams(self.sampler_seed).child("point", place).numpy()
        return self._at([float(generator.random()) for _ in self.axes])

    def drawn_in_secret(self, entropy: Entropy) -> Point:
        """A point drawn from the operating system."""
        return self._at([int.from_bytes(entropy.bytes(7)) / 2.0**56 for _ in self.axes])

    def _at(self, uniforms: Sequence[float]) -> Point:
        point: dict[str, Any] = {}
        for axis, uniform in zip(self.axes, uniforms, strict=True):
            if isinstance(axis, Choices):
                point[axis.name] = axis.labels[int(uniform * len(axis.labels))]
            elif axis.whole and not axis.log:
                point[axis.name] = int(axis.low + uniform * (axis.high - axis.low + 1))
            else:
                low, high = (math.log(axis.low), math.log(axis.high)) if axis.log else (axis.low, axis.high)
                value = low + uniform * (high - low)
                value = min(max(math.exp(value) if axis.log else value, axis.low), axis.high)
                point[axis.name] = round(value) if axis.whole else value
        return point

    def samples(self) -> Iterator[Config]:
        """The configuration of every point there is; where points are drawn adaptively, of each axis's values or ends.

        Raises:
            ConfigError: at the first that is none.
        """
        more: Iterator[Point] = iter(())
        if self.axes and (self.sampler == "grid" or self.choosing.publish == "best"):
            more = self.grid()
        elif self.axes and self.sampler == "random":
            more = (self.drawn(place) for place in range(self.points or 0))
        for point in itertools.chain(self.one_by_one(), more):
            yield self.config(point, self.seeds[0])

    def one_by_one(self) -> Iterator[Point]:
        """Every label and every end of each axis, the other axes at their first; and every reference."""
        ends = {axis.name: axis.labels if isinstance(axis, Choices) else (axis.low, axis.high) for axis in self.axes}
        first = {name: values[0] for name, values in ends.items()}
        for name, values in ends.items():
            yield from ({**first, name: value} for value in values)
        yield from ({REFERENCE: label} for label in self.references)

    def check(self) -> None:
        """Makes the configurations of `samples`.

        Raises:
            ConfigError: for the first that is none, or that guarantees nothing while the sweep has a budget.
        """
        for config in self.samples():
            open_ = config.privacy is None or config.privacy.protects == "nothing"
            if self.choosing.budget is not None and open_ and config.method != "local":
                raise ConfigError(
                    f"choosing.budget={self.choosing.budget:g}, and a point or reference of the sweep guarantees "
                    "nothing, which exceeds every budget: leave that one away, or the budget"
                )


def settings_at(axis: Axis, value: Any) -> Settings:
    """An axis's settings at a label or number."""
    return axis.settings[value] if isinstance(axis, Choices) else axis.settings(value)
