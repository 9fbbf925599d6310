"""Reference ("shadow") models: trained on random halves of a pool, side by side, and kept on disk.

Each record is in half of the models, which ones is drawn for it alone: a model's rows are then no fixed half of the
pool, under which one record's membership would say something of another's (arXiv 2605.25819).
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from framp_private import __version__
from threat_models.attacks.models import confidence
from threat_models.errors import AuditError

Trainer = Callable[[np.ndarray, int], np.ndarray]
"""(rows (n,) bool, seed) -> (n, ...) what a model trained on those rows says of every record of the pool."""

OnDone = Callable[[int, int], None]
"""(models done, models in all): for progress bars."""


@dataclass(frozen=True, eq=False)
class Shadows:
    """inside: (K, n) bool. signals: (K, n, ...) of every record under every model."""

    inside: np.ndarray
    signals: np.ndarray

    @property
    def without(self) -> np.ndarray:
        """(K // 2, n) signals of each record under models that did not train on it; each record has so many."""
        outside = self.outside
        order = np.argsort(np.isnan(outside), axis=0, kind="stable")[: len(outside) // 2]
        return np.asarray(np.take_along_axis(outside, order, 0))

    @property
    def outside(self) -> np.ndarray:
        """(K, n) signals, NaN where the model trained on the record."""
        return np.where(self.inside, np.nan, self.signals)


def train_shadows(
    train: Trainer,
    n: int,
    count: int,
    *,
    seed: int,
    workers: int = 2,
    cache: Path | None = None,
    key: str = "",
    on_done: OnDone = lambda done, total: None,
) -> Shadows:
    """`count` reference models of a pool of n records.

    Args:
        train: must not touch global state: it runs on several threads, each with one torch thread.
        cache: a folder of the auditor's own where signals are kept, one file a model; they are as secret as the records
            and are trusted as they lie there. key: names everything the signals depend on beside
            rows and seed (data, architecture, schedule): another key trains anew.

    Raises:
        AuditError: no models, or a trainer that returns another number of records.
    """
    if count < 1 or n < 2:
        raise AuditError(f"{count} reference models on {n} records: at least one, on at least two")
    inside = np.random.default_rng(seed).random((count, n)).argsort(0).argsort(0) < count / 2
    threads, done = torch.get_num_threads(), [0]
    torch.set_num_threads(1)

    def one(place: int) -> np.ndarray:
        found = _cached(train, inside[place], seed + place, cache, key)
        if len(found) != n:
            raise AuditError(f"the trainer returned signals of {len(found)} records, the pool has {n}")
        done[0] += 1
        on_done(done[0], count)
        return found

    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return Shadows(inside, np.stack(list(pool.map(one, range(count)))))
    finally:
        torch.set_num_threads(threads)


def fitted(
    start: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 150,
    rate: float = 0.01,
    batch: int = 128,
    kept: Tensor | None = None,
) -> Trainer:
    """A trainer by Adam from one start; its signal is the logit-scaled confidence in every record.

    Args:
        start: is copied, not changed. kept: (n_parameters,) bool, the coordinates that a submodel has; all by default.
    """

    def train(rows: np.ndarray, seed: int) -> np.ndarray:
        module, inside = copy.deepcopy(start).train(), torch.from_numpy(np.flatnonzero(rows))
        optimizer = torch.optim.Adam(module.parameters(), rate)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            chosen = inside[torch.randperm(len(inside), generator=generator)[:batch]]
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x[chosen]), y[chosen]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if kept is not None:
                _cut(module, kept)
        with torch.no_grad():
            return confidence(module.eval()(x), y)

    return train


def _cut(module: nn.Module, kept: Tensor) -> None:
    """Sets what a submodel does not have to zero."""
    at = 0
    with torch.no_grad():
        for value in module.parameters():
            value.mul_(kept[at : at + value.numel()].view_as(value))
            at += value.numel()


def _cached(train: Trainer, rows: np.ndarray, seed: int, cache: Path | None, key: str) -> np.ndarray:
    if cache is None:
        return train(rows, seed)
    name = hashlib.sha256(f"{__version__} {key} {seed} ".encode() + rows.tobytes()).hexdigest()
    path = cache / f"{name}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=cache, suffix=".partial", delete=False) as file:
            np.save(file, train(rows, seed))
        Path(file.name).replace(path)
    try:
        found = np.asarray(np.load(path))
    except (OSError, ValueError, EOFError) as error:
        raise AuditError(f"{path} is no answer of a model: remove it") from error
    if found.dtype.kind != "f" or not np.isfinite(found).all():
        raise AuditError(f"{path} holds values that no model gave: remove it")
    return found


def key_of(start: nn.Module, *parts: Tensor) -> str:
    """SHA-256 over a start's weights and form, and over tensors: what trained answers depend on."""
    found = hashlib.sha256(repr(start).encode())
    for value in (*start.state_dict().values(), *parts):
        found.update(value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()
