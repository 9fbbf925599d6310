"""A file of JSON rows in which each row carries the SHA-256 of the row before it and its own.

`read_chain` finds an edited, dropped or reordered row. A cut tail shows only against a known head (count and
hash). Where a chain has a signer each row is signed over its place and its hash, so that a rewrite takes the signer's
key; a rewrite by the signer shows only against heads that are kept elsewhere. Hashes are of what was spent alone, so
that equal runs have equal heads whoever signs them.

Rows are on disk when `append` returns. It locks the file while it writes and refuses if somebody else has written
meanwhile; if the disk is full it puts the file back as it was, so that a row is there whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from framp_private.errors import LedgerError

Row = dict[str, Any]
NO_ROW = "0" * 64


class Signer(Protocol):
    """Who signs rows, under a key of 32 bytes that everybody may know."""

    @property
    def key(self) -> bytes:
        """The public key."""

    def sign(self, message: bytes) -> bytes:
        """A signature that `check` accepts."""

    def check(self, message: bytes, signature: bytes) -> bool:
        """Whether a signature is this signer's."""


Check = Callable[[bytes, bytes, bytes], bool]
"""(public key, message, signature) -> whether it is a row's signature under that key."""


@dataclass(frozen=True)
class Head:
    """Row count and hash of the last row: enough to tell whether a chain lost or changed anything."""

    rows: int
    hash: str

    @property
    def signed_part(self) -> bytes:
        """What the last row's signature is over: its place and its hash, which stands for all rows before."""
        return self.rows.to_bytes(8, "big") + bytes.fromhex(self.hash)


class Chain:
    """A chain that is open for appending; `path` None keeps it in memory."""

    def __init__(self, path: Path | None, rows: Sequence[Row], signer: Signer | None) -> None:
        self._path, self._signer = path, signer
        self._size = path.stat().st_size if path is not None and path.exists() else 0
        self._hashes = [row["hash"] for row in rows]
        self._key = rows[0].get("signer", "") if rows else signer.key.hex() if signer is not None else ""
        self.signature = _signature(rows[-1]) if rows else b""

    @classmethod
    def open(cls, path: Path | None, *, repair: bool = True, signer: Signer | None = None) -> tuple[Chain, list[Row]]:
        """The chain and its rows, none if there is no file.

        A last line that a crash cut short is removed, as its release never happened; who only reads does not `repair`.
        With the `signer` of a signed chain, its last signature is checked, which stands for all rows.

        Raises:
            LedgerError: the file is not a whole chain, or not of this signer.
        """
        if path is None or not path.exists():
            return cls(path, [], signer), []
        if repair:
            _mend(path)
        rows = read_chain(path) if path.stat().st_size else []
        chain = cls(path, rows, signer)
        if signer is not None and (
            chain._key != signer.key.hex() or (rows and not signer.check(chain.head.signed_part, chain.signature))
        ):
            raise LedgerError(f"{path} is not signed with this account's key: restore the key that began it")
        return chain, rows

    @property
    def head(self) -> Head:
        """Row count and last hash."""
        return Head(len(self._hashes), self._hashes[-1] if self._hashes else NO_ROW)

    def continues(self, head: Head) -> bool:
        """Whether this chain once had the given head."""
        return head.rows == 0 or (head.rows <= len(self._hashes) and self._hashes[head.rows - 1] == head.hash)

    def append(self, rows: Sequence[Row]) -> None:
        """Writes rows, all or none, and returns when they are on disk.

        Raises:
            LedgerError: the chain is signed and was opened without its signer, the file changed since it was opened, or
                it cannot be written; it is then as it was before.
        """
        if self._key and self._signer is None:
            raise LedgerError(f"{self._path} is signed: open it with its signer to write to it")
        head, lines, hashes, signature = self.head, [], [], b""
        for row in rows:
            linked = {**row, "previous": head.hash}
            if head.rows == 0:
                linked["signer"] = self._key
            head = Head(head.rows + 1, _hash(linked))
            hashes.append(head.hash)
            linked["hash"] = head.hash
            if self._signer is not None:
                signature = self._signer.sign(head.signed_part)
                linked["signature"] = signature.hex()
            lines.append(json.dumps(linked, sort_keys=True) + "\n")
        if self._path is not None:
            self._size = _append(self._path, "".join(lines).encode(), self._size)
        self._hashes += hashes
        self.signature = signature


def read_chain(path: Path, check: Check | None = None) -> list[Row]:
    """All rows of a chain, with `check` also their signatures where it has a signer.

    Raises:
        LedgerError: with the first row that does not fit.
    """
    rows: list[Row] = []
    previous = NO_ROW
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            fits = (
                row["previous"] == previous
                and row["hash"] == _hash(row)
                and (row["kind"] == "genesis") == (number == 1) == ("signer" in row)
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LedgerError(f"{path} row {number} is not a ledger row") from error
        if not fits:
            raise LedgerError(f"{path} row {number} was edited, dropped or reordered")
        previous = row["hash"]
        rows.append(row)
        if check is not None and rows[0]["signer"] and not _signed(rows[0]["signer"], number, row, check):
            raise LedgerError(f"{path} row {number} is not signed by the key that began the ledger")
    if not rows:
        raise LedgerError(f"{path} has no rows: a ledger starts with a genesis row")
    return rows


def _append(path: Path, data: bytes, size: int) -> int:
    """Adds `data` to a file that must still have `size` bytes; returns the new size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = os.fstat(file).st_size
        if found != size:
            raise LedgerError(
                f"{path} has {found} bytes where this process left {size}: another process writes to it; "
                "nothing was spent or released. Run one at a time"
            )
        try:
            _write_all(file, data)
            os.fsync(file)
        except OSError as error:
            os.ftruncate(file, size)
            raise LedgerError(f"{path} cannot be written ({error}): nothing was spent or released") from error
    finally:
        os.close(file)
    if new:  # the name itself must survive a power cut, too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return size + len(data)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _hash(row: Row) -> str:
    body = {key: value for key, value in row.items() if key not in ("hash", "signature", "signer")}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _signed(key: str, number: int, row: Row, check: Check) -> bool:
    try:
        signature = bytes.fromhex(row["signature"])
        return check(bytes.fromhex(key), Head(number, row["hash"]).signed_part, signature)
    except (KeyError, TypeError, ValueError):
        return False


def _signature(row: Row) -> bytes:
    try:
        return bytes.fromhex(row.get("signature", ""))
    except (TypeError, ValueError) as error:
        raise LedgerError("the last row's signature is none: restore the ledger from a copy") from error


def _mend(path: Path) -> None:
    """Ends a file that a crash cut inside its last line: a whole row gets its newline, half a row goes."""
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        data = file.read()
        end = data.rfind(b"\n") + 1
        if end == len(data):
            return
        if _whole(data[end:]):
            file.write(b"\n")
        else:
            file.truncate(end)
        file.flush()
        os.fsync(file.fileno())


def _whole(line: bytes) -> bool:
    try:
        row = json.loads(line)
        return bool(row["hash"] == _hash(row))
    except (ValueError, KeyError, TypeError):
        return False
