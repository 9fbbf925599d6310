"""The in-process engine: laziness, drop schedules, and what it counts."""

from __future__ import annotations

import pytest

from framp_private.engines.in_process import RandomDrops
from framp_private.federated.messages import EnrolRequest
from framp_private.randomness import Streams
from framp_private.wire import encode
from tests.tiny import engine_of, tiny_dataset, tiny_federation

DATASET = tiny_dataset()
FEDERATION = tiny_federation(DATASET)


def test_requests_are_made_and_delivered_one_at_a_time() -> None:
    made = []

    class Lazy(dict):  # type: ignore[type-arg]
        def __getitem__(self, client: str) -> bytes:
            made.append(client)
            return encode(EnrolRequest(FEDERATION.digest))

    replies = engine_of(FEDERATION, DATASET).exchange(Lazy(dict.fromkeys(DATASET.clients)))
    assert made == []
    assert next(replies)[0] == "client-00" and made == ["client-00"]


def test_a_dropped_client_gets_its_request_and_sends_nothing() -> None:
    engine = engine_of(FEDERATION, DATASET, drops=lambda client, index: client == "client-00")
    request = encode(EnrolRequest(FEDERATION.digest))
    assert dict(engine.exchange({"client-00": request})) == {}
    assert sum(engine.traffic.totals["down"].values()) == len(request)
    assert sum(engine.traffic.totals["up"].values()) == 0


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_random_drops_keep_their_rate_and_their_seed(rate: float) -> None:
    """20,000 draws: five standard deviations, false-alarm rate below 1e-6."""
    drops = RandomDrops(rate, Streams(0))
    draws = [drops(f"c{i}", r) for i in range(100) for r in range(200)]
    assert abs(sum(draws) / len(draws) - rate) < 5 * (rate * (1 - rate) / len(draws)) ** 0.5
    assert draws == [drops(f"c{i}", r) for i in range(100) for r in range(200)]
    assert not any(drops(f"c{i}", -1) for i in range(100))
