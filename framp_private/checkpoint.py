"""Checkpoints: safetensors for arrays, JSON for everything else, and a commit point that a crash cannot split.

A checkpoint is `state-NNNNNN.safetensors` and `state-NNNNNN.json`; the JSON holds the SHA-256 of the first
file and of its own body, and is put in place last. Until it is there the checkpoint before it counts. What is
there must be whole: a truncated or altered file is an error, never a silent step back.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from framp_private.crypto.secret_files import owners_folder
from framp_private.errors import CheckpointError

VERSION = 1
_COMMITTED = "committed"
_NAME = re.compile(r"state-(\d{6})\.json")


@dataclass(frozen=True)
class Checkpoint:
    """Arrays and facts after `round_index` finished rounds."""

    round_index: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def write_atomically(path: Path, data: bytes, *, secret: bool = False) -> None:
    """The file at `path` holds either what it held or all of `data`, whatever happens meanwhile.

    secret: others than its owner may not read it.

    A link at `path` is replaced, and one where the data is put first is refused with `OSError`: neither is followed.
    """
    partial = path.with_name(path.name + ".partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    if secret:  # a left-over keeps the mode that it was made with
        partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, flags, 0o600 if secret else 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint and, once it is committed, removes older ones and remains of interrupted writes.

    It holds what clients keep, descriptors among it: folder and files are their owner's alone.
    """
    owners_folder(folder)
    stem = f"state-{checkpoint.round_index:06d}"
    data = save({name: value.contiguous() for name, value in checkpoint.tensors.items()})
    write_atomically(folder / f"{stem}.safetensors", data, secret=True)
    body = {
        "version": VERSION,
        "round": checkpoint.round_index,
        "tensors": hashlib.sha256(data).hexdigest(),
        "facts": checkpoint.facts,
    }
    row = {**body, "sha256": _digest(body)}
    write_atomically(folder / f"{stem}.json", json.dumps(row, sort_keys=True).encode(), secret=True)
    (folder / _COMMITTED).touch(mode=0o600)
    for item in folder.iterdir():
        if item.stem.split(".")[0] not in (stem, _COMMITTED):
            item.unlink()


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The last committed checkpoint, None if none was ever committed.

    Raises:
        CheckpointError: it is truncated, altered, or of another version.
    """
    found = (
        sorted(path for path in folder.glob("state-*.json") if _NAME.fullmatch(path.name)) if folder.is_dir() else []
    )
    if not found:
        if (folder / _COMMITTED).exists():
            raise CheckpointError(
                f"checkpoint in {folder} is missing, and one was committed: restore it from a copy, "
                "or start a new run in another folder"
            )
        return None
    path = found[-1]
    try:
        row = json.loads(path.read_bytes())
        body = {key: value for key, value in row.items() if key != "sha256"}
        data = path.with_suffix(".safetensors").read_bytes()
        if row["sha256"] != _digest(body) or row["tensors"] != hashlib.sha256(data).hexdigest():
            raise CheckpointError(
                f"checkpoint {path} was altered or cut: its digests do not match; restore it from a copy, "
                "or start a new run in another folder"
            )
        if row["version"] != VERSION:
            raise CheckpointError(f"checkpoint {path} has version {row['version']}, this release reads {VERSION}")
        return Checkpoint(row["round"], load(data), row["facts"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({error}): restore it from a copy, or start a new run in another folder"
        ) from error


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
