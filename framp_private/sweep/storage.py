"""Where a sweep's trials are: a database that Optuna reads and writes, and one lock over it for all who share it.

SQLite is one file and needs nothing started; PostgreSQL or MySQL serve several machines. The lock makes planning,
claiming and finishing a trial one step each, whoever shares the study.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, NoSuchModuleError, SQLAlchemyError

from framp_private.errors import ConfigError, StorageError
from framp_private.sweep.attributes import hold_long_texts
from framp_private.sweep.locks import LockLost, ServerLock, file_lock, held_lock, server_lock

T = TypeVar("T")
PATIENCE_SECONDS = 60.0
"""How long a locked or unreachable storage is asked again before a sweep stops."""

_DRIVERS = {
    "mariadb": "mariadb+pymysql",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
}
_LASTING = ("disk is full", "readonly", "not a database", "unable to open database file")
"""Of SQLite. The last one is a full disk, too: of files rather than of bytes."""
_TRANSIENT = (optuna.exceptions.StorageInternalError, SQLAlchemyError, LockLost)


@dataclass(frozen=True, eq=False)
class Storage:
    """An open storage. Make it with `open_storage`.

    Args:
        trials: as Optuna knows it. url: with its password. file: of SQLite, else None. patience: seconds.
    """

    trials: BaseStorage
    engine: RDBStorage
    url: URL
    file: Path | None
    patience: float = PATIENCE_SECONDS

    @property
    def shown(self) -> str:
        """The address without its password."""
        return _shown(self.url, self.file)

    def patiently(self, action: Callable[[], T]) -> T:
        """Does something that may be done again, until it succeeds or patience ends.

        Raises:
            StorageError: it did not succeed; nothing that was stored is lost. Inside `exclusive` also: the lock was
                lost after something had been done under it, so that others may have been inside.
        """
        lock = held_lock(self.engine)
        return _patiently(action if lock is None else partial(lock.do, action), self.shown, self.patience)

    @contextmanager
    def exclusive(self, study: str) -> Iterator[None]:
        """Nobody else who shares the storage is inside for the same study. Blocks do not nest.

        A server's lock ends if its connection does. What is inside then stores nothing more; leaving raises nothing.

        Raises:
            StorageError: somebody else is inside, until patience ends.
        """
        if self.file is not None:
            with file_lock(self.file.with_name(self.file.name + ".lock"), self.patience):
                yield
            return
        lock = self.patiently(lambda: ServerLock(self.engine, study, self.patience))
        with server_lock(self.engine, lock):
            yield

    def close(self) -> None:
        """Gives the connections back."""
        self.engine.engine.dispose()


def open_storage(where: str | Path, patience: float = PATIENCE_SECONDS, look: bool = False) -> Storage:
    """Opens `sqlite:///FILE`, `postgresql://USER:PASSWORD@HOST/DATABASE` or `mysql://...`, and makes its tables.

    Args:
        where: an address, or SQLite's file itself: a path is never read as an address, in which ?, % and others have a
            meaning. patience: seconds. look: at what is there; no file is made, and no table altered.

    Raises:
        ConfigError: no such kind of storage, or its driver is not installed.
        StorageError: it cannot be reached or is locked for longer than `patience` seconds, or another version of Optuna
            made its tables.
    """
    parsed = URL.create("sqlite") if isinstance(where, Path) else _parsed(where)
    file = where.resolve() if isinstance(where, Path) else None
    if file is None and parsed.get_backend_name() == "sqlite":
        file = Path(parsed.database or "").resolve()
    if file is not None and not file.parent.is_dir():
        raise StorageError(f"{file} cannot be opened: {file.parent} is no folder")
    if look and file is not None and not file.is_file():
        raise StorageError(f"{file} is not there: name where the trials are with --storage")
    return _patiently(lambda: _open(parsed, file, patience, look), _shown(parsed, file), patience)


def _shown(url: URL, file: Path | None) -> str:
    return f"sqlite:///{file}" if file is not None else url.render_as_string(hide_password=True)


def _parsed(url: str) -> URL:
    """An address with its driver. No refusal repeats it, as it may hold a password where none belongs."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "--storage is no database's address: write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    kind = parsed.get_backend_name()
    if kind not in ("sqlite", "postgresql", "postgres", "mysql", "mariadb"):
        raise ConfigError(f"--storage is of kind {kind!r}: use sqlite, postgresql or mysql")
    if kind == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigError("--storage sqlite:// needs a file: a study in memory does not survive its process")
        if parsed.query or parsed.database.startswith("file:"):
            raise ConfigError("--storage sqlite:///FILE takes a plain path and nothing behind it")
        return parsed.set(database=str(Path(parsed.database).resolve()))
    if any("pass" in key.lower() or "secret" in key.lower() for key in parsed.query):
        raise ConfigError(
            "--storage has a password behind its question mark, where it could be printed: write it before the @"
        )
    if "@" in f"{parsed.host}{parsed.database}" or "/" in (parsed.database or "") or "/" in (parsed.username or ""):
        raise ConfigError("--storage has @, : or / in a name or password: write them as %40, %3A and %2F")
    if "+" not in parsed.drivername:
        parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
    return parsed


def _open(url: URL, file: Path | None, patience: float, look: bool) -> Storage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shown, address = _shown(url, file), url.render_as_string(hide_password=False)
    options: dict[str, Any] = {"connect_args": {"connect_timeout": 5}, "pool_pre_ping": True}
    if file is not None:  # the path goes to SQLite as it is, past every reading of addresses
        address = "sqlite:///study.db"
        options = {"creator": lambda: sqlite3.connect(os.fsencode(file), timeout=5, check_same_thread=False)}
    try:
        engine = RDBStorage(address, engine_kwargs=options)
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigError(
            f"{shown} needs a driver that is not installed: pip install 'framp-private[cluster]'"
        ) from error
    except RuntimeError as error:
        raise StorageError(f"{shown} was made by another version of Optuna: {error}") from error
    if file is not None:
        event.listen(engine.engine, "connect", _keep_journal)
        engine.engine.dispose()  # connections from before
    if not look:
        hold_long_texts(engine.engine, shown)
    return Storage(optuna.storages.get_storage(engine), engine, url, file, patience)


def _keep_journal(connection: Any, _: object) -> None:
    """Empties SQLite's journal where it would delete it, which is as safe and asks less of the disk."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = TRUNCATE")
    cursor.close()


def _patiently(action: Callable[[], T], shown: str, patience: float) -> T:
    end, wait = time.monotonic() + patience, 0.1
    while True:
        try:
            return action()
        except _TRANSIENT as error:
            cause = str(error.__cause__ or error).splitlines()[0]
            if any(words in cause for words in _LASTING):
                raise StorageError(f"{shown} cannot be written: {cause}; what was stored before is kept") from error
            if isinstance(error, DataError) or isinstance(error.__cause__, DataError):
                raise StorageError(
                    f"{shown} does not hold such a value: {cause}; nothing that was stored is lost"
                ) from error
            if time.monotonic() + wait > end:
                raise StorageError(
                    f"{shown} was locked or could not be reached for {patience:g} s: {cause}; nothing that was stored "
                    "is lost, go on with --resume"
                ) from error
            time.sleep(wait)
            wait = min(2 * wait, 2.0)
