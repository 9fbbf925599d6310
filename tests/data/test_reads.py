"""What is fitted on private records before the first release is refused under a guarantee, in dry runs too."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from framp_private import make_config
from framp_private.config import Config, PartitionName
from framp_private.data.reads import FEATURES, PARTITIONS, PROTECTED, Reads, check_reads
from framp_private.datasets import check_prepared
from framp_private.errors import ConfigError, FrampError
from framp_private.estimate import describe_plan
from framp_private.runs import load_setup, run_config

SAFE = {"projection"}
PROTECTS = ("nodes", "edges", "nothing", None)


def config(features: str, partition: str, protects: str | None, dataset: str = "facebook") -> Config:
    privacy = "none" if protects is None else {"epsilon": 8.0, "delta": 1e-6, "protects": protects}
    settings = {"dataset": dataset, "features": features, "partition": partition, "privacy": privacy}
    return make_config(preset="facebook-node-private", assignments=settings)


def test_every_setting_says_what_it_reads() -> None:
    assert set(FEATURES) == set(get_args(Config.model_fields["features"].annotation))
    assert set(PARTITIONS) == set(get_args(PartitionName))


@pytest.mark.parametrize("dataset", ["facebook", "twitch"])
@pytest.mark.parametrize(
    ("features", "partition", "protects"), itertools.product(FEATURES, ("metis", "sites"), PROTECTS)
)
def test_all_values_under_each_unit(features: str, partition: str, protects: str | None, dataset: str) -> None:
    made = config(features, partition, protects, dataset)
    guarded = protects in ("nodes", "edges")
    refused = guarded and (features not in SAFE or (protects == "edges" and partition == "metis"))
    if not refused:
        check_prepared(made)
        return
    for attempt in (check_prepared, load_setup, run_config, lambda c: describe_plan(c, measure=False)):
        with pytest.raises(ConfigError, match=r"features=|partition="):
            attempt(made)  # type: ignore[operator]


@pytest.mark.parametrize("protects", PROTECTED)
def test_what_says_nothing_is_refused(protects: str) -> None:
    with pytest.raises(ConfigError, match="does not say"):
        check_reads("features", "mine", protects, FEATURES)
    with pytest.raises(ConfigError, match="no account holds"):
        check_reads("features", "mine", protects, {"mine": Reads(PROTECTED[protects])})
    check_reads("features", "mine", protects, {"mine": Reads()})


@pytest.mark.parametrize("preset", ["digits-secure", "digits-private", "adult-private", "facebook-node-private"])
def test_presets_pass(preset: str) -> None:
    check_prepared(make_config(preset=preset))


def test_a_delta_that_promises_nothing_is_refused() -> None:
    """Above one over the records of the smallest client, or over the clients; also before any data is touched."""
    for preset, delta in (("digits-private", 0.4), ("digits-client-private", 0.02)):
        made = make_config(preset=preset, assignments={"privacy": {"delta": delta}})
        with pytest.raises(FrampError, match="too large"):
            describe_plan(made, measure=False)
        meant = make_config(preset=preset, assignments={"privacy": {"delta": delta, "large_delta": True}})
        assert describe_plan(meant, measure=False)
