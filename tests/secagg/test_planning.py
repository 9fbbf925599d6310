"""Neighbours and thresholds against scipy's hypergeometric tails and simulated cohorts; the graph and its tree."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import hypergeom

from framp_private.cli import main
from framp_private.errors import PlanError
from framp_private.protections import SecAgg
from framp_private.protections.secagg.graph import MerkleTree, connected, neighbourhood, proven
from framp_private.protections.secagg.planning import design, failure
from framp_private.secagg_costs import client_bytes
from tests.secagg.harness import Round, values_of

CASES = [
    (1000, 100, 78, 0.1, 0.05),
    (100, 40, 25, 0.2, 0.1),
    (1000, 120, 70, 0.3, 0.1),
    (1000, 100, 52, 0.05, 0.33),
    (10**4, 90, 50, 0.1, 0.05),
]


@pytest.mark.parametrize(("cohort", "k", "t", "dropout", "corrupt"), CASES)
def test_failures_are_hypergeometric_tails(cohort: int, k: int, t: int, dropout: float, corrupt: float) -> None:
    found = failure(cohort, k, t, dropout, corrupt)
    bad, gone = math.ceil(corrupt * cohort), math.ceil(dropout * cohort)
    expected = {
        "privacy": cohort * hypergeom.sf(t - 1, cohort - 1, bad, k),
        "completeness": cohort * hypergeom.sf(k + 1 - t, cohort - 1, gone, k),
        "separation": cohort * hypergeom.sf(k // 2 - 1, cohort - 1, bad + gone, k // 2),
        "split": cohort * hypergeom.sf(3 * t - 2 * k - 4, cohort - 1, bad, k),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(min(1.0, value), rel=1e-6, abs=1e-300), name


def test_simulated_cohorts_fail_no_more_often_than_the_bound() -> None:
    """A design so tight that failures are seen: 3,000 simulated rounds; the bound holds within 4 standard errors."""
    cohort, k, t, dropout, corrupt = 60, 10, 6, 0.25, 0.2
    bound, rng, trials = failure(cohort, k, t, dropout, corrupt), np.random.default_rng(0), 3000
    seen = {"privacy": 0, "completeness": 0}
    for trial in range(trials):
        root = trial.to_bytes(32, "big")
        bad = set(rng.choice(cohort, math.ceil(corrupt * cohort), replace=False).tolist())
        gone = set(rng.choice(cohort, math.ceil(dropout * cohort), replace=False).tolist())
        near = [neighbourhood(root, cohort, k, index) for index in range(cohort)]
        seen["privacy"] += any(len(bad & set(row)) >= t for row in near)
        seen["completeness"] += any(len({i, *near[i]} - gone) < t for i in range(cohort) if i not in gone)
    for name, count in seen.items():
        share, limit = count / trials, getattr(bound, name)
        assert count > 0 or limit < 1e-2
        assert share <= limit + 4 * math.sqrt(share / trials + 1e-9), name


@pytest.mark.parametrize("cohort", [65, 100, 1000, 10_000])
@pytest.mark.parametrize(("dropout", "corrupt"), [(0.1, 0.05), (0.2, 0.1), (0.3, 0.1)])
def test_designs_keep_their_bounds_and_no_two_views_open(cohort: int, dropout: float, corrupt: float) -> None:
    made = design(cohort, dropout=dropout, corrupt=corrupt)
    k, t = made.neighbours, made.threshold
    assert made.failure == failure(cohort, k, t, dropout, corrupt)
    assert max(made.failure.privacy, made.failure.separation) <= 2**-40 and made.failure.completeness <= 2**-20
    assert 2 * t > k + 1 + corrupt * (k + 1)
    assert k == cohort - 1 or k % 2 == 0


def test_neighbours_grow_with_the_logarithm_of_the_cohort() -> None:
    sizes = [design(cohort, dropout=0.1, corrupt=0.05).neighbours for cohort in (100, 1000, 10_000)]
    assert sizes[0] < sizes[1] <= sizes[2] < 2 * sizes[0]


@pytest.mark.parametrize(
    "given",
    [
        {"cohort": 2},
        {"cohort": 100, "threshold": 0.4},
        {"cohort": 100, "threshold": 1.0},
        {"cohort": 100, "dropout": 1.0},
        {"cohort": 100, "dropout": -0.1},
        {"cohort": 100, "corrupt": float("nan")},
        {"cohort": 100, "dropout": 0.6, "corrupt": 0.4},
        {"cohort": 100, "threshold": 0.5, "corrupt": 0.3},
        {"cohort": 20, "threshold": 0.9, "dropout": 0.3},
    ],
)
def test_what_no_graph_can_do_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(PlanError):
        design(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "k"), [(3, 2), (5, 4), (9, 4), (30, 6), (101, 20), (101, 100)])
def test_the_graph_is_regular_symmetric_and_follows_from_the_root(count: int, k: int) -> None:
    near = [neighbourhood(bytes(32), count, k, index) for index in range(count)]
    for index, row in enumerate(near):
        assert len(row) == len(set(row)) == min(k, count - 1) and index not in row and list(row) == sorted(row)
        assert all(index in near[other] for other in row)
    assert connected(bytes(32), count, k, range(count))
    other = [neighbourhood(b"\1" * 32, count, k, index) for index in range(count)]
    assert k >= count - 1 or near != other


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 13, 64, 100])
def test_every_leaf_is_proven_at_its_place_and_nowhere_else(count: int) -> None:
    leaves = [f"leaf {i}".encode() for i in range(count)]
    tree = MerkleTree(leaves)
    for index, leaf in enumerate(leaves):
        proof = tree.proof(index)
        assert proven(tree.root, count, index, leaf, proof)
        assert not proven(tree.root, count, index, leaf + b"x", proof)
        assert not proven(tree.root, count, index, leaf, proof + bytes(32))
        assert not proven(tree.root, count, index, leaf, proof + b"x")
        assert count == 1 or not proven(tree.root, count, index, leaf, proof[32:])
        assert not proven(bytes(32), count, index, leaf, proof)
        assert not any(
            proven(tree.root, count, wrong, leaf, proof)
            for wrong in (-1, count, index - 1, index + 1)
            if wrong != index
        )


def test_an_inner_node_is_no_leaf() -> None:
    """Leaves and nodes are hashed apart (RFC 6962, section 2.1), so the sum of two leaves cannot pass for one."""
    tree = MerkleTree([b"a", b"b", b"c", b"d"])
    inner = MerkleTree([b"a", b"b"])
    node = inner._levels[0][0] + inner._levels[0][1]
    assert not proven(tree.root, 2, 0, node, MerkleTree([b"c", b"d"]).root)


def test_rfc_6962_has_the_same_roots() -> None:
    """Certificate transparency's published roots over its test leaves of one, two and three entries."""
    leaves = [bytes.fromhex(text) for text in ("", "00", "10")]
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    ]
    for size, root in enumerate(roots, 1):
        assert MerkleTree(leaves[:size]).root.hex() == root


def test_bytes_of_the_plan_are_those_on_the_wire() -> None:
    names = {f"client-{place:05d}": np.zeros(1000) for place in range(9)}
    case = Round(names, SecAgg(ring_bits=20)).until_masked()
    case.opened()
    planned = client_bytes(9, 8, 1000, 20)
    for stage, way, name, data in case.sent:
        if name == "client-00004":
            assert len(data) == pytest.approx(planned[stage][way], rel=0.08), (stage, way)


def test_the_default_above_64_clients_is_a_design() -> None:
    terms = SecAgg().terms(200)
    assert terms.neighbours < 199 and terms.threshold == math.floor(0.6 * (terms.neighbours + 1)) + 1
    assert SecAgg().terms(64).neighbours == 63
    case = Round(values_of(70, 3))
    total, survivors = case.total()
    assert case.terms.neighbours < 69 and len(survivors) == 70
    assert (case.ring.centred(total) == case.plain(survivors)).all()


def test_the_command_prints_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["secagg", "plan", "--cohort", "1000", "--dropout", "0.3", "--corrupt", "0.1"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    for word in ("k = 258", "143 of the 259", "P(privacy fails)", "P(completeness fails)", "masked", "together"):
        assert word in text
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["neighbours"] == 258 and found["bytes"]["masked"]["up"] == 250_000
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert main(["secagg", "plan", "--cohort", "2"]) == 2 and "fewer than 3" in capsys.readouterr().err
