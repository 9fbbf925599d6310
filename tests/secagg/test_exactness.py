"""The opened sum is the plain sum of the quantised values to the last bit, whoever drops out; or nothing is opened."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from framp_private import secure_sum
from framp_private.errors import BelowThreshold, PlanError, PrivacyParameterError, ProtocolError
from framp_private.protections import PlainSum, SecAgg
from framp_private.protections.secagg.client import masked, receive
from framp_private.protections.secagg.messages import Delivery
from framp_private.protections.secagg.state import Terms
from framp_private.wire import decode
from tests.secagg.harness import Round, values_of

DROPS = ("keys", "shares", "masked", "unmask")
WHOLE = ("keys", "shares", "masked", "confirm", "unmask")
"""Stages of the complete graph."""


def random_case(seed: int) -> Round:
    """3 to 40 clients, 1 to 10^5 values (fewer for many clients), any pattern of drops, complete graph."""
    rng = np.random.default_rng(seed)
    n = 3 + int(38 * rng.random() ** 3)
    size = int(10 ** rng.uniform(0, 5 if n < 12 else 3))
    share = rng.uniform(0, 0.7)
    drop = {f"client-{i:02d}": str(rng.choice(DROPS)) for i in range(n) if rng.random() < share}
    threshold = float(rng.choice([0.5, 0.6, 0.75]))
    return Round(values_of(n, size, seed), SecAgg(threshold=threshold, corrupt=0.0), drop)


def check(case: Round) -> bool:
    """Exact where at least the threshold stay to the end, `BelowThreshold` where not; returns whether it opened."""
    staying = [name for name in case.values if name not in case.drop]
    summed = tuple(name for name in case.values if case.drop.get(name) in (None, "unmask", "confirm"))
    confirming = [name for name in case.values if case.drop.get(name) in (None, "unmask")]
    if len(staying) < case.terms.threshold or len(confirming) < case.terms.survivors:
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


@pytest.mark.parametrize("stage", WHOLE)
@pytest.mark.parametrize("n", [3, 4, 7, 12])
def test_exactly_at_the_threshold_it_opens_and_with_one_less_nothing_does(n: int, stage: str) -> None:
    case = Round(values_of(n))
    names, least = list(case.values), case.terms.threshold
    assert check(Round(case.values, drop=dict.fromkeys(names[least:], stage)))
    assert not check(Round(case.values, drop=dict.fromkeys(names[least - 1 :], stage)))


@pytest.mark.parametrize("seed", range(40))
def test_sparse_graphs_open_exactly_or_raise_exactly_where_a_neighbourhood_is_too_small(seed: int) -> None:
    """An oracle that knows who drew whom says, once values have come, which of the two it must be."""
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(20, 50)), int(rng.choice([4, 6, 10]))
    gone = {f"client-{i:02d}": "masked" for i in range(n) if rng.random() < rng.choice([0.05, 0.15, 0.3])}
    terms = Terms(n, k, int(0.6 * (k + 1)) + 1, 3, n // 2 + 1, n // 2 + 1)
    case = Round(values_of(n, 20, seed), drop=gone, given=terms).until_masked()
    staying = set(case.values) - set(gone)
    near = {name: {name, *case.gathering._drawn[name]} for name in staying}
    if len(staying) >= terms.survivors and all(len(near[name] & staying) >= terms.threshold for name in staying):
        try:
            total, survivors = case.opened()
        except BelowThreshold as refusal:  # one that dropped out shared with too few who stay
            assert "near a client opened" in str(refusal)
            assert any(len(case.gathering._drawn[name] & staying) < terms.threshold for name in gone)
            return
        assert survivors == tuple(name for name in case.values if name in staying)
        assert (case.ring.centred(total) == case.plain(survivors)).all()
    else:
        with pytest.raises(BelowThreshold):
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
        {"neighbours": 1},
        {"threshold": "0.6"},
        {"survivors": True},
        {"minimum": 3.0},
        {"beyond": "wrap"},
        {"corrupt": -0.1},
        {"corrupt": 1.0},
        {"dropout": float("nan")},
    ],
)
def test_terms_without_a_meaning_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises((PlanError, PrivacyParameterError)):
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


def test_the_server_keeps_one_vector_however_many_arrive() -> None:
    """60 vectors of 400 kB each: between the fifth and the last of them its memory does not grow by one."""
    case = Round(values_of(60, 100_000))
    gathering = case.gathering
    gathering.collect_keys(case.exchange)
    gathering.collect_shares(case.exchange)
    gc.collect()
    tracemalloc.start()
    held = []
    for name in case.values:
        data = gathering.delivery(name)
        state = receive(decode(data, Delivery), b"the model", case.states[name], case.members[name], case.terms)
        gathering.add(name, "update", masked(case.values[name], "update", case.ring, state), case.size, case.ring)
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[-1] - held[4] < 400_000
