"""Tables: Adult and Location-30, and the user's own folder with one CSV or NPZ file per site."""

from __future__ import annotations

import csv
import io
import math
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from framp_private.data.base import FederatedDataset, Schema
from framp_private.data.partition import Pool
from framp_private.errors import DataError, MissingData

_ADULT_RANGES = {"age": 100.0, "education-num": 16.0, "hours-per-week": 100.0}
_ADULT_LOGARITHMIC = {"capital-gain": 100_000.0, "capital-loss": 5_000.0}


def adult(root: Path) -> Pool:
    """48,842 census rows, label: income above 50,000, from `root/adult.zip` of the UCI repository.

    Numbers are scaled by fixed public ranges and categories come from `adult.names`, so that nothing of one client's
    records enters another's columns. `fnlwgt` (a sampling weight) and `education` (repeated by
    `education-num`) are left out; an unknown category is all zeros.
    """
    with _zip(root / "adult.zip", "adult", "https://archive.ics.uci.edu/dataset/2/adult") as archive:
        columns = _adult_columns(archive.read("adult.names").decode())
        text = archive.read("adult.data").decode() + archive.read("adult.test").decode()
    rows = [row for row in csv.reader(io.StringIO(text), skipinitialspace=True) if len(row) == len(columns) + 1]
    x = np.concatenate(
        [
            _adult_block(name, values, [row[place] for row in rows])
            for place, (name, values) in enumerate(columns)
            if name not in ("fnlwgt", "education")
        ],
        1,
    )
    y = np.array([row[-1].startswith(">50K") for row in rows], np.int64)
    return Pool("adult", Schema("table", (x.shape[1],), 2), torch.from_numpy(x), torch.from_numpy(y))


def location30(root: Path) -> Pool:
    """5,010 check-in profiles of 446 binary columns in 30 groups, from `root/dataset_location.tgz`."""
    path = root / "dataset_location.tgz"
    if not path.is_file():
        raise MissingData(f"dataset='location30' is not at {path}: put the file of the ML Privacy Meter project there")
    try:
        with tarfile.open(path) as archive:
            member = archive.extractfile("bangkok")
            assert member is not None
            table = np.loadtxt((line.replace(b'"', b"") for line in member), delimiter=",", dtype=np.int64)
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError) as error:
        raise DataError(f"dataset='location30' at {path} cannot be read ({error}): fetch the file again") from error
    x = torch.from_numpy(table[:, 1:].astype(np.float32))
    return Pool("location30", Schema("table", (x.shape[1],), 30), x, torch.from_numpy(table[:, 0] - 1))


def folder(
    path: Path, seed: int = 0, unseen_clients: int = 0, *, test: float = 0.25, validation: float = 0.1
) -> FederatedDataset:
    """One client per file: `SITE.csv` (a header, the last column is the label) or `SITE.npz` (arrays x and y).

    Files are taken in order of their names; the last `unseen_clients` of them never train.

    Raises:
        DataError: no such files, a value that is no number, or what `FederatedDataset.from_arrays` refuses.
    """
    if not path.is_dir():
        raise MissingData(f"dataset={str(path)!r} is not a folder: give one with a CSV or NPZ file per site")
    files = sorted(item for item in path.iterdir() if item.suffix in (".csv", ".npz"))
    if len(files) <= unseen_clients:
        raise DataError(
            f"{path} has {len(files)} CSV or NPZ files and unseen_clients={unseen_clients}: "
            "at least one site must train"
        )
    arrays = {item.stem: _read_site(item) for item in files}
    if len(arrays) != len(files):
        raise DataError(f"{path} has two files for one site: every site needs a name of its own")
    names = list(arrays)
    cut = len(names) - unseen_clients
    return FederatedDataset.from_arrays(
        {k: arrays[k] for k in names[:cut]},
        unseen={k: arrays[k] for k in names[cut:]},
        name=path.name,
        seed=seed,
        test=test,
        validation=validation,
    )


def _read_site(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return arrays["x"], arrays["y"]
        with path.open() as lines:
            header, *rows = [line for line in lines if line.strip()] or [""]
        if _numeric(header):
            raise DataError(f"{path.name} begins with a row of numbers: the first line of a CSV is its header")
        if not rows:
            raise DataError(f"{path.name} holds no record below its header: leave the site out or give it records")
        table = np.loadtxt(rows, delimiter=",", ndmin=2)
        return table[:, :-1], table[:, -1]
    except (OSError, EOFError, ValueError, KeyError, IndexError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path.name} cannot be read ({error}): a CSV needs a header and numbers with the label last, "
            "an NPZ the arrays x and y"
        ) from error


def _numeric(line: str) -> bool:
    try:
        return bool([float(cell) for cell in line.split(",")])
    except ValueError:
        return False


def _zip(path: Path, name: str, source: str) -> zipfile.ZipFile:
    if not path.is_file():
        raise MissingData(f"dataset={name!r} is not at {path}: download it from {source} and put it there")
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"dataset={name!r} at {path} cannot be read ({error}): fetch the file again") from error


def _adult_columns(names: str) -> list[tuple[str, tuple[str, ...]]]:
    lines = (line for line in names.splitlines() if ":" in line and not line.startswith("|"))
    pairs = (line.rstrip(".").split(":") for line in lines)
    return [(name.strip(), tuple(value.strip() for value in values.split(","))) for name, values in pairs]


def _adult_block(name: str, values: tuple[str, ...], column: list[str]) -> np.ndarray:
    if name in _ADULT_RANGES:
        return np.array([[float(value) / _ADULT_RANGES[name]] for value in column], np.float32)
    if name in _ADULT_LOGARITHMIC:
        scale = math.log1p(_ADULT_LOGARITHMIC[name])
        return np.array([[math.log1p(float(value)) / scale] for value in column], np.float32)
    return np.array([[value == other for other in values] for value in column], np.float32)
