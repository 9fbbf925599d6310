"""The real files, where a data root is given: counts as their sources state them, and a short run on each kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from framp_private import load_dataset, make_config, run_config
from framp_private.data import graph, tabular, vision


def test_cifar10(data_root: Path) -> None:
    pool = vision.cifar10(data_root)
    assert torch.bincount(pool.y).tolist() == [6000] * 10


@pytest.mark.parametrize(("name", "nodes", "edges", "classes"), [("Cora", 2708, 5278, 7), ("CiteSeer", 3327, 4552, 6)])
def test_planetoid(data_root: Path, name: str, nodes: int, edges: int, classes: int) -> None:
    pool = graph.planetoid(name, data_root)
    assert (len(pool.y), pool.edge_index.shape[1] // 2, pool.schema.n_classes) == (nodes, edges, classes)


def test_musae(data_root: Path) -> None:
    pages = graph.facebook(data_root, "sparse")
    assert len(pages.y) == 22_470 and pages.edge_index.shape[1] // 2 == 171_002 - 179  # 179 pages link to themselves
    streamers = graph.twitch(data_root, "sparse")
    assert streamers.site.count("FR") == 6_549 and streamers.x.shape == (34_118, 3_170)


def test_tables(data_root: Path) -> None:
    rows = tabular.adult(data_root)
    assert rows.x.shape == (32_561 + 16_281, 88) and int(rows.y.sum()) == 11_687
    profiles = tabular.location30(data_root)
    assert profiles.x.shape == (5_010, 446) and int(profiles.y.max()) == 29


SHORT = {
    "rounds": 2,
    "clients": 5,
    "local_steps": 2,
    "home_steps": 2,
    "evaluate_every": 2,
    "hypernetwork": {"hidden": 8},
    "descriptor": {"steps": 2},
}
RUNS = {
    "cifar10": {"clients": 40, "network": "cnn", "alignment": {"records": 64}},
    "cora": {"partition": "metis", "network": "gcn"},
    "citeseer": {"partition": "metis"},
    "facebook": {"partition": "metis"},
    "facebook sparse": {"dataset": "facebook", "features": "sparse", "partition": "metis"},
    "twitch": {"partition": "sites"},
    "adult": {},
    "location30": {"clients": 3},
}


SLOW = ("cifar10", "twitch", "facebook", "facebook sparse")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in RUNS])
def test_a_short_run_on_each_kind_of_data(data_root: Path, tmp_path: Path, name: str) -> None:
    config = make_config(assignments={"dataset": name, **SHORT, **RUNS[name]})
    run = run_config(config, out=tmp_path / "run", data_root=data_root)
    assert 0 <= run.summary["accuracy"]["local"]["mean"] <= 1
    assert (run.summary["table"] is not None) == (name in ("adult", "location30"))
    assert (tmp_path / "run" / "report.html").is_file()


def test_twitch_sites_can_be_unseen(data_root: Path) -> None:
    dataset = load_dataset(
        make_config(assignments={"dataset": "twitch", "partition": "sites", "unseen_clients": 1}), data_root
    )
    assert list(dataset.unseen) == ["RU"]
