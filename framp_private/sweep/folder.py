"""The folder a sweep leaves behind.

::

    sweep.yaml      the sweep as it was read          storage         the address of its trials, without a password
    study.db        the trials, unless elsewhere      trials/NNNN/    a run folder for each
    ledgers/        what the whole sweep has spent    keys/           what signs them: not to be passed on
    summary.json    points, frontier, cost            report.html     one self-contained file
    workers.log     what workers printed
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from framp_private.checkpoint import write_atomically
from framp_private.errors import ConfigError, RunError
from framp_private.sweep.reading import sweep_of
from framp_private.sweep.spec import Sweep

_OWN = {
    "study.db",
    "study.db.lock",
    "study.db-journal",
    "sweep.yaml.partial",
    "storage.partial",
    "storage",
    "workers.log",
}


OWN = "study.db"
"""The study of a sweep that keeps it in its folder, and what `storage` says then."""


def check_name(path: Path) -> None:
    """Raises `RunError` for a path that cannot be written down: reports, messages and settings are text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise RunError(f"out={str(path)!r} is no text in UTF-8: rename that folder, or choose another") from None


@dataclass(frozen=True)
class SweepFolder:
    """A sweep's folder. `start` makes it."""

    path: Path

    @property
    def begun(self) -> bool:
        """Whether a sweep was started here."""
        return (self.path / "sweep.yaml").is_file()

    @property
    def finished(self) -> bool:
        """Whether a summary is here in which every trial has ended."""
        try:
            trials = json.loads((self.path / "summary.json").read_text())["trials"]
            return bool(trials["waiting"] == trials["running"] == 0)
        except (OSError, ValueError, LookupError, TypeError):
            return False

    @property
    def database(self) -> Path:
        """The file of the study that is kept in the folder."""
        return self.path.resolve() / OWN

    @property
    def log(self) -> Path:
        """Where workers print."""
        return self.path / "workers.log"

    def trial(self, number: int) -> Path:
        """A trial's run folder."""
        return self.path / "trials" / f"{number:04d}"

    def sweep(self) -> Sweep:
        """The sweep that was started here. Raises `RunError`."""
        try:
            return sweep_of(dict(yaml.safe_load((self.path / "sweep.yaml").read_text())))
        except (OSError, ValueError, TypeError, yaml.YAMLError, ConfigError) as error:
            raise RunError(f"{self.path} holds no sweep: sweep.yaml is missing or unreadable ({error})") from error

    def _recorded(self) -> tuple[str, str]:
        """Where the trials are, and the name that their study and this folder share. Raises `RunError`."""
        try:
            address, identity = (self.path / "storage").read_text(encoding="utf-8").split("\n")
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path} holds no sweep: its file `storage` is missing or was altered") from error
        return address, identity

    @property
    def own(self) -> bool:
        """Whether the trials are in the folder's own file, wherever the folder was moved or copied to."""
        return not self.begun or self._recorded()[0] == OWN

    @property
    def identity(self) -> str:
        """What tells this sweep from all others of one name. Raises `RunError`."""
        return self._recorded()[1]

    def located(self) -> str | Path:
        """Where the trials are: the folder's own file, or an address without its password."""
        return self.database if self.own else self._recorded()[0]

    def same(self, file: Path | None, shown: str) -> bool:
        """Whether a storage is this sweep's: by its file, or by its address without a password."""
        return file == self.database if self.own else shown == self._recorded()[0]

    @property
    def default(self) -> str | Path:
        """The storage where none is named: the one it was begun with, if that needs no password; else its own file."""
        begun = self.located()
        return begun if isinstance(begun, Path) or begun.startswith("sqlite") else self.database

    def summary(self) -> dict[str, Any]:
        """The summary as it was last written; raises `RunError`."""
        try:
            return dict(json.loads((self.path / "summary.json").read_text()))
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self.path} holds no summary of a sweep: go on with `framp-private sweep --resume`"
            ) from error

    def check(self, sweep: Sweep) -> None:
        """Refuses a folder that cannot take this sweep; writes nothing. Raises `RunError`."""
        if self.begun:
            before, now = self.sweep().as_row(), sweep.as_row()
            changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key)) or ["order of its axes"]
            if self.sweep().digest != sweep.digest:
                raise RunError(
                    f"out={self.path} was started with another {', '.join(changed)}: choose another folder, or go on "
                    f"with {self.path / 'sweep.yaml'}"
                )
        elif self.path.is_file() or (self.path.is_dir() and any(i.name not in _OWN for i in self.path.iterdir())):
            raise RunError(f"out={self.path} is not empty and holds no sweep: choose another folder")

    def make(self) -> None:
        """Makes the folder itself, which may be there. Raises `RunError`."""
        check_name(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"out={self.path} cannot be made: {error}") from error

    def start(self, sweep: Sweep, file: Path | None, address: str, identity: str) -> None:
        """Writes down which sweep it is, and where its trials are. Raises `RunError`."""
        self.check(sweep)
        self.make()
        try:
            if not self.begun:
                where = OWN if file == self.database else address
                write_atomically(self.path / "storage", f"{where}\n{identity}".encode())
                write_atomically(self.path / "sweep.yaml", yaml.safe_dump(sweep.as_row(), sort_keys=False).encode())
            # a worker that could not make it would die, and its trial with it
            os.close(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            raise RunError(f"out={self.path} cannot be made: {error}") from error

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes the summary, whole or not at all."""
        write_atomically(self.path / "summary.json", json.dumps(summary, indent=1).encode())

    def show(self, page: str) -> None:
        """Writes the report."""
        write_atomically(self.path / "report.html", page.encode())
