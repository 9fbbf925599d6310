"""Graphs: Cora and CiteSeer (Planetoid), MUSAE's Facebook pages and six Twitch countries, ogbn-arxiv.

Every reader returns undirected edges in both directions without loops or repeats.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ogb.nodeproppred import NodePropPredDataset
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import svds
from torch import Tensor

from framp_private.data.base import Schema
from framp_private.data.partition import Pool
from framp_private.errors import DataError, MissingData
from framp_private.randomness import Streams

with warnings.catch_warnings():  # the import itself calls what newer torch deprecates
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric.datasets import Planetoid
    from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

FACEBOOK_COLUMNS, TWITCH_COLUMNS = 4_714, 3_170
TWITCH_COUNTRIES = ("DE", "ENGB", "ES", "FR", "PTBR", "RU")
_PLANETOID = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
_OGB = ("edge.csv.gz", "node-feat.csv.gz", "node-label.csv.gz", "num-node-list.csv.gz", "num-edge-list.csv.gz")
_PAGE_TYPES = ("company", "government", "politician", "tvshow")
Features = Literal["projection", "svd", "sparse"]


def planetoid(name: Literal["Cora", "CiteSeer"], root: Path, download: bool = False) -> Pool:
    """A citation network (Yang et al., arXiv 1603.08861) from `root/planetoid/NAME/raw`."""
    raw = root / "planetoid" / name / "raw"
    if download:
        graph = _read_planetoid(str(root / "planetoid"), name)
    elif any(not (raw / f"ind.{name.lower()}.{part}").is_file() for part in _PLANETOID):
        raise MissingData(
            f"dataset={name.lower()!r} is not in {raw}: pass --download, or put the ind.{name.lower()}.* files there"
        )
    else:
        with tempfile.TemporaryDirectory() as scratch:  # the reader writes beside what it reads
            shutil.copytree(raw, Path(scratch) / name / "raw")
            graph = _read_planetoid(scratch, name)
    schema = Schema("graph", (graph.num_node_features,), int(graph.y.max()) + 1)
    return Pool(name.lower(), schema, graph.x, graph.y, _undirected(graph.edge_index, graph.num_nodes))


def facebook(root: Path, features: Features = "projection", streams: Streams | None = None) -> Pool:
    """22,470 pages of four types, 4,714 binary columns (Rozemberczki et al., arXiv 1909.13021), from `root/musae.zip`.

    Args:
        features: `projection` to 128 columns by a seeded random matrix, which reads no record and can be done by each
            site alone; `svd` to 128 columns, fitted on all nodes together, which sites could only do by sharing;
            `sparse` leaves the binary columns for a network with a sparse input layer.
        streams: of the projection or the SVD's start.
    """
    with _musae(root) as archive:
        types = [row["page_type"] for row in _table(archive, "facebook_target.csv")]
        x = _binary(archive, "facebook_features.json", FACEBOOK_COLUMNS, len(types))
        edges = _edges(archive, "facebook_edges.csv", "id_1", "id_2")
    y = torch.tensor([_PAGE_TYPES.index(kind) for kind in types])
    return _pool("facebook", x, y, edges, 4, features, streams)


def twitch(root: Path, features: Features = "projection", streams: Streams | None = None) -> Pool:
    """Six countries of streamers over one space of 3,170 binary columns, label: mature content; each country is a site.

    Rows of a country's target table that repeat a node are dropped (France has two). See `facebook` for `features`.
    """
    blocks, labels, edges, sites, offset = [], [], [], [], 0
    with _musae(root) as archive:
        for country in TWITCH_COUNTRIES:
            rows = {int(row["new_id"]): row["mature"] == "True" for row in _table(archive, f"{country}_target.csv")}
            blocks.append(_binary(archive, f"{country}_features.json", TWITCH_COLUMNS, len(rows)))
            labels += [int(rows[node]) for node in range(len(rows))]
            edges.append(_edges(archive, f"{country}_edges.csv", "from", "to") + offset)
            sites += [country] * len(rows)
            offset += len(rows)
    x = torch.cat(blocks).coalesce()
    pool = _pool("twitch", x, torch.tensor(labels), torch.cat(edges, 1), 2, features, streams)
    return Pool(pool.name, pool.schema, pool.x, pool.y, pool.edge_index, tuple(sites))


def ogbn_arxiv(root: Path, download: bool = False) -> Pool:
    """169,343 papers in 40 subjects (Hu et al., arXiv 2005.00687), undirected, largest component, from `root/ogb`."""
    raw = root / "ogb" / "ogbn_arxiv" / "raw"
    there = [(raw / part).is_file() for part in _OGB] + [(raw.parent / "RELEASE_v1.txt").is_file()]
    if not all(there) and not download:
        raise MissingData(
            f"dataset='ogbn-arxiv' is not in {raw}: pass --download, or unpack OGB's arxiv.zip as {raw.parent}"
        )
    graph, labels = _read_ogb(root / "ogb")
    n = int(graph["num_nodes"])
    edges = _undirected(torch.tensor(graph["edge_index"]), n)
    links = coo_matrix((np.ones(edges.shape[1]), edges.numpy()), (n, n))
    _, component = connected_components(links, directed=False)
    keep = torch.from_numpy(component == np.bincount(component).argmax())
    renumber = torch.cumsum(keep, 0) - 1
    x, y = torch.tensor(graph["node_feat"])[keep], torch.tensor(labels[:, 0])[keep]
    inside = edges[:, keep[edges[0]]]
    return Pool("ogbn-arxiv", Schema("graph", (x.shape[1],), 40), x, y, renumber[inside])


def _read_planetoid(root: str, name: str) -> Any:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return Planetoid(root, name)[0]
    except (OSError, EOFError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(
            f"dataset={name.lower()!r} cannot be read ({error}): fetch its ind.{name.lower()}.* files again"
        ) from error


def _read_ogb(root: Path) -> tuple[dict[str, Any], np.ndarray]:
    """OGB's own reader on a copy-free scratch root: its cache is a pickle that torch >= 2.6 refuses to load."""
    source = root / "ogbn_arxiv"
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "ogbn_arxiv"
        if source.is_dir():
            target.mkdir()
            for item in source.iterdir():
                if item.name != "processed":
                    (target / item.name).symlink_to(item.resolve())
            (target / "processed").mkdir()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                graph, labels = NodePropPredDataset("ogbn-arxiv", str(scratch if source.is_dir() else root))[0]
        except (OSError, EOFError, ValueError, KeyError, RuntimeError) as error:
            raise DataError(
                f"dataset='ogbn-arxiv' in {source} cannot be read ({error}): unpack OGB's arxiv.zip again"
            ) from error
    return graph, labels


def _musae(root: Path) -> zipfile.ZipFile:
    path = root / "musae.zip"
    if not path.is_file():
        raise MissingData(
            f"MUSAE's graphs are not at {path}: put there one zip of the CSV and JSON files of the "
            "project benedekrozemberczki/MUSAE (Facebook page-page and Twitch)"
        )
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch the file again") from error


def _table(archive: zipfile.ZipFile, name: str) -> list[dict[str, str]]:
    with archive.open(name) as member:
        return list(csv.DictReader(io.TextIOWrapper(member, "utf-8")))


def _binary(archive: zipfile.ZipFile, name: str, columns: int, rows: int) -> Tensor:
    lists = json.loads(archive.read(name))
    pairs = sorted({(int(node), column) for node, present in lists.items() for column in present})
    places = torch.tensor(pairs).T
    return torch.sparse_coo_tensor(
        places, torch.ones(len(pairs)), (rows, columns), is_coalesced=True, check_invariants=True
    )


def _edges(archive: zipfile.ZipFile, name: str, source: str, target: str) -> Tensor:
    rows = _table(archive, name)
    return torch.tensor([[int(row[source]) for row in rows], [int(row[target]) for row in rows]])


def _undirected(edges: Tensor, n_nodes: int) -> Tensor:
    both: Tensor = coalesce(to_undirected(remove_self_loops(edges)[0], num_nodes=n_nodes), num_nodes=n_nodes)
    return both


def _pool(
    name: str, x: Tensor, y: Tensor, edges: Tensor, n_classes: int, features: Features, streams: Streams | None
) -> Pool:
    reduced = x if features == "sparse" else _reduce(x, features, streams or Streams(0).child(name))
    schema = Schema("graph", (reduced.shape[1],), n_classes, features == "sparse")
    return Pool(name, schema, reduced, y, _undirected(edges, len(y)))


def _reduce(x: Tensor, features: Features, streams: Streams, width: int = 128) -> Tensor:
    if features == "projection":
        matrix = torch.randn(x.shape[1], width, generator=streams.child("projection").torch()) / width**0.5
        projected: Tensor = torch.sparse.mm(x, matrix)
        return projected
    matrix = coo_matrix((x.values().numpy(), x.indices().numpy()), x.shape).tocsr()
    start = streams.child("svd").numpy().uniform(-1, 1, min(x.shape))
    left, scale, _ = svds(matrix, width, v0=start)
    return torch.from_numpy((left * scale)[:, ::-1].astype(np.float32).copy())
