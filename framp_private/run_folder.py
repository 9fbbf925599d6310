"""The folder a run leaves behind: which files there are, and the rules for starting, resuming and finishing one.

::

    config.yaml     the resolved configuration        metrics.jsonl   a row per round
    ledger.jsonl    the federation's ledger           ledgers/        one per client
    summary.json    written last: the run is done     report.html     one self-contained file
    run_id          random bytes that no other run has: its keys and signatures stand on them
    private/        its owner's alone, and never to be passed on with the rest
        checkpoint/     the last committed state: what clients keep is in it, raw descriptors too
        clients/        replies that hold noise, as each client keeps them
        key-holder/     what the party that opens encrypted sums has on its disk
        keys/           what signs ledgers and receipts, and a lock of who runs here
        transcript/     with --record-transcript: the bytes that the server received
        clients.json    how many records of which class each client has
        clients.html    the same as a page
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from framp_private.checkpoint import write_atomically
from framp_private.crypto.secret_files import PRIVATE, owners_folder, private_of
from framp_private.errors import CryptoError, RunError
from framp_private.federated.client import ClientState
from framp_private.privacy.chain import read_chain
from framp_private.randomness import Entropy

_STARTING = "config.yaml.partial"


def config_bytes(config: Mapping[str, Any]) -> bytes:
    """What `config.yaml` holds."""
    return yaml.safe_dump(dict(config), sort_keys=False).encode()


@dataclass(frozen=True)
class RunFolder:
    """A run's folder. `start` makes it; nothing is written before its check succeeds."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Where the last committed state is."""
        return self.path / PRIVATE / "checkpoint"

    @property
    def clients(self) -> Path:
        """Where each simulated client keeps what it answered."""
        return self.path / PRIVATE / "clients"

    @property
    def key_holder(self) -> Path:
        """Where the party that opens encrypted sums keeps its keys."""
        return self.path / PRIVATE / "key-holder"

    @property
    def keys(self) -> Path:
        """Where the keys are that sign."""
        return self.path / PRIVATE / "keys"

    @property
    def transcript(self) -> Path:
        """Where the bytes are that the server received, if they were recorded."""
        return self.path / PRIVATE / "transcript"

    @property
    def finished(self) -> bool:
        """Whether the run wrote its summary."""
        return (self.path / "summary.json").is_file()

    def check(self, config: Mapping[str, Any], resume: bool) -> None:
        """Refuses a folder that cannot take this run; writes nothing.

        Raises:
            RunError: a finished run is in the way, an unfinished one is there without `resume`, its config differs, or
                the folder holds something else.
        """
        if self.finished:
            raise RunError(f"out={self.path} holds a finished run: choose another folder, or remove it")
        if (self.path / "config.yaml").is_file():
            if not resume:
                raise RunError(
                    f"out={self.path} holds an unfinished run: add --resume to go on, or choose another folder"
                )
            before = self.config()
            changed = sorted(key for key in {*before, *config} if before.get(key) != config.get(key))
            if changed:
                raise RunError(
                    f"out={self.path} was started with other values of {', '.join(changed)}: "
                    "resume with its own config.yaml"
                )
        elif self.path.is_file() or (self.path.is_dir() and any(i.name != _STARTING for i in self.path.iterdir())):
            raise RunError(f"out={self.path} is not empty and holds no run: choose another folder")

    def start(self, config: Mapping[str, Any], resume: bool) -> None:
        """Checks the folder and makes it; what raises `RunError` in `check` does so here."""
        self.check(config, resume)
        if not (self.path / "config.yaml").is_file():
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(f"out={self.path} cannot be made: {error}") from error
            write_atomically(self.path / "config.yaml", config_bytes(config))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else runs in this folder inside; the lock ends with the process.

        Raises:
            RunError: another process does: two would draw noise for the same rounds.
        """
        private_of(self.path)
        owners_folder(self.keys)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(self.keys / "lock", flags, 0o600), "wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(
                    f"out={self.path} is in use by another process: wait for it, or choose another folder"
                ) from None
            yield

    def run_id(self) -> str:
        """A name that no other run has, made at the first call; the folder must have been started."""
        path = self.path / "run_id"
        if not path.is_file():
            write_atomically(path, Entropy().bytes(16).hex().encode())
        return path.read_text()

    def config(self) -> dict[str, Any]:
        """The resolved configuration; raises `RunError` if the folder holds no run."""
        try:
            return dict(yaml.safe_load((self.path / "config.yaml").read_text()))
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise RunError(f"{self.path} holds no run: config.yaml is missing or unreadable") from error

    def summary(self) -> dict[str, Any]:
        """The summary of a finished run; raises `RunError`."""
        try:
            return dict(json.loads((self.path / "summary.json").read_text()))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path} holds no finished run: resume it with --resume") from error

    def write_clients(self, rows: Mapping[str, Any], page: str) -> None:
        """What the operator alone may know of each client's records, as values and as a page."""
        folder = private_of(self.path)
        write_atomically(folder / "clients.json", json.dumps(rows, indent=1).encode(), secret=True)
        write_atomically(folder / "clients.html", page.encode(), secret=True)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Marks the run as done."""
        write_atomically(self.path / "summary.json", json.dumps(summary, indent=1).encode())

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        try:
            return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        except ValueError as error:
            raise RunError(f"{path} was altered: {error}; restore it from a copy") from error

    def ledger(self) -> list[dict[str, Any]] | None:
        """The rows of the federation's ledger, None where the run continues a shared one; raises `LedgerError`."""
        path = self.path / "ledger.jsonl"
        return read_chain(path) if path.is_file() else None

    def metrics_bytes(self) -> int:
        """Size of metrics.jsonl, which a checkpoint remembers."""
        path = self.path / "metrics.jsonl"
        return path.stat().st_size if path.is_file() else 0

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Adds one row."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def cut_metrics(self, size: int) -> None:
        """Forgets rows written after the checkpoint; raises `RunError` if earlier ones are missing."""
        path = self.path / "metrics.jsonl"
        if self.metrics_bytes() < size:
            raise RunError(f"{path} has lost rows that the checkpoint knows: restore it from a copy")
        if path.is_file():
            with path.open("r+b") as file:
                file.truncate(size)


@dataclass(frozen=True)
class ClientStore:
    """What each simulated client has on its own disk: its state, replaced after each reply that holds noise.

    A reply is stored before it is delivered, so that after a crash it is resent byte for byte and never drawn again.
    """

    folder: Path
    stored: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    def save(self, name: str, state: ClientState) -> None:
        """Replaces a client's state; it is on disk when this returns.

        What a protocol holds during a round is in no stored state, so that its trips change nothing there.
        """
        data = state.to_bytes()
        if self.stored.get(name) == data:
            return
        owners_folder(self.folder)
        write_atomically(self.folder / f"{name}.state", data, secret=True)
        self.stored[name] = data

    def load(self, name: str) -> ClientState | None:
        """A client's state, None if it never stored one; raises `WireError` if it was altered."""
        path = self.folder / f"{name}.state"
        return ClientState.from_bytes(path.read_bytes()) if path.is_file() else None


@dataclass(frozen=True)
class HolderStore:
    """What the key holder has on its own disk: key files, and what was opened, replaced before each sum leaves.

    Several holders may share one: they take turns, and each sees what the others have opened.
    """

    folder: Path

    def check(self) -> None:
        """Makes the record of what was opened, empty, where there are no keys yet.

        Raises:
            CryptoError: there are keys and no record of what they opened: they would open it again.
        """
        with self._alone():
            self._read()

    def update(self, change: Callable[[bytes], tuple[bytes, bytes]]) -> bytes:
        """See `Store.update`. Raises what `check` and `change` raise, and then nothing has changed."""
        with self._alone():
            data, reply = change(self._read())
            write_atomically(self.folder / "opened.state", data, secret=True)
            return reply

    def _read(self) -> bytes:
        path = self.folder / "opened.state"
        if path.is_file():
            return path.read_bytes()
        if any(self.folder.glob("*.context")):
            raise CryptoError(f"{path} is missing beside the keys whose use it records: restore it, or make new keys")
        write_atomically(path, b"", secret=True)
        return b""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        owners_folder(self.folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(self.folder / "lock", flags, 0o600), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
