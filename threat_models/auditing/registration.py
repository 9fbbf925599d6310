"""How many coins are guessed: fixed from the claim, before any score is seen.

Two numbers of guesses share alpha. `tight` makes the expected bound large if the claim is exactly true; but those few
guesses may all be right and still not pass the claim. `refute` is chosen for a mechanism with half the noise: at least
as many as can pass the claim at all. Whoever wants the best of many r must pay for the choice: `dyadic` splits alpha
over r = 8, 16, ..., m.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit, ndtr

from threat_models.auditing import f_dp, one_run, parametric
from threat_models.auditing.gaussian import mu_of
from threat_models.claims import Bound, PrivacyClaim
from threat_models.errors import AuditError, NotApplicable


@dataclass(frozen=True)
class Registration:
    """What was fixed before scores: guesses and the share of alpha of every estimator.

    guesses: estimator -> r. alphas: estimator -> its share; they add up to alpha.
    """

    m: int
    guesses: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)


def expected_right(m: int, r: int, mu: float) -> float:
    """The expected number of right guesses among r of m canaries of a mu-GDP mechanism, the surest ones guessed.

    A score s, N(0, 1) out and N(mu, 1) in, is guessed right with probability expit(mu |s - mu/2|).
    """
    sure = np.linspace(0, mu / 2 + 9, 4001)  # |s - mu/2| has the density phi(x - mu/2) + phi(x + mu/2)
    density = np.exp(-((sure - mu / 2) ** 2) / 2) + np.exp(-((sure + mu / 2) ** 2) / 2)
    beyond = 1 - (ndtr(sure - mu / 2) + ndtr(sure + mu / 2) - 1)
    start = int(np.searchsorted(-beyond, -r / m))
    weights = density[start:]
    return float(r * (weights * expit(mu * sure[start:])).sum() / weights.sum()) if len(weights) else float(r)


def register(claim: PrivacyClaim, m: int, *, alpha: float) -> Registration:
    """The plan for m canaries against a claim: three estimators if its mechanism is Gaussian, else one-run alone.

    Raises:
        AuditError: fewer than 8 canaries.
    """
    if m < 8:
        raise AuditError(f"m={m} canaries: at least 8 are needed, and a claim of epsilon 1 takes about 100")
    target = claim.epsilon if np.isfinite(claim.epsilon) else 8.0
    delta = max(claim.delta, 1e-12)
    mu = mu_of(max(target, 1e-3), delta)
    names = ["one-run tight", "one-run refute"]
    if claim.mechanism == "gaussian":
        names += ["f-dp one-run", "parametric"]
    share = alpha / len(names)
    needed = one_run.guesses_needed(target, share)
    guesses = {
        "one-run tight": _best(m, mu, claim.delta, share),
        "one-run refute": _best(m, 2 * mu, claim.delta, share, at_least=needed if needed <= m else 1),
    }
    if claim.mechanism == "gaussian":
        guesses["f-dp one-run"] = guesses["one-run refute"]
    return Registration(m, guesses, dict.fromkeys(names, share))


def expected_bounds(claim: PrivacyClaim, registration: Registration) -> dict[str, float]:
    """The one-run bounds that a true claim would give on average, by estimator: for plans."""
    mu = mu_of(max(claim.epsilon, 1e-3), max(claim.delta, 1e-12)) if np.isfinite(claim.epsilon) else 5.0
    m, found = registration.m, {}
    for name in ("one-run tight", "one-run refute"):
        r = registration.guesses[name]
        found[name] = _bound(m, r, round(expected_right(m, r, mu)), claim.delta, registration.alphas[name])
    return found


def bounds(
    claim: PrivacyClaim, registration: Registration, scores: np.ndarray, included: np.ndarray
) -> tuple[list[Bound], list[str]]:
    """Every registered bound, and why those that are missing were refused.

    Raises:
        AuditError: scores and coins do not fit the registration.
    """
    m = registration.m
    refused: list[str] = []
    found: list[Bound] = []
    if np.shape(scores) != (m,):
        raise AuditError(f"{np.shape(scores)} scores for m={m} registered canaries")
    for name in ("one-run tight", "one-run refute"):
        r, share = registration.guesses[name], registration.alphas[name]
        v = one_run.right_guesses(scores, included, r)
        value = one_run.lower_bound(m, r, v, delta=claim.delta, alpha=share)
        top = one_run.reach(r, share, m=m, delta=claim.delta)
        found.append(Bound(value, name, "none", share, top, m, r, v))
    if claim.mechanism != "gaussian":
        return found, refused
    r, share = registration.guesses["f-dp one-run"], registration.alphas["f-dp one-run"]
    v = one_run.right_guesses(scores, included, r)
    delta = max(claim.delta, 1e-12)
    try:
        parametric.require_gaussian(scores, included, declared=claim.mechanism)
    except NotApplicable as error:
        return found, [f"f-dp one-run, parametric: {error}"]
    value, top = (f_dp.lower_bound(m, r, right, declared=claim.mechanism, delta=delta, alpha=share) for right in (v, r))
    found.append(Bound(value, "f-dp one-run", "gaussian-curve", share, top, m, r, v))
    share = registration.alphas["parametric"]
    value = parametric.lower_bound(scores, included, declared=claim.mechanism, delta=delta, alpha=share)
    n1 = int(np.sum(included))
    sound = parametric.coverage(n1, m - n1, mu_of(min(max(claim.epsilon, 1e-3), 50.0), delta), alpha=0.05) >= 0.94
    found.append(Bound(value, "parametric", "gaussian-scores", share, float("inf"), m, sound=sound))
    return found, refused


def dyadic(m: int) -> list[int]:
    """r = 8, 16, ... up to m: alpha is split evenly over them."""
    found, r = [], 8
    while r < m:
        found.append(r)
        r *= 2
    return [*found, m]


def _bound(m: int, r: int, v: int, delta: float, alpha: float) -> float:
    return one_run.lower_bound(m, r, min(r, v), delta=delta, alpha=alpha, tolerance=1e-4)


def _best(m: int, mu: float, delta: float, alpha: float, at_least: int = 1) -> int:
    grid = sorted({min(m, max(at_least, round(m * 2.0**-place))) for place in np.arange(0, 9, 0.25)} - {0})
    return int(max(grid, key=lambda r: _bound(m, r, round(expected_right(m, r, mu)), delta, alpha)))
