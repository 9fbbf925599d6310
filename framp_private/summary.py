"""`summary.json`: what a finished run says about itself. Its keys are a contract; the report is drawn from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

from framp_private import evaluation
from framp_private.costs import channel_costs, epsilon_by_round
from framp_private.data.base import FederatedDataset
from framp_private.federated.local_training import HomeSchedule
from framp_private.protections.base import Protection
from framp_private.protections.gaussian import Gaussian
from framp_private.protections.post_processed import PostProcessed
from framp_private.simulation import Simulation
from framp_private.transcript import TRAFFIC_KEYS

Accuracies = Mapping[str, float]


@dataclass
class Seconds:
    """Wall-clock seconds by phase."""

    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Adds the time inside the block to `phase`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.phases[phase] = self.phases.get(phase, 0.0) + perf_counter() - start


OBSERVED = ("clip_fraction", "signal_to_noise", "saturated")
"""What clients measure of a channel: records that were clipped, signal over noise, coordinates cut off at a bound."""


def summarise(
    simulation: Simulation,
    rows: Sequence[Mapping[str, Any]],
    method: str,
    schedule: HomeSchedule,
    seconds: Seconds,
) -> dict[str, Any]:
    """Evaluates the last state and gathers everything but the ledgers' heads, which the run folder knows."""
    federation, dataset, served = simulation.federation, simulation.dataset, simulation.serves
    with seconds.measure("evaluation"):
        local = evaluation.local_accuracies(federation, served, dataset)
        union = evaluation.union_accuracies(federation, served, dataset)
        unseen = evaluation.unseen_accuracies(federation, served, dataset) if simulation.exchanges else None
        table = evaluation.table_metrics(federation, served, dataset) if dataset.schema.kind == "table" else None
    with seconds.measure("home training"):
        home = _after_local_training(simulation, schedule) if simulation.exchanges else None
    by_budget = evaluation.by_budget(federation.budgets, local)
    nothing: evaluation.Table = dict.fromkeys(by_budget)
    return {
        "method": method,
        "dataset": dataset.name,
        "seed": federation.streams.seed,
        "rounds": federation.rounds,
        "clients": len(dataset.clients),
        "unseen_clients": len(dataset.unseen),
        "classes": dataset.schema.n_classes,
        "accuracy": {
            "local": by_budget,
            "union": evaluation.by_budget(federation.budgets, union),
            "after_local_training": evaluation.by_budget(federation.budgets, home) if home else nothing,
            "unseen": unseen or nothing,
        },
        "selection": _selection(rows),
        "table": table,
        "by_client": _by_client(simulation, local, union, home),
        "privacy": {claim.unit: claim.as_row() for claim in simulation.accounts.claims(simulation.exchanges)},
        "channels": _channels(simulation),
        "server_view": _server_views(simulation),
        "epsilon_by_round": _curve(simulation),
        "ledgers": {name: asdict(head) for name, head in simulation.accounts.heads().items()},
        "traffic": {way: {key: row[key] for key in TRAFFIC_KEYS} for way, row in simulation.traffic.items()},
        "parameters": {"target": federation.network.n_parameters, "phi": federation.generator.n_phi},
        "seconds": {phase: round(value, 3) for phase, value in seconds.phases.items()},
    }


def _channels(simulation: Simulation) -> dict[str, dict[str, Any]]:
    """Cost, noise and what was measured of each noised channel; empty for a run without a guarantee."""
    delta = simulation.accounts.delta
    if delta is None or not simulation.exchanges:
        return {}
    rows = channel_costs(simulation.federation, delta)
    for channel, row in rows.items():
        row |= {
            name: simulation.observed.mean(channel, name) for name in ("clip_fraction", "signal_to_noise", "saturated")
        }
    return rows


def _server_views(simulation: Simulation) -> dict[str, dict[str, Any]]:
    """What the server sees of each channel in use, and who noised it; empty where nothing is sent."""
    federation, client = simulation.federation, next(iter(simulation.federation.budgets))
    views: dict[str, dict[str, Any]] = {}
    for channel in simulation.channels:
        protection = federation.plan.protection(channel)
        view, at_source = protection.server_view(), channel == "update" and federation.trainer.event(0) is not None
        views[channel] = {
            "protection": " over ".join(type(each).__name__ for each in _nested(protection)),
            "trainer": type(federation.trainer).__name__ if channel == "update" else None,
            "noise": "client" if at_source else noised_by(protection),
            "guarantee": federation.event(channel, client).private,
            "granularity": view.granularity,
            "minimum_cohort": view.minimum_cohort,
            "trust": view.trust,
            "metadata": list(view.metadata),
        }
    return views


def _nested(protection: Protection) -> Iterator[Protection]:
    """A protection and those inside of it, outermost first."""
    inner: Protection | None = protection
    while inner is not None:
        yield inner
        inner = getattr(inner, "inner", None)


def noised_by(protection: Protection) -> str | None:
    """Who adds the noise: `client`, `shares` of all clients, `server`, `earlier` releases, None if nobody does."""
    if protection.noises_in_shares:
        return "shares"
    if protection.noises_total:
        return "server"
    if isinstance(protection, PostProcessed):
        return "earlier"
    return "client" if any(isinstance(each, Gaussian) for each in _nested(protection)) else None


def _curve(simulation: Simulation) -> list[tuple[int, float]]:
    delta = simulation.accounts.delta
    if delta is None or not simulation.exchanges or not all(math.isfinite(e) for e in simulation.epsilons.values()):
        return []
    return epsilon_by_round(simulation.federation, delta)


def _by_client(
    simulation: Simulation, local: Accuracies, union: Accuracies, home: Accuracies | None
) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "budget": simulation.federation.budgets[name],
            "declared": simulation.federation.declared[name] if simulation.federation.declared is not None else None,
            "epsilon": _finite(simulation.epsilons.get(name)),
            "local": local[name],
            "union": union[name],
            "after_local_training": home[name] if home else None,
        }
        for name in simulation.dataset.clients
    }


def client_rows(dataset: FederatedDataset) -> dict[str, dict[str, Any]]:
    """What the operator alone may know: how many records each client has for what, and of which classes."""
    return {
        name: {
            "records": data.n_train,
            "validation": len(data.validation),
            "test": len(data.test),
            "classes": data.class_counts(dataset.schema.n_classes).tolist(),
        }
        for name, data in {**dataset.clients, **dataset.unseen}.items()
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _after_local_training(simulation: Simulation, schedule: HomeSchedule) -> dict[str, float]:
    federation, scores = simulation.federation, {}
    for name, data in simulation.dataset.clients.items():
        served = simulation.serves(name, data, federation.budgets[name])
        model = evaluation.home_trained(federation, served, simulation.state.prototypes, name, data, schedule)
        scores[name] = evaluation.accuracy(federation.network, model.weights, data, data.test)
    return scores


def _selection(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Two other habits of reporting: the round of best validation accuracy, and the (optimistic) maximum over tests."""
    measured = [row for row in rows if row.get("accuracy")]
    chosen: dict[str, Any] = {}
    for name, split in (("best_validation", "validation"), ("max_test", "test")):
        known = [row for row in measured if row["accuracy"][split] is not None]
        if known:
            best = max(known, key=lambda row: row["accuracy"][split]["mean"])
            chosen[name] = {"round": best["round"], "local": best["accuracy"]["test"]}
    return chosen
