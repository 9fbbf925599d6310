"""What an audit can refute, before it is run: canaries, reach, expected bounds, cost."""

from __future__ import annotations

from typing import Any

from framp_private import FederatedDataset, Federation
from threat_models.auditing import canary_clients, one_run, registration
from threat_models.auditing.canaries import plant
from threat_models.auditing.gaussian import epsilon_of, mu_of
from threat_models.auditing.planted import channel_claims
from threat_models.claims import PrivacyClaim
from threat_models.errors import AuditError

DELTA = 1e-5


def plan_rows(
    federation: Federation, dataset: FederatedDataset, canaries: int, *, alpha: float = 0.05
) -> dict[str, Any]:
    """By channel: its claim, the canaries it can hold, what they could refute and what a true claim would show.

    `reach` is the largest bound without an assumption; `guesses_needed` what it would take to pass the claim.
    `parametric` is what the Gaussian estimator shows of a true claim at this many canaries, in the median.
    """
    if canaries < 8:
        raise AuditError(f"canaries={canaries}: at least 8 are needed")
    claims = channel_claims(federation, DELTA)
    rows = {}
    for channel, claim in claims.items():
        row: dict[str, Any] = {
            "epsilon": claim.epsilon,
            "delta": claim.delta,
            "unit": claim.unit,
            "mechanism": claim.mechanism,
        }
        needed = one_run.guesses_needed(claim.epsilon, alpha / 2)
        row["guesses_needed"] = needed
        try:
            if channel not in ("update", "prototypes") or (claim.unit == "client" and channel != "update"):
                raise AuditError(f"no canaries for one {claim.unit} on this channel: replay and exact epsilon alone")
            m, tested = _held(federation, channel, claim, canaries)
        except AuditError as error:
            rows[channel] = {**row, "canaries": 0, "why": str(error), "can_refute": False}
            continue
        registered = registration.register(tested, m, alpha=alpha / 2)
        top = max(
            one_run.reach(registered.guesses[name], registered.alphas[name], m=m, delta=tested.delta)
            for name in ("one-run tight", "one-run refute")
        )
        row |= {
            "canaries": m,
            "guesses": dict(registered.guesses),
            "expected": registration.expected_bounds(tested, registered),
            "reach": top,
            "parametric": _parametric(tested.epsilon, tested.delta, m) if tested.mechanism == "gaussian" else None,
            "can_refute": tested.mechanism == "gaussian" or top > tested.epsilon,
        }
        rows[channel] = row
    return {
        "alpha": alpha,
        "rounds": federation.rounds,
        "clients": len(dataset.clients),
        "runs": 1 if any(row["canaries"] for row in rows.values()) else 0,
        "channels": rows,
    }


def _held(federation: Federation, channel: str, claim: PrivacyClaim, canaries: int) -> tuple[int, PrivacyClaim]:
    """How many canaries a channel holds, and the claim they test: whole clients are canaries of one round's."""
    if claim.unit == "client":
        one_round = canary_clients.claim_of_round(federation, claim.delta)
        return federation.cohort * (federation.rounds - 1), one_round
    return len(plant(federation, channel, canaries, seed=0).coins), claim  # type: ignore[arg-type]


def _parametric(epsilon: float, delta: float, m: int) -> float:
    """mu less 1.645 standard errors: sqrt(4 / m (1 + mu^2 / 8))."""
    mu = mu_of(max(epsilon, 1e-3), delta)
    return epsilon_of(max(0.0, mu - 1.645 * (4 / m * (1 + mu * mu / 8)) ** 0.5), delta)
