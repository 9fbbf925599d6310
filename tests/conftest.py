"""Shared pieces: a tiny federation that runs in milliseconds, real data where a data root is given, and `--shard i/n`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from framp_private import FederatedDataset
from tests.tiny import tiny_dataset

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shard", default="1/1", help="run the i-th of n parts of the tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    part, parts = (int(number) for number in config.getoption("--shard").split("/"))
    if not 1 <= part <= parts:
        raise pytest.UsageError(f"--shard {part}/{parts}: i must lie in 1 .. n")
    items[:] = [item for place, item in enumerate(items) if place % parts == part - 1]


@pytest.fixture(scope="session")
def dataset() -> FederatedDataset:
    return tiny_dataset()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Real data sets; see README, Data."""
    root = os.environ.get("FRAMP_DATA")
    if not root:
        pytest.skip("set FRAMP_DATA to a folder with data sets (README, Data)")
    return Path(root)
