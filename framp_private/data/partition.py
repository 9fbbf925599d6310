"""How a pool of records becomes clients. Every partition is a pure function of labels, sizes and a stream.

`Pool` is what a reader returns; a partition returns, for each client, indices of records and of test records. With
*matched* tests a client is tested on the class mix it trains on (personalisation can pay); with *independent*
tests, as in FIARSE's released code, the mix of the test part is drawn anew (it cannot).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pymetis
import torch
from torch import Tensor

from framp_private.data.base import ClientData, FederatedDataset, Schema, split_records, stratified
from framp_private.data.draws import Draw
from framp_private.errors import DataError
from framp_private.randomness import Streams


@dataclass(frozen=True)
class Pool:
    """All records of a data set before clients get them; `site` names each record's natural client, if any."""

    name: str
    schema: Schema
    x: Tensor
    y: Tensor
    edge_index: Tensor | None = None
    site: tuple[str, ...] | None = None


def partition_records(
    pool: Pool,
    draw: Draw,
    n_clients: int,
    n_unseen: int,
    streams: Streams,
    *,
    tests: Literal["matched", "independent"] = "matched",
    test: float = 0.25,
    validation: float = 0.1,
) -> FederatedDataset:
    """Hands a pool of records to `n_clients` training clients and `n_unseen` held-out ones.

    Args:
        tests: `matched` splits each client's own records within classes; `independent` sets a test pool aside first
            and draws each client's test part from it by the same rule with fresh class mixes.
        test, validation: shares of a client's records, in (0, 1).

    Raises:
        DataError: more clients than the pool can fill, or a client ends up empty.
    """
    total = n_clients + n_unseen
    if len(pool.y) < 4 * total:
        raise DataError(f"clients={total} cannot share {len(pool.y)} records: at least 4 each are needed")
    labels, generator = pool.y.numpy(), streams.child("partition").numpy()
    names = client_names(n_clients, n_unseen)
    if tests == "matched":
        parts = draw(labels, pool.schema.n_classes, total, generator)
        made = {
            name: _matched(pool, part, streams.child("split", name), test, validation)
            for name, part in zip(names, parts, strict=True)
        }
    else:
        held, rest = stratified(pool.y, round(test * len(labels)), streams.child("test pool"))
        train_parts = draw(labels[rest.numpy()], pool.schema.n_classes, total, generator)
        test_parts = draw(labels[held.numpy()], pool.schema.n_classes, total, generator)
        made = {
            name: _independent(pool, rest[part], held[other], streams.child("split", name), validation / (1 - test))
            for name, part, other in zip(names, train_parts, test_parts, strict=True)
        }
    return _federation(pool, made, n_unseen)


def partition_graph(
    pool: Pool,
    n_clients: int,
    n_unseen: int,
    streams: Streams,
    *,
    test: float = 0.3,
    validation: float = 0.3,
) -> FederatedDataset:
    """METIS communities as clients, edges between them dropped; nodes of each client split 40/30/30 at random.

    Raises:
        DataError: the pool has no edges, or a community is empty.
    """
    if pool.edge_index is None:
        raise DataError(
            f"partition='metis' needs a graph, and dataset={pool.name!r} is none: use 'dirichlet' or 'classes'"
        )
    total = n_clients + n_unseen
    order = np.argsort(pool.edge_index[0].numpy(), kind="stable")
    starts = np.searchsorted(pool.edge_index[0].numpy()[order], np.arange(len(pool.y) + 1))
    options = pymetis.Options(seed=streams.child("metis").integer() % 2**31)
    _, community = pymetis.part_graph(total, xadj=starts, adjncy=pool.edge_index[1].numpy()[order], options=options)
    membership = torch.tensor(community)
    names = client_names(n_clients, n_unseen)
    made = {
        name: _subgraph(pool, membership == part, streams.child("split", name), test, validation)
        for part, name in enumerate(names)
    }
    return _federation(pool, made, n_unseen)


def partition_sites(
    pool: Pool, n_unseen: int, streams: Streams, *, test: float = 0.25, validation: float = 0.1
) -> FederatedDataset:
    """Natural sites as clients, the last `n_unseen` of them held out.

    Raises:
        DataError: the pool has no sites, or too few.
    """
    if pool.site is None:
        raise DataError(
            f"partition='sites' needs natural sites, and dataset={pool.name!r} has none: use 'dirichlet' or 'metis'"
        )
    names = list(dict.fromkeys(pool.site))
    if n_unseen >= len(names):
        raise DataError(f"unseen_clients={n_unseen} leaves none of {len(names)} sites to train: use fewer")
    site = np.array(pool.site)
    made = {}
    for name in names:
        member = torch.from_numpy(site == name)
        if pool.edge_index is not None:
            made[name] = _subgraph(pool, member, streams.child("split", name), test, validation)
        else:
            made[name] = _matched(pool, np.flatnonzero(site == name), streams.child("split", name), test, validation)
    return _federation(pool, made, n_unseen)


def client_names(n_clients: int, n_unseen: int) -> list[str]:
    """`client-00`, `client-01`, ..., then `unseen-00`, ..."""
    width = max(2, len(str(max(n_clients, n_unseen) - 1)))
    return [f"client-{i:0{width}d}" for i in range(n_clients)] + [f"unseen-{i:0{width}d}" for i in range(n_unseen)]


def _federation(pool: Pool, made: Mapping[str, ClientData], n_unseen: int) -> FederatedDataset:
    names = list(made)
    cut = len(names) - n_unseen
    return FederatedDataset(
        pool.name, pool.schema, {k: made[k] for k in names[:cut]}, {k: made[k] for k in names[cut:]}
    )


def _matched(pool: Pool, part: np.ndarray, streams: Streams, test: float, validation: float) -> ClientData:
    places = torch.from_numpy(part)
    return split_records(pool.x[places], pool.y[places], streams, test, validation)


def _independent(pool: Pool, train: Tensor, test: Tensor, streams: Streams, validation: float) -> ClientData:
    inner, rest = stratified(pool.y[train], round(validation * len(train)), streams)
    places = torch.cat([train, test])
    return ClientData(pool.x[places], pool.y[places], rest, inner, torch.arange(len(train), len(places)))


def _subgraph(pool: Pool, member: Tensor, streams: Streams, test: float, validation: float) -> ClientData:
    assert pool.edge_index is not None
    nodes = member.nonzero().squeeze(1)
    renumber = torch.full((len(pool.y),), -1)
    renumber[nodes] = torch.arange(len(nodes))
    inside = member[pool.edge_index[0]] & member[pool.edge_index[1]]
    x = pool.x.index_select(0, nodes).coalesce() if pool.x.is_sparse else pool.x[nodes]
    order = torch.randperm(len(nodes), generator=streams.torch())
    n_test, n_validation = round(test * len(nodes)), round(validation * len(nodes))
    return ClientData(
        x,
        pool.y[nodes],
        order[n_test + n_validation :].sort().values,
        order[n_test : n_test + n_validation].sort().values,
        order[:n_test].sort().values,
        renumber[pool.edge_index[:, inside]],
    )
