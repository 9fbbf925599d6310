"""Who received which bytes: the exact messages an engine delivered, and their sizes by channel.

`Traffic` adds sizes up; `Transcript` keeps the bytes as well. A transcript on disk is one file per trip group:
a sequence of records, each a length-prefixed JSON head (client, direction, trip) followed by a length-prefixed message.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from framp_private.crypto.secret_files import owners_folder
from framp_private.errors import WireError
from framp_private.federated.messages import Envelope, Trip, TripReply, bytes_by_channel
from framp_private.protections.base import CHANNELS
from framp_private.wire import decode

Direction = Literal["down", "up"]
TRAFFIC_KEYS = (*CHANNELS, "protocol")
_LENGTH = struct.Struct("<Q")


@dataclass
class Traffic:
    """Bytes carried so far, by direction and channel; `protocol` holds headers, digests, keys and shares."""

    totals: dict[str, dict[str, int]] = field(
        default_factory=lambda: {way: dict.fromkeys(TRAFFIC_KEYS, 0) for way in ("down", "up")}
    )

    def add(self, direction: Direction, data: bytes) -> None:
        """Counts one message."""
        for channel, size in bytes_by_channel(data).items():
            self.totals[direction][channel] += size


@dataclass(frozen=True)
class Delivery:
    """One message as it was delivered. trip: position of the exchange in its file, from 0."""

    trip: int
    direction: Direction
    client: str
    data: bytes

    @property
    def message(self) -> bytes:
        """What was in the envelope, empty if it brought a receipt alone; parties that are no clients get none.

        Raises `WireError`.
        """
        whole = decode(self.data, Envelope, Trip, TripReply)
        return whole.message if isinstance(whole, Envelope) else self.data


class Transcript:
    """Writes deliveries to `folder`, one file per `begin`; rewriting a file after a resume replaces it.

    Folder and files are their owner's alone: what clients sent is in them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        owners_folder(folder)

    def begin(self, name: str) -> None:
        """Starts the file `name`, empty."""
        self._path = self._folder / f"{name}.bin"
        self._path.unlink(missing_ok=True)
        os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))

    def write(self, delivery: Delivery) -> None:
        """Appends one delivery."""
        if self._path is None:
            raise WireError("a transcript needs begin() before the first delivery")
        head = json.dumps({"trip": delivery.trip, "direction": delivery.direction, "client": delivery.client}).encode()
        with self._path.open("ab") as file:
            file.write(_LENGTH.pack(len(head)) + head + _LENGTH.pack(len(delivery.data)) + delivery.data)


def read_transcript(folder: Path) -> Iterator[tuple[str, Delivery]]:
    """(file name without suffix, delivery) in order; raises `WireError` for a file that was cut."""
    for path in sorted(folder.glob("*.bin")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            head, at = _piece(data, at, path)
            message, at = _piece(data, at, path)
            try:
                fields = json.loads(head)
            except ValueError as error:
                raise WireError(f"transcript {path.name} was altered: {error}") from error
            yield path.stem, Delivery(fields["trip"], fields["direction"], fields["client"], message)


def _piece(data: bytes, at: int, path: Path) -> tuple[bytes, int]:
    if at + _LENGTH.size > len(data):
        raise WireError(f"transcript {path.name} is truncated")
    start = at + _LENGTH.size
    end = start + _LENGTH.unpack(data[at:start])[0]
    if end > len(data):
        raise WireError(f"transcript {path.name} is truncated")
    return data[start:end], end
