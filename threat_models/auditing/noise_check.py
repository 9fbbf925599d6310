"""Whether the noise on what a client really sends is as large as its event says (F5).

Fresh replies of the real client, with canaries on many coordinates at once, each of the declared sensitivity and in by
a coin of its own; the background is known, so that each coordinate is one independent trial of the Gaussian mechanism.
The claim is that of one round, at delta 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framp_private import Client, ClientData, ClientState, Entropy, Federation, decode, decode_mask, messages
from threat_models.auditing import claims_check, multi_run, parametric
from threat_models.auditing.gaussian import epsilon_of
from threat_models.auditing.replay import Finding, bounds, requests_of, values_of
from threat_models.errors import NotApplicable
from threat_models.facts import DELTA

MOST, LEAST = 4000, 1500
"""Coordinates that carry canaries in one reply; canaries in all, at least."""


@dataclass(eq=False)
class _OnEveryCoordinate:
    """A `framp_private.Plant` with one canary a coordinate, of one channel."""

    channel: str
    size: float
    stepwise: bool
    generator: np.random.Generator
    coins: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    background: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def value(self, channel: str, round_index: int, value: np.ndarray) -> np.ndarray:
        if channel != self.channel or self.stepwise:
            return value
        return self._planted(np.asarray(value, np.float64)).astype(value.dtype)

    def step(self, round_index: int, clipped: Tensor) -> Tensor:
        if not self.stepwise:
            return clipped
        return torch.from_numpy(self._planted(clipped.double().numpy())).to(clipped.dtype)

    def _planted(self, value: np.ndarray) -> np.ndarray:
        self.background = value.copy()
        self.coins = self.generator.random(value.shape) < 0.5
        return np.asarray(value + self.size * self.coins)


def trials(
    federation: Federation,
    client: str,
    data: ClientData,
    channel: str,
    *,
    seed: int,
    entropy: Entropy | None = None,
    least: int = LEAST,
) -> tuple[np.ndarray, np.ndarray]:
    """(m,) scores in units of the sensitivity, and (m,) coins, over as many fresh replies as it takes."""
    trainer: Any = federation.trainer
    stepwise = channel == "update" and trainer.event(1) is not None
    size = trainer.clip_norm if stepwise else bounds(federation, client)[channel]
    generator = np.random.default_rng(seed)
    scores: list[np.ndarray] = []
    coins: list[np.ndarray] = []
    requests = requests_of(federation, client, 1)
    asked = requests[:1] if channel == "descriptor" else requests[-1:]
    while sum(len(part) for part in scores) < least:
        planted = _OnEveryCoordinate(channel, size, stepwise, generator)
        handler = Client(client, data, federation, entropy or Entropy(), plant=planted)
        reply, _ = handler.handle(asked[0], ClientState.new())
        value = values_of(federation, reply)[channel].astype(np.float64)
        background, planned = planted.background, planted.coins
        if channel == "update":
            kept_places = _places(federation, asked[0], len(background))
            value, background, planned = value[: len(kept_places)], background[kept_places], planned[kept_places]
        if stepwise:
            value = value * federation.declared_by(client) * trainer.sampling_probability / trainer.learning_rate
        kept = generator.permutation(value.size)[:MOST]
        scores.append(((value - background) / size)[kept])
        coins.append(planned[kept])
    return np.concatenate(scores), np.concatenate(coins)


def _places(federation: Federation, request: bytes, size: int) -> np.ndarray:
    """The coordinates that an update's values stand for."""
    message: object = decode(request, messages.TrainRequest, messages.PhiRequest)
    n = federation.network.n_parameters
    if isinstance(message, messages.TrainRequest) and size == n:
        return np.flatnonzero(decode_mask(message.mask, n))
    return np.arange(min(size, n))


@dataclass(frozen=True)
class Measured:
    """One mechanism alone: epsilon of one step as claimed, and lower bounds from so many independent trials."""

    channel: str
    trials: int
    claimed: float
    bounds: Mapping[str, float]

    def as_row(self) -> dict[str, Any]:
        """For JSON: a bound that is infinite is null."""
        shown = {name: value if math.isfinite(value) else None for name, value in self.bounds.items()}
        return {"channel": self.channel, "trials": self.trials, "claimed": self.claimed, "bounds": shown}


def measure(
    federation: Federation, client: str, data: ClientData, *, seed: int = 0, alpha: float = 1e-3, least: int = LEAST
) -> list[Measured]:
    """Every noised channel by three estimators, which share alpha: Clopper-Pearson, GDP, parametric.

    Of one local step on all records (`replay_checks.mechanism`): a claim that amplification makes smaller is the
    ledger's, this is the mechanism's. Where clients generate their own weights, of one that holds the whole network.
    The threshold of the first two is one half of a canary, whatever the scores are. The last two are 0 where the
    mechanism is not declared Gaussian or its scores are not: the first assumes nothing but independent noise.
    """
    found = []
    noised = bounds(federation, client)
    share = alpha / max(1, 3 * len(noised))
    for channel in noised:
        scores, coins = trials(federation, client, data, channel, seed=seed, least=least)
        called = scores > 0.5
        counts = (int((called & ~coins).sum()), int((~coins).sum()), int((~called & coins).sum()), int(coins.sum()))
        told: dict[str, Any] = {"delta": DELTA, "alpha": share}
        shown = {"clopper-pearson": multi_run.lower_bound(*counts, **told)}
        declared = "gaussian" if claims_check.is_gaussian(federation, channel) else "other"
        try:
            shown["gdp"] = multi_run.lower_bound_gaussian(*counts, declared=declared, **told)
            shown["parametric"] = parametric.lower_bound(scores, coins, declared=declared, **told)
        except NotApplicable:
            shown.setdefault("gdp", 0.0)
            shown["parametric"] = 0.0
        claimed = epsilon_of(1 / _multiplier(federation, channel), DELTA)
        found.append(Measured(channel, len(scores), claimed, shown))
    return found


def check_scale(federation: Federation, client: str, data: ClientData, **settings: Any) -> list[Finding]:
    """A finding for each channel whose claim of one step is refuted; settings are those of `measure`."""
    return findings(measure(federation, client, data, **settings))


def findings(measured: Sequence[Measured]) -> list[Finding]:
    """Of what was measured, what is over its claim."""
    found = []
    for each in measured:
        best = max(each.bounds.values())
        if best > each.claimed:
            spent = "unbounded" if math.isinf(best) else f"{best:.2f}"
            words = f"epsilon of one step is at least {spent}, claimed is {each.claimed:.2f}"
            found.append(Finding("scale", each.channel, words))
    return found


def _multiplier(federation: Federation, channel: str) -> float:
    trainer: Any = federation.trainer
    if channel == "update" and trainer.event(1) is not None:
        return float(trainer.noise_multiplier)
    return float(federation.plan.protection(channel).noise_multiplier)  # type: ignore[arg-type,attr-defined]
