"""What a sweep refuses before its first trial: axes that undo each other, budgets that bound nothing, missing data."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from framp_private.errors import ConfigError, MissingData
from framp_private.sweep import Machine, run_sweep, sweep_of
from tests.sweep import trials
from tests.sweep.harness import grid

EPSILON = {"privacy.epsilon": [1, 2]}
RATES = [round(0.01 * (place + 1), 2) for place in range(10)]


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({"epsilon": [1], "privacy.epsilon": [2]}, "both set privacy.epsilon"),
        ({"guarantee": {"none": {"privacy": "none"}, "own": {"rounds": 2}}, **EPSILON}, "both set privacy.epsilon"),
        ({**EPSILON, "guarantee": {"none": {"privacy": "none"}}}, "both set privacy.epsilon"),
        ({"rounds": [1, 2], "length": {"short": {"rounds": 3}}}, "axes rounds and length both set rounds"),
        ({"kind": {"a": {"preset": "digits"}}, "base": {"b": {"preset": "digits-private"}}}, "both set preset"),
    ],
)
def test_two_axes_that_set_the_same_thing(axes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sweep_of({"preset": "digits-private", "axes": axes})
    assert says in str(caught.value) and "`references`" in str(caught.value)


def test_axes_beside_each_other_in_one_section() -> None:
    sweep_of(
        {"preset": "digits-private", "axes": {**EPSILON, "privacy.clip_norm": [1, 2], "how": {"a": {"rounds": 1}}}}
    )


@pytest.mark.parametrize("key", ["set", "axes", "references"])
def test_what_yaml_reads_as_a_date(key: str) -> None:
    day = datetime.date(2026, 1, 1)
    given = {"a": {"dataset": day}} if key == "references" else {"dataset": [day] if key == "axes" else day}
    with pytest.raises(ConfigError, match=f"{key} holds something that is no text"):
        sweep_of({"axes": EPSILON, key: given})


@pytest.mark.parametrize(
    "written",
    [
        {"preset": "digits", "axes": {"learning_rate": [0.1]}},
        {"preset": "digits-private", "axes": EPSILON, "references": {"open": {"privacy": "none"}}},
        {"preset": "facebook-node-private", "axes": EPSILON, "references": {"open": {"privacy.protects": "nothing"}}},
    ],
)
def test_a_budget_beside_a_run_without_a_guarantee(written: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="guarantees nothing, which exceeds every budget"):
        sweep_of({**written, "choosing": {"budget": 9}})
    sweep_of(written)
    with pytest.raises(ConfigError, match="bounds nothing where records=public"):
        sweep_of({**written, "choosing": {"budget": 9, "records": "public"}})


def test_alone_sends_nothing_and_fits_any_budget() -> None:
    alone = {"alone": {"method": "local", "privacy": "none"}}
    sweep_of({"preset": "digits-private", "axes": EPSILON, "references": alone, "choosing": {"budget": 9}})


def test_a_missing_data_set_before_anything_is_begun(tmp_path: Path) -> None:
    written = grid(2, references={"other": {"dataset": "cifar10", "network": "cnn"}})
    (tmp_path / "data").mkdir()
    with pytest.raises(MissingData):
        run_sweep(sweep_of(written), tmp_path / "out", machine=Machine(data_root=tmp_path / "data"), run=trials.trivial)
    assert not (tmp_path / "out").exists()


def test_many_axes_that_are_drawn_from_are_not_multiplied_out() -> None:
    """10^7 points, of which a sampler draws nine: all of them would take an hour."""
    names = ("learning_rate", "alpha", "test_fraction", "momentum", "dropout", "weight_decay", "home_learning_rate")
    written = {"axes": dict.fromkeys(names, RATES), "sampler": "random", "points": 9}
    assert len(list(sweep_of(written).samples())) == 7 * 10 + 9
    with pytest.raises(ConfigError, match="home_learning_rate=-1"):
        sweep_of({**written, "axes": {**dict.fromkeys(names, RATES), "home_learning_rate": [*RATES, -1]}})


def test_trials_on_private_records_hold_one_partition_unless_it_is_varied() -> None:
    written = {"preset": "digits-private", "axes": EPSILON, "seeds": [3, 4]}
    point = {"privacy.epsilon": "1"}
    found = [sweep_of(written).config(point, seed) for seed in (3, 4)]
    assert [each.data_seed for each in found] == [3, 3] and [each.seed for each in found] == [3, 4]
    public = sweep_of({**written, "choosing": {"records": "public"}})
    assert [public.config(point, seed).data_seed for seed in (3, 4)] == [None, None]
    varied = sweep_of({**written, "set": {"data_seed": 7}})
    assert varied.config(point, 4).data_seed == 7
    follows = sweep_of({**written, "set": {"data_seed": None}})
    assert follows.config(point, 4).data_seed is None
