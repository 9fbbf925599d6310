"""A whole run: enrol, rounds, checkpoints, summary, report. The method itself is in `federated/round.py`.

Spending comes before releasing: a round's rows are in the ledgers before its first message is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from framp_private.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_atomically
from framp_private.crypto.secret_files import private_of
from framp_private.data.base import FederatedDataset
from framp_private.engines.in_process import Drops, nobody_drops
from framp_private.errors import ConfigError, ModelError, PlanError, RunError
from framp_private.evaluation import Model
from framp_private.federated.accounts import Accounts
from framp_private.federated.client import Plant
from framp_private.federated.dp_sgd import GRAPHS
from framp_private.federated.federation import Federation
from framp_private.federated.local_training import Decay, HomeSchedule
from framp_private.federated.per_sample import right
from framp_private.privacy.chain import Head
from framp_private.privacy.events import Budget, check_delta_of
from framp_private.provenance import commitment, provenance
from framp_private.report import render_clients, render_report
from framp_private.run_folder import ClientStore, HolderStore, RunFolder
from framp_private.simulation import Simulation
from framp_private.summary import Seconds, client_rows, summarise
from framp_private.transcript import Transcript
from framp_private.version import __version__

OnRound = Callable[[int, Mapping[str, Any]], None]
"""Called after each round with the number of finished rounds and the row of metrics.jsonl."""


@dataclass(frozen=True)
class Options:
    """What does not change the models of a run.

    Args:
        evaluate_every, checkpoint_every: rounds between two; the last round always has both.
        home_steps, home_learning_rate, home_decay, home_batch_size: of the training at home after the last round.
        record_transcript: keep every delivered byte in the run folder.
        drops: which clients stay silent in which round (a simulated failure).
        threads: clients that train side by side; the models are the same for any number.
        budget: what each account may spend; needed for a guarantee, as it names delta. ledger: a folder of ledgers that
            this run continues; without it they are the run's own.
        on_round: a callback for progress. plants: an auditor's canaries, by client; they cost utility.
    """

    evaluate_every: int = 5
    checkpoint_every: int = 1
    home_steps: int = 50
    home_learning_rate: float = 0.05
    home_decay: Decay = "constant"
    home_batch_size: int | None = 16
    record_transcript: bool = False
    drops: Drops = nobody_drops
    threads: int = 1
    budget: Budget | None = None
    ledger: Path | None = None
    on_round: OnRound | None = None
    plants: Mapping[str, Plant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = (self.evaluate_every, self.checkpoint_every, self.home_steps, self.threads)
        if min(counts) < 1:
            raise ConfigError(f"evaluate_every, checkpoint_every, home_steps, threads = {counts}: all are at least 1")


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: its summary, its clients' models, and its folder if it has one."""

    simulation: Simulation
    summary: Mapping[str, Any]
    folder: Path | None = None

    def model(self, client: str) -> torch.nn.Module:
        """The client's personalised submodel: an ordinary module in evaluation mode. Raises `RunError`."""
        return self.simulation.federation.network.as_module(self.weights(client).weights)

    def weights(self, client: str) -> Model:
        """The client's weights and mask; an unseen client gets the largest budget. Raises `RunError` if it has none."""
        dataset, budgets = self.simulation.dataset, self.simulation.federation.budgets
        known = {**dataset.clients, **(dataset.unseen if self.simulation.exchanges else {})}
        if client not in known:
            raise RunError(f"client={client!r} has no model in this run: known are {', '.join(known)}")
        noised = self.simulation.federation.record_level or self.simulation.federation.home_descriptor is not None
        if client in dataset.unseen and noised:
            raise RunError(
                f"client={client!r} never enrolled: a model for it takes a release of its descriptor, which no account "
                "holds; enrol it in a run of its own"
            )
        if client in dataset.clients and not self.simulation.may_serve(client):
            raise RunError(
                f"client={client!r} took part in no round, so that no account holds a release for its model: ask it in "
                "a run of its own, or train at home"
            )
        return self.simulation.serves(client, known[client], budgets.get(client, max(budgets.values())))


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
        exchanges: False for the `local` baseline.
        out: a run folder; without it nothing is written.
        config: what `config.yaml` says the settings were.
        resume: go on from the folder's last checkpoint.
        options: evaluation, checkpoints, callbacks.

    Raises:
        RunError: the folder cannot be used, or clients of federation and data set differ.
        FrampError: see `errors`; a folder then holds at most an unfinished run that can be resumed.
    """
    _check_fit(federation, dataset, exchanges, options.budget)
    if options.ledger is not None and out is not None:
        _check_partition(options.ledger, dataset.partition_digest)
    described = dict(config or {})
    folder = _Folder(out, described, resume) if out is not None else None
    with one_thread(), folder.locked() if folder is not None else nullcontext():
        transcript = _transcript(out, options.record_transcript, resume)
        simulation = _simulation(federation, dataset, exchanges, transcript, folder, options)
        seconds = Seconds()
        rows = _begun(simulation, folder, seconds)
        while simulation.state.round_index < federation.rounds:
            rows.append(_round(simulation, folder, seconds, options))
        simulation.settle()
        summary = summarise(
            simulation,
            rows,
            str(described.get("method", "custom")),
            HomeSchedule(options.home_steps, options.home_learning_rate, options.home_decay, options.home_batch_size),
            seconds,
        )
        summary["provenance"] = provenance(described, dataset.fingerprint, out)
        if folder is not None:
            folder.finish(summary, rows, described, client_rows(dataset))
        return Run(simulation, summary, out)


def _simulation(
    federation: Federation,
    dataset: FederatedDataset,
    exchanges: bool,
    transcript: Transcript | None,
    folder: _Folder | None,
    options: Options,
) -> Simulation:
    """The parties before the first round, with what they keep in the run's folder where there is one."""
    files = RunFolder(folder.path) if folder is not None else None
    return Simulation(
        federation,
        dataset,
        exchanges=exchanges,
        drops=options.drops,
        transcript=transcript,
        threads=options.threads,
        accounts=_accounts(federation, folder, options),
        store=ClientStore(files.clients) if files is not None else None,
        holder_store=HolderStore(files.key_holder) if files is not None else None,
        plants=options.plants,
        mark=mark_of(files.path if files is not None else None),
        nonce=bytes.fromhex(files.run_id()) if files is not None else b"",
    )


def _begun(simulation: Simulation, folder: _Folder | None, seconds: Seconds) -> list[dict[str, Any]]:
    """The rows of the rounds that are done: of the last checkpoint, or none after enrolment."""
    rows = folder.restore(simulation, seconds) if folder is not None else None
    if rows is not None:
        return rows
    with seconds.measure("enrolment"):
        simulation.enrol()
    if folder is not None and simulation.federation.once:  # a descriptor that was noised must not be asked for again
        folder.checkpoint(simulation, seconds)
    return []


def mark_of(out: Path | None) -> Callable[[str], str]:
    """What checkpoints say of a run's data: a hash of few values gives them away, so it is keyed where it is stored."""
    if out is None:
        return str
    key = RunFolder(out).keys / "data-commitment.key"
    return lambda fingerprint: commitment(fingerprint, key)


def _check_fit(federation: Federation, dataset: FederatedDataset, exchanges: bool, budget: Budget | None) -> None:
    """Refuses what does not fit together, or what no guarantee holds for, before anything is written or sent."""
    if exchanges and budget is not None:
        true = {name: data.n_train for name, data in dataset.clients.items()}
        check_delta_of(budget, federation.unit, federation.declared or true)
    if list(federation.budgets) != list(dataset.clients):
        raise RunError("the federation's clients are not the data set's: pass list(dataset.clients) to federate")
    network, schema = federation.network, dataset.schema
    if network.n_classes != schema.n_classes:
        raise ModelError(f"the network has {network.n_classes} outputs and the data {schema.n_classes} classes")
    first = next(iter(dataset.clients.values()))
    if exchanges and federation.record_level:
        if first.edge_index is not None:
            raise PlanError(GRAPHS)
        right(getattr(federation.trainer, "mode", "auto"), network, False, schema.input_shape)
        return
    network.probe(first.x if first.edge_index is not None else first.x[:1], first.edge_index)


def _transcript(out: Path | None, wanted: bool, resume: bool) -> Transcript | None:
    """A run that was begun with a transcript goes on with it; one that was not cannot begin it halfway."""
    if out is None:
        return None
    folder = RunFolder(out).transcript
    begun = folder.is_dir()
    if wanted and resume and not begun and (out / "metrics.jsonl").is_file():
        raise RunError(f"out={out} was begun without a transcript: resume it without --record-transcript")
    return Transcript(folder) if wanted or (resume and begun) else None


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread inside: how many there are would change the order of floating-point sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Folder:
    """A run folder while its run goes on."""

    def __init__(self, path: Path, config: Mapping[str, Any], resume: bool) -> None:
        self._files = RunFolder(path)
        self._files.start(config, resume)
        self.locked = self._files.locked
        self.path, self.run_id = path, self._files.run_id

    def restore(self, simulation: Simulation, seconds: Seconds) -> list[dict[str, Any]] | None:
        """Goes back to the last checkpoint and returns the rows until then; None if there is none."""
        checkpoint = load_checkpoint(self._files.checkpoint)
        self._files.cut_metrics(checkpoint.facts["metrics_bytes"] if checkpoint is not None else 0)
        if checkpoint is None:
            simulation.recover()
            return None
        simulation.restore(checkpoint)
        simulation.accounts.check({name: Head(**row) for name, row in checkpoint.facts["ledgers"].items()})
        seconds.phases |= checkpoint.facts["seconds"]
        return self._files.metrics()

    def record(self, simulation: Simulation, row: Mapping[str, Any], checkpointed: bool, seconds: Seconds) -> None:
        """A finished round: its row, and a checkpoint if it is due."""
        self._files.append_metrics(row)
        if checkpointed:
            self.checkpoint(simulation, seconds)

    def checkpoint(self, simulation: Simulation, seconds: Seconds) -> None:
        """Commits the state as it is now."""
        with seconds.measure("checkpoints"):
            facts = {
                **simulation.facts(),
                "metrics_bytes": self._files.metrics_bytes(),
                "seconds": dict(seconds.phases),
            }
            done = Checkpoint(simulation.state.round_index, simulation.tensors(), facts)
            save_checkpoint(self._files.checkpoint, done)

    def finish(
        self,
        summary: dict[str, Any],
        rows: list[dict[str, Any]],
        config: Mapping[str, Any],
        clients: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Writes the report and the operator's page of clients, then the summary, which marks the run as done."""
        self._files.write_clients(clients, render_clients(clients))
        page = render_report(summary, rows, config, __version__, ledger=self._files.ledger())
        write_atomically(self._files.path / "report.html", page.encode())
        self._files.write_summary(summary)


def _accounts(federation: Federation, folder: _Folder | None, options: Options) -> Accounts:
    """The run's accounts: in a folder of ledgers that several runs share, in its own folder, or in memory."""
    if options.ledger is not None:
        if folder is None:
            raise RunError("a shared ledger needs a run folder, which names the run in it: pass out=")
        run, scope = f"{folder.run_id()}/", f"all runs in {options.ledger.name}"
        return Accounts(federation, budget=options.budget, folder=options.ledger, run=run, scope=scope)
    return Accounts(federation, budget=options.budget, folder=folder.path if folder is not None else None)


def _check_partition(ledger: Path, digest: str) -> None:
    """Refuses a shared ledger whose clients held other records: an account is about the records of one client.

    A record that another run dealt to another client has spent at both, and the largest of their accounts would
    understate it. What is kept is a keyed hash of who holds which records, its owner's alone.

    Raises:
        RunError: the partition is another one than the ledger began with.
    """
    keys = private_of(ledger) / "keys"
    kept, mark = keys / "partition", commitment(digest, keys / "partition.key")
    if not kept.is_file():
        write_atomically(kept, mark.encode(), secret=True)
    elif kept.read_text() != mark:
        raise RunError(
            f"--ledger {ledger} is about other records, or the same at other clients, than this run's: a record that "
            "moved would have spent at both; give the run the same data and data_seed, or a ledger of its own"
        )


def _round(simulation: Simulation, folder: _Folder | None, seconds: Seconds, options: Options) -> dict[str, Any]:
    index, last = simulation.state.round_index, simulation.federation.rounds
    with seconds.measure("rounds"):
        row = simulation.step()
    done = index + 1
    if done % options.evaluate_every == 0 or done == last:
        with seconds.measure("evaluation"):
            row["accuracy"] = simulation.accuracies()
    row["traffic"] = {way: sum(sizes.values()) for way, sizes in simulation.traffic.items()}
    if folder is not None:
        # clients keep one reply each, and a total that was noised and acted on must not be noised again
        due = simulation.federation.once or done % options.checkpoint_every == 0 or done == last
        folder.record(simulation, row, due, seconds)
    if options.on_round is not None:
        options.on_round(done, row)
    return row
