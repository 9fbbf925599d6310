"""Readers on small files written in each source's own layout; the real files are read in tests/integration."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from framp_private import load_dataset, make_config
from framp_private.data import graph, tabular, vision
from framp_private.errors import ConfigError, DataError, MissingData


def test_digits_are_embedded() -> None:
    pool = vision.digits()
    assert pool.x.shape == (1797, 1, 8, 8) and float(pool.x.max()) == 1.0 and pool.schema.n_classes == 10


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny files in CIFAR-100's layout; torchvision's checksums are replaced by theirs."""
    import hashlib

    from torchvision.datasets import CIFAR100

    folder = root / "cifar-100-python"
    folder.mkdir()
    rng = np.random.default_rng(0)
    sums = {}
    for name, n in (("train", 300), ("test", 100)):
        fine = [i % 100 for i in range(n)]
        entry = {
            "data": rng.integers(0, 256, (n, 3072), dtype=np.uint8),
            "fine_labels": fine,
            "coarse_labels": [f // 5 for f in fine],
        }
        (folder / name).write_bytes(pickle.dumps(entry, protocol=2))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}, protocol=2))
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    meta = {**CIFAR100.meta, "md5": hashlib.md5((folder / "meta").read_bytes()).hexdigest()}
    monkeypatch.setattr(CIFAR100, "meta", meta)


def test_cifar100_is_read_by_torchvision_from_its_own_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar100(tmp_path, monkeypatch)
    pool = vision.cifar100(tmp_path)
    assert pool.x.shape == (400, 3, 32, 32) and pool.schema.n_classes == 100
    assert -1 <= float(pool.x.min()) < -0.9 and 0.9 < float(pool.x.max()) <= 1
    assert torch.bincount(pool.y).tolist() == [4] * 100
    (tmp_path / "cifar-100-python" / "train").write_bytes(b"cut")
    with pytest.raises(DataError, match="cannot be read"):
        vision.cifar100(tmp_path)


def write_ogb(root: Path) -> None:
    """A 12-node graph in OGB's raw layout: two components, directed edges."""
    raw = root / "ogb" / "ogbn_arxiv" / "raw"
    raw.mkdir(parents=True)
    (raw.parent / "RELEASE_v1.txt").write_text("")
    edges = [(i, i + 1) for i in range(8)] + [(0, 4), (10, 11)]
    tables = {
        "edge": edges,
        "num-node-list": [(12,)],
        "num-edge-list": [(len(edges),)],
        "node-feat": np.random.default_rng(0).normal(size=(12, 128)).round(4).tolist(),
        "node-label": [(i % 40,) for i in range(12)],
        "node_year": [(2015 + i % 3,) for i in range(12)],
    }
    for name, rows in tables.items():
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        with gzip.open(raw / f"{name}.csv.gz", "wt") as file:
            file.write(text.getvalue())


def test_ogbn_arxiv_is_read_by_ogb_made_undirected_and_cut_to_its_largest_component(tmp_path: Path) -> None:
    write_ogb(tmp_path)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for _ in range(2):  # the second time would meet ogb's own cache, which newer torch refuses to load
        pool = graph.ogbn_arxiv(tmp_path)
        assert pool.x.shape == (9, 128) and pool.schema.n_classes == 40
        assert pool.edge_index.shape == (2, 18)
        assert pool.y.tolist() == list(range(9))
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    (tmp_path / "ogb" / "ogbn_arxiv" / "raw" / "edge.csv.gz").write_bytes(b"cut")
    with pytest.raises(DataError, match="cannot be read"):
        graph.ogbn_arxiv(tmp_path)


def write_musae(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "facebook_target.csv",
            "id,facebook_id,page_name,page_type\n0,9,Ä,tvshow\n1,8,B,company\n2,7,C,politician\n3,6,D,government\n",
        )
        archive.writestr("facebook_features.json", json.dumps({"0": [5, 5, 7], "1": [], "2": [4713], "3": [0]}))
        archive.writestr("facebook_edges.csv", "id_1,id_2\n0,1\n1,0\n2,2\n2,3\n")
        for offset, country in enumerate(graph.TWITCH_COUNTRIES):
            repeated = "9,1,True,1,False,0\n" if country == "FR" else ""
            archive.writestr(
                f"{country}_target.csv",
                f"id,days,mature,views,partner,new_id\n5,1,True,1,False,1\n6,1,False,1,False,0\n{repeated}",
            )
            archive.writestr(f"{country}_features.json", json.dumps({"0": [offset], "1": [3169]}))
            archive.writestr(f"{country}_edges.csv", "from,to\n0,1\n")


def test_musae_is_read_from_one_zip(tmp_path: Path) -> None:
    write_musae(tmp_path / "musae.zip")
    pool = graph.facebook(tmp_path, "sparse")
    assert pool.y.tolist() == [3, 0, 2, 1] and pool.schema.sparse
    assert pool.x.shape == (4, 4714) and pool.x.to_dense()[0].nonzero().squeeze(1).tolist() == [5, 7]
    assert pool.edge_index.T.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    projected = graph.facebook(tmp_path)
    assert projected.x.shape == (4, 128) and torch.equal(projected.x, graph.facebook(tmp_path).x)
    assert not projected.x[1].any()


def test_each_twitch_country_is_a_site_of_its_own_nodes(tmp_path: Path) -> None:
    write_musae(tmp_path / "musae.zip")
    pool = graph.twitch(tmp_path, "sparse")
    assert pool.site == tuple(country for country in graph.TWITCH_COUNTRIES for _ in range(2))
    assert pool.y.tolist() == [0, 1] * 3 + [1, 1] + [0, 1] * 2
    assert pool.edge_index.shape == (2, 12)
    assert all(pool.site[a] == pool.site[b] for a, b in pool.edge_index.T.tolist())


def test_the_projection_reads_no_record_and_the_svd_reads_all(tmp_path: Path) -> None:
    x = torch.rand(40, 200).round().to_sparse().coalesce()
    from framp_private.randomness import Streams

    reduced = graph._reduce(x, "projection", Streams(0), width=16)
    alone = graph._reduce(x.index_select(0, torch.arange(5)).coalesce(), "projection", Streams(0), width=16)
    torch.testing.assert_close(reduced[:5], alone)
    svd = graph._reduce(x, "svd", Streams(0), width=16)
    left, scale, _ = torch.linalg.svd(x.to_dense(), full_matrices=False)
    torch.testing.assert_close(svd.abs(), (left * scale)[:, :16].abs(), rtol=1e-2, atol=1e-2)


def write_adult(path: Path) -> None:
    names = (
        ">50K, <=50K.\n\nage: continuous.\nworkclass: Private, State-gov.\nfnlwgt: continuous.\neducation: HS-grad.\n"
        "education-num: continuous.\ncapital-gain: continuous.\ncapital-loss: continuous.\nhours-per-week: continuous.\n"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("adult.names", names)
        archive.writestr(
            "adult.data", "50, Private, 1, HS-grad, 8, 99999, 0, 40, <=50K\n25, ?, 1, HS-grad, 16, 0, 0, 100, >50K\n\n"
        )
        archive.writestr("adult.test", "|1x3 Cross validator\n100, State-gov, 1, HS-grad, 16, 0, 4999, 10, >50K.\n")


def test_adult_is_scaled_by_public_ranges_only(tmp_path: Path) -> None:
    write_adult(tmp_path / "adult.zip")
    pool = tabular.adult(tmp_path)
    assert pool.y.tolist() == [0, 1, 1]
    expected = torch.tensor([[0.5, 1, 0, 0.5, 1.0, 0, 0.4], [0.25, 0, 0, 1, 0, 0, 1.0], [1, 0, 1, 1, 0, 1.0, 0.1]])
    torch.testing.assert_close(pool.x, expected, rtol=1e-3, atol=1e-3)


def test_a_folder_of_csv_and_npz_files_is_a_federation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        table = np.column_stack([rng.normal(size=(30, 3)), np.arange(30) % 2])
        np.savetxt(tmp_path / f"{name}.csv", table, delimiter=",", header="x1,x2,x3,label", comments="")
    np.savez(tmp_path / "c.npz", x=rng.normal(size=(30, 3)), y=np.arange(30) % 2)
    federated = tabular.folder(tmp_path, unseen_clients=1)
    assert list(federated.clients) == ["a", "b"] and list(federated.unseen) == ["c"]
    assert load_dataset(make_config(assignments={"dataset": str(tmp_path)})).schema.input_shape == (3,)


@pytest.mark.parametrize("content", [b"x1,label\n1,text\n", b"", b"x1,label\n1\n2,3\n", b"\xff\xfe\x00"])
def test_a_site_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "site.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"site|'site'"):
        tabular.folder(tmp_path)


def test_pickles_in_npz_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "site.npz", x=np.array([object()], dtype=object), y=np.zeros(1))
    with pytest.raises(DataError, match="cannot be read"):
        tabular.folder(tmp_path)


@pytest.mark.parametrize(
    "name", ["cifar10", "cifar100", "cora", "citeseer", "facebook", "twitch", "ogbn-arxiv", "adult", "location30"]
)
def test_a_missing_set_says_how_to_get_it_and_downloads_nothing(tmp_path: Path, name: str) -> None:
    changes = (
        {"partition": "metis"}
        if name in ("cora", "citeseer", "facebook", "ogbn-arxiv")
        else {"partition": "sites"}
        if name == "twitch"
        else {}
    )
    with pytest.raises(MissingData) as caught:
        load_dataset(make_config(assignments={"dataset": name, **changes}), tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "--download" in str(caught.value) or "put" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "file"), [("musae.zip", "facebook"), ("adult.zip", "adult"), ("dataset_location.tgz", "location30")]
)
def test_a_truncated_archive_is_a_data_error(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset(
            make_config(assignments={"dataset": file, "partition": "metis" if file == "facebook" else "dirichlet"}),
            tmp_path,
        )


def test_an_unknown_dataset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="digits"):
        load_dataset(make_config(assignments={"dataset": "no-such-set"}))
    with pytest.raises(ConfigError, match="metis"):
        from framp_private.data.partition import Pool
        from framp_private.datasets import partition

        pool = Pool(
            "g", vision.digits().schema, torch.rand(9, 2), torch.arange(9) % 2, torch.zeros(2, 0, dtype=torch.long)
        )
        partition(pool, make_config(assignments={"dataset": "cora"}))
