"""Sensitivity and noise of a client's parts, where a secure sum shows no single value to replay.

What the client computes before it masks or encrypts is called by itself: the sum of clipped gradients, the class sums,
the descriptor. Noise that each client adds itself is drawn through the real protection, with a carrier in the clear;
noise in shares shows in opened totals alone, and is what canaries in a run are for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from framp_private import ClientData, Entropy, Federation, PlainSum, local_prototypes
from framp_private.errors import FrampError
from threat_models.auditing import parametric
from threat_models.auditing.replay import Finding, bounds, neighbours

LEAST = 1500
"""Values that a check of noise is over, at least."""


def parts(federation: Federation, client: str, data: ClientData) -> dict[str, np.ndarray]:
    """channel -> what its protection is given, at the federation's first weights for a made-up descriptor."""
    network, budget = federation.network, federation.budgets[client]
    size = federation.descriptor.size(network) if federation.personalised else 0
    weights = federation.weights(federation.phi_0(), torch.linspace(0, 1, size), budget)
    mask = federation.mask(weights, budget, None)
    trainer: Any = federation.trainer
    found = {"update": trainer.delta(network, weights * mask, mask, data, None).numpy()}
    if federation.aligns:  # under the weights that are loaded, which no record has moved
        found["prototypes"] = local_prototypes(
            network, data, data.train, federation.weighting, federation.prototype_bound
        )
    if federation.home_descriptor is not None:
        found["descriptor"] = federation.describe(client, data)
    return found


def check_parts(federation: Federation, client: str, data: ClientData) -> list[Finding]:
    """A finding for each channel and pair of neighbours that differ by more than is declared, or fail."""
    declared = bounds(federation, client)
    if federation.home_descriptor is not None:
        declared["descriptor"] = float(federation.home_descriptor.clip_norm)  # type: ignore[attr-defined]
    found = []
    for words, one, other in neighbours(data):
        try:
            first, second = parts(federation, client, one), parts(federation, client, other)
        except FrampError as error:
            found.append(Finding("sensitivity", "all", f"{words} makes the client fail: {error}"))
            continue
        for channel, limit in declared.items():
            if channel not in first:
                continue
            moved = float(np.linalg.norm(first[channel].astype(float) - second[channel].astype(float)))
            if not moved <= limit * (1 + 1e-4):
                words_ = f"{words} moves the value by {moved:.4g}, declared is {limit:.4g}"
                found.append(Finding("sensitivity", channel, words_))
    return found


def check_own_noise(federation: Federation, *, seed: int = 0, alpha: float = 1e-3) -> list[Finding]:
    """A finding for each channel whose clients add noise themselves and too little of it, or the same again."""
    found, rng = [], np.random.default_rng(seed)
    kinds = {"prototypes": federation.plan.prototypes, "descriptor": federation.home_descriptor}
    for channel, protection in kinds.items():
        if protection is None or not protection.randomised or protection.noises_in_shares:
            continue
        clear: Any = replace(protection, inner=PlainSum())  # type: ignore[type-var]
        value = rng.normal(size=LEAST)
        coins = rng.random(LEAST) < 0.5
        draws = [clear.reveal(clear.protect(value + clear.clip_norm * coins, Entropy())) for _ in range(2)]
        if np.array_equal(*draws):
            found.append(Finding("fresh", channel, "two releases have the very same noise"))
        mu = parametric.mu_lower((draws[0] - value) / clear.clip_norm, coins, alpha=alpha / 2)
        if mu > 1 / clear.noise_multiplier:
            words = f"noise multiplier is at most {1 / mu:.3f}, declared is {clear.noise_multiplier:.3f}"
            found.append(Finding("scale", channel, words))
    return found
