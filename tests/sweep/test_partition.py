"""Which records a client of a trial holds: settled by the data's seed and the settings of `PARTITION` alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from framp_private.assemble import make_config
from framp_private.config import Config
from framp_private.datasets import load_dataset
from framp_private.sweep.partition import PARTITION, partition_digest

BASE: dict[str, Any] = {"clients": 4, "unseen_clients": 1}


def made(**changes: Any) -> Config:
    return make_config(preset="digits", assignments={**BASE, **changes})


def held(config: Config) -> list[torch.Tensor]:
    """Training and test records of every client."""
    clients = load_dataset(config).clients.values()
    return [part for data in clients for part in (data.x[data.train], data.x[data.test])]


def same(one: Config, other: Config) -> bool:
    pairs = zip(held(one), held(other), strict=True)
    return all(a.shape == b.shape and bool((a == b).all()) for a, b in pairs)


def test_the_datas_seed_settles_the_partition_and_follows_the_runs_seed_if_it_is_not_given() -> None:
    fixed, moved, other = made(seed=1, data_seed=7), made(seed=2, data_seed=7), made(seed=1, data_seed=8)
    assert same(fixed, moved) and partition_digest(fixed) == partition_digest(moved)
    assert not same(fixed, other) and partition_digest(fixed) != partition_digest(other)
    alone = made(seed=7)
    assert same(alone, fixed) and partition_digest(alone) == partition_digest(fixed)
    assert not same(alone, made(seed=8)) and partition_digest(alone) != partition_digest(made(seed=8))


@pytest.mark.parametrize(
    "change", [{"clients": 5}, {"alpha": 9.0}, {"test_fraction": 0.4}, {"partition": "classes"}, {"unseen_clients": 0}]
)
def test_another_partition_has_another_partition_digest(change: dict[str, Any]) -> None:
    assert partition_digest(made()) != partition_digest(made(**change))


def test_what_has_no_part_in_it_leaves_the_digest_alone() -> None:
    assert partition_digest(made()) == partition_digest(
        made(rounds=3, learning_rate=0.5, budgets=(1.0,), method="fedavg")
    )


class Watched:
    """A configuration that notes which settings are read."""

    def __init__(self, config: Config) -> None:
        self._config, self.read = config, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self._config, name)


@pytest.mark.parametrize("partition", ["dirichlet", "class-dirichlet", "classes"])
def test_no_other_setting_is_read_where_records_are_handed_out(partition: str) -> None:
    watched = Watched(made(partition=partition, classes_per_client=5))
    load_dataset(watched)  # type: ignore[arg-type]
    assert {"clients", "data_seed", "partition"} <= watched.read <= {*PARTITION, "seed"}
