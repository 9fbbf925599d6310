"""A run with canaries in it, and what their scores say of each noised channel (F1, F2)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from framp_private import (
    FederatedDataset,
    Federation,
    Options,
    Run,
    RunFolder,
    channel_costs,
    read_transcript,
    reopened_totals,
    train,
)
from framp_private.errors import PlanError
from threat_models.adversaries import HonestServer
from threat_models.auditing import canary_clients, registration
from threat_models.auditing.canaries import Canaries, CanaryChannel, ClientCanaries, plant
from threat_models.auditing.canary_scores import Opened, scores_by_round
from threat_models.auditing.claims_check import gaussian
from threat_models.auditing.mislabelled import Mislabelled, mislabel
from threat_models.claims import Bound, PrivacyClaim, Verdict, judge
from threat_models.errors import AuditError, NotInView
from threat_models.view import View


@dataclass(frozen=True, eq=False)
class ChannelAudit:
    """One channel's claim, the bounds that canaries gave, and the verdict; or why there were none.

    by_m: (canaries, best bound). by_round: (rounds done, what the channel has spent, best bound): for pictures alone.
    part_of_run: whether what is tested is a part of the run as its claim counts it, so that its bounds hold for both.
    """

    claim: PrivacyClaim
    bounds: tuple[Bound, ...] = ()
    verdict: Verdict | None = None
    refused: tuple[str, ...] = ()
    canaries: Mapping[str, Any] = field(default_factory=dict)
    by_m: tuple[tuple[int, float], ...] = ()
    by_round: tuple[tuple[int, float, float], ...] = ()
    part_of_run: bool = True


@dataclass(eq=False)
class _Together:
    """One client's canaries on several channels."""

    parts: list[ClientCanaries]

    def value(self, channel: str, round_index: int, value: np.ndarray) -> np.ndarray:
        for part in self.parts:
            value = part.value(channel, round_index, value)
        return value

    def step(self, round_index: int, clipped: Tensor) -> Tensor:
        for part in self.parts:
            clipped = part.step(round_index, clipped)
        return clipped


def channel_claims(federation: Federation, delta: float) -> dict[str, PrivacyClaim]:
    """What each noised channel alone guarantees over the whole run."""
    found = {}
    for channel, row in channel_costs(federation, delta).items():
        if row["epsilon"] is not None:
            kind = "gaussian" if gaussian(federation, channel) else "other"
            scope = f"{channel}, {row['releases']} releases"
            found[channel] = PrivacyClaim(row["epsilon"], delta, row["unit"], row["relation"], kind, scope)  # type: ignore[arg-type]
    return found


def audit_channels(
    federation: Federation,
    dataset: FederatedDataset,
    *,
    delta: float,
    alpha: float,
    canaries: int,
    seed: int,
    whole: PrivacyClaim | None = None,
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, ChannelAudit], dict[str, Any]]:
    """One run of the real federation with canaries on every channel that can hold them.

    Args:
        whole: the run's claim on records: mislabelled records then test it from the released models alone (F4).

    alpha is shared evenly by what is tested. Returns the audits, and facts of the run: accuracy, seconds.
    """
    claims = channel_claims(federation, delta)
    planted: dict[str, Canaries] = {}
    audits: dict[str, ChannelAudit] = {}
    for place, (channel, claim) in enumerate(claims.items()):
        try:
            if channel not in CHANNELS or claim.unit != "record":
                raise AuditError(f"no canaries for one {claim.unit} on this channel")
            planted[channel] = plant(federation, _checked(channel), canaries, seed=seed + place)
        except AuditError as error:
            audits[channel] = ChannelAudit(claim, refused=(str(error),))
    for channel, claim in claims.items():
        if channel == "update" and claim.unit == "client":
            audits[channel] = _canary_clients(claim, federation, dataset, seed, alpha)
    if not planted:
        return audits, {}
    black = mislabel(dataset, MISLABELLED, seed=seed + 7) if whole is not None else None
    share = share_of(alpha, len(planted), whole is not None)
    registered = {
        name: registration.register(claims[name], len(each.coins), alpha=share) for name, each in planted.items()
    }
    view, opened, run = _run(federation, black.dataset if black is not None else dataset, planted, on_round)
    for channel, each in planted.items():
        audits[channel] = _judged(claims[channel], each, registered[channel], view, opened, share, federation)
    ordered = {name: audits[name] for name in claims}
    if black is not None and whole is not None:
        ordered["released models"] = _black_box(whole, black, federation, run, share)
    return ordered, {"accuracy": run.summary["accuracy"]["local"]["mean"]}


def share_of(alpha: float, channels: int, released: bool) -> float:
    """Of alpha, what each channel with canaries and the released models get."""
    return alpha / max(1, channels + released)


def _canary_clients(
    claim: PrivacyClaim, federation: Federation, dataset: FederatedDataset, seed: int, alpha: float
) -> ChannelAudit:
    """F3: one round's claim, which the whole run's is composed of, in a run of canary clients."""
    try:
        one_round = canary_clients.claim_of_round(federation, claim.delta)
        found, coins = canary_clients.trials(federation, dataset, seed=seed)
        registered = registration.register(one_round, len(coins), alpha=alpha)
        bounds, refused = registration.bounds(one_round, registered, found, coins)
    except (AuditError, NotInView) as error:
        return ChannelAudit(claim, refused=(str(error),))
    about = {"count": len(coins), "digest": canary_clients.digest(federation, seed), "holders": len(federation.budgets)}
    verdict = judge(one_round, bounds, alpha)
    return ChannelAudit(one_round, tuple(bounds), verdict, tuple(refused), about, part_of_run=not federation.sampled)


MISLABELLED = 200
"""Records with false labels in a run with canaries: few, since each costs accuracy."""


def _black_box(claim: PrivacyClaim, black: Mislabelled, federation: Federation, run: Run, alpha: float) -> ChannelAudit:
    """What released models alone say of mislabelled records; no shape of their scores is assumed."""
    claim = replace(claim, mechanism="other", scope=f"released models, {claim.scope}")
    released = {name: run.weights(name).weights.numpy() for name in federation.budgets}
    registered = registration.register(claim, len(black.coins), alpha=alpha)
    found, refused = registration.bounds(claim, registered, black.scores(federation.network, released), black.coins)
    about = {"count": len(black.coins), "digest": black.digest, "holders": len(federation.budgets)}
    return ChannelAudit(claim, tuple(found), judge(claim, found, alpha), tuple(refused), about)


CHANNELS: tuple[CanaryChannel, ...] = ("update", "prototypes", "descriptor")
"""That can hold canaries."""


def _checked(channel: str) -> CanaryChannel:
    assert channel in CHANNELS
    return channel


def _run(
    federation: Federation,
    dataset: FederatedDataset,
    planted: Mapping[str, Canaries],
    on_round: Callable[[int, int], None],
) -> tuple[View, Opened, Run]:
    plants = {
        name: _Together([each.clients[name] for each in planted.values() if name in each.clients])
        for name in federation.budgets
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        options = Options(
            record_transcript=True,
            plants=plants,
            evaluate_every=federation.rounds,
            on_round=lambda done, row: on_round(done, federation.rounds),
        )
        run = train(federation, dataset, out=out, options=options)
        log = list(read_transcript(RunFolder(out).transcript))
    view = View.of(HonestServer(), federation, log)
    made = run.simulation.federation
    try:
        totals = {(at, str(channel)): value for (at, channel), value in reopened_totals(made, log).items()}
    except PlanError:  # values are seen singly
        totals = {}
    return view, Opened(totals, _descriptors(run, view)), run


def _descriptors(run: Run, view: View) -> dict[str, np.ndarray]:
    """client -> its noised sum of encodings: as it was sent, or as the client keeps it."""
    federation = run.simulation.federation
    if federation.home_descriptor is None:
        return view.descriptors() if "descriptor" in federation.channels else {}
    states = run.simulation.engine.states
    kept = {name: state.descriptor for name, state in states.items() if len(state.descriptor)}
    return {name: value.astype(np.float64) * federation.declared_by(name) for name, value in kept.items()}


def _judged(
    claim: PrivacyClaim,
    planted: Canaries,
    registered: registration.Registration,
    view: View,
    opened: Opened,
    alpha: float,
    federation: Federation,
) -> ChannelAudit:
    about = {"count": len(planted.coins), "digest": planted.digest, "holders": planted.holders}
    try:
        by_round = scores_by_round(planted, view, opened)
        found = list(by_round.values())[-1]
        bounds, refused = registration.bounds(claim, registered, found, planted.coins)
    except (NotInView, AuditError) as error:
        return ChannelAudit(claim, refused=(f"canaries cannot be scored: {error}",), canaries=about)
    verdict = judge(claim, bounds, alpha)
    curve = _by_count(claim, planted.coins, found, alpha)
    spent = _by_round(federation, planted, by_round, claim.delta, alpha) if planted.channel != "descriptor" else ()
    return ChannelAudit(claim, tuple(bounds), verdict, tuple(refused), about, curve, spent)


def _by_round(
    federation: Federation, planted: Canaries, scores: Mapping[int, np.ndarray], delta: float, alpha: float
) -> tuple[tuple[int, float, float], ...]:
    """(rounds done, what the channel alone has spent, best bound), at four points or fewer: for a picture."""
    curve = []
    for done in sorted({list(scores)[place * (len(scores) - 1) // 3] for place in range(4)}):
        claim = channel_claims(replace(federation, rounds=done), delta)[planted.channel]
        plan = registration.register(claim, len(planted.coins), alpha=alpha)
        try:
            bounds, _ = registration.bounds(claim, plan, scores[done], planted.coins)
        except AuditError:
            continue
        curve.append((done, claim.epsilon, max(bound.value for bound in bounds)))
    return tuple(curve)


def _by_count(claim: PrivacyClaim, coins: np.ndarray, found: np.ndarray, alpha: float) -> tuple[tuple[int, float], ...]:
    """(m, best bound) with the first m canaries alone: how the bound grows, for a picture and no verdict."""
    curve = []
    for m in np.unique(np.geomspace(min(50, len(coins)), len(coins), 6).astype(int)):
        plan = registration.register(claim, int(m), alpha=alpha)
        try:
            bounds, _ = registration.bounds(claim, plan, found[:m], coins[:m])
        except AuditError:
            continue
        curve.append((int(m), max(bound.value for bound in bounds)))
    return tuple(curve)
