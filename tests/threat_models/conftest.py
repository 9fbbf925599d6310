"""Runs that many tests look at, each made once."""

from __future__ import annotations

import pytest

from tests.threat_models.runs import made


@pytest.fixture(scope="session")
def open_run(tmp_path_factory):
    return made(tmp_path_factory.mktemp("runs") / "open", "digits", rounds=4, unseen_clients=0)


@pytest.fixture(scope="session")
def private_run(tmp_path_factory):
    return made(tmp_path_factory.mktemp("runs") / "private", "digits-private", rounds=10)


@pytest.fixture(scope="session")
def secure_run(tmp_path_factory):
    return made(tmp_path_factory.mktemp("runs") / "secure", "digits-secure", rounds=3)
