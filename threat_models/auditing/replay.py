"""Grey-box replay (F6): the real client on neighbouring records, with the same draws.

With equal draws noise cancels in a difference, so that what remains is what one record moved. Each check is exact or
has a stated false-alarm rate, and looks at what left the client: bytes, and calls for randomness (`replay_checks.py`).
The idea of recording a mechanism's calls is dp-recorder's (arXiv 2602.17454).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from framp_private import Client, ClientData, ClientState, Entropy, Federation, decode, encode, messages
from framp_private import encode_mask as coded_mask


class SameDraws(Entropy):
    """Draw k is a function of seed and k alone, whatever was asked before; `calls` keeps how much each asked for.

    Nothing drawn from it is private; a ledger that is told of it makes no claim.
    """

    seeded: ClassVar[bool] = True

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.calls: list[int] = []

    def bytes(self, count: int) -> bytes:
        """`count` bytes of the stream of this call."""
        generator = np.random.default_rng([self._seed, len(self.calls)])
        self.calls.append(count)
        return generator.bytes(count)


@dataclass(frozen=True)
class Finding:
    """One thing that a check found wrong."""

    check: str
    channel: str
    words: str


@dataclass(frozen=True, eq=False)
class Release:
    """What one request made a client send: channel -> values; and the draws it took."""

    values: dict[str, np.ndarray]
    calls: tuple[int, ...]


Requests = Sequence[bytes]


def requests_of(federation: Federation, client: str, rounds: int = 2) -> Requests:
    """Enrolment, where there is one, and training requests as the server would make them in an untrained state."""
    made = [encode(messages.EnrolRequest(federation.digest))] if "descriptor" in federation.channels else []
    network, empty = federation.network, np.zeros(0, np.float32)
    phi, budget = federation.phi_0(), federation.budgets[client]
    shape = (network.n_classes, network.feature_dim) if federation.aligns else (0, 0)
    prototypes, present = np.zeros(shape, np.float32), np.zeros(shape[0], np.uint8)
    clip = federation.plan.protection("update").starting_clip
    for round_index in range(rounds):
        if federation.pullback.value == "client":
            made.append(
                encode(
                    messages.PhiRequest(
                        federation.digest, round_index, phi.numpy(), empty, empty, prototypes, present, clip
                    )
                )
            )
            continue
        size = federation.descriptor.size(network) if federation.personalised else 0
        weights = federation.weights(phi, torch.linspace(0, 1, size), budget)
        mask = federation.mask(weights, budget, None)
        coded = coded_mask(mask.numpy())
        made.append(
            encode(
                messages.TrainRequest(federation.digest, round_index, weights[mask].numpy(), coded, prototypes, present)
            )
        )
    return made


def play(federation: Federation, client: str, data: ClientData, requests: Requests, seed: int) -> list[Release]:
    """What the real client answers, on these records and draws, without an account: nothing is released.

    Raises:
        AuditError: a channel whose values are not seen singly; a client that refuses its own requests.
    """
    draws = SameDraws(seed)
    handler, state, found = Client(client, data, federation, draws), ClientState.new(), []
    for request in requests:
        before = len(draws.calls)
        reply, state = handler.handle(request, state)
        found.append(Release(values_of(federation, reply), tuple(draws.calls[before:])))
    return found


def values_of(federation: Federation, reply: bytes) -> dict[str, np.ndarray]:
    """channel -> values of a reply, as the server decodes them."""
    message: object = decode(reply, messages.EnrolReply, messages.TrainReply)
    if isinstance(message, messages.EnrolReply):
        return {"descriptor": federation.plan.protection("descriptor").reveal(message.descriptor)}
    assert isinstance(message, messages.TrainReply)
    parts = {"update": message.update, "prototypes": message.prototypes}
    return {name: federation.plan.protection(name).reveal(body) for name, body in parts.items() if body}  # type: ignore[arg-type]


def without_last(data: ClientData) -> ClientData:
    """The same training records but the last: whoever is sampled among the others is sampled as before."""
    return replace(data, train=data.train[:-1])


def with_last(data: ClientData, place: int) -> ClientData:
    """The same training records in another order: one of them last."""
    return replace(data, train=torch.cat([data.train[:place], data.train[place + 1 :], data.train[place : place + 1]]))


def with_record(data: ClientData, value: float) -> ClientData:
    """The same records, the last training record's features all set to a value: huge, infinite, NaN."""
    x = data.x.clone()
    x[data.train[-1]] = value
    return replace(data, x=x)


def neighbours(data: ClientData, count: int = 4) -> list[tuple[str, ClientData, ClientData]]:
    """Pairs that differ in one record: some of the client's own, one that is huge, and ones that are not finite."""
    pairs = []
    for place in np.linspace(0, data.n_train - 1, count).astype(int):
        whole = with_last(data, int(place))
        pairs.append(("one of its records", whole, without_last(whole)))
    for words, value in (("a huge record", 1e4), ("a record of NaN", np.nan), ("an infinite record", np.inf)):
        pairs.append((words, with_record(data, value), without_last(data)))
    alone = replace(data, train=data.train[:1])
    return [*pairs, ("its only record", alone, without_last(alone))]


def resting(federation: Federation) -> Federation:
    """The same federation with local steps so small that representations stay those of the weights that were sent.

    The guarantee of class sums holds given the trained weights, which are a release of their own.
    """
    return replace(federation, trainer=replace(federation.trainer, learning_rate=1e-12))  # type: ignore[type-var]


def bounds(federation: Federation, client: str) -> dict[str, float]:
    """What one record may move each channel's value by, in L2, where clients add noise for it."""
    found = {}
    trainer = federation.trainer
    if trainer.event(1) is not None:
        share = trainer.sampling_probability * federation.declared_by(client)  # type: ignore[attr-defined]
        found["update"] = trainer.clip_norm * trainer.learning_rate / share  # type: ignore[attr-defined]
    elif trainer.record_bound is not None:
        found["update"] = trainer.record_bound
    for channel in federation.channels:
        protection = federation.plan.protection(channel)
        clip = getattr(protection, "clip_norm", None)
        if clip is not None and protection.randomised and channel not in found:
            found[channel] = float(clip)
    return found
