"""Canaries in the pipeline itself: records that only an auditor would have, in or out by a fair coin (F1, F2, F3).

A canary is one more record at the largest size that the mechanism admits, along one coordinate of its own:

    prototypes    the record (R e_k, class c): its class sum moves by R on one coordinate, its count by w
    update        a gradient, or under shared noise a contribution, of the clip's length on one coordinate

It passes through the real client: added after clipping, before noise and encryption. Coordinates of one client are all
different, so that canaries do not disturb one another. The auditor is the strongest adversary that the guarantee
allows: it knows every other record, and takes their sum off what was released. What is left on a canary's coordinate
is noise, and the canary or not.

Signs alternate over rounds, so that canaries do not push the model one way; they enter no test set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.special import logsumexp
from scipy.stats import binom
from torch import Tensor

from framp_private import Federation, PlainSum, decayed
from threat_models.attacks.updates import unweighted
from threat_models.errors import AuditError, NotInView
from threat_models.facts import PublicFacts, sampling_of
from threat_models.view import View

CanaryChannel = Literal["prototypes", "update"]


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
    holders = [name for name, budget in federation.budgets.items() if budget == 1.0]
    if not holders:
        raise AuditError("no client has the whole network (budget 1): canaries on the update channel need one")
    size, stepwise = _update_bound(federation)
    n = federation.network.n_parameters
    shared = federation.secure  # one sum for all: coordinates must differ between clients too
    order = rng.permutation(n)
    made = {}
    for place, name in enumerate(holders):
        share = min(n // len(holders) if shared else n, -(-count // len(holders)))
        places = order[place * share : (place + 1) * share] if shared else rng.permutation(n)[:share]
        coins = rng.random(len(places)) < 0.5
        sampling = sampling_of(federation.trainer) if stepwise else 1.0
        made[name] = ClientCanaries(
            "update",
            places,
            size,
            coins,
            np.zeros(0, int),
            sampling=sampling,
            stepwise=stepwise,
            generator=np.random.default_rng(rng.integers(2**63)),
        )
    if shared:  # what the others put into the sum is known to the auditor too, and comes off
        nothing = (np.zeros(0, int), size, np.zeros(0, bool), np.zeros(0, int))
        made |= {name: ClientCanaries("update", *nothing) for name in federation.budgets if name not in made}
    return Canaries("update", made)


def _in_prototypes(federation: Federation, count: int, rng: np.random.Generator) -> Canaries:
    bound, network = federation.prototype_bound, federation.network
    if not federation.aligns or bound is None:
        raise AuditError("prototypes are not noised in this run: there is no claim on them to audit")
    if not isinstance(federation.plan.protection("prototypes").carrier, PlainSum):
        raise AuditError("a masked or encrypted sum shows no client's class sums: parts of the client are replayed")
    width = network.feature_dim + 1
    free = np.array([row * width + k for row in range(network.n_classes) for k in range(network.feature_dim)])
    share = min(len(free), -(-count // len(federation.budgets)))
    made = {}
    for name in federation.budgets:
        places = rng.permutation(free)[:share]
        made[name] = ClientCanaries(
            "prototypes",
            places,
            bound.feature_norm,
            rng.random(share) < 0.5,
            places // width * width + width - 1,
            bound.count_weight,
        )
    return Canaries("prototypes", made)


def _update_bound(federation: Federation) -> tuple[float, bool]:
    """The largest size of a canary, and whether it enters in steps."""
    trainer = federation.trainer
    if trainer.event(1) is not None:
        return float(trainer.clip_norm), True  # type: ignore[attr-defined]
    if trainer.record_bound is not None:
        return float(trainer.record_bound), False
    raise AuditError("the update channel has no bound on one record: canaries need one to be sized by")


def scores(canaries: Canaries, view: View) -> np.ndarray:
    """(m,) `scores_by_round` after the last round."""
    return list(scores_by_round(canaries, view).values())[-1]


def scores_by_round(canaries: Canaries, view: View) -> dict[int, np.ndarray]:
    """rounds done -> (m,) how much of each canary is in what was released so far, in units of its size.

    Without sampling and with noise of multiplier z in each of T rounds: N(0, T z^2) out, N(T, T z^2) in. With sampling
    the score of a round is its log likelihood ratio.

    Raises:
        NotInView: the view holds neither single values nor totals of the channel.
    """
    summed = view.facts.secure and canaries.channel == "update"
    released = _totals(canaries, view) if summed else _single(canaries, view)
    total = {name: np.zeros(len(each.places)) for name, each in canaries.clients.items()}
    after = {}
    for round_index in sorted({place for place, _ in released}) or [0]:
        for name, each in canaries.clients.items():
            if (value := released.get((round_index, name))) is not None:
                found = each.sign(round_index) * value[each.places] / each.size
                total[name] = total[name] + (_likelihood_ratio(found, view.facts) if each.sampling < 1 else found)
        after[round_index + 1] = np.concatenate(list(total.values()))
    return after


def _single(canaries: Canaries, view: View) -> dict[tuple[int, str], np.ndarray]:
    """(round, client) -> released minus background."""
    found = {}
    if canaries.channel == "prototypes":
        bound = view.facts.prototype_bound
        weight = bound.count_weight if bound is not None else 1.0
        for upload in view.class_sums():
            if (each := canaries.clients.get(upload.client)) is not None:
                value = np.c_[upload.sums, upload.counts * weight].reshape(-1)
                found[upload.round_index, upload.client] = value - each.backgrounds[upload.round_index]
        return found
    for update in view.updates():
        each = canaries.clients.get(update.client)
        if each is not None and update.round_index in each.backgrounds:
            rate = _public_rate(view.facts, update.client, update.round_index)
            if getattr(view.facts.trainer, "fiarse", False):
                delta = unweighted(view.facts.network, update)
            else:
                delta = update.delta
            value = delta.double().numpy() / rate
            found[update.round_index, update.client] = value - each.backgrounds[update.round_index]
    return found


def _public_rate(facts: PublicFacts, client: str, round_index: int) -> float:
    """What DP-SGD multiplies a noised sum by: rate times decay over the expected batch."""
    trainer, progress = facts.trainer, facts.progress(round_index)
    if getattr(trainer, "momentum", 0.0):
        raise AuditError("momentum mixes the steps of a round: audit with momentum=0")
    batch = trainer.sampling_probability * facts.declared_by(client)
    return float(trainer.learning_rate * decayed(trainer.decay, progress) / batch)


def _totals(canaries: Canaries, view: View) -> dict[tuple[int, str], np.ndarray]:
    """The opened total of each round minus everybody's background, for every client that holds canaries."""
    found = {}
    for round_index, total in view.totals().items():
        asked = {name: each for name, each in canaries.clients.items() if round_index in each.backgrounds}
        rest = sum(each.backgrounds[round_index][: len(total)] for each in asked.values())
        for name in asked:
            found[round_index, name] = total - rest
    if not found:
        raise NotInView("no total of the update channel can be read from what was sent")
    return found


def _likelihood_ratio(score: np.ndarray, facts: PublicFacts) -> np.ndarray:
    """log p(score | in) - log p(score | out) for a round of Poisson-sampled steps, k of which had the canary.

    log sum_k Bin(k; steps, q) exp((2 k y - k^2) / (2 steps z^2)): better than the plain sum.
    """
    trainer = facts.trainer
    steps, q, z = trainer.steps, trainer.sampling_probability, trainer.noise_multiplier
    k = np.arange(steps + 1)[:, None]
    return np.asarray(logsumexp(binom.logpmf(k, steps, q) + (2 * k * score - k**2) / (2 * steps * z**2), axis=0))
