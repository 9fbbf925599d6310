"""From a config to a finished run, and from a run folder back to its models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from framp_private.assemble import federation_of, make_config, method_of, network_of, trained_schema
from framp_private.checkpoint import load_checkpoint, write_atomically
from framp_private.config import Config
from framp_private.crypto.secret_files import owners_folder, private_of
from framp_private.data.base import ClientData, FederatedDataset
from framp_private.datasets import check_prepared, load_dataset
from framp_private.engines.in_process import RandomDrops
from framp_private.errors import RunError
from framp_private.federated.federation import Federation
from framp_private.models.target import TargetNetwork
from framp_private.privacy.events import Budget
from framp_private.randomness import Entropy, Streams
from framp_private.run_folder import RunFolder
from framp_private.simulation import Simulation
from framp_private.training import Options, Run, mark_of, train
from framp_private.wire import decode, encode


def new_folder(preset: str) -> Path:
    """`runs/PRESET-UTCSTAMP-xxxx`, a name no other run has."""
    return Path("runs") / f"{preset}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{Entropy().bytes(2).hex()}"


def run_config(
    config: Config,
    *,
    out: Path | None = None,
    data_root: Path | None = None,
    download: bool = False,
    resume: bool = False,
    options: Options = Options(),
) -> Run:
    """Trains what a config describes; `evaluate_every`, `checkpoint_every` and `home_steps` are taken from it.

    Raises:
        FrampError: see `errors`. Data and settings are checked before the folder is made.
    """
    settings = config.model_dump(mode="json")
    if out is not None:
        RunFolder(out).check(settings, resume)
    check_prepared(config)
    dataset = load_dataset(config, data_root, download)
    network = network_of(config, trained_schema(config, dataset.schema))
    federation = _federation(config, network, dataset)
    if federation.preparation is not None and out is not None:
        RunFolder(out).start(settings, resume)  # what preparation draws is kept in the folder, before the first round
        resume = True
    dataset = prepared(federation, dataset, out)
    if config.dropout:
        options = replace(options, drops=RandomDrops(config.dropout, Streams(config.seed).child("dropout")))
    options = replace(
        options,
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.checkpoint_every,
        home_steps=config.home_steps,
        home_learning_rate=config.home_learning_rate,
        home_decay=config.home_decay,
        home_batch_size=config.home_batch_size,
        threads=config.threads,
        budget=_budget(config),
    )
    return train(
        federation,
        dataset,
        exchanges=method_of(config).exchanges,
        out=out,
        config=settings,
        resume=resume,
        options=options,
    )


@dataclass(frozen=True, eq=False)
class Setup:
    """What a config describes, before anything runs: the records, the public facts, and whether anything is sent."""

    dataset: FederatedDataset
    federation: Federation
    exchanges: bool


def load_setup(config: Config, *, data_root: Path | None = None, out: Path | None = None) -> Setup:
    """Data set and federation of a config.

    Args:
        out: the run folder in which noisy aggregates of graphs are kept, where the config makes some.

    Raises:
        FrampError: as `run_config`, before anything is trained.
    """
    check_prepared(config)
    dataset = load_dataset(config, data_root)
    federation = _federation(config, network_of(config, trained_schema(config, dataset.schema)), dataset)
    return Setup(prepared(federation, dataset, out), federation, method_of(config).exchanges)


def load_run(
    folder: Path | str,
    *,
    data_root: Path | None = None,
    dataset: FederatedDataset | None = None,
    federation: Federation | None = None,
) -> Run:
    """A finished run, ready to predict: `load_run(DIR).model("client-00")`.

    Args:
        folder: a run folder. data_root: where the data set is, to describe unseen clients from.
        dataset, federation: those the run was made with, needed where it was made through the Python API.

    Raises:
        RunError: no finished run there. CheckpointError: its checkpoint is missing, truncated or altered.
    """
    stored = RunFolder(Path(folder))
    summary, settings = stored.summary(), stored.config()
    if dataset is None or federation is None:
        if "dataset" not in settings:
            raise RunError(f"{folder} was made with its own data and federation: pass dataset= and federation=")
        setup = load_setup(make_config(assignments=settings), data_root=data_root, out=stored.path)
        dataset, federation = dataset or setup.dataset, setup.federation
    checkpoint = load_checkpoint(stored.checkpoint)
    if checkpoint is None:
        raise RunError(f"{folder} has no checkpoint: it was removed after the run")
    exchanges = not any(name.startswith("home/") for name in checkpoint.tensors)
    simulation = Simulation(federation, dataset, exchanges=exchanges, mark=mark_of(stored.path))
    simulation.restore(checkpoint, look=True)
    return Run(simulation, summary, stored.path)


def prepared(federation: Federation, dataset: FederatedDataset, out: Path | None) -> FederatedDataset:
    """The records that a run trains on: as they are, or made of graphs, once, and kept in the run folder.

    Noise is drawn at most once for each client: what the folder holds is used again. Nothing of it leaves before the
    client has spent it, which it does with its first release.
    """
    made = federation.preparation
    if made is None:
        return dataset
    streams = federation.streams.child("bounded degree")
    # ledgers are opened only once all aggregates are stored
    files = RunFolder(out) if out is not None else None
    begun = out is not None and any((out / name).exists() for name in ("ledger.jsonl", "run_id", "private/checkpoint"))

    def records(name: str, data: ClientData) -> ClientData:
        if files is None:
            return made.records(data, made.draw(data, streams.child(name), Entropy()))
        path = files.clients / f"{name}.aggregates"
        if not path.is_file():
            if begun:
                raise RunError(f"{path} is gone: its noise was spent and is never drawn again; start a new run")
            private_of(files.path)
            owners_folder(path.parent)
            drawn = made.draw(data, streams.child(name), Entropy())
            write_atomically(path, encode(Rows(drawn.numpy())), secret=True)
        return made.records(data, torch.from_numpy(decode(path.read_bytes(), Rows).rows))

    clients = {name: records(name, data) for name, data in dataset.clients.items()}
    unseen = {name: records(name, data) for name, data in dataset.unseen.items()}
    return FederatedDataset(dataset.name, made.schema(dataset.schema), clients, unseen)


@dataclass(frozen=True)
class Rows:
    """A client's noisy aggregates, as they are stored: (n, columns) float32. Its own features are not among them."""

    rows: np.ndarray


def _federation(config: Config, network: TargetNetwork, dataset: FederatedDataset) -> Federation:
    """In a simulation clients declare what `declared` makes of the record numbers they have."""
    declared = {name: config.declared.of(data.n_train) for name, data in dataset.clients.items()}
    return federation_of(config, network, declared, graph=dataset.schema.kind == "graph")


def _budget(config: Config) -> Budget | None:
    """What each account may spend in all: the guarantee itself, unless a larger budget for several runs is named."""
    wanted = config.privacy
    if wanted is None or wanted.protects == "nothing":
        return None
    return Budget(wanted.budget or wanted.epsilon, wanted.delta, wanted.large_delta)
