"""How often checks cry wolf: the code as it is, at most 2 alarms in 200 seeds each at alpha = 1e-3.

Each of 200 has probability 1e-3 at most, so that more than 2 have probability 1.1e-3. What has no randomness of its own
runs on 200 partitions, or on 200 settings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from framp_private import load_setup, make_config
from framp_private.privacy import accounting
from tests.threat_models.runs import simulated, unguarded
from tests.threat_models.test_mutants import DATA, NAME, _planned, made
from tests.tiny import tiny_dataset
from threat_models.auditing import (
    canaries,
    canary_scores,
    claims_check,
    masks_check,
    noise_check,
    parts_check,
    registration,
    replay_checks,
)
from threat_models.claims import PrivacyClaim, judge

SEEDS, MOST = 200, 2


def scale(seed: int) -> bool:
    return bool(noise_check.check_scale(made(), NAME, DATA, seed=seed))


def everywhere(seed: int) -> bool:
    return bool(replay_checks.check_noise(made(), NAME, DATA, seed=2 * seed))


def neighbours(seed: int) -> bool:
    return bool(replay_checks.check_neighbours(made(), NAME, DATA, seed=seed))


def sampled(seed: int) -> bool:
    federation = made(sampling_probability=0.3)
    return bool(replay_checks.check_sampling(federation, NAME, DATA, first=60 * seed))


def secure(seed: int):
    settings = {"clients": 6, "rounds": 2, "seed": seed, "unseen_clients": 0}
    setup = load_setup(make_config(preset="digits-secure", assignments=settings))
    return setup.federation, setup.dataset


def masks(seed: int) -> bool:
    federation, dataset = secure(seed)
    view, _ = simulated(federation, dataset, 2)
    return bool(masks_check.check_masks(view, alpha=1e-3))


def parts(seed: int) -> bool:
    federation, dataset = secure(seed)
    name = next(iter(dataset.clients))
    return bool(parts_check.check_parts(federation, name, dataset.clients[name]))


def own_noise(seed: int) -> bool:
    return bool(parts_check.check_own_noise(secure(0)[0], seed=seed))


def claim(seed: int) -> bool:
    rng = np.random.default_rng(seed)
    changes = {"noise_multiplier": float(rng.uniform(0.6, 3)), "clip_norm": float(rng.uniform(0.1, 3))}
    federation = made(**changes, sampling_probability=float(rng.choice([1.0, 0.5, 0.25])))
    spent = accounting.epsilon(_planned(federation), "add/remove", 1e-5)
    stated = PrivacyClaim(spent, 1e-5, "record", "add/remove", "other", "this run alone")
    return bool(claims_check.check_claim(federation, stated))


def planted(seed: int) -> bool:
    """Canaries through the real prototype path, against a claim that is exactly true."""
    dataset = tiny_dataset(4, 0)
    federation = unguarded(dataset, 4.0, 80)
    stated = PrivacyClaim(4.0, 1e-5, "record", "add/remove", "gaussian", "a round")
    with_canaries = canaries.plant(federation, "prototypes", 800, seed=seed)
    view, _ = simulated(federation, dataset, plants=with_canaries.clients)
    registered = registration.register(stated, 800, alpha=1e-3)
    bounds, _ = registration.bounds(stated, registered, canary_scores.scores(with_canaries, view), with_canaries.coins)
    return judge(stated, bounds, 1e-3).state == "refuted"


CHECKS: dict[str, Callable[[int], bool]] = {
    "scale": scale,
    "everywhere": everywhere,
    "neighbours": neighbours,
    "sampled": sampled,
    "masks": masks,
    "parts": parts,
    "own noise": own_noise,
    "claim": claim,
    "canaries": planted,
}


@pytest.mark.slow
@pytest.mark.parametrize("check", list(CHECKS))
def test_at_most_two_alarms_in_two_hundred_seeds(check: str) -> None:
    assert sum(CHECKS[check](seed) for seed in range(SEEDS)) <= MOST


@pytest.mark.parametrize("check", list(CHECKS))
def test_few_alarms_in_a_few_seeds(check: str) -> None:
    """At alpha = 1e-3 more than one of six has probability 1.5e-5."""
    assert sum(CHECKS[check](seed) for seed in range(1000, 1006)) <= 1
