"""What an audit can refute, before it is run: canaries, reach, expected bounds, power, cost."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import norm

from framp_private import FederatedDataset, Federation, Options, train
from threat_models.auditing import canary_clients, one_run, registration
from threat_models.auditing.canaries import plant
from threat_models.auditing.gaussian import epsilon_of, mu_of
from threat_models.auditing.planted import CHANNELS, channel_claims, share_of
from threat_models.claims import PrivacyClaim, judge
from threat_models.errors import AuditError
from threat_models.facts import DELTA

SHARES, TRIALS = (0.9, 0.7, 0.5), 40
"""Of the claimed noise, for which power is drawn; audits of each."""


def plan_rows(
    federation: Federation, dataset: FederatedDataset, canaries: int, *, alpha: float = 0.05, timed: bool = True
) -> dict[str, Any]:
    """By channel: its claim, the canaries it can hold, what they could refute and what a true claim would show.

    `reach` is the largest bound without an assumption; `guesses_needed` what it would take to pass the claim;
    `expected` what each estimator shows of a true claim; `power` how often of 40 audits the claim is refuted if there
    is so much of the noise only; `interference` the variance that canaries add to one another's scores, which is none
    for coordinates of their own and would be m/4d for random directions. alpha is shared as in `run_audit`.
    `seconds` are of one such run's rounds, from the second of up to three that are trained on the records for it.
    """
    if canaries < 8:
        raise AuditError(f"canaries={canaries}: at least 8 are needed")
    claims = channel_claims(federation, DELTA)
    held: dict[str, tuple[int, PrivacyClaim]] = {}
    why: dict[str, str] = {}
    for channel, claim in claims.items():
        try:
            if channel not in CHANNELS or (claim.unit == "client" and channel != "update"):
                raise AuditError(f"no canaries for one {claim.unit} on this channel: replay and exact epsilon alone")
            held[channel] = _held(federation, channel, claim, canaries)
        except AuditError as error:
            why[channel] = str(error)
    records = sum(claims[channel].unit == "record" for channel in held)
    share = share_of(alpha / 2, records, any(claim.unit == "record" for claim in claims.values()))
    rows = {}
    for channel, claim in claims.items():
        row = {"epsilon": claim.epsilon, "delta": claim.delta, "unit": claim.unit, "mechanism": claim.mechanism}
        if channel in why:
            needed = one_run.guesses_needed(claim.epsilon, share)
            rows[channel] = {**row, "guesses_needed": needed, "canaries": 0, "why": why[channel], "can_refute": False}
            continue
        m, tested = held[channel]
        own = alpha / 2 if claim.unit == "client" else share
        rows[channel] = {**row, **_row(tested, m, own, federation.size_of(channel, 1.0))}  # type: ignore[arg-type]
    return {
        "alpha": alpha,
        "rounds": federation.rounds,
        "clients": len(dataset.clients),
        "runs": 1 if held else 0,
        "seconds": _seconds(federation, dataset) if held and timed else None,
        "channels": rows,
    }


def _held(federation: Federation, channel: str, claim: PrivacyClaim, canaries: int) -> tuple[int, PrivacyClaim]:
    """How many canaries a channel holds, and the claim they test: whole clients are canaries of one round's."""
    if claim.unit == "client":
        one_round = canary_clients.claim_of_round(federation, claim.delta)
        return federation.cohort * (federation.rounds - 1), one_round
    return len(plant(federation, channel, canaries, seed=0).coins), claim  # type: ignore[arg-type]


def _row(tested: PrivacyClaim, m: int, alpha: float, size: int) -> dict[str, Any]:
    registered = registration.register(tested, m, alpha=alpha)
    top = max(
        one_run.reach(registered.guesses[name], registered.alphas[name], m=m, delta=tested.delta)
        for name in ("one-run tight", "one-run refute")
    )
    gaussian = tested.mechanism == "gaussian"
    expected = registration.expected_bounds(tested, registered)
    if gaussian:
        expected["parametric"] = _parametric(tested.epsilon, tested.delta, m, registered.alphas["parametric"])
    return {
        "tested": tested.epsilon,
        "canaries": m,
        "alpha": alpha,
        "guesses": dict(registered.guesses),
        "guesses_needed": one_run.guesses_needed(tested.epsilon, registered.alphas["one-run refute"]),
        "expected": expected,
        "reach": top,
        "parametric": expected.get("parametric"),
        "power": {f"{share:g}": _power(tested, registered, share, alpha) for share in SHARES},
        "interference": 0.0,
        "interference_of_random_directions": m / (4 * size),
        "can_refute": gaussian or top > tested.epsilon,
    }


def _parametric(epsilon: float, delta: float, m: int, alpha: float) -> float:
    """mu less so many standard errors: sqrt(4 / m (1 + mu^2 / 8))."""
    mu = mu_of(max(epsilon, 1e-3), delta)
    return epsilon_of(max(0.0, mu - float(norm.isf(alpha)) * (4 / m * (1 + mu * mu / 8)) ** 0.5), delta)


def _power(claim: PrivacyClaim, registered: registration.Registration, share: float, alpha: float) -> float:
    """The share of drawn audits that refute the claim, where noise is `share` of what it says."""
    mu, rng, refuted = mu_of(max(claim.epsilon, 1e-3), claim.delta), np.random.default_rng(0), 0
    for _ in range(TRIALS):
        coins = rng.random(registered.m) < 0.5
        drawn = coins + share / mu * rng.standard_normal(registered.m)
        found, _ = registration.bounds(claim, registered, drawn, coins)
        refuted += judge(claim, found, alpha).state == "refuted"
    return refuted / TRIALS


def _seconds(federation: Federation, dataset: FederatedDataset) -> float:
    """Of a whole run, from its second round; evaluation is left out."""
    marks: list[float] = []
    options = Options(
        evaluate_every=10**6, checkpoint_every=10**6, on_round=lambda done, row: marks.append(time.time())
    )
    start = time.time()
    train(replace(federation, rounds=min(3, federation.rounds)), dataset, options=options)
    each = marks[min(1, len(marks) - 1)] - marks[0] if len(marks) > 1 else marks[0] - start
    return round(marks[0] - start + (federation.rounds - 1) * each, 1)
