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
from framp_private.protections.secagg.graph import MerkleTree, draw_places, proven
from framp_private.protections.secagg.planning import design, failure, quorum, sample_size
from framp_private.randomness import Entropy
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
    bad, gone = math.floor(corrupt * cohort + 1e-9), math.floor(dropout * cohort + 1e-9)
    pool = cohort - gone
    assert found.privacy == pytest.approx(
        min(1.0, (pool - bad) * hypergeom.sf(t - 1, pool - 1, bad, k)), rel=1e-6, abs=1e-300
    )
    assert found.completeness == pytest.approx(
        min(1.0, cohort * hypergeom.sf(k + 1 - t, cohort - 1, gone, k)), rel=1e-6, abs=1e-300
    )
    size, valid = sample_size(pool, quorum(cohort, corrupt), cohort)
    missed = cohort * hypergeom.sf(valid - 1, pool, quorum(cohort, corrupt) - 1, size)
    assert found.sample == pytest.approx(missed, rel=1e-6, abs=1e-300)
    assert found.separation == pytest.approx(
        min(1.0, max(separated(cohort, k, t, size, bad, corrupt) for size in (pool, cohort))), rel=1e-6, abs=1e-300
    )


def separated(cohort: int, k: int, t: int, pool: int, bad: int, corrupt: float) -> float:
    """The bound on parts that are summed by themselves, term by term with scipy."""
    honest, total = pool - bad, 0.0
    for part in range(1, honest // 2 + 1):
        gone = max(0, min(pool - max(quorum(cohort, corrupt), t), honest - 2 * part))
        near = part * hypergeom.logsf(t - 2, pool - 1, part - 1 + bad, k)
        inside = hypergeom.logsf(k - 1, pool - 1, min(part - 1 + bad + gone, pool - 1), k)
        rest = math.log(gone + 1) + log_choose(honest - part, min(gone, (honest - part) // 2)) + part * inside
        total += math.exp(min(0.0, log_choose(honest, part) + min(near, rest)))
    return total


def log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def test_simulated_cohorts_fail_no_more_often_than_the_bound() -> None:
    """A design so tight that failures are seen, 3,000 simulated rounds; each bound holds within 4 standard errors.

    The server leaves out of its commitment as many honest clients as drop out at most, and no corrupt one.
    """
    cohort, k, t, dropout, corrupt = 60, 10, 6, 0.25, 0.2
    bound, rng, trials = failure(cohort, k, t, dropout, corrupt), np.random.default_rng(0), 3000
    bad, gone = int(corrupt * cohort), int(dropout * cohort)
    pool, entropy = list(range(cohort - gone)), Entropy()
    seen = {"privacy": 0, "completeness": 0}
    for _ in range(trials):
        near = [draw_places([p for p in pool if p != me], k, entropy) for me in range(bad, len(pool))]
        seen["privacy"] += any(sum(place < bad for place in row) >= t for row in near)
        late = set(rng.choice(cohort, gone, replace=False).tolist())
        whole = [(me, draw_places([p for p in range(cohort) if p != me], k, entropy)) for me in range(cohort)]
        seen["completeness"] += any(len({me, *row} - late) < t for me, row in whole if me not in late)
    for name, count in seen.items():
        share, limit = count / trials, getattr(bound, name)
        assert count > 0 or limit < 1e-2
        assert share <= limit + 4 * math.sqrt(share / trials + 1e-9), name


@pytest.mark.parametrize("cohort", [65, 100, 1000, 10_000])
@pytest.mark.parametrize(("dropout", "corrupt"), [(0.1, 0.05), (0.2, 0.1), (0.3, 0.1)])
def test_designs_keep_their_bounds_and_a_round_has_one_sum(cohort: int, dropout: float, corrupt: float) -> None:
    made = design(cohort, dropout=dropout, corrupt=corrupt)
    k, t, bad = made.neighbours, made.threshold, math.floor(corrupt * cohort + 1e-9)
    assert made.failure == failure(cohort, k, t, dropout, corrupt)
    assert max(made.failure.privacy, made.failure.separation, made.failure.sample) <= 2**-40
    assert made.failure.completeness <= 2**-20
    assert 2 * made.quorum > cohort + bad and 2 * t > k + 1
    assert made.honest_but_curious == t - 1 and made.cheating == 2 * made.quorum - cohort - 1 >= bad
    assert made.sample <= cohort


@pytest.mark.parametrize("n", [3, 4, 7, 20, 33, 64])
@pytest.mark.parametrize("corrupt", [0.0, 0.05, 0.1, 0.2, 0.3])
def test_the_default_threshold_of_a_complete_graph_follows_from_the_corrupt_share(n: int, corrupt: float) -> None:
    made = SecAgg(corrupt=corrupt).design(n)
    assert made.neighbours == n - 1 and made.threshold == math.floor((1 + corrupt) / 2 * n + 1e-9) + 1
    assert made.cheating == 2 * made.threshold - n - 1 >= math.floor(corrupt * n + 1e-9)
    assert made.honest_but_curious == made.threshold - 1


def test_a_sample_shows_fewer_signatures_than_the_quorum_for_what_they_are() -> None:
    """Where a sample is smaller than all: a direct count over hypergeometric draws, and all where no sample will do."""
    size, valid = sample_size(900, 551, 1000)
    assert size < 900 and 551 / 900 < valid / size < 1
    assert 1000 * hypergeom.sf(valid - 1, 900, 550, size) <= 2**-40
    rng = np.random.default_rng(0)
    assert (rng.hypergeometric(550, 350, size, 10**5) < valid).all()
    assert (rng.hypergeometric(880, 20, size, 10**5) >= valid).mean() > 0.999
    assert sample_size(16, 16, 20) == (16, 16) and sample_size(7, 4, 7)[0] <= 7


def test_neighbours_grow_with_the_logarithm_of_the_cohort() -> None:
    sizes = [design(cohort, dropout=0.1, corrupt=0.05).neighbours for cohort in (100, 1000, 10_000)]
    assert sizes[0] < sizes[1] <= sizes[2] < 3 * sizes[0]
    assert SecAgg().terms(1000).neighbours == 72


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
        {"cohort": 100, "threshold": 0.5, "dropout": 0.5, "corrupt": 0.3},
        {"cohort": 20, "threshold": 0.9, "dropout": 0.3},
        {"cohort": 20, "threshold": 0.5, "corrupt": 0.3},
    ],
)
def test_what_no_graph_can_do_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(PlanError):
        design(**given)  # type: ignore[arg-type]


def test_a_graph_too_sparse_for_its_cohort_is_refused() -> None:
    with pytest.raises(PlanError, match="could be shown"):
        SecAgg(neighbours=4).terms(40)
    assert SecAgg(neighbours=100).terms(1000).neighbours == 100


def test_places_are_drawn_uniformly_and_once() -> None:
    """Each of 12 places in 6,000 draws of 4: within 5 standard errors of a third (false alarm below 10^-5)."""
    entropy, counts = Entropy(), np.zeros(12)
    for _ in range(6000):
        drawn = draw_places(range(12), 4, entropy)
        assert len(set(drawn)) == 4 and list(drawn) == sorted(drawn)
        counts[list(drawn)] += 1
    assert (abs(counts - 2000) < 5 * math.sqrt(6000 * 2 / 9)).all()
    assert draw_places([3, 1, 2], 9, entropy) == (1, 2, 3)


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


@pytest.mark.parametrize("n", [10, 100])
def test_bytes_of_the_plan_are_those_on_the_wire(n: int) -> None:
    """On a sparse graph how many drew a client is random, so that means over the cohort are compared."""
    names = {f"client-{place:05d}": np.zeros(200) for place in range(n)}
    case = Round(names, SecAgg(ring_bits=22)).until_masked()
    case.opened()
    planned = client_bytes(SecAgg().design(n), 200, 22)
    sizes: dict[tuple[str, str], list[int]] = {}
    for stage, way, _, data in case.sent:
        sizes.setdefault((stage, way), []).append(len(data))
    assert {stage for stage, _ in sizes} == set(planned)
    for (stage, way), found in sizes.items():
        assert np.mean(found) == pytest.approx(planned[stage][way], rel=0.15), (stage, way)


def test_the_default_above_64_clients_is_a_design() -> None:
    assert SecAgg().terms(64).neighbours == 63
    case = Round(values_of(70, 3))
    total, survivors = case.total()
    assert case.terms.neighbours < 69 and len(survivors) == 70
    assert (case.ring.centred(total) == case.plain(survivors)).all()


def test_the_command_prints_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["secagg", "plan", "--cohort", "1000", "--dropout", "0.2", "--corrupt", "0.1"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    for word in ("k = 72", "37 of the 73", "551 members sign", "330 are drawn", "stands 36", "stands 101"):
        assert word in text
    for word in ("P(privacy fails)", "P(completeness fails)", "P(separation fails)", "P(sample fails)", "masked"):
        assert word in text
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["neighbours"] == 72 and found["bytes"]["masked"]["up"] == 250_000
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert main(["secagg", "plan", "--cohort", "2"]) == 2 and "fewer than 3" in capsys.readouterr().err
