"""An append-only, hash-chained record of what was released under which guarantee.

One JSON object per line. Each row carries the SHA-256 of the row before it and its own; the first is a genesis
row that fixes the unit and the neighbouring relation. `verify` finds an edited, dropped or reordered row; a
cut tail shows only against a known head (count and hash), which the summary and every checkpoint hold. A
complete rewrite is found only by comparing heads.

A row is on disk before the release it stands for leaves the process, so a crash in between counts as spent.
Spending the same label again is the same release, and writes nothing; another event under a known label is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framp_private.errors import LedgerError
from framp_private.privacy.claims import Unit

_NO_ROW = "0" * 64


@dataclass(frozen=True)
class Head:
    """Row count and hash of the last row: enough to tell whether a ledger lost or changed anything."""

    rows: int
    hash: str


class Ledger:
    """One open ledger. Make it with `open`."""

    def __init__(self, path: Path, rows: list[dict[str, Any]]) -> None:
        self._path, self._rows = path, len(rows)
        self._hash = rows[-1]["hash"] if rows else _NO_ROW
        self._spent = {row["label"]: row["event"] for row in rows if row["kind"] == "spend"}

    @classmethod
    def open(cls, path: Path, *, unit: Unit, relation: str = "add/remove", owner: str = "federation") -> Ledger:
        """Opens or starts a ledger; a last line that a crash cut short is removed, as its release never happened.

        Raises:
            LedgerError: the file does not verify, or belongs to another unit, relation or owner.
        """
        genesis = {"unit": unit, "relation": relation, "owner": owner}
        if path.exists():
            _drop_torn_line(path)
        if not path.exists() or path.stat().st_size == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            ledger = cls(path, [])
            ledger._append({"kind": "genesis", **genesis})
            return ledger
        rows = _read(path)
        found = {key: rows[0].get(key) for key in genesis}
        if found != genesis:
            raise LedgerError(
                f"{path} is a ledger of {found}, not of {genesis}: one account has one unit, relation and owner"
            )
        return cls(path, rows)

    @property
    def head(self) -> Head:
        """Row count and last hash."""
        return Head(self._rows, self._hash)

    def spend(self, event: str, label: str) -> None:
        """Records a release before it happens. Repeating a label with the same event is a no-op.

        Raises:
            LedgerError: the label was spent under another event.
        """
        known = self._spent.get(label)
        if known is None:
            self._append({"kind": "spend", "event": event, "label": label})
            self._spent[label] = event
        elif known != event:
            raise LedgerError(f"label={label!r} was spent as {known}, not {event}: a release has one event")

    def _append(self, row: dict[str, Any]) -> None:
        row = {**row, "previous": self._hash}
        row["hash"] = _hash(row)
        line = json.dumps(row, sort_keys=True) + "\n"
        with self._path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self._rows, self._hash = self._rows + 1, row["hash"]


def verify(path: Path, head: Head | None = None) -> Head:
    """Checks the chain, and against `head` also that nothing was cut off or replaced.

    Raises:
        LedgerError: with the first row that does not fit.
    """
    rows = _read(path)
    found = Head(len(rows), rows[-1]["hash"])
    if head is not None and found != head:
        raise LedgerError(
            f"{path} ends at row {found.rows} ({found.hash[:12]}), the known head is row {head.rows} "
            f"({head.hash[:12]}): rows were cut off, added or replaced"
        )
    return found


def _hash(row: dict[str, Any]) -> str:
    body = {key: value for key, value in row.items() if key != "hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> list[dict[str, Any]]:
    previous, rows = _NO_ROW, []
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            fits = (
                row["previous"] == previous
                and row["hash"] == _hash(row)
                and (row["kind"] == "genesis") == (number == 1)
            )
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"{path} row {number} is not a ledger row") from error
        if not fits:
            raise LedgerError(f"{path} row {number} was edited, dropped or reordered")
        previous = row["hash"]
        rows.append(row)
    if not rows:
        raise LedgerError(f"{path} has no rows: a ledger starts with a genesis row")
    return rows


def _drop_torn_line(path: Path) -> None:
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end != len(data):
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())
