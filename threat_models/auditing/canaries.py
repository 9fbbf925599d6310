"""Canaries in the pipeline itself: records that only an auditor would have, in or out by a fair coin (F1, F2, F3).

A canary is one more record at the largest size that the mechanism admits, along one coordinate of its own:

    prototypes    the record (R e_k, class c): its class sum moves by R on one coordinate, its count by w
    update        a gradient, or under shared noise a contribution, of the clip's length on one coordinate
    descriptor    a record whose encoding is the clip's length on one coordinate

It passes through the real client: added after clipping, before noise and encryption. Coordinates of one client are all
different, and in a sum over clients those of all clients, so that canaries do not disturb one another. The auditor is
the strongest adversary that the guarantee allows: it knows every other record, and takes their sum off what was
released. What is left on a canary's coordinate is noise, and the canary or not.

Signs alternate over rounds, so that canaries do not push the model one way; they enter no test set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from framp_private import Federation, PlainSum
from threat_models.errors import AuditError
from threat_models.facts import PublicFacts, sampling_of

CanaryChannel = Literal["prototypes", "update", "descriptor"]


@dataclass(eq=False)
class ClientCanaries:
    """One client's canaries; a `framp_private.Plant`. It keeps what the sums were without them.

    Args:
        channel: where they are planted. places: (m,) coordinates, all different. size: what one adds there.
        coins: (m,) bool, whether each is in. counts: (m,) coordinates of the class's count, or empty; weight: what one
            adds there. sampling: the chance that one takes part in a step of DP-SGD; 1 for anything else.
        stepwise: whether they enter in steps of DP-SGD rather than in the value that is protected.
    """

    channel: CanaryChannel
    places: np.ndarray
    size: float
    coins: np.ndarray
    counts: np.ndarray
    weight: float = 0.0
    sampling: float = 1.0
    stepwise: bool = False
    backgrounds: dict[int, np.ndarray] = field(default_factory=dict)
    generator: np.random.Generator = field(default_factory=np.random.default_rng)

    def sign(self, round_index: int) -> float:
        """+1 in even rounds, -1 in odd ones."""
        return 1.0 - 2.0 * (round_index % 2)

    def value(self, channel: str, round_index: int, value: np.ndarray) -> np.ndarray:
        """The value with the canaries that are in."""
        if channel != self.channel or self.stepwise:
            return value
        self.backgrounds[round_index] = np.asarray(value, np.float64).copy()
        planted = np.asarray(value, np.float64).copy()
        planted[self.places[self.coins]] += self.size * self.sign(round_index)
        np.add.at(planted, self.counts[self.coins] if len(self.counts) else [], self.weight)
        return planted.astype(value.dtype)

    def step(self, round_index: int, clipped: Tensor) -> Tensor:
        """The clipped sum of a step with the canaries that are in and were sampled."""
        if not self.stepwise:
            return clipped
        before = self.backgrounds.get(round_index, 0.0)
        self.backgrounds[round_index] = before + clipped.double().numpy()
        taking = self.places[self.coins & (self.generator.random(len(self.coins)) < self.sampling)]
        planted = clipped.clone()
        planted[taking] += self.size * self.sign(round_index)
        return planted


@dataclass(frozen=True, eq=False)
class Canaries:
    """All canaries of an audit, by client, in a fixed order; under a shared sum clients without any among them."""

    channel: CanaryChannel
    clients: Mapping[str, ClientCanaries]

    @property
    def coins(self) -> np.ndarray:
        """(m,) bool."""
        return np.concatenate([each.coins for each in self.clients.values()])

    @property
    def holders(self) -> int:
        """Clients that hold a canary."""
        return sum(len(each.places) > 0 for each in self.clients.values())

    @property
    def digest(self) -> str:
        """SHA-256 over where they are and how large, not over the coins: for the report."""
        found = hashlib.sha256(self.channel.encode())
        for name, each in self.clients.items():
            found.update(f"{name} {each.size!r} {each.weight!r}".encode() + each.places.astype("<i8").tobytes())
        return found.hexdigest()


def plant(federation: Federation, channel: CanaryChannel, count: int, *, seed: int) -> Canaries:
    """`count` canaries, or as many as there are coordinates, over the clients that can hold them.

    Args:
        seed: of coordinates, signs and coins; coins are independent and fair, and no half is fixed.

    Raises:
        AuditError: the channel is not noised, or no client can hold a canary.
    """
    rng = np.random.default_rng(seed)
    if channel == "prototypes":
        return _in_prototypes(federation, count, rng)
    if channel == "descriptor":
        return _in_descriptor(federation, count, rng)
    return _in_update(federation, count, rng)


def summed(federation: Federation | PublicFacts, channel: CanaryChannel) -> bool:
    """Whether a channel's values are seen in a sum over clients alone."""
    return channel != "descriptor" and not isinstance(federation.plan.protection(channel).carrier, PlainSum)


def _in_update(federation: Federation, count: int, rng: np.random.Generator) -> Canaries:
    holders = [name for name, budget in federation.budgets.items() if budget == 1.0]
    if not holders:
        raise AuditError("no client has the whole network (budget 1): canaries on the update channel need one")
    size, stepwise = _update_bound(federation)
    dealt = _dealt(np.arange(federation.network.n_parameters), holders, count, summed(federation, "update"), rng)
    made = {}
    for name, places in dealt.items():
        coins = rng.random(len(places)) < 0.5
        made[name] = ClientCanaries(
            "update",
            places,
            size,
            coins,
            np.zeros(0, int),
            sampling=sampling_of(federation.trainer) if stepwise else 1.0,
            stepwise=stepwise,
            generator=np.random.default_rng(rng.integers(2**63)),
        )
    return _with_others(federation, "update", made)


def _in_prototypes(federation: Federation, count: int, rng: np.random.Generator) -> Canaries:
    bound, network = federation.prototype_bound, federation.network
    if not federation.aligns or bound is None:
        raise AuditError("prototypes are not noised in this run: there is no claim on them to audit")
    width = network.feature_dim + 1
    free = np.array([row * width + k for row in range(network.n_classes) for k in range(network.feature_dim)])
    dealt = _dealt(free, list(federation.budgets), count, summed(federation, "prototypes"), rng)
    made = {}
    for name, places in dealt.items():
        coins, counts = rng.random(len(places)) < 0.5, places // width * width + width - 1
        made[name] = ClientCanaries("prototypes", places, bound.feature_norm, coins, counts, bound.count_weight)
    return _with_others(federation, "prototypes", made)


def _in_descriptor(federation: Federation, count: int, rng: np.random.Generator) -> Canaries:
    noised = federation.plan.descriptor
    clip = getattr(noised, "clip_norm", None)
    if noised is None or clip is None or not federation.personalised:
        raise AuditError("no descriptor is noised in this run: there is no claim on it to audit")
    free = np.arange(federation.descriptor.size(federation.network))
    dealt = _dealt(free, list(federation.budgets), count, False, rng)
    made = {}
    for name, places in dealt.items():
        coins = rng.random(len(places)) < 0.5
        made[name] = ClientCanaries("descriptor", places, float(clip), coins, np.zeros(0, int))
    return Canaries("descriptor", made)


def _dealt(
    free: np.ndarray, holders: list[str], count: int, together: bool, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Each holder's coordinates among those that are free; `together` no two holders have one in common."""
    order, each = rng.permutation(free), -(-count // len(holders))
    share = min(len(free) // len(holders) if together else len(free), each)
    if together:
        return {name: order[place * share : (place + 1) * share] for place, name in enumerate(holders)}
    return {name: rng.permutation(free)[:share] for name in holders}


def _with_others(federation: Federation, channel: CanaryChannel, made: dict[str, ClientCanaries]) -> Canaries:
    """In a sum over clients what those without canaries put in is known to the auditor too, and comes off."""
    if summed(federation, channel):
        size = next(iter(made.values())).size
        nothing = (np.zeros(0, int), size, np.zeros(0, bool), np.zeros(0, int))
        made |= {name: ClientCanaries(channel, *nothing) for name in federation.budgets if name not in made}
    return Canaries(channel, made)


def _update_bound(federation: Federation) -> tuple[float, bool]:
    """The largest size of a canary, and whether it enters in steps."""
    trainer = federation.trainer
    if trainer.event(1) is not None:
        return float(trainer.clip_norm), True  # type: ignore[attr-defined]
    if trainer.record_bound is not None:
        return float(trainer.record_bound), False
    raise AuditError("the update channel has no bound on one record: canaries need one to be sized by")
