"""One finished run of each kind, for all tests of reports; nobody writes into these folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.pages import RUNS


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    for name, make in RUNS.items():
        make(root / name)
    return {name: root / name for name in RUNS}
