"""A whole run: enrol, rounds, evaluation, checkpoints, summary. The method itself is in `federated/round.py`.

`Training` is a run that can be stepped, saved and restored; `train` drives it to the end and leaves a run folder behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framp_private import evaluation
from framp_private.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_atomically
from framp_private.data.base import FederatedDataset
from framp_private.engines.in_process import Drops, InProcess, nobody_drops
from framp_private.errors import CheckpointError
from framp_private.evaluation import Model, Serving
from framp_private.federated.client import Client, ClientState
from framp_private.federated.federation import Federation
from framp_private.federated.prototypes import GlobalPrototypes
from framp_private.federated.pullback import StepState
from framp_private.federated.round import enrol, run_round
from framp_private.federated.server import ServerState
from framp_private.home import HomeTraining
from framp_private.models.submodel import Moments
from framp_private.randomness import Entropy
from framp_private.report import render_report
from framp_private.run_folder import Ledgers, RunFolder
from framp_private.transcript import TRAFFIC_KEYS, Transcript
from framp_private.version import __version__

OnRound = Callable[[int, Mapping[str, Any]], None]
"""Called after each round with the number of finished rounds and the row of metrics.jsonl."""


@dataclass(frozen=True)
class Options:
    """What does not change the result of a run.

    Args:
        evaluate_every, checkpoint_every: rounds between two; the last round always has both.
        home_steps: steps of the training at home that follows the last round.
        record_transcript: keep every delivered byte in the run folder.
        drops: which clients stay silent in which round.
        on_round: a callback for progress.
    """

    evaluate_every: int = 5
    checkpoint_every: int = 1
    home_steps: int = 50
    record_transcript: bool = False
    drops: Drops = nobody_drops
    on_round: OnRound | None = None


@dataclass
class Seconds:
    """Wall-clock seconds by phase."""

    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Adds the time inside the block to `phase`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.phases[phase] = self.phases.get(phase, 0.0) + time.perf_counter() - start


class Training:
    """A run between two rounds. `exchanges` False trains each client at home instead."""

    def __init__(
        self,
        federation: Federation,
        dataset: FederatedDataset,
        *,
        exchanges: bool = True,
        drops: Drops = nobody_drops,
        transcript: Transcript | None = None,
    ) -> None:
        self.federation, self.dataset, self.exchanges = federation, dataset, exchanges
        clients = {name: Client(name, data, federation, Entropy()) for name, data in dataset.clients.items()}
        self.engine = InProcess(clients, drops=drops, transcript=transcript)
        self.state = ServerState.initial(federation)
        self.home = HomeTraining(federation, dataset) if not exchanges else None
        self._descriptors: dict[str, Tensor] = {}

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels this run sends on."""
        return self.federation.channels if self.exchanges else ()

    @property
    def serves(self) -> evaluation.Served:
        """The models clients have now."""
        return self.home or Serving(self.federation, self.state, self._descriptors)

    def enrol(self) -> None:
        """What happens once, before the first round."""
        if self.exchanges:
            self.engine.begin(-1)
            self.state = enrol(self.federation, self.state, self.engine.exchange)

    def step(self) -> dict[str, Any]:
        """One round; returns its row for metrics.jsonl."""
        index = self.state.round_index
        if self.home is not None:
            self.home.step(index)
            self.state = ServerState(index + 1, self.state.phi, self.state.step, self.state.prototypes)
            return {"round": index + 1, "cohort": len(self.dataset.clients), "survivors": len(self.dataset.clients)}
        self.engine.begin(index)
        self.state, report = run_round(self.federation, self.state, self.engine.exchange)
        return {
            "round": index + 1,
            "cohort": len(report.cohort),
            "survivors": len(report.survivors),
            **report.measurements,
        }

    def accuracies(self) -> dict[str, Any]:
        """Local test and validation accuracy now, by budget."""
        return {
            split: evaluation.by_budget(self.federation.budgets, values) if values else None
            for split, values in (
                (split, evaluation.local_accuracies(self.federation, self.serves, self.dataset, split))
                for split in ("test", "validation")
            )
        }

    def tensors(self) -> dict[str, Tensor]:
        """Every array of the run."""
        state = self.state
        found = {
            "phi": state.phi,
            "step.first": state.step.first,
            "step.second": state.step.second,
            "prototypes.values": state.prototypes.values,
            "prototypes.present": state.prototypes.present,
        }
        if state.moments is not None:
            found |= {"moments.first": state.moments.first, "moments.second": state.moments.second}
        found |= {f"descriptor/{name}": value for name, value in state.descriptors.items()}
        if self.home is not None:
            return found | {f"home/{name}": value for name, value in self.home.weights.items()}
        states = {name: np.frombuffer(value.to_bytes(), np.uint8).copy() for name, value in self.engine.states.items()}
        return found | {f"client/{name}": torch.from_numpy(value) for name, value in states.items()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes back to a checkpoint of the same run; raises `CheckpointError` if it is of another one."""
        found, facts = checkpoint.tensors, checkpoint.facts
        if facts["federation"] != self.federation.digest.hex():
            raise CheckpointError("the checkpoint belongs to a run with other settings, data sizes or code")

        def named(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}

        moments = Moments(found["moments.first"], found["moments.second"]) if "moments.first" in found else None
        self.state = ServerState(
            checkpoint.round_index,
            found["phi"],
            StepState(found["step.first"], found["step.second"], facts["step_count"]),
            GlobalPrototypes(found["prototypes.values"], found["prototypes.present"]),
            moments,
            named("descriptor/"),
        )
        self.engine.states |= {
            name: ClientState.from_bytes(value.numpy().tobytes()) for name, value in named("client/").items()
        }
        self.engine.traffic.totals = {way: dict(sizes) for way, sizes in facts["traffic"].items()}
        if self.home is not None:
            self.home.weights |= named("home/")

    def facts(self) -> dict[str, Any]:
        """Everything of the run that is no array."""
        return {
            "federation": self.federation.digest.hex(),
            "step_count": self.state.step.count,
            "traffic": self.engine.traffic.totals,
        }


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: its summary, its clients' models, and its folder if it has one."""

    training: Training
    summary: Mapping[str, Any]
    folder: Path | None = None

    def model(self, client: str) -> torch.nn.Module:
        """The client's personalised submodel, an ordinary module in evaluation mode."""
        return self.training.federation.network.as_module(self.weights(client).weights)

    def weights(self, client: str) -> Model:
        """The client's weights and mask; an unseen client gets the largest budget. Raises `KeyError` for an unknown name."""
        training = self.training
        data = {**training.dataset.clients, **training.dataset.unseen}[client]
        budgets = training.federation.budgets
        return training.serves(client, data, budgets.get(client, max(budgets.values())))


def train(
    federation: Federation,
    dataset: FederatedDataset,
    *,
    exchanges: bool = True,
    out: Path | None = None,
    config: Mapping[str, Any] | None = None,
    resume: bool = False,
    options: Options = Options(),
) -> Run:
    """Trains to the last round.

    Args:
        federation, dataset: what to train on what; the federation's clients are the data set's.
        exchanges: False for the `local` baseline. out: a run folder; without it nothing is written.
        config: what `config.yaml` and the summary say the settings were. resume: go on from the folder's checkpoint.
        options: evaluation, checkpoints, callbacks.

    Raises:
        FrampError: see `errors`; a folder then holds at most an unfinished run that can be resumed.
    """
    described = dict(config or {})
    folder = RunFolder(out) if out is not None else None
    if folder is not None:
        folder.prepare(described, resume)
    transcript = Transcript(folder.path / "transcript") if folder is not None and options.record_transcript else None
    training = Training(federation, dataset, exchanges=exchanges, drops=options.drops, transcript=transcript)
    seconds = Seconds()
    ledgers = Ledgers(folder.path, list(dataset.clients)) if folder is not None else None
    rows = _start(training, folder, ledgers, seconds)
    while training.state.round_index < federation.rounds:
        rows.append(_round(training, folder, ledgers, seconds, options))
    summary = _summarise(training, rows, described, ledgers, seconds, options)
    if folder is not None:
        page = render_report(summary, rows, described, __version__)
        write_atomically(folder.path / "report.html", page.encode())
        folder.write_summary(summary)
    return Run(training, summary, out)


def _start(
    training: Training, folder: RunFolder | None, ledgers: Ledgers | None, seconds: Seconds
) -> list[dict[str, Any]]:
    checkpoint = load_checkpoint(folder.path / "checkpoint") if folder is not None else None
    if folder is not None and checkpoint is not None:
        training.restore(checkpoint)
        folder.cut_metrics(checkpoint.facts["metrics_bytes"])
        seconds.phases |= checkpoint.facts["seconds"]
        return folder.metrics()
    if folder is not None:
        folder.cut_metrics(0)
    if ledgers is not None and "descriptor" in training.channels:
        ledgers.spend(tuple(training.dataset.clients), ("descriptor",), "enrolment")
    with seconds.measure("enrolment"):
        training.enrol()
    return []


def _round(
    training: Training, folder: RunFolder | None, ledgers: Ledgers | None, seconds: Seconds, options: Options
) -> dict[str, Any]:
    index, last = training.state.round_index, training.federation.rounds
    if ledgers is not None:
        uploads = tuple(channel for channel in training.channels if channel != "descriptor")
        ledgers.spend(tuple(training.dataset.clients), uploads, f"round {index}")
    with seconds.measure("rounds"):
        row = training.step()
    done = index + 1
    if done % options.evaluate_every == 0 or done == last:
        with seconds.measure("evaluation"):
            row["accuracy"] = training.accuracies()
    row["traffic"] = {way: sum(sizes.values()) for way, sizes in training.engine.traffic.totals.items()}
    if folder is not None and ledgers is not None:
        folder.append_metrics(row)
        if done % options.checkpoint_every == 0 or done == last:
            with seconds.measure("checkpoints"):
                facts = {
                    **training.facts(),
                    "metrics_bytes": folder.metrics_bytes(),
                    "ledgers": ledgers.heads(),
                    "seconds": dict(seconds.phases),
                }
                save_checkpoint(folder.path / "checkpoint", Checkpoint(done, training.tensors(), facts))
    if options.on_round is not None:
        options.on_round(done, row)
    return row


def _summarise(
    training: Training,
    rows: list[dict[str, Any]],
    config: Mapping[str, Any],
    ledgers: Ledgers | None,
    seconds: Seconds,
    options: Options,
) -> dict[str, Any]:
    federation, dataset, served = training.federation, training.dataset, training.serves
    with seconds.measure("evaluation"):
        local = evaluation.local_accuracies(federation, served, dataset)
        union = evaluation.union_accuracies(federation, served, dataset)
        unseen = evaluation.unseen_accuracies(federation, served, dataset) if training.exchanges else None
        extra = evaluation.table_metrics(federation, served, dataset) if dataset.schema.kind == "table" else None
    with seconds.measure("local training"):
        home = _after_local_training(training, options.home_steps) if training.exchanges else None
    empty = {**dict.fromkeys(evaluation.by_budget(federation.budgets, local)), "mean": None}
    claims = federation.plan.claims(training.channels)  # type: ignore[arg-type]
    return {
        "method": config.get("method", "custom"),
        "dataset": dataset.name,
        "seed": federation.streams.seed,
        "rounds": federation.rounds,
        "clients": len(dataset.clients),
        "unseen_clients": len(dataset.unseen),
        "accuracy": {
            "local": evaluation.by_budget(federation.budgets, local),
            "union": evaluation.by_budget(federation.budgets, union),
            "after_local_training": evaluation.by_budget(federation.budgets, home) if home else empty,
            "unseen": unseen or empty,
        },
        "selection": _selection(rows),
        "table": extra,
        "by_client": {
            name: {
                "budget": federation.budgets[name],
                "records": data.n_train,
                "classes": data.class_counts(dataset.schema.n_classes).tolist(),
                "local": local[name],
                "union": union[name],
                "after_local_training": home[name] if home else None,
            }
            for name, data in dataset.clients.items()
        },
        "privacy": {claim.unit: claim.as_row() for claim in claims},
        "traffic": {
            way: {key: sizes[key] for key in TRAFFIC_KEYS} for way, sizes in training.engine.traffic.totals.items()
        },
        "parameters": {"target": federation.network.n_parameters, "phi": federation.generator.n_phi},
        "seconds": {phase: round(value, 3) for phase, value in seconds.phases.items()},
        "ledgers": ledgers.heads() if ledgers is not None else {},
    }


def _after_local_training(training: Training, steps: int) -> dict[str, float]:
    federation, scores = training.federation, {}
    for name, data in training.dataset.clients.items():
        model = evaluation.home_trained(federation, training.serves, training.state.prototypes, name, data, steps)
        scores[name] = evaluation.accuracy(federation.network, model.weights, data, data.test)
    return scores


def _selection(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Two other habits of reporting, for comparison: the round of best validation accuracy, and the maximum over test
    accuracies, which is optimistic."""
    measured = [row for row in rows if row.get("accuracy")]
    chosen: dict[str, Any] = {}
    for name, split in (("best_validation", "validation"), ("max_test", "test")):
        known = [row for row in measured if row["accuracy"][split] is not None]
        if known:
            best = max(known, key=lambda row: row["accuracy"][split]["mean"])
            chosen[name] = {"round": best["round"], "local": best["accuracy"]["test"]}
    return chosen
