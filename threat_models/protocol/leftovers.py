"""Whoever gets hold of what a run leaves behind: models that nobody paid for, and the folder that is passed on.

unpaid models       a client that never took part is served a model, made of a descriptor that no ledger holds
run-folder thief    all of a run's folder but `private/`, and what of `private/` others than its owner may read
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from framp_private import FederatedDataset, Federation, Run
from framp_private.crypto.secret_files import PRIVATE
from framp_private.errors import RunError
from framp_private.simulation import Simulation
from threat_models.auditing.replay import Finding


def unpaid_models(federation: Federation, dataset: FederatedDataset) -> list[Finding]:
    """A finding for a run in which nothing was spent yet, and a client is served a model of its own all the same."""
    if federation.home_descriptor is None:
        return []
    run = Run(Simulation(federation, dataset), {})
    for name in federation.budgets:
        try:
            run.weights(name)
        except RunError:
            continue
        words = f"client {name!r} took part in no round, and is served a model of a descriptor that nobody paid for"
        return [Finding("unpaid models", "descriptor", words)]
    return []


def run_folder_thief(folder: Path, federation: Federation, dataset: FederatedDataset) -> list[Finding]:
    """A finding for each thing that the thief finds: what a client keeps, exact counts, keys, hashes of the data."""
    found = [*_readable(folder / PRIVATE)]
    files = [path for path in folder.rglob("*") if path.is_file() and PRIVATE not in path.relative_to(folder).parts]
    everything = {path: path.read_bytes() for path in files}
    kept = {path.read_bytes(): path for path in (folder / PRIVATE).rglob("*") if path.is_file()}
    found += [
        Finding("run-folder thief", "all", f"{_named(path, folder)} is a copy of {_named(kept[data], folder)}")
        for path, data in everything.items()
        if len(data) >= LEAST_BYTES and data in kept
    ]
    for what, piece in _secrets(folder, federation, dataset):
        holding = [path for path, data in everything.items() if piece in data]
        if holding:
            found.append(Finding("run-folder thief", "all", f"{_named(holding[0], folder)} holds {what}"))
    return found + [
        Finding("run-folder thief", "all", f"{_named(path, folder)} holds {what}")
        for path, data in everything.items()
        for what in _counts(path, data, federation, dataset)
    ]


def _named(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder))


def _readable(private: Path) -> Iterator[Finding]:
    """What others than its owner may enter or read."""
    for path in [private, *private.rglob("*")] if private.is_dir() else []:
        if stat.S_IMODE(path.lstat().st_mode) & 0o077:
            words = f"{path.relative_to(private.parent)} may be read by others than its owner"
            yield Finding("run-folder thief", "all", words)
            return


def _secrets(folder: Path, federation: Federation, dataset: FederatedDataset) -> Iterator[tuple[str, bytes]]:
    """(what it is, bytes that may stand nowhere in what is passed on)."""
    yield "a plain hash of the data", dataset.fingerprint.encode()
    yield "a plain hash of the data", bytes.fromhex(dataset.fingerprint)
    for path in (folder / PRIVATE / "keys").rglob("*.key"):
        written = path.read_bytes().strip()
        if len(written) >= LEAST_BYTES:
            yield f"the key {path.name}", written
            yield f"the key {path.name}", _raw(written)
    if federation.personalised:
        for name, data in dataset.clients.items():
            raw = np.asarray(federation.describe(name, data), np.float32)
            if np.unique(raw).size > 3:  # a few equal numbers stand anywhere
                yield f"the descriptor of {name!r} without noise", raw.astype("<f4").tobytes()


LEAST_BYTES = 32
"""Shorter pieces stand anywhere by chance."""
LEAST_RECORDS = 20
"""Counts of fewer records in all are short lists of small numbers, and stand anywhere."""


def _raw(written: bytes) -> bytes:
    """A key as it is used, from its hexadecimal form; itself where it is in none."""
    try:
        return bytes.fromhex(written.decode())
    except ValueError:
        return written


def _counts(path: Path, data: bytes, federation: Federation, dataset: FederatedDataset) -> Iterator[str]:
    """Exact class counts anywhere, and exact record numbers beside a client's name."""
    counts = {name: each.class_counts(dataset.schema.n_classes).tolist() for name, each in dataset.clients.items()}
    text = data.decode(errors="replace")
    squeezed = re.sub(r"\s+", "", text)
    for name, row in counts.items():
        if len(set(row)) > 1 and sum(row) >= LEAST_RECORDS and "[" + ",".join(map(str, row)) + "]" in squeezed:
            yield f"the class counts of {name!r}"
            return
    if path.suffix != ".json":
        return
    declared = federation.declared or {}
    sizes = {n: each.n_train for n, each in dataset.clients.items() if each.n_train != declared.get(n)}
    try:
        content = json.loads(text)
    except ValueError:  # somebody else's file
        return
    for name, size in sizes.items():
        if any(size == value for value in _of_client(content, name)):
            yield f"the number of training records of {name!r}"
            return


def _of_client(content: Any, name: str) -> Iterator[int]:
    """Whole numbers under a key that is a client's name and under keys that speak of records."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == name and isinstance(value, dict):
                yield from (v for k, v in value.items() if type(v) is int and re.search(r"record|train|size|n_", k))
            yield from _of_client(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from _of_client(value, name)
