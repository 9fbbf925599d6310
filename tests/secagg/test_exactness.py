"""The opened sum is the plain sum of the quantised values to the last bit, whoever drops out; or nothing is opened."""

from __future__ import annotations

import numpy as np
import pytest

from framp_private import secure_sum
from framp_private.crypto.agreement import derive
from framp_private.crypto.prg import mask
from framp_private.errors import BelowThreshold, PlanError, PrivacyParameterError, ProtocolError
from framp_private.protections import PlainSum, SecAgg
from framp_private.protections.secagg.client import masked, receive
from framp_private.protections.secagg.graph import connected, neighbourhood
from framp_private.protections.secagg.messages import Delivery
from framp_private.wire import decode
from tests.secagg.harness import STAGES, Round, values_of

DROPS = ("keys", "shares", "masked", "unmask")


def random_case(seed: int) -> Round:
    """3 to 60 clients, 1 to 10^5 values (fewer for many clients), any pattern of drops, complete graph."""
    rng = np.random.default_rng(seed)
    n = 3 + int(58 * rng.random() ** 3)
    size = int(10 ** rng.uniform(0, 5 if n < 12 else 3))
    share = rng.uniform(0, 0.7)
    drop = {f"client-{i:02d}": str(rng.choice(DROPS)) for i in range(n) if rng.random() < share}
    threshold = float(rng.choice([0.5, 0.6, 0.75]))
    return Round(values_of(n, size, seed), SecAgg(threshold=threshold), drop)


def check(case: Round) -> bool:
    """Exact where at least the threshold stay to the end, `BelowThreshold` where not; returns whether it opened."""
    staying = [name for name in case.values if name not in case.drop]
    summed = tuple(name for name in case.values if case.drop.get(name) in (None, "unmask", "confirm"))
    if len(staying) < case.terms.threshold:
        with pytest.raises(BelowThreshold):
            case.total()
        return False
    total, survivors = case.total()
    assert survivors == summed
    assert (case.ring.centred(total) == case.plain(summed)).all()
    return True


@pytest.mark.parametrize("seed", range(100))
def test_random_cases(seed: int) -> None:
    check(random_case(seed))


@pytest.mark.slow
def test_a_thousand_random_cases() -> None:
    opened = [check(random_case(seed)) for seed in range(1000)]
    assert 200 < sum(opened) < 950  # both outcomes were seen


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("n", [3, 4, 7, 12])
def test_exactly_at_the_threshold_it_opens_and_with_one_less_nothing_does(n: int, stage: str) -> None:
    case = Round(values_of(n))
    names, least = list(case.values), case.terms.threshold
    assert check(Round(case.values, drop=dict.fromkeys(names[least:], stage)))
    assert not check(Round(case.values, drop=dict.fromkeys(names[least - 1 :], stage)))


@pytest.mark.parametrize("seed", range(40))
def test_sparse_graphs_open_exactly_or_raise_exactly_where_a_neighbourhood_is_too_small(seed: int) -> None:
    """An oracle that knows the graph says beforehand which of the two it must be."""
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(20, 50)), int(rng.choice([4, 6, 10]))
    gone = {f"client-{i:02d}": "masked" for i in range(n) if rng.random() < rng.choice([0.05, 0.15, 0.3])}
    case = Round(values_of(n, 20, seed), SecAgg(neighbours=k), gone).until_masked()
    root, least = case.gathering._tree.root, case.terms.threshold
    staying = [place for place, name in enumerate(case.values) if name not in gone]
    near = {i: {i, *neighbourhood(root, n, k, i)} for i in range(n)}
    fits = all(len(near[i] & set(staying)) >= least for i in range(n))
    if fits and connected(root, n, k, staying):
        total, survivors = case.opened()
        assert survivors == tuple(name for name in case.values if name not in gone)
        assert (case.ring.centred(total) == case.plain(survivors)).all()
    else:
        with pytest.raises(BelowThreshold):
            case.opened()


def test_a_graph_in_parts_is_not_opened() -> None:
    """Two gaps of k / 2 in the circle leave two parts, each with neighbours enough."""
    n, k = 40, 4
    case = Round(values_of(n), SecAgg(neighbours=k, threshold=0.5))
    case.gathering.collect_keys(case.exchange("keys"))
    root = case.gathering._tree.root

    seats = np.argsort(mask(derive(root, "neighbour graph"), n, 62), kind="stable")
    staying = [int(seats[at]) for at in range(n) if at not in (0, 1, 20, 21)]
    assert not connected(root, n, k, staying) and connected(root, n, k, list(range(n)))
    case.gathering.collect_shares(case.exchange("shares"))
    names = list(case.values)
    case.drop = {names[int(seats[at])]: "masked" for at in (0, 1, 20, 21)}

    for name in names:
        if name not in case.drop:
            data = decode(case.gathering.delivery(name), Delivery)
            case.states[name] = receive(data, b"", case.states[name], case.members[name], case.terms)
            vector = masked(case.values[name], "update", case.ring, case.states[name])
            case.gathering.add(name, "update", vector, case.size, case.ring)
    with pytest.raises(BelowThreshold, match="falls apart"):
        case.opened()


def test_secure_sum_is_the_plain_sum_of_the_same_quantised_values() -> None:
    values = values_of(5, 50)
    ring = SecAgg().ring(5)
    quantised = {name: ring.decode(ring.encode(value)) for name, value in values.items()}
    secure, plain = secure_sum(values, SecAgg()), secure_sum(quantised, PlainSum())
    np.testing.assert_allclose(secure.value, plain.value, atol=1e-6)  # PlainSum carries float32
    assert secure.value.tolist() == (sum(ring.centred(ring.encode(v)) for v in values.values()) * ring.step).tolist()
    shaped = {name: value.reshape(5, 10) for name, value in values.items()}
    assert secure_sum(shaped, SecAgg()).value.shape == (5, 10)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.001, -2.0])
def test_values_that_do_not_fit_are_refused(bad: float) -> None:
    values = values_of(4)
    values["client-02"] = np.array([0.0, bad, 0.0, 0.0, 0.0])
    with pytest.raises(ProtocolError, match="to be summed"):
        secure_sum(values, SecAgg())


def test_bad_requests_are_refused() -> None:
    values = values_of(4)
    with pytest.raises(ProtocolError, match="one shape"):
        secure_sum({**values, "client-01": np.zeros(3)}, SecAgg())
    with pytest.raises(ProtocolError, match="one shape"):
        secure_sum({}, SecAgg())
    with pytest.raises(PlanError, match="stages"):
        secure_sum(values, SecAgg(), drop={"client-00": "later"})  # type: ignore[dict-item]
    with pytest.raises(PlanError, match="stages"):
        secure_sum(values, SecAgg(), drop={"nobody": "keys"})
    with pytest.raises(PlanError, match="minimum"):
        secure_sum(values_of(2), SecAgg())
    with pytest.raises(PlanError, match="minimum"):
        secure_sum(values, SecAgg(minimum=5))


@pytest.mark.parametrize(
    "arguments",
    [
        {"threshold": 0.49},
        {"threshold": 1.0},
        {"threshold": float("nan")},
        {"minimum": 2},
        {"neighbours": 0},
        {"neighbours": 5},
        {"corrupt": -0.1},
        {"corrupt": 1.0},
        {"dropout": float("nan")},
    ],
)
def test_terms_without_a_meaning_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(PlanError):
        SecAgg(**arguments)  # type: ignore[arg-type]


def test_rings_and_thresholds_are_checked_against_the_cohort() -> None:
    for arguments in ({"bound": 0.0}, {"bound": float("inf")}, {"step": 0.0}, {"step": 2.0}):
        with pytest.raises(PrivacyParameterError):
            SecAgg(**arguments)  # type: ignore[arg-type]
    with pytest.raises(PrivacyParameterError, match="not to wrap"):
        SecAgg(ring_bits=12).ring(10)
    assert SecAgg(ring_bits=32).ring(10).bits == 32
    with pytest.raises(PlanError, match="two views"):
        SecAgg(threshold=0.5, corrupt=0.3).terms(20)
    assert SecAgg(threshold=0.7, corrupt=0.3).terms(20).threshold == 15


def test_twenty_bits_travel_in_two_and_a_half_bytes() -> None:
    case = Round(values_of(4, 1000), SecAgg(ring_bits=20)).until_masked()
    assert {len(vector) for vector in case.vectors.values()} == {2500}
