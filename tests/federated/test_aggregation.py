"""Node-level privacy: what one node with all its edges can change, on random and on worst-case graphs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
from scipy.stats import kstest
from torch import Tensor

from framp_private import (
    Alignment,
    ClientData,
    FederatedDataset,
    LocalSGD,
    Schema,
    TargetNetwork,
    load_run,
    make_config,
    run_config,
    runs,
)
from framp_private.assemble import federation_of
from framp_private.errors import ConfigError, DataError, LedgerError, PlanError, PrivacyParameterError, RunError
from framp_private.federated.aggregation import Aggregation, aggregate, both_ways, bound_degree, undirected, unit_rows
from framp_private.federated.dp_sgd import GraphDpSGD
from framp_private.federated.local_training import AtHome
from framp_private.federated.per_sample import MaskedOptimizer
from framp_private.models.graph import gcn, graph_sage
from framp_private.privacy.ledger import Ledger
from framp_private.protections import PlainSum, Plan, PostProcessed
from framp_private.randomness import Entropy, Streams
from tests import private


def listed(pairs: list[tuple[int, int]]) -> Tensor:
    return both_ways(torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T)


def random_graph(n: int, m: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return listed([tuple(rng.choice(n, 2, replace=False)) for _ in range(m)])  # type: ignore[misc]


GRAPHS = {
    **{f"random {seed}": (30, random_graph(30, 60 + 20 * seed, seed)) for seed in range(6)},
    "star": (9, listed([(0, leaf) for leaf in range(1, 9)])),
    "complete": (6, listed([(a, b) for a in range(6) for b in range(a)])),
    "two stars": (12, listed([(0, i) for i in range(2, 7)] + [(1, i) for i in range(7, 12)] + [(0, 1)])),
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
@pytest.mark.parametrize("alike", [True, False])
def test_one_edge_changes_the_aggregates_by_at_most_the_sensitivity_whatever_the_degrees(
    name: str, alike: bool
) -> None:
    n, edges = GRAPHS[name]
    features = torch.ones(n, 5) * 7 if alike else torch.randn(n, 5, generator=Streams(2).torch()) * 50
    rows, limit = unit_rows(features), Aggregation(1, None, 1.0, "edges").sensitivity
    pairs = undirected(edges)
    whole = aggregate(rows, both_ways(pairs))
    moved = [
        float((whole - aggregate(rows, both_ways(torch.cat([pairs[:, :at], pairs[:, at + 1 :]], 1)))).norm())
        for at in range(pairs.shape[1])
    ]
    assert all(distance <= limit for distance in moved)
    if alike and moved:
        assert max(moved) == pytest.approx(limit, rel=1e-5)  # two rows move, not one: sqrt(2) is needed


def test_an_edge_counts_once_however_often_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that names an edge twice, in both orders, or a loop, must not move the sum by more than one edge does."""
    from framp_private.federated import aggregation

    seen: list[Tensor] = []
    monkeypatch.setattr(aggregation, "aggregate", lambda rows, edges: seen.append(edges) or aggregate(rows, edges))
    once, rows = torch.tensor([[0, 1], [1, 2]]), torch.arange(3)
    messy = torch.tensor([[0, 1, 0, 1, 2, 2], [1, 0, 1, 2, 1, 2]])
    for edges in (once, messy):
        data = ClientData(torch.ones(3, 4), rows, rows[:2], rows[:0], rows[2:], edges)
        Aggregation(1, None, 1.0, "edges").draw(data, Streams(0), Entropy())
    assert torch.equal(seen[0], seen[1]) and seen[0].shape == (2, 4)


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


BAD = [
    (0, 1, 1.0),
    (1, 0, 1.0),
    (1, 1, 0.0),
    (1, 1, math.inf),
    (1, 1, math.nan),
    (1, None, 1.0),
    (1, 0, 1.0, "edges"),
    (1, 4, 1.0, "edges"),
    (1, 4, 1.0, "neither"),
    (1, None, 0.0, "edges"),
]


@pytest.mark.parametrize("bad", BAD)
def test_values_without_a_guarantee_are_refused(bad: tuple[int, int, float]) -> None:
    with pytest.raises(PrivacyParameterError):
        Aggregation(*bad)
    table = ClientData(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), *(torch.arange(1),) * 3)
    with pytest.raises(DataError, match="graph"):
        Aggregation(1, 1, 1.0).draw(table, Streams(0), Entropy())


def two_graphs(*_: object, **__: object) -> FederatedDataset:
    return FederatedDataset("two", Schema("graph", (8,), 3), {"a": graph(120, 8), "b": graph(90, 8)})


SHORT = {"rounds": 2, "home_steps": 2, "threads": 1, "partition": "sites", "clients": 2}


def ledger_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_edge_level_run_spends_all_of_it_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "load_dataset", two_graphs)
    config = make_config(preset="facebook-node-private", assignments={**SHORT, "privacy": {"protects": "edges"}})
    run = run_config(config, out=tmp_path / "run")
    claim, channels = run.summary["privacy"]["record"], run.summary["channels"]
    assert 7.9 < claim["epsilon"] <= 8 and claim["relation"] == "add/remove edge"
    assert claim["protects"] == "an edge; features and labels are not protected"
    assert channels["aggregation"]["epsilon"] == pytest.approx(claim["epsilon"], abs=1e-3)
    assert {channels[name]["epsilon"] for name in ("update", "prototypes", "descriptor")} == {0.0}
    rows = ledger_rows(tmp_path / "run" / "ledgers" / "a.jsonl")
    kinds = {row["label"]: row["mechanism"]["kind"] for row in rows if row["kind"] == "spend"}
    assert kinds.pop("preparation") == "GaussianDpEvent" and set(kinds.values()) == {"NoOpDpEvent"}
    nodes = Aggregation(1, 4, 3.0).event()
    with pytest.raises(LedgerError, match="never added"):
        Ledger.open(
            tmp_path / "run" / "ledgers" / "a.jsonl", unit="record", relation="add/remove edge", owner="a"
        ).spend(nodes, "nodes")


@pytest.mark.parametrize("network", ["gcn", "sage"])
def test_a_graph_network_under_plain_dp_sgd_claims_nothing_and_says_why(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "load_dataset", two_graphs)
    wanted = {"privacy": {"protects": "nothing", "sampling_probability": 0.2}, "network": network}
    run = run_config(make_config(preset="facebook-node-private", assignments={**SHORT, **wanted}), out=tmp_path / "run")
    claim = run.summary["privacy"]["record"]
    assert claim["epsilon"] is None and "neighbours' gradients" in claim["why"]
    assert isinstance(run.simulation.federation.trainer, GraphDpSGD)
    for owner in ("a", "b"):
        spends = [row for row in ledger_rows(tmp_path / "run" / "ledgers" / f"{owner}.jsonl") if row["kind"] == "spend"]
        assert [row["mechanism"]["kind"] for row in spends] == ["NonPrivateDpEvent"]
    shown = re.sub("<[^>]*>", "", (tmp_path / "run" / "report.html").read_text())
    assert "epsilon = infinite: DP-SGD bounds no node" in shown


@pytest.mark.parametrize("make", [gcn, graph_sage])
def test_graph_clipping_equals_the_loop_over_single_nodes(
    make: Callable[..., torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MaskedOptimizer, "add_noise", lambda self: self._network.gradient.copy_(self._clipped))
    made, data = TargetNetwork(lambda: make(8, 3, hidden=6)), graph(40, 8)
    weights = made.initial_weights(Streams(3))
    mask = torch.rand(made.n_parameters, generator=Streams(5).torch()) < 0.7
    trainer = GraphDpSGD(1, 1.0, clip_norm=0.2, learning_rate=0.3, alignment=Alignment(0.0))
    moved = trainer.train(made, weights, mask, data, None, Streams(0), 0.0, AtHome(Entropy(), data.n_train))
    total = torch.zeros(made.n_parameters, dtype=torch.float64)
    for row in data.train:
        made.load(weights * mask)
        made.gradient.zero_()
        logits, _ = made.forward(data.x, data.edge_index)
        torch.nn.functional.cross_entropy(logits[row][None], data.y[row][None]).backward()  # type: ignore[no-untyped-call]
        gradient = made.gradient.double() * mask
        total += gradient * min(1.0, 0.2 / float(gradient.norm()))
    torch.testing.assert_close(
        moved.double(), (weights * mask).double() - 0.3 * total / data.n_train, rtol=1e-4, atol=2e-6
    )
    assert float((moved - weights * mask).norm()) > 1e-3


def test_one_node_moves_the_gradients_of_the_nodes_it_reaches() -> None:
    """Why there is no claim: the star's centre is no part of the batch, and yet all clipped gradients follow it."""
    n, edges = GRAPHS["star"]
    made, rows = TargetNetwork(lambda: gcn(8, 3, hidden=4)), torch.arange(1, n)
    made.load(made.initial_weights(Streams(3)))
    x = torch.randn(n, 8, generator=Streams(4).torch())
    trainer = GraphDpSGD(noise_multiplier=1.0, clip_norm=10.0)

    def clipped(features: Tensor) -> list[Tensor]:
        data = ClientData(features, torch.arange(n) % 3, rows, rows[:0], rows[:0], edges)
        mask, found = torch.ones(made.n_parameters, dtype=torch.bool), []
        for row in rows:
            optimizer = MaskedOptimizer(
                made, mask, Entropy(), clip_norm=10.0, noise_multiplier=1e-9, expected_batch_size=1.0
            )
            loss = partial(trainer._losses, made, data, row[None], None)
            found.append(optimizer.noisy_gradient(loss, "loop").clone())
        return found

    moved = clipped(torch.cat([x[:1] * -3 + 1, x[1:]]))
    assert all(float((a - b).norm()) > 1e-3 for a, b in zip(clipped(x), moved, strict=True))
    plain = ClientData(x, torch.arange(n) % 3, rows, rows[:0], rows[:0])
    mask = torch.ones(made.n_parameters, dtype=torch.bool)
    with pytest.raises(PrivacyParameterError, match="DpSGD for other records"):
        trainer.train(made, made.weights.clone(), mask, plain, None, Streams(0), 0.0, AtHome(Entropy(), n))


def test_edges_are_protected_by_all_of_a_plan_or_by_nothing() -> None:
    made, derived = private.federation(), PostProcessed()
    with pytest.raises(PlanError, match="go together"):  # nothing noised the sums that these would follow from
        replace(made, plan=Plan(derived, derived, derived, None), trainer=LocalSGD())
    edges = Aggregation(1, None, 1.0, "edges")
    with pytest.raises(PlanError, match="go together"):
        replace(made, preparation=edges)
    with pytest.raises(PlanError, match="go together"):
        replace(made, preparation=edges, plan=Plan(derived, PlainSum(), derived, None), trainer=LocalSGD())
    with pytest.raises(ConfigError, match="no edges"):
        federation_of(
            make_config(preset="digits-private", assignments={"privacy": {"protects": "edges"}}),
            made.network,
            {"a": 10, "b": 10},
            graph=False,
        )
    with pytest.raises(ConfigError, match="does not keep"):
        assignments = {"privacy": {"protects": "edges"}, "protections": {"update": "dp-sgd"}}
        federation_of(make_config(assignments=assignments), made.network, {"a": 10, "b": 10}, graph=True)


def test_a_node_level_run_spends_its_aggregation_once_and_keeps_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "load_dataset", two_graphs)
    config = make_config(preset="facebook-node-private", assignments=SHORT)
    run = run_config(config, out=tmp_path / "run")
    claim = run.summary["privacy"]["record"]
    assert 7.9 < claim["epsilon"] <= 8 and run.summary["channels"]["aggregation"]["epsilon"] > 0
    assert claim["protects"] == "a node with its edges, degrees cut to 16" and claim["relation"] == "add/remove"
    labels = [row.get("label") for row in ledger_rows(tmp_path / "run" / "ledgers" / "a.jsonl")]
    assert labels.count("preparation") == 1 and len(labels) == len(set(labels))
    features = unit_rows(graph(120, 8).x).numpy()
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or features[3].tobytes() not in path.read_bytes(), path
    again = load_run(tmp_path / "run")
    assert torch.equal(again.simulation.dataset.clients["a"].x, run.simulation.dataset.clients["a"].x)
    assert torch.equal(again.weights("a").weights, run.weights("a").weights)
    (tmp_path / "run" / "private" / "clients" / "a.aggregates").unlink()
    with pytest.raises(RunError, match="never drawn again"):
        load_run(tmp_path / "run")


def test_removing_a_node_leaves_the_order_of_all_other_edges() -> None:
    """By position, one node less would shuffle every edge anew: here what is kept changes near the node alone."""
    rng = np.random.default_rng(0)
    pairs = torch.from_numpy(rng.integers(0, 300, (2, 4000)))
    whole = bound_degree(pairs, 300, 8, Streams(1))
    kept = {tuple(sorted(pair)) for pair in whole.T.tolist()}
    changed = []
    for node in range(12):
        left = pairs[:, (pairs != node).all(0)]
        without = {tuple(sorted(pair)) for pair in bound_degree(left, 300, 8, Streams(1)).T.tolist()}
        changed.append(len({pair for pair in kept if node not in pair} ^ without))
    assert np.mean(changed) < 60 and len(kept) > 1000
