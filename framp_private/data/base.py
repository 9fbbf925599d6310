"""`FederatedDataset`: named clients with their own records, a public schema, and clients held out as unseen.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> sites = {name: (rng.normal(size=(40, 5)), np.arange(40) % 2) for name in ("north", "south")}
>>> FederatedDataset.from_arrays(sites).clients["north"].n_train
26
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from framp_private.errors import DataError
from framp_private.randomness import Streams

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")


@dataclass(frozen=True)
class Schema:
    """What every party may know about the records.

    Args:
        kind: `image` (channels, height, width), `table` (columns) or `graph` (node features).
        input_shape: shape of one record, or of one node's features.
        n_classes: labels are 0 .. n_classes - 1.
        sparse: node features are a sparse matrix.
    """

    kind: str
    input_shape: tuple[int, ...]
    n_classes: int
    sparse: bool = False


@dataclass(frozen=True)
class ClientData:
    """One client's records and their split.

    Args:
        x: (n, *input_shape) float32 records, or all node features of the client's graph (dense or sparse).
        y: (n,) int64 labels.
        train, validation, test: int64 indices into x and y, disjoint.
        edge_index: (2, edges) int64 for a graph, both directions of each edge; None otherwise.
    """

    x: Tensor
    y: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    edge_index: Tensor | None = None

    @property
    def n_train(self) -> int:
        """Number of training records or nodes."""
        return len(self.train)

    def class_counts(self, n_classes: int) -> Tensor:
        """(n_classes,) int64 training records by class."""
        return torch.bincount(self.y[self.train], minlength=n_classes)


@dataclass(frozen=True)
class FederatedDataset:
    """Clients that train, clients held out as unseen, and the schema they share.

    Raises:
        DataError: no client, an empty client, NaN or infinite features, labels outside the schema, or a class that no
            training client has. A client that lacks a class is normal.
    """

    name: str
    schema: Schema
    clients: Mapping[str, ClientData]
    unseen: Mapping[str, ClientData] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.clients:
            raise DataError(f"dataset={self.name!r} has no clients: at least one is needed")
        both = sorted(set(self.clients) & set(self.unseen))
        if both:
            raise DataError(f"client {both[0]!r} is both training and unseen: give each client one name and one role")
        for name, client in {**self.clients, **self.unseen}.items():
            _check_client(name, client, self.schema)
        counts = sum(client.class_counts(self.schema.n_classes) for client in self.clients.values())
        missing = [label for label, count in enumerate(counts.tolist()) if count == 0]  # type: ignore[union-attr]
        if missing:
            raise DataError(
                f"no client has a training record of class {missing}: remove those labels from the schema, "
                "or give the federation records of them"
            )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all records and splits. It stays with the experimenter: a hash of few values gives them away."""
        digest = hashlib.sha256(repr((self.name, self.schema)).encode())
        for name, client in {**self.clients, **self.unseen}.items():
            digest.update(json.dumps([name, list(client.x.shape)]).encode())
            x = (client.x.indices(), client.x.values()) if client.x.is_sparse else (client.x,)
            edges = () if client.edge_index is None else (client.edge_index,)
            for part in (*x, client.y, client.train, client.validation, client.test, *edges):
                digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def partition_digest(self) -> str:
        """SHA-256 over who holds which records: of what no preparation changes, names, labels and splits."""
        digest = hashlib.sha256(repr((self.name, self.schema.n_classes)).encode())
        for name, client in {**self.clients, **self.unseen}.items():
            digest.update(json.dumps([name, len(client.y)]).encode())
            for part in (client.y, client.train, client.validation, client.test):
                digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @classmethod
    def from_arrays(
        cls,
        clients: Mapping[str, tuple[ArrayLike, ArrayLike]],
        *,
        unseen: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
        name: str = "arrays",
        n_classes: int | None = None,
        seed: int = 0,
        test: float = 0.25,
        validation: float = 0.1,
    ) -> FederatedDataset:
        """A data set from one (x, y) pair per client, split within each class.

        Args:
            clients: name -> (x, y); x (n, columns) becomes a table, (n, channels, height, width) pictures;
                y (n,) whole numbers from 0.
            unseen: clients that never train.
            n_classes: default: the largest label plus one.
            seed: of the split. test, validation: shares of a client's records.

        Raises:
            DataError: see the class; also x and y of different length, or shapes that differ between clients.
        """
        arrays = {key: _to_tensors(key, *pair) for key, pair in {**clients, **(unseen or {})}.items()}
        if not arrays:
            raise DataError(f"dataset={name!r} has no clients: at least one is needed")
        shapes = {key: tuple(x.shape[1:]) for key, (x, _) in arrays.items()}
        first = next(iter(shapes.values()))
        for key, shape in shapes.items():
            if shape != first:
                raise DataError(f"client {key!r} has records of shape {shape}, others {first}: all must agree")
        if n_classes is None:
            n_classes = max((int(y.max()) for _, y in arrays.values() if len(y)), default=0) + 1
            if n_classes > sum(len(y) for _, y in arrays.values()):
                raise DataError(f"the largest label is {n_classes - 1}, with fewer records than that: use 0, 1, 2, ...")
        kinds = {1: "table", 3: "image"}
        if len(first) not in kinds:
            raise DataError(
                f"records of shape {first} are neither a table row (columns,) nor a picture (channels, height, width)"
            )
        schema = Schema(kinds[len(first)], first, n_classes)
        streams = Streams(seed).child("split")
        made = {key: split_records(x, y, streams.child(key), test, validation) for key, (x, y) in arrays.items()}
        return cls(name, schema, {key: made[key] for key in clients}, {key: made[key] for key in unseen or {}})


def split_records(x: Tensor, y: Tensor, streams: Streams, test: float = 0.25, validation: float = 0.1) -> ClientData:
    """Splits records within each class, so that test and validation have the class mix of the training part."""
    held, rest = stratified(y, round(test * len(y)), streams.child("test"))
    inner, train = stratified(y[rest], round(validation * len(y)), streams.child("validation"))
    return ClientData(x, y, rest[train], rest[inner], held)


def stratified(labels: Tensor, count: int, streams: Streams) -> tuple[Tensor, Tensor]:
    """(`count` indices with the mix of all labels, the other indices); remainders go to the largest fractions."""
    order = torch.randperm(len(labels), generator=streams.torch())
    if count == 0:
        return order[:0], order.sort().values
    totals = torch.bincount(labels).tolist()
    exact = [count * total / len(labels) for total in totals]
    take = [int(value) for value in exact]
    by_fraction = sorted(range(len(take)), key=lambda label: (take[label] - exact[label], label))
    for label in by_fraction[: count - sum(take)]:
        take[label] += 1
    chosen = torch.cat([order[labels[order] == label][:n] for label, n in enumerate(take)])
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[chosen] = False
    return chosen.sort().values, rest.nonzero().squeeze(1)


def _to_tensors(name: str, x: ArrayLike, y: ArrayLike) -> tuple[Tensor, Tensor]:
    try:
        features, labels = np.asarray(x, dtype=np.float32), np.asarray(y)
        numeric = bool(np.array_equal(labels, labels.astype(np.int64))) if labels.size else True
    except (ValueError, TypeError) as error:
        raise DataError(f"client {name!r} has x or y that is no array of numbers: {error}") from error
    if not features.ndim:
        raise DataError(f"client {name!r} has a single number for x: give one row per record")
    if labels.ndim != 1 or len(features) != len(labels):
        raise DataError(
            f"client {name!r} has x of shape {features.shape} and y of shape {labels.shape}: "
            "y must be one label per record"
        )
    if not numeric:
        raise DataError(f"client {name!r} has labels that are not whole numbers: use 0 .. n_classes - 1")
    if len(labels) and labels.min() < 0:
        raise DataError(f"client {name!r} has label {labels.min()}: they must lie in 0 .. n_classes - 1")
    return torch.from_numpy(features.copy()), torch.from_numpy(labels.astype(np.int64))


def _check_client(name: str, client: ClientData, schema: Schema) -> None:
    if not _NAME.fullmatch(name):
        raise DataError(
            f"client name {name!r} cannot be a file name: use up to 100 letters, digits, spaces and . _ - "
            "and begin with a letter or a digit"
        )
    if client.n_train == 0 or len(client.test) == 0:
        raise DataError(
            f"client {name!r} has {client.n_train} training and {len(client.test)} test records: "
            "each client needs at least one of both; leave it out or give it more records"
        )
    values = client.x.values() if client.x.is_sparse else client.x
    if not torch.isfinite(values).all():
        raise DataError(f"client {name!r} has NaN or infinite features: impute or remove those records at the client")
    if tuple(client.x.shape[1:]) != schema.input_shape:
        raise DataError(
            f"client {name!r} has records of shape {tuple(client.x.shape[1:])}, the schema says {schema.input_shape}"
        )
    if len(client.y) and not 0 <= int(client.y.min()) <= int(client.y.max()) < schema.n_classes:
        raise DataError(
            f"client {name!r} has labels from {int(client.y.min())} to {int(client.y.max())}: "
            f"they must lie in 0 .. {schema.n_classes - 1}"
        )
