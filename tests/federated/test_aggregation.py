"""Node-level privacy: what one node with all its edges can change, on random and on worst-case graphs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
from scipy.stats import kstest
from torch import Tensor

from framp_private import ClientData, Schema
from framp_private.errors import DataError, PrivacyParameterError, RunError
from framp_private.federated.aggregation import Aggregation, aggregate, bound_degree, unit_rows
from framp_private.randomness import Entropy, Streams


def both_ways(pairs: list[tuple[int, int]]) -> Tensor:
    edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return torch.cat([edges, edges.flip(0)], 1)


def random_graph(n: int, m: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return both_ways([tuple(rng.choice(n, 2, replace=False)) for _ in range(m)])  # type: ignore[misc]


GRAPHS = {
    **{f"random {seed}": (30, random_graph(30, 60 + 20 * seed, seed)) for seed in range(6)},
    "star": (9, both_ways([(0, leaf) for leaf in range(1, 9)])),
    "complete": (6, both_ways([(a, b) for a in range(6) for b in range(a)])),
    "two stars": (12, both_ways([(0, i) for i in range(2, 7)] + [(1, i) for i in range(7, 12)] + [(0, 1)])),
    "empty": (4, torch.zeros(2, 0, dtype=torch.int64)),
}


def without(node: int, rows: Tensor, edges: Tensor) -> Tensor:
    """The exact aggregate of a graph from which a node and all its edges are gone; its own row stays, as zeros."""
    kept = (edges[0] != node) & (edges[1] != node)
    return aggregate(rows, edges[:, kept])


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("degree", [1, 3, 8])
@pytest.mark.parametrize("alike", [True, False])
def test_one_node_changes_the_others_aggregates_by_at_most_the_sensitivity(name: str, degree: int, alike: bool) -> None:
    n, edges = GRAPHS[name]
    bounded = bound_degree(edges, n, degree, Streams(1))
    features = torch.ones(n, 5) * 7 if alike else torch.randn(n, 5, generator=Streams(2).torch()) * 50
    rows, limit = unit_rows(features), Aggregation(1, degree, 1.0).sensitivity
    whole, worst = aggregate(rows, bounded), 0.0
    for node in range(n):
        others = torch.arange(n) != node
        moved = float((whole - without(node, rows, bounded))[others].norm())
        assert moved <= limit
        worst = max(worst, moved)
    if name == "star" and degree == 8:
        assert worst == pytest.approx(limit, rel=1e-5)  # the bound is reached: nothing smaller would do


def test_an_unbounded_graph_would_break_the_bound() -> None:
    """The test above can fail: without the cut, the star's centre moves eight rows."""
    n, edges = GRAPHS["star"]
    rows = unit_rows(torch.ones(n, 5))
    moved = float((aggregate(rows, edges) - without(0, rows, edges))[1:].norm())
    assert moved > 2 * Aggregation(1, 1, 1.0).sensitivity


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("degree", [1, 2, 5])
def test_degrees_are_bounded_and_nothing_is_invented(name: str, degree: int) -> None:
    n, edges = GRAPHS[name]
    bounded = bound_degree(edges, n, degree, Streams(3))
    assert torch.bincount(bounded[0], minlength=n).max() <= degree if bounded.numel() else True
    assert set(map(tuple, bounded.T.tolist())) <= set(map(tuple, edges.T.tolist()))
    assert torch.equal(bounded, bound_degree(edges, n, degree, Streams(3)))
    left = [(a, b) for a, b in edges.T.tolist() if [a, b] not in bounded.T.tolist() and a != b]
    counts = torch.bincount(bounded[0], minlength=n) if bounded.numel() else torch.zeros(n)
    assert all(counts[a] >= degree or counts[b] >= degree for a, b in left)  # what is left out had no room


def test_rows_have_norm_at_most_one_whatever_is_in_them() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [1e38, 1e38]])
    unit = unit_rows(rows)
    assert (unit.double().norm(dim=1) <= 1).all() and unit[0].tolist() == pytest.approx([0.6, 0.8], rel=1e-5)
    assert not unit[1:4].any() and float(unit[4].norm()) == pytest.approx(1, rel=1e-4)


def graph(n: int = 400, columns: int = 30) -> ClientData:
    x = torch.randn(n, columns, generator=Streams(4).torch())
    rows = torch.arange(n)
    return ClientData(x, rows % 3, rows[: n // 2], rows[:0], rows[n // 2 :], random_graph(n, 3 * n, 7))


def test_the_noise_is_of_the_declared_scale_and_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    made, data, drawn = Aggregation(1, 4, 1.5), graph(), []
    from framp_private.federated import aggregation

    real = aggregation.unit_rows
    monkeypatch.setattr(aggregation, "unit_rows", lambda rows: drawn.append(rows) or real(rows))
    for _ in range(2):
        made.draw(data, Streams(5), Entropy())
    exact = aggregate(real(data.x), bound_degree(data.edge_index, len(data.y), 4, Streams(5))).float()  # type: ignore[arg-type]
    first, second = ((drawn[place] - exact).flatten().numpy() / (1.5 * 2.0) for place in (1, 3))
    assert len(first) >= 10_000 and kstest(first, "norm").pvalue > 1e-6
    for wrong in (2 / 3, 3 / 2):
        assert kstest(first / wrong, "norm").pvalue < 1e-6
    assert abs(np.corrcoef(first, second)[0, 1]) < 4.9 / math.sqrt(len(first))


def test_records_are_one_row_a_node_and_the_event_is_all_hops() -> None:
    made = Aggregation(2, 4, 3.0)
    records = made.records(graph(), made.draw(graph(), Streams(5), Entropy()))
    assert records.edge_index is None and records.x.shape == (400, 90)
    assert made.schema(Schema("graph", (30,), 3)) == Schema("table", (90,), 3)
    event = made.event()
    assert event.mechanism == SelfComposedDpEvent(GaussianDpEvent(3.0), 2) and event.unit == "record"


@pytest.mark.parametrize("bad", [(0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0), (1, 1, math.inf), (1, 1, math.nan)])
def test_values_without_a_guarantee_are_refused(bad: tuple[int, int, float]) -> None:
    with pytest.raises(PrivacyParameterError):
        Aggregation(*bad)
    table = ClientData(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), *(torch.arange(1),) * 3)
    with pytest.raises(DataError, match="graph"):
        Aggregation(1, 1, 1.0).draw(table, Streams(0), Entropy())


def test_a_node_level_run_spends_its_aggregation_once_and_keeps_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from framp_private import FederatedDataset, load_run, make_config, run_config, runs

    def two_graphs(*_: object, **__: object) -> FederatedDataset:
        clients = {"a": graph(120, 8), "b": graph(90, 8)}
        return FederatedDataset("two", Schema("graph", (8,), 3), clients)

    monkeypatch.setattr(runs, "load_dataset", two_graphs)
    config = make_config(
        preset="facebook-node-private",
        assignments={"rounds": 2, "home_steps": 2, "threads": 1, "partition": "sites", "clients": 2},
    )
    run = run_config(config, out=tmp_path / "run")
    claim = run.summary["privacy"]["record"]
    assert 7.9 < claim["epsilon"] <= 8 and run.summary["channels"]["aggregation"]["epsilon"] > 0
    labels = [
        json.loads(line).get("label") for line in (tmp_path / "run" / "ledgers" / "a.jsonl").read_text().splitlines()
    ]
    assert labels.count("preparation") == 1 and len(labels) == len(set(labels))
    features = unit_rows(graph(120, 8).x).numpy()
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or features[3].tobytes() not in path.read_bytes(), path
    again = load_run(tmp_path / "run")
    assert torch.equal(again.simulation.dataset.clients["a"].x, run.simulation.dataset.clients["a"].x)
    assert torch.equal(again.weights("a").weights, run.weights("a").weights)
    (tmp_path / "run" / "clients" / "a.aggregates").unlink()
    with pytest.raises(RunError, match="never drawn again"):
        load_run(tmp_path / "run")
