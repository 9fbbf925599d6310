"""Dataset names -> readers, schemas and what to do when one is missing; and a config's partition of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from framp_private.config import Config
from framp_private.data import tabular, vision
from framp_private.data.base import FederatedDataset, Schema
from framp_private.data.draws import BalancedDirichlet, ClassDirichlet, ClassesPerClient, Draw
from framp_private.data.partition import Pool, partition_graph, partition_records, partition_sites
from framp_private.data.reads import FEATURES, PARTITIONS, check_reads
from framp_private.errors import ConfigError, DataError, FrampError, MissingData
from framp_private.randomness import Streams

Reader = Callable[[Path, bool, Config], Pool]


@dataclass(frozen=True)
class Entry:
    """One known data set: its reader, its schema before any file is read, the files under the data root."""

    read: Reader
    schema: Schema
    files: tuple[str, ...]


def _planetoid(name: Literal["Cora", "CiteSeer"]) -> Reader:
    def read(root: Path, download: bool, config: Config) -> Pool:
        from framp_private.data.graph import planetoid

        return planetoid(name, root, download)

    return read


def _facebook(root: Path, download: bool, config: Config) -> Pool:
    from framp_private.data.graph import facebook

    return facebook(root, config.features, _streams(config))


def _twitch(root: Path, download: bool, config: Config) -> Pool:
    from framp_private.data.graph import twitch

    return twitch(root, config.features, _streams(config))


def _ogbn_arxiv(root: Path, download: bool, config: Config) -> Pool:
    from framp_private.data.graph import ogbn_arxiv

    return ogbn_arxiv(root, download)


def _picture(side: int, channels: int, n_classes: int) -> Schema:
    return Schema("image", (channels, side, side), n_classes)


def _graph(columns: int, n_classes: int) -> Schema:
    return Schema("graph", (columns,), n_classes)


def _table(columns: int, n_classes: int) -> Schema:
    return Schema("table", (columns,), n_classes)


# Graph libraries take seconds to import, so their readers do it when they are asked to read.
CATALOGUE: dict[str, Entry] = {
    "digits": Entry(lambda root, download, config: vision.digits(), _picture(8, 1, 10), ()),
    "cifar10": Entry(
        lambda root, download, config: vision.cifar10(root, download), _picture(32, 3, 10), ("cifar-10-batches-py",)
    ),
    "cifar100": Entry(
        lambda root, download, config: vision.cifar100(root, download), _picture(32, 3, 100), ("cifar-100-python",)
    ),
    "cora": Entry(_planetoid("Cora"), _graph(1433, 7), ("planetoid/Cora/raw",)),
    "citeseer": Entry(_planetoid("CiteSeer"), _graph(3703, 6), ("planetoid/CiteSeer/raw",)),
    "facebook": Entry(_facebook, _graph(128, 4), ("musae.zip",)),
    "twitch": Entry(_twitch, _graph(128, 2), ("musae.zip",)),
    "ogbn-arxiv": Entry(_ogbn_arxiv, _graph(128, 40), ("ogb/ogbn_arxiv/raw",)),
    "adult": Entry(lambda root, download, config: tabular.adult(root), _table(88, 2), ("adult.zip",)),
    "location30": Entry(
        lambda root, download, config: tabular.location30(root), _table(446, 30), ("dataset_location.tgz",)
    ),
}

_SPARSE_COLUMNS = {"facebook": 4714, "twitch": 3170}


def data_root(given: Path | None) -> Path:
    """`--data-root`, else `FRAMP_DATA`, else `data` in the working folder."""
    return given if given is not None else Path(os.environ.get("FRAMP_DATA", "data"))


def schema_of(config: Config) -> Schema | None:
    """What is known of the records without reading any; None for the user's own folder."""
    entry = CATALOGUE.get(config.dataset)
    if entry is None:
        return None
    if config.features == "sparse" and config.dataset in _SPARSE_COLUMNS:
        return Schema("graph", (_SPARSE_COLUMNS[config.dataset],), entry.schema.n_classes, sparse=True)
    return entry.schema


def check_prepared(config: Config) -> None:
    """Refuses what is fitted on private records before the first release, where there is a guarantee.

    Raises:
        ConfigError: see `check_reads`; also features that a guarantee for graphs cannot take.
    """
    wanted = config.privacy
    if wanted is None or wanted.protects == "nothing" or config.method == "local":
        return
    graph = (schema := schema_of(config)) is not None and schema.kind == "graph"
    protects = wanted.unit if not graph or wanted.unit == "client" else wanted.protects
    if config.dataset in _SPARSE_COLUMNS:
        check_reads("features", config.features, protects, FEATURES)
        if config.features == "sparse":
            raise ConfigError(
                "features='sparse' cannot be aggregated with noise, which is dense: use features=projection under a "
                "guarantee, or privacy=none"
            )
    if schema is not None:  # a folder's sites hold what they hold
        check_reads("partition", config.partition, protects, PARTITIONS)


def load_dataset(config: Config, root: Path | None = None, download: bool = False) -> FederatedDataset:
    """Reads and partitions the config's data set, or the folder it names.

    Raises:
        ConfigError: neither a known name nor a folder. MissingData, DataError: see the readers and partitions.
    """
    entry = CATALOGUE.get(config.dataset)
    if entry is None:
        path = Path(config.dataset).expanduser()
        if not path.exists():
            raise ConfigError(
                f"dataset={config.dataset!r} is neither a known data set ({', '.join(CATALOGUE)}) nor a folder"
            )
        return tabular.folder(
            path,
            _seed(config),
            config.unseen_clients,
            test=config.test_fraction,
            validation=config.validation_fraction,
        )
    with _readable(config.dataset):
        pool = entry.read(data_root(root), download, config)
    return partition(pool, config)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Whatever a damaged file makes a reader raise becomes a `DataError`."""
    try:
        yield
    except FrampError:
        raise
    except Exception as error:
        raise DataError(
            f"dataset={name!r} cannot be read ({type(error).__name__}: {error}): fetch its files again"
        ) from error


def partition(pool: Pool, config: Config) -> FederatedDataset:
    """Hands the pool to clients as the config says. Raises `DataError` where partition and data do not fit."""
    streams = Streams(_seed(config)).child("data")
    if config.partition == "sites":
        return partition_sites(
            pool, config.unseen_clients, streams, test=config.test_fraction, validation=config.validation_fraction
        )
    if config.partition == "metis" or pool.edge_index is not None:
        if config.partition != "metis":
            raise ConfigError(
                f"partition={config.partition!r} cuts a graph's edges at random: "
                f"use 'metis' or 'sites' for dataset={pool.name!r}"
            )
        return partition_graph(
            pool,
            config.clients,
            config.unseen_clients,
            streams,
            test=config.test_fraction,
            validation=config.validation_fraction,
        )
    draws: dict[str, Draw] = {
        "dirichlet": BalancedDirichlet(config.alpha),
        "class-dirichlet": ClassDirichlet(config.alpha),
        "classes": ClassesPerClient(config.classes_per_client),
    }
    return partition_records(
        pool,
        draws[config.partition],
        config.clients,
        config.unseen_clients,
        streams,
        tests=config.tests,
        test=config.test_fraction,
        validation=config.validation_fraction,
    )


def check(root: Path, name: str, config: Config) -> str:
    """ "ready" or what is missing, after really reading the data set."""
    try:
        with _readable(name):
            pool = CATALOGUE[name].read(root, False, config)
    except MissingData as error:
        return f"missing: {error}"
    except DataError as error:
        return f"unreadable: {error}"
    return f"ready: {len(pool.y):,} records, {pool.schema.n_classes} classes"


def _streams(config: Config) -> Streams:
    return Streams(_seed(config)).child("features")


def _seed(config: Config) -> int:
    return config.seed if config.data_seed is None else config.data_seed
