"""Partitions: who gets what, with which mix, and what cannot be cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from framp_private import Schema
from framp_private.data.draws import BalancedDirichlet, ClassDirichlet, ClassesPerClient, Draw
from framp_private.data.partition import Pool, client_names, partition_graph, partition_records, partition_sites
from framp_private.data.vision import digits
from framp_private.errors import DataError
from framp_private.randomness import Streams

DRAWS: dict[str, Draw] = {
    "balanced": BalancedDirichlet(0.3),
    "by class": ClassDirichlet(0.5),
    "two classes": ClassesPerClient(2),
}
POOL = digits()


@pytest.mark.parametrize("name", DRAWS)
def test_no_record_is_given_twice_and_the_seed_decides(name: str) -> None:
    labels = POOL.y.numpy()
    first = DRAWS[name](labels, 10, 12, np.random.default_rng(0))
    assert len(first) == 12
    everything = np.concatenate(first)
    assert len(set(everything.tolist())) == len(everything)
    again = DRAWS[name](labels, 10, 12, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = DRAWS[name](labels, 10, 12, np.random.default_rng(1))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_balanced_means_equal_sizes_and_alpha_means_skew() -> None:
    labels = POOL.y.numpy()
    largest = {}
    for alpha in (0.1, 0.3, 100.0):
        parts = BalancedDirichlet(alpha)(labels, 10, 24, np.random.default_rng(0))
        assert {len(part) for part in parts} == {1797 // 24}
        largest[alpha] = np.mean([np.bincount(labels[part]).max() / len(part) for part in parts])
    assert largest[0.1] > largest[0.3] > largest[100.0]
    assert largest[100.0] < 0.25


@pytest.mark.slow
def test_the_class_mix_of_a_client_follows_its_dirichlet_draw() -> None:
    """Few records are taken from a large pool, so no class runs out: chi-square at alpha = 1e-6 for each of 20 clients."""
    labels = np.repeat(np.arange(10), 100_000)[: 10**6]
    mixes = np.random.default_rng(3).dirichlet(np.full(10, 1.0), 5000)
    parts = BalancedDirichlet(1.0)(labels, 10, 5000, np.random.default_rng(3))
    pooled = np.zeros((10,))
    expected = np.zeros((10,))
    for part, mix in list(zip(parts, mixes, strict=True))[:20]:
        counts = np.bincount(labels[part], minlength=10)
        kept = mix * len(part) >= 5
        statistic = (((counts - mix * len(part)) ** 2) / np.maximum(mix * len(part), 1e-9))[kept].sum()
        assert statistic < chi2.ppf(1 - 1e-6, int(kept.sum()))
        pooled += counts
        expected += np.roll(mix, 1) * len(part)
    wrong = ((pooled - expected) ** 2 / expected).sum()
    assert wrong > chi2.ppf(1 - 1e-6, 10)


def test_every_client_has_k_classes() -> None:
    labels = POOL.y.numpy()
    parts = ClassesPerClient(2)(labels, 10, 20, np.random.default_rng(0))
    assert {len(set(labels[part])) for part in parts} == {2}
    owners = np.bincount(np.concatenate([np.unique(labels[part]) for part in parts]))
    assert owners.max() - owners.min() <= 1


@pytest.mark.parametrize("tests", ["matched", "independent"])
def test_matched_tests_share_the_mix_and_independent_ones_do_not(tests: str) -> None:
    federated = partition_records(POOL, BalancedDirichlet(0.3), 20, 4, Streams(0), tests=tests, test=0.27)
    assert len(federated.clients) == 20 and len(federated.unseen) == 4
    distances = []
    for data in [*federated.clients.values(), *federated.unseen.values()]:
        assert len(data.test) >= 18
        shares = [torch.bincount(data.y[part], minlength=10) / len(part) for part in (data.train, data.test)]
        distances.append(float((shares[0] - shares[1]).abs().sum()) / 2)
        train = {tuple(row) for row in data.x[data.train].flatten(1).tolist()}
        assert not train & {tuple(row) for row in data.x[data.test].flatten(1).tolist()}
    assert (np.mean(distances) < 0.1) == (tests == "matched")


def test_the_default_gives_twenty_test_records() -> None:
    federated = partition_records(POOL, BalancedDirichlet(0.3), 20, 4, Streams(0), test=0.27)
    assert {len(data.test) for data in federated.clients.values()} == {20}


def ring(n: int, sites: int | None = None) -> Pool:
    source = torch.arange(n)
    edges = torch.stack([torch.cat([source, (source + 1) % n]), torch.cat([(source + 1) % n, source])])
    x = torch.eye(n)[:, :4].contiguous()
    site = tuple(f"s{i * sites // n}" for i in range(n)) if sites else None
    return Pool("ring", Schema("graph", (4,), 2), x, torch.arange(n) % 2, edges, site)


def test_communities_are_disjoint_and_cross_edges_are_gone() -> None:
    pool = ring(120)
    federated = partition_graph(pool, 4, 0, Streams(0))
    assert sum(len(data.y) for data in federated.clients.values()) == 120
    for data in federated.clients.values():
        assert int(data.edge_index.max()) < len(data.y)
        assert 20 <= len(data.y) <= 40
        assert abs(len(data.train) / len(data.y) - 0.4) < 0.05
        forward = set(map(tuple, data.edge_index.T.tolist()))
        assert all((b, a) in forward for a, b in forward)
    assert sum(data.edge_index.shape[1] for data in federated.clients.values()) < pool.edge_index.shape[1]
    again = partition_graph(pool, 4, 0, Streams(0))
    assert all(
        torch.equal(a.y, b.y) and torch.equal(a.train, b.train)
        for a, b in zip(federated.clients.values(), again.clients.values(), strict=True)
    )


def test_natural_sites_stay_together() -> None:
    federated = partition_sites(ring(120, 3), 1, Streams(0))
    assert list(federated.clients) == ["s0", "s1"] and list(federated.unseen) == ["s2"]
    table = Pool(
        "t",
        Schema("table", (4,), 2),
        torch.rand(60, 4),
        torch.arange(60) % 2,
        None,
        tuple(f"s{i % 3}" for i in range(60)),
    )
    assert [len(data.y) for data in partition_sites(table, 0, Streams(0)).clients.values()] == [20, 20, 20]


def test_names_sort_as_they_count() -> None:
    assert client_names(2, 1) == ["client-00", "client-01", "unseen-00"]
    names = client_names(1000, 0)
    assert names == sorted(names) and names[-1] == "client-999"


@pytest.mark.parametrize(
    "call",
    [
        lambda: partition_records(POOL, BalancedDirichlet(0.0), 3, 0, Streams(0)),
        lambda: partition_records(POOL, BalancedDirichlet(float("nan")), 3, 0, Streams(0)),
        lambda: partition_records(POOL, BalancedDirichlet(0.3), 1000, 0, Streams(0)),
        lambda: partition_records(POOL, ClassDirichlet(0.01), 50, 0, Streams(0)),
        lambda: partition_records(POOL, ClassesPerClient(11), 5, 0, Streams(0)),
        lambda: partition_graph(POOL, 3, 0, Streams(0)),
        lambda: partition_sites(POOL, 0, Streams(0)),
        lambda: partition_sites(ring(30, 3), 3, Streams(0)),
    ],
)
def test_partitions_that_cannot_be_cut_are_refused(call) -> None:  # noqa: ANN001
    with pytest.raises(DataError):
        call()
