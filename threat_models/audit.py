"""One audit: attacks on what was recorded, canaries through a run of the same federation, replays of the real client.

    transcript  ──> views ──> attacks ──> scores | truth ──> results
    federation  ──> run with canaries ──> bounds ──> verdict on each channel's claim
    client      ──> replay on neighbours ──> findings
    claim       ──> exact epsilon of the declared noise ──> findings

A claim is refuted by a bound above it, by an attack whose confidence limit is over its ceiling, or by a finding. Alpha
is shared: half for canaries, a quarter for attacks, a quarter for checks.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from framp_private import Federation, Summing, __version__
from threat_models.auditing import claims_check, masks_check, noise_check, parts_check, replay_checks
from threat_models.auditing.planted import ChannelAudit, audit_channels
from threat_models.auditing.replay import Finding, bounds
from threat_models.claims import PrivacyClaim, Verdict, judge
from threat_models.errors import AuditError, NotInView, NotResolvable
from threat_models.protocol import check_protocol
from threat_models.results import Result, shared
from threat_models.summing_up import sentence
from threat_models.trials import Subject, attack_run, chosen, facts_of
from threat_models.trials.inversion import pictures
from threat_models.trials.released import LEAST
from threat_models.trials.subject import References

SCHEMA = 1
OnStage = Callable[[str, int, int], None]
"""(stage, done, total): for progress bars."""


@dataclass(frozen=True)
class AuditPlan:
    """What is fixed before anything is seen.

    Args:
        alpha: chance that an audit calls a true claim refuted. canaries: on each channel, at most. seed: of canaries,
            coins and replays. attacks: ids or adversaries, None for all. canary_run, replays: whether they are made.
        references: models trained by the auditor to hold each released one against; 0 for none.
        pictures: whether reconstructed records may stand in the report beside their originals: only if the records
            are public.
    """

    alpha: float = 0.05
    canaries: int = 3000
    seed: int = 0
    attacks: Sequence[str] | None = None
    canary_run: bool = True
    replays: bool = True
    references: int = 0
    pictures: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise AuditError(f"alpha={self.alpha} must lie in (0, 1): it is the chance of refuting a true claim")
        if self.canaries < 0 or 0 < self.canaries < LEAST_CANARIES:
            raise AuditError(f"canaries={self.canaries}: use 0 for none, or at least {LEAST_CANARIES}")

        if self.references < 0 or 0 < self.references < LEAST:
            raise AuditError(f"references={self.references}: use 0 for none, or at least {LEAST}")


LEAST_CANARIES = 100
"""On a channel: fewer cannot show an epsilon of one."""


@dataclass(frozen=True, eq=False)
class AuditReport:
    """Everything an audit found; `to_json` is the same bytes for the same findings."""

    source: str
    plan: AuditPlan
    claim: PrivacyClaim
    verdict: Verdict
    channels: Mapping[str, ChannelAudit]
    results: Sequence[Result]
    findings: Sequence[Finding]
    facts: Mapping[str, Any]
    notes: Sequence[str] = ()
    pictures: Sequence[Mapping[str, Any]] = field(default_factory=list)

    @property
    def refuted(self) -> bool:
        """Whether any claim is."""
        states = [each.verdict.state for each in self.channels.values() if each.verdict is not None]
        return self.verdict.state == "refuted" or "refuted" in states

    def as_rows(self) -> dict[str, Any]:
        """For `audit.json`."""
        claims = [{**self.claim.as_row(), "state": self.verdict.state, "words": self.verdict.words}]
        for channel, each in self.channels.items():
            claims.append(
                {
                    **each.claim.as_row(),
                    "channel": channel,
                    "state": each.verdict.state if each.verdict else "not_audited",
                    "words": each.verdict.words if each.verdict else "; ".join(each.refused),
                    "bounds": [bound.as_row() for bound in each.bounds],
                    "refused": list(each.refused),
                    "canaries": dict(each.canaries),
                    "by_m": [[m, _finite(value)] for m, value in each.by_m],
                    "by_round": [[done, spent, _finite(value)] for done, spent, value in each.by_round],
                }
            )
        attacks = [result.as_row() for result in self.results]
        return {
            "schema": SCHEMA,
            "summary": sentence({"claims": claims, "attacks": attacks}),
            "version": __version__,
            "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
            "threshold_strategy": "numbers of guesses registered from the claim before any score was seen",
            "source": self.source,
            "plan": asdict(self.plan),
            "claims": claims,
            "attacks": attacks,
            "findings": [asdict(finding) for finding in self.findings],
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "pictures": list(self.pictures),
        }

    def to_json(self) -> str:
        """Sorted and indented."""
        return json.dumps(self.as_rows(), indent=1, sort_keys=True, allow_nan=False)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def run_audit(
    subject: Subject,
    claim: PrivacyClaim,
    plan: AuditPlan = AuditPlan(),
    *,
    source: str = "transcript",
    cache: Path | None = None,
    on_stage: OnStage = lambda stage, done, total: None,
) -> AuditReport:
    """Attacks, canaries and replays on one run.

    Args:
        subject: what is audited. claim: of the whole run. source: `transcript`, or `replay` where the run was made for
            the audit because none was recorded. cache: a folder of the operator's for reference models.
    """
    trained = References(plan.references, cache, lambda done, total: on_stage("reference models", done, total))
    subject = replace(subject, references=trained)
    done: list[str] = []
    asked = len(chosen(subject, plan.attacks))

    def attacked(id: str) -> None:
        done.append(id)
        on_stage("attacks", len(done), asked)

    results = shared(attack_run(subject, plan.attacks, attacked), plan.alpha / 4)
    channels, facts, notes = _with_canaries(subject, claim, plan, on_stage)
    findings = list(claims_check.check_claim(subject.facts, claim)) if math.isfinite(claim.epsilon) else []
    findings += check_protocol(subject.facts, subject.dataset, folder=subject.folder, seed=plan.seed)
    notes += _unchecked(subject, claim)
    if masks_check.masked(subject.facts):
        findings += masks_check.check_masks(subject.server, alpha=plan.alpha / 16)
    if plan.replays and not subject.graph:
        on_stage("replays", 0, 1)
        more, measured, why = _replayed(subject, plan)
        findings, notes = findings + more, notes + why
        facts["mechanisms"] = [each.as_row() for each in measured]
        on_stage("replays", 1, 1)
    shown: list[dict[str, Any]] = []
    if plan.pictures and not subject.graph:
        try:
            shown = pictures(subject)
        except (NotInView, NotResolvable) as error:
            notes.append(f"no reconstructed pictures: {error}")
    verdict = _verdict(claim, channels, results, findings, plan)
    return AuditReport(source, plan, claim, verdict, channels, results, findings, facts, notes, shown)


def _with_canaries(
    subject: Subject, claim: PrivacyClaim, plan: AuditPlan, on_stage: OnStage
) -> tuple[dict[str, ChannelAudit], dict[str, Any], list[str]]:
    """Channels' audits, facts of the subject and of the run with canaries, and why a channel has none."""
    facts: dict[str, Any] = facts_of(subject)
    if not plan.canary_run or subject.graph or not math.isfinite(claim.epsilon):
        return {}, facts, []
    channels, about = audit_channels(
        subject.facts,
        subject.dataset,
        delta=claim.delta,
        alpha=plan.alpha / 2,
        canaries=plan.canaries,
        seed=plan.seed,
        whole=claim if claim.unit == "record" else None,
        on_round=lambda t, total: on_stage("run with canaries", t, total),
    )
    facts |= {f"canary_{name}": value for name, value in about.items()}
    return channels, facts, [f"{name}: {why}" for name, each in channels.items() for why in each.refused]


def _unchecked(subject: Subject, claim: PrivacyClaim) -> list[str]:
    """What this audit has no means for, so that silence is not taken for a pass."""
    found = []
    if math.isfinite(claim.epsilon) and claims_check.exact_epsilon(subject.facts, claim.delta) is None:
        found.append("the claim was not computed by another road: not all releases are Gaussian, or cohorts are fixed")
    if subject.graph:
        found.append("records are nodes of graphs: no canaries, no replays, and attacks on links and nodes alone")
    elif not subject.exchangeable:
        found.append("test records have another mix of classes than training records: membership has no ceiling here")
    if subject.natural:
        found.append("clients are sites of their own: telling whose a record is has no ceiling here")
    return found


MECHANISM_TRIALS = 20_000
"""Of each mechanism alone: enough to see a tenth of its noise missing."""


def _replayed(subject: Subject, plan: AuditPlan) -> tuple[list[Finding], list[noise_check.Measured], list[str]]:
    """Grey-box checks on the client with the largest budget; what was measured; and why some could not be made."""
    facts: Federation = subject.facts
    client = max(facts.budgets, key=lambda name: facts.budgets[name])
    data = subject.dataset.clients[client]
    if not bounds(facts, client):
        return [], [], ["no channel is noised by clients: there is nothing to replay"]
    if facts.secure and isinstance(facts.trainer, Summing):
        found = parts_check.check_parts(facts, client, data)
        return found + parts_check.check_own_noise(facts, seed=plan.seed, alpha=plan.alpha / 8), [], []
    if facts.secure:
        return [], [], ["values are clipped and noised inside a secure sum of whole clients: see the canaries"]
    whole = replay_checks.mechanism(facts)
    found = replay_checks.check_neighbours(facts, client, data) + replay_checks.check_noise(whole, client, data)
    found += replay_checks.check_sampling(facts, client, data, alpha=plan.alpha / 16)
    measured: list[noise_check.Measured] = []
    if facts.budgets[client] == 1 or facts.pullback.value == "server":
        settings: dict[str, Any] = {"seed": plan.seed, "alpha": plan.alpha / 8, "least": MECHANISM_TRIALS}
        measured = noise_check.measure(whole, client, data, **settings)
        found += noise_check.findings(measured)
    return found, measured, []


def _verdict(
    claim: PrivacyClaim,
    channels: Mapping[str, ChannelAudit],
    results: Sequence[Result],
    findings: Sequence[Finding],
    plan: AuditPlan,
) -> Verdict:
    """A channel's lower bound is one of the run's: what a part spends, the whole has spent."""
    if findings:
        first = findings[0]
        return Verdict("refuted", math.inf, f"{first.check} on {first.channel}: {first.words}")
    broken = [result for result in results if result.leak == "violation"]
    if broken:
        return Verdict("refuted", math.inf, f"attack {broken[0].id}, {broken[0].words}")
    if any(each.claim.mechanism != "gaussian" for name, each in channels.items() if name != "released models"):
        claim = replace(claim, mechanism="other")
    # one round's bound counts for the run only where the run has all of it, and not what is left after sampling
    found = [bound for each in channels.values() if each.part_of_run for bound in each.bounds]
    if not math.isfinite(claim.epsilon):
        return Verdict("not_claimed", 0.0)
    verdict = judge(claim, found, plan.alpha)
    without = [name for name, each in channels.items() if each.verdict is None]
    if verdict.state == "consistent" and without:
        return replace(verdict, by=f"no canary tested {', '.join(without)}")
    return verdict
