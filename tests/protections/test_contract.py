"""What every protection owes, as one table; and the plan that fails closed."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent
from scipy.stats import kstest

from framp_private.errors import BelowThreshold, PlanError, PrivacyParameterError, ProtocolError, WireError
from framp_private.privacy.events import Event
from framp_private.protections import (
    CHANNELS,
    CentralGaussian,
    LocalGaussian,
    PlainSum,
    Plan,
    PostProcessed,
    Protection,
    ServerView,
    chain,
)
from framp_private.protections.base import plain_lift
from framp_private.protections.plain import BLOCK
from framp_private.randomness import Entropy

MEMBERS: dict[str, Protection] = {
    "plain": PlainSum(),
    "local gaussian": LocalGaussian(10.0, 1e-12),
    "central gaussian": CentralGaussian(10.0, 1e-12),
    "post-processed": PostProcessed(),
    "chained": chain(LocalGaussian(10.0, 1e-12), PlainSum(minimum=1)),
}
"""With noise too small to see, so that what all owe can be checked in one table."""


def nothing(requests):  # noqa: ANN001, ANN201
    return iter(())


def total_of(protection: Protection, values: dict[str, np.ndarray], cohort: list[str] | None = None):  # noqa: ANN201
    session = protection.open(cohort or list(values), len(next(iter(values.values()))), plain_lift, nothing)
    for client, value in values.items():
        session.add(client, protection.protect(value, Entropy()))
    return session.close(nothing)


@pytest.mark.parametrize("name", MEMBERS)
class TestEveryProtection:
    @pytest.mark.parametrize("n_clients", [1, 3, BLOCK, BLOCK + 1, 3 * BLOCK])
    def test_its_total_is_the_sum_over_survivors(self, name: str, n_clients: int) -> None:
        rng = np.random.default_rng(0)
        values = {f"c{i}": rng.uniform(-1, 1, 9).astype(np.float32) for i in range(n_clients)}
        total = total_of(MEMBERS[name], values, [*values, "absent"])
        assert total.count == n_clients
        np.testing.assert_allclose(
            total.value, np.sum([v.astype(np.float64) for v in values.values()], 0), rtol=1e-4, atol=1e-5
        )

    def test_values_that_are_not_finite_are_refused_or_under_a_guarantee_become_zero(self, name: str) -> None:
        protection = MEMBERS[name]
        for bad in (np.nan, np.inf, -np.inf):
            value = np.array([0.0, bad], np.float32)
            if protection.event(["a"]).private:
                np.testing.assert_allclose(protection.reveal(protection.protect(value, Entropy())), 0, atol=1e-9)
            else:
                with pytest.raises(ProtocolError, match="NaN or infinity"):
                    protection.protect(value, Entropy())

    def test_a_nan_that_arrives_is_refused(self, name: str) -> None:
        protection = MEMBERS[name]
        good = protection.protect(np.ones(2, np.float32), Entropy())
        session = protection.open(["a"], 2, plain_lift, nothing)
        with pytest.raises(ProtocolError, match="NaN or infinity"):
            session.add("a", good[:-4] + np.array([np.nan], "<f4").tobytes())

    def test_it_takes_each_member_once_and_nobody_else(self, name: str) -> None:
        protection = MEMBERS[name]
        payload = protection.protect(np.ones(2, np.float32), Entropy())
        session = protection.open(["a", "b"], 2, plain_lift, nothing)
        session.add("a", payload)
        for client in ("a", "c"):
            with pytest.raises(ProtocolError, match=client):
                session.add(client, payload)

    def test_it_refuses_values_of_another_size(self, name: str) -> None:
        protection = MEMBERS[name]
        session = protection.open(["a"], 2, plain_lift, nothing)
        with pytest.raises(ProtocolError, match="shape"):
            session.add("a", protection.protect(np.ones(3, np.float32), Entropy()))

    def test_it_opens_nothing_without_survivors(self, name: str) -> None:
        with pytest.raises(BelowThreshold):
            MEMBERS[name].open(["a"], 2, plain_lift, nothing).close(nothing)

    def test_it_refuses_bytes_that_are_no_payload(self, name: str) -> None:
        session = MEMBERS[name].open(["a"], 2, plain_lift, nothing)
        payload = MEMBERS[name].protect(np.ones(2, np.float32), Entropy())
        for bad in (b"", b"noise", payload[:-1], payload + b"\0"):
            with pytest.raises(WireError):
                session.add("a", bad)

    def test_it_says_what_the_server_sees_and_what_it_costs(self, name: str) -> None:
        view = MEMBERS[name].server_view()
        assert isinstance(view, ServerView) and view.trust and view.minimum_cohort >= 1
        assert MEMBERS[name].event(["a"]) is not None

    def test_it_is_a_frozen_value(self, name: str) -> None:
        with pytest.raises((FrozenInstanceError, AttributeError)):
            MEMBERS[name].clip_norm = 7  # type: ignore[attr-defined]


def test_a_nan_that_arrives_at_the_server_is_refused() -> None:
    good = PlainSum().protect(np.ones(2, np.float32), Entropy())
    bad = good[:-4] + np.array([np.nan], "<f4").tobytes()
    with pytest.raises(ProtocolError, match="arrived"):
        PlainSum().open(["a"], 2, plain_lift, nothing).add("a", bad)


def test_the_server_refuses_other_dtypes() -> None:
    from framp_private.protections.plain import Values
    from framp_private.wire import encode

    with pytest.raises(ProtocolError, match="float64"):
        PlainSum().reveal(encode(Values(np.ones(2))))


def test_the_minimum_is_enforced() -> None:
    with pytest.raises(BelowThreshold, match="survivors=1"):
        total_of(PlainSum(minimum=2), {"a": np.ones(2, np.float32)}, ["a", "b"])


def test_no_protection_costs_no_guarantee() -> None:
    event = PlainSum().event(["a"])
    assert not event.private and type(event.mechanism).__name__ == "NonPrivateDpEvent"


@pytest.mark.parametrize("kind", [LocalGaussian, CentralGaussian])
@pytest.mark.parametrize(
    "numbers", [(0, 1), (-1, 1), (np.inf, 1), (np.nan, 1), (1, 0), (1, -1), (1, np.inf), (1, np.nan)]
)
def test_noise_without_a_guarantee_is_refused(kind: type, numbers: tuple[float, float]) -> None:
    with pytest.raises(PrivacyParameterError):
        kind(*numbers)


def test_local_noise_is_each_clients_own_and_of_the_declared_scale() -> None:
    protection = LocalGaussian(1.5, 2.0)
    value = np.linspace(-3, 3, 12_000).astype(np.float32)
    a, b = (protection.reveal(protection.protect(value, Entropy())) - value for _ in range(2))
    assert kstest(a / 3.0, "norm").pvalue > 1e-6 and kstest(a / 2.0, "norm").pvalue < 1e-6
    assert abs(np.corrcoef(a, b)[0, 1]) < 4.9 / np.sqrt(len(a))
    assert protection.event(["a"], 12_000) == Event(GaussianDpEvent(2.0), "record", noise_values=12_000)


def test_central_noise_is_on_the_total_alone_and_of_the_declared_scale() -> None:
    protection = CentralGaussian(1.5, 2.0)
    values = {name: np.random.default_rng(i).normal(size=12_000).astype(np.float32) for i, name in enumerate("abc")}
    clipped = {name: protection.reveal(protection.protect(value, Entropy())) for name, value in values.items()}
    for name, value in values.items():
        norm = float(np.linalg.norm(clipped[name].astype(np.float64)))
        assert norm <= 1.5 and norm == pytest.approx(1.5, rel=1e-4)
        np.testing.assert_allclose(clipped[name] / norm, value / np.linalg.norm(value), atol=1e-6)
    noise = total_of(protection, values).value - np.sum(list(clipped.values()), 0)
    assert kstest(noise / 3.0, "norm").pvalue > 1e-6
    for wrong in (2.0, 4.5):
        assert kstest(noise / wrong, "norm").pvalue < 1e-6
    assert protection.event(["a"]).unit == "client" and not protection.randomised and protection.noises_total


def test_a_contribution_above_the_clip_is_refused_by_the_server() -> None:
    protection = CentralGaussian(1.0, 1.0)
    session = protection.open(["a"], 2, plain_lift, nothing)
    with pytest.raises(ProtocolError, match="above clip_norm"):
        session.add("a", PlainSum().protect(np.array([3.0, 0.0], np.float32), Entropy()))


class OnlyASum(PlainSum):
    """Stands for a secure sum."""

    def server_view(self) -> ServerView:
        return ServerView("sum", 3, "honest but curious", ())


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_channel_without_protection_stops_the_plan(channel: str) -> None:
    plan = Plan(None, None, None, None)
    with pytest.raises(PlanError, match=channel):
        plan.check([channel], {})
    plan.check([], {})


def test_a_sum_where_single_values_are_needed_stops_the_plan_and_says_why() -> None:
    plan = Plan(None, OnlyASum(), PlainSum(), None)
    plan.check(["update", "prototypes"], {})
    with pytest.raises(PlanError, match="needs each client's update"):
        plan.check(["update"], {"update": "it needs each client's update"})
