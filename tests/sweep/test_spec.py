"""A sweep's file: what it may say, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from framp_private.config import Config, known_settings
from framp_private.errors import ConfigError
from framp_private.sweep import read_sweep, sweep_of
from framp_private.sweep.axes import Range
from framp_private.sweep.objectives import values
from framp_private.sweep.slots import slots_of

AXES = {"learning_rate": [0.1, 0.2]}


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"axes": {"privacy.epsilom": [1]}}, "axis privacy.epsilom names no setting: did you mean 'privacy.epsilon'"),
        ({"axes": {"epsilom": [1]}}, "did you mean 'privacy.epsilon'"),
        ({"axes": {"learning_rat": [1]}}, "did you mean 'learning_rate'"),
        ({"axes": {"qqq": [1]}}, "names no setting"),
        (
            {"axes": {"guarantee": {"own": {"rownds": 3}}}},
            "guarantee.own.rownds names no setting: did you mean 'rounds'",
        ),
        ({"axes": {"rounds": {"a": {"rounds": 3}}}}, "names a setting and holds named choices"),
        ({"axes": {"learning_rate": 0.1}}, "has no values"),
        ({"axes": {"learning_rate": []}}, "has no values"),
        ({"axes": {"learning_rate": [0.1, 0.1]}}, "twice"),
        ({"axes": {"learning_rate": [-1]}}, "learning_rate=-1 is refused"),
        ({"axes": {"learning_rate": {"low": 1, "high": 0.5}}, "sampler": "random", "points": 2}, "low must be below"),
        ({"axes": {"learning_rate": {"low": 0, "high": 1, "log": True}}, "sampler": "random", "points": 2}, "above 0"),
        ({"axes": {"learning_rate": {"low": 0.1}}, "sampler": "random", "points": 2}, "two finite numbers"),
        ({"axes": {"learning_rate": {"low": 0.1, "high": 1, "base": 2}}}, "has 'base'"),
        ({"axes": {"learning_rate": {"low": 0.1, "high": 1}}}, "a grid has no end of"),
        ({"axes": {"seed": [1, 2]}}, "list them under `seeds`"),
        ({}, "nothing to vary"),
        ({"axes": AXES, "axis": 1}, "did you mean 'axes'"),
        ({"axes": AXES, "seeds": []}, "seeds="),
        ({"axes": AXES, "seeds": [1, 1]}, "each once"),
        ({"axes": AXES, "seeds": "all"}, "list of whole numbers"),
        ({"axes": AXES, "sampler": "lattice"}, "sampler='lattice'"),
        ({"axes": AXES, "sampler": "tpe"}, "say how many"),
        ({"axes": AXES, "points": -1}, "whole number"),
        ({"axes": AXES, "objectives": ["acuracy.local"]}, "did you mean 'accuracy.local'"),
        ({"axes": AXES, "name": "../x"}, "names a folder"),
        ({"axes": AXES, "preset": "digitz"}, "preset='digitz'"),
        ({"axes": AXES, "references": {"a": {"preset": "digitz"}}}, "preset='digitz'"),
        ({"axes": AXES, "pruning": {"seeds": [0]}}, "each once in all"),
        ({"axes": AXES, "pruning": {"seeds": [9], "margin": 0}}, "above 0"),
        ({"axes": AXES, "pruning": {"seed": [9]}}, "did you mean 'seeds'"),
        ({"axes": AXES, "pruning": {"seeds": [9]}, "sampler": "tpe", "points": 3}, "pruning goes with grid"),
        ({"axes": AXES, "choosing": {"records": "secret"}}, "private, public"),
        ({"axes": AXES, "choosing": {"publish": "best"}}, "sampler=random"),
        ({"axes": AXES, "choosing": {"budget": -1}}, "above 0"),
        ({"axes": AXES, "choosing": {"mean": 1}}, "mean is above 1"),
        ({"axes": AXES, "choosing": {"mean": float("nan")}}, "mean"),
        ({"axes": []}, "must be a mapping"),
    ],
)
def test_what_is_wrong_is_refused_with_its_cure(written: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sweep_of(written)
    assert says in str(caught.value)


def test_the_file_is_named_and_names_the_sweep(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text(yaml.safe_dump({"axes": AXES}))
    assert read_sweep(path).name == "rates"
    path.write_text("axes: {nothing: [1]}")
    with pytest.raises(ConfigError, match=r"rates\.yaml: axis nothing"):
        read_sweep(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_sweep(tmp_path / "missing.yaml")


WHOLE: dict[str, Any] = {
    "name": "whole",
    "preset": "digits-private",
    "set": {"evaluate_every": 9, "server.momentum": 0.5},
    "axes": {
        "epsilon": [1, 2.5],
        "guarantee": {"own": {"preset": "digits-private"}, "one": {"preset": "digits-secure", "secagg.survivors": 0.8}},
        "budgets": [[1.0], [1.0, "1/4"]],
    },
    "references": {"open": {"preset": "digits", "privacy": "none"}},
    "seeds": [3, 5],
    "objectives": ["local", "epsilon", "bytes"],
    "pruning": {"seeds": [100]},
    "choosing": {"records": "public", "shape": "poisson"},
}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    sweep = sweep_of(WHOLE)
    text = yaml.safe_dump(sweep.as_row(), sort_keys=False)
    again = sweep_of(yaml.safe_load(text))
    assert again == sweep and again.digest == sweep.digest
    assert sweep_of({**WHOLE, "seeds": [3, 6]}).digest != sweep.digest
    ranges = {
        "sampler": "random",
        "points": 4,
        "axes": {"rounds": {"low": 1, "high": 9}, "alpha": {"low": 0.1, "high": 9, "log": True}},
    }
    bounded = sweep_of({"preset": "digits-private", "axes": AXES, "choosing": {"budget": 20}})
    assert sweep_of(bounded.as_row()) == bounded
    drawn = sweep_of(ranges)
    turned = {**WHOLE, "axes": dict(reversed(WHOLE["axes"].items()))}
    assert sweep_of(turned).digest != sweep.digest  # the numbers of its trials differ
    assert sweep_of(yaml.safe_load(yaml.safe_dump(drawn.as_row(), sort_keys=False))) == drawn


def test_short_names_of_axes_and_objectives() -> None:
    written = {"preset": "digits-private", "axes": {"epsilon": [1], "delta": [1e-6], "unit": ["record", "client"]}}
    sweep = sweep_of({**written, "objectives": ["smallest_budget", "worst_client", "union"]})
    assert [axis.name for axis in sweep.axes] == ["privacy.epsilon", "privacy.delta", "privacy.unit"]
    assert [each.name for each in sweep.objectives] == [
        "accuracy.smallest_budget",
        "accuracy.worst_client",
        "accuracy.union",
    ]
    row = {"accuracy": {"local": {"1/4": 0.3, "1": 0.1, "1/64": 0.2, "mean": 0.9}, "union": {"mean": 0.4}}}
    assert values(sweep.objectives, {**row, "worst_client": 0.05}) == [0.2, 0.05, 0.4]


def test_layers_go_from_preset_to_axes() -> None:
    sweep = sweep_of(WHOLE)
    found = sweep.config({"privacy.epsilon": "2.5", "guarantee": "one", "budgets": "[1.0, 0.25]"}, 5)
    assert found.privacy is not None and found.privacy.epsilon == 2.5 and found.seed == 5
    assert (
        found.protections.update == "distributed-gaussian"
        and found.evaluate_every == 9
        and found.server.momentum == 0.5
    )
    assert found.budgets == (1.0, 0.25)
    assert sweep.config({"reference": "open"}, 3).privacy is None


def test_a_grid_has_every_combination_at_every_seed_once() -> None:
    sweep = sweep_of(WHOLE)
    slots = slots_of(sweep)
    screened, rest = [s for s in slots if s.screening], [s for s in slots if not s.screening]
    assert len(screened) == 8 and {s.seed for s in screened} == {100} and slots[:8] == screened
    assert len(rest) == 2 * 9 and len({(s.place, s.seed) for s in rest}) == 18
    assert [s.seed for s in rest] == [3] * 9 + [5] * 9
    assert len({tuple(sorted(p.items())) for p in sweep.grid()}) == 8


@pytest.mark.slow
def test_drawn_points_are_the_same_everywhere_and_fill_their_range() -> None:
    axes = {
        "rounds": {"low": 1, "high": 4},
        "alpha": {"low": 0.01, "high": 10, "log": True},
        "method": ["framp", "local"],
    }
    sweep = sweep_of({"sampler": "random", "points": 400, "axes": axes})
    points = [sweep.drawn(place) for place in range(400)]
    assert points == [sweep_of(sweep.as_row()).drawn(place) for place in range(400)]
    assert {p["rounds"] for p in points} == {1, 2, 3, 4}
    low = sum(p["alpha"] < 0.316 for p in points)  # half of the range in the logarithm; 6 deviations of 10 are 60
    assert 140 < low < 260 and all(0.01 <= p["alpha"] <= 10 for p in points)
    assert 140 < sum(p["method"] == "local" for p in points) < 260
    assert all(isinstance(axis, Range) or axis.labels for axis in sweep.axes)


def test_every_setting_is_known_by_its_dotted_name() -> None:
    known = known_settings()
    assert {"privacy.split.update", "hypernetwork.prior.floor", "budgets", "protections.prototypes"} <= set(known)
    assert set(Config.model_fields) <= set(known)
