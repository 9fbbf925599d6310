"""How much of each canary is in what was released, to an auditor who knows all other records.

What it sees is in the transcript: single values where they are sent singly; sums, opened again from the messages, where
clients add up; and the noised descriptor, which stays at its client and which everything that the client sends follows
from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logsumexp
from scipy.stats import binom

from framp_private import decayed
from threat_models.attacks.updates import unweighted
from threat_models.auditing.canaries import Canaries, summed
from threat_models.errors import AuditError, NotInView
from threat_models.facts import PublicFacts
from threat_models.view import View


@dataclass(frozen=True, eq=False)
class Opened:
    """What an auditor has of a run with canaries beside the view of an honest server.

    Args:
        totals: (round, channel) -> the sum that was opened. descriptors: client -> the noised sum that it keeps.
    """

    totals: Mapping[tuple[int, str], np.ndarray] = field(default_factory=dict)
    descriptors: Mapping[str, np.ndarray] = field(default_factory=dict)


def scores(canaries: Canaries, view: View, opened: Opened = Opened()) -> np.ndarray:
    """(m,) `scores_by_round` after the last round."""
    return list(scores_by_round(canaries, view, opened).values())[-1]


def scores_by_round(canaries: Canaries, view: View, opened: Opened = Opened()) -> dict[int, np.ndarray]:
    """rounds done -> (m,) how much of each canary is in what was released so far, in units of its size.

    Without sampling and with noise of multiplier z in each of T rounds: N(0, T z^2) out, N(T, T z^2) in. With sampling
    the score of a round is its log likelihood ratio.

    Raises:
        NotInView: the view holds neither single values nor totals of the channel.
    """
    if summed(view.facts, canaries.channel):
        released = _totals(canaries, opened)
    else:
        released = _kept(canaries, opened) if canaries.channel == "descriptor" else _single(canaries, view)
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


def _kept(canaries: Canaries, opened: Opened) -> dict[tuple[int, str], np.ndarray]:
    """The noised descriptor of each client minus its background; it is drawn once, before the first round."""
    found = {
        (-1, name): opened.descriptors[name] - each.backgrounds[-1]
        for name, each in canaries.clients.items()
        if name in opened.descriptors and -1 in each.backgrounds
    }
    if not found:
        raise NotInView("no client drew a descriptor")
    return found


def _totals(canaries: Canaries, opened: Opened) -> dict[tuple[int, str], np.ndarray]:
    """The opened total of each round minus everybody's background, for every client that holds canaries."""
    found = {}
    for (round_index, channel), total in opened.totals.items():
        if channel != canaries.channel:
            continue
        asked = {name: each for name, each in canaries.clients.items() if round_index in each.backgrounds}
        rest = sum(each.backgrounds[round_index][: len(total)] for each in asked.values())
        for name in asked:
            found[round_index, name] = total - rest
    if not found:
        raise NotInView(f"no total of the channel {canaries.channel!r} was opened")
    return found


def _likelihood_ratio(score: np.ndarray, facts: PublicFacts) -> np.ndarray:
    """log p(score | in) - log p(score | out) for a round of Poisson-sampled steps, k of which had the canary.

    log sum_k Bin(k; steps, q) exp((2 k y - k^2) / (2 steps z^2)): better than the plain sum.
    """
    trainer = facts.trainer
    steps, q, z = trainer.steps, trainer.sampling_probability, trainer.noise_multiplier
    k = np.arange(steps + 1)[:, None]
    return np.asarray(logsumexp(binom.logpmf(k, steps, q) + (2 * k * score - k**2) / (2 * steps * z**2), axis=0))
