"""One lock on a study for all who share it: a file beside an SQLite file, else an advisory lock of the server.

A server's lock ends with the connection that holds it, and that may break while its holder lives. Everything that is
read or written under the lock therefore goes over that connection: once it is broken, nothing is stored any more by
who believes to hold the lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from optuna.storages import RDBStorage
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from framp_private.errors import StorageError

T = TypeVar("T")
_POSTGRES = ("pg_try_advisory_lock(:it)", "pg_advisory_unlock(:it)")
_MYSQL = ("GET_LOCK(:it, 0)", "RELEASE_LOCK(:it)")


class LockLost(StorageError):
    """The connection that held a study's lock is broken."""

    def __init__(self, study: str) -> None:
        super().__init__(
            f"the connection that held the lock of study {study!r} was lost, and others may have been at work since: "
            "nothing that was stored is lost, go on with --resume"
        )


@contextmanager
def file_lock(path: Path, patience: float) -> Iterator[None]:
    """Holds a file's lock. Raises `StorageError` if it cannot be made, or another process holds it for longer than
    `patience` seconds."""
    end = time.monotonic() + patience
    try:
        opened = path.open("a")
    except OSError as error:
        raise StorageError(f"{path} cannot be locked: {error.strerror}; nothing that was stored is lost") from error
    with opened as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if not isinstance(error, BlockingIOError):
                    raise StorageError(f"{path} cannot be locked: {error.strerror}; use a disk that locks") from error
                if time.monotonic() > end:
                    raise StorageError(f"{path} has been locked by another process for {patience:g} s") from None
                time.sleep(0.002)
        yield


class ServerLock:
    """A study's lock in PostgreSQL or MySQL, and the connection that holds it. Hold it with `server_lock`."""

    def __init__(self, storage: RDBStorage, study: str, patience: float) -> None:
        self._engine, self._study, self._patience = storage.engine, study, patience
        name = hashlib.sha256(f"framp_private {study}".encode())
        postgres = self._engine.dialect.name == "postgresql"
        take, give = _POSTGRES if postgres else _MYSQL
        self._take, self._give = text(f"SELECT {take}"), text(f"SELECT {give}")
        self._key = {"it": int.from_bytes(name.digest()[:8], signed=True) if postgres else name.hexdigest()[:60]}
        self._connection, self._used = self._taken(), False

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be broken: then others may be inside."""
        return self._connection.closed or self._connection.invalidated

    def connection(self) -> Connection:
        """For what is done under the lock. Raises `LockLost`."""
        if self.lost:
            raise LockLost(self._study)
        return self._connection

    def do(self, action: Callable[[], T]) -> T:
        """Does something under the lock, which is taken anew if it was lost before anything was done under it.

        Raises:
            StorageError: it was lost later; what was read under it may no longer hold.
        """
        if self.lost:
            if self._used:
                raise StorageError(str(LockLost(self._study)))
            self._connection.close()
            self._connection = self._taken()
        try:
            return action()
        finally:
            self._used = self._used or not self.lost

    def give(self) -> None:
        """Gives the lock back. It raises nothing: what was to be stored is stored, or whoever stored it has heard."""
        given = False
        with suppress(SQLAlchemyError):
            given = not self.lost and bool(self._connection.execute(self._give, self._key).scalar())
            self._connection.commit()
        with suppress(SQLAlchemyError):
            if not given and not self.lost:
                self._connection.invalidate()
            self._connection.close()

    def _taken(self) -> Connection:
        connection = self._engine.connect()
        try:
            end = time.monotonic() + self._patience
            while not connection.execute(self._take, self._key).scalar():
                connection.rollback()
                if time.monotonic() > end:
                    raise StorageError(
                        f"study {self._study!r} has been locked for {self._patience:g} s by another process"
                    )
                time.sleep(0.005)
            connection.commit()  # the lock outlives the transaction
        except BaseException:
            with suppress(SQLAlchemyError):
                connection.invalidate()  # a lock that was taken ends with it
                connection.close()
            raise
        return connection


class _Locked(Session):
    """Optuna's session, over the lock's connection."""

    def __init__(self, lock: ServerLock) -> None:
        super().__init__()
        self.lock = lock

    def get_bind(self, *_: Any, **__: Any) -> Connection:
        return self.lock.connection()


@contextmanager
def server_lock(storage: RDBStorage, lock: ServerLock) -> Iterator[None]:
    """Leads what this thread does in the storage over the lock's connection, and gives the lock back. It does not
    nest."""
    sessions = storage.scoped_session
    sessions.remove()
    session = _Locked(lock)
    sessions.registry.set(session)
    try:
        yield
    finally:
        with suppress(SQLAlchemyError):
            session.close()
        sessions.registry.clear()
        lock.give()


def held_lock(storage: RDBStorage) -> ServerLock | None:
    """The server's lock that this thread holds."""
    sessions = storage.scoped_session
    session = sessions.registry() if sessions.registry.has() else None
    return session.lock if isinstance(session, _Locked) else None
