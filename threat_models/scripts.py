"""Membership inference on any model and any records, without a federation: what `framp-audit membership` runs."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from threat_models import metrics
from threat_models.attacks.on_model import Model, Records, attacks_on
from threat_models.attacks.shadows import OnDone, Shadows, fitted, key_of, train_shadows
from threat_models.errors import AuditError, NotResolvable


def load_model(place: str) -> Model:
    """A TorchScript file, an exported program (.pt2), or `package.module:function`, which returns a callable.

    All three are programs: load only what is yours or what you trust.

    Raises:
        AuditError: nothing of the kind is there.
    """
    path = Path(place)
    try:
        if path.suffix == ".pt2":
            return torch.export.load(path).module()
        if path.is_file():
            return torch.jit.load(str(path)).eval()  # type: ignore[no-any-return,no-untyped-call]
        module, _, function = place.partition(":")
        made = getattr(importlib.import_module(module), function)()
        if not callable(made):
            raise AttributeError(f"{place} returns no model")
        return made.eval() if isinstance(made, torch.nn.Module) else made
    except (ImportError, AttributeError, ValueError, RuntimeError, OSError, TypeError) as error:
        raise AuditError(
            f"model={place!r} cannot be loaded ({error}): give a TorchScript file, a .pt2 file, or module:function"
        ) from error


def load_records(path: Path) -> tuple[Tensor, Tensor]:
    """x (n, ...) float32 and y (n,) int64 from an NPZ file without pickles. Raises `AuditError`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file["y"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise AuditError(f"records={path} must be an NPZ file with arrays x and y: {error}") from error
    if not x.ndim or y.ndim != 1 or len(x) != len(y) or not len(y) or x.dtype.kind not in "fiub":
        raise AuditError(f"records={path} has x of shape {x.shape} and y of shape {y.shape}: one label a record")
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64))


@dataclass(frozen=True)
class Trained:
    """Shadow models that are trained for an attack.

    network: `package.module:function` that returns an untrained torch module, None for no shadows. count: at least 4.
    cache: a folder where they are kept. on_done: progress.
    """

    network: str | None = None
    count: int = 16
    cache: Path | None = None
    on_done: OnDone = lambda done, total: None

    def on(self, x: Tensor, y: Tensor, seed: int) -> Shadows | None:
        """Shadows on random halves of some records. Raises `AuditError` for too few, or for what is no module."""
        if self.network is None:
            return None
        start = load_model(self.network)
        if self.count < 4 or not isinstance(start, torch.nn.Module):
            raise AuditError(
                f"shadows={self.count} of {self.network!r}: at least 4, of a function that returns a module"
            )
        settings: dict[str, Any] = {
            "seed": seed,
            "cache": self.cache,
            "key": key_of(start, x, y),
            "on_done": self.on_done,
        }
        return train_shadows(fitted(start, x, y), len(y), self.count, **settings)


def attack_model(
    model: str,
    members: Path,
    non_members: Path,
    references: Sequence[str],
    trained: Trained = Trained(),
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """name of attack -> AUC with interval and TPR at 1 and 10 % FPR, or why a figure cannot be given.

    Half of the non-members fit the quantile regression, and the other half is attacked, in every attack.
    """
    target = load_model(model)
    inside, out = Records(*load_records(members)), Records(*load_records(non_members))
    if inside.x.shape[1:] != out.x.shape[1:]:
        raise AuditError(f"members have shape {tuple(inside.x.shape[1:])}, non-members {tuple(out.x.shape[1:])}")
    aside, kept = Records(out.x[::2], out.y[::2]), Records(out.x[1::2], out.y[1::2])
    asked = Records(torch.cat([inside.x, kept.x]), torch.cat([inside.y, kept.y]))
    _check_fit(target, asked.x, asked.y, aside.x, aside.y)
    shadows, known = trained.on(asked.x, asked.y, seed), [load_model(each) for each in references]
    scale = float(asked.x.std()) / 2
    attacks = attacks_on(target, asked, aside, known, shadows, scale=scale, seed=seed)
    truth = np.arange(len(asked.y)) < len(inside.y)
    return {
        "members": len(inside.y),
        "non_members": len(kept.y),
        "references": len(known),
        "shadows": 0 if shadows is None else len(shadows.inside),
        "attacks": {name: _figures(attack, truth) for name, attack in attacks.items()},
    }


def _check_fit(model: Model, x: Tensor, y: Tensor, x_out: Tensor, y_out: Tensor) -> None:
    """Raises `AuditError` unless the model makes logits of the records, with a place for every label."""
    if not len(y_out):
        raise AuditError("non-members must be at least two records: every second one fits the quantile regression")
    try:
        with torch.no_grad():
            logits = model(x[:2])
        fits = logits.dim() == 2 and len(logits) == min(2, len(x))
    except Exception as error:
        raise AuditError(f"the model cannot take records of shape {tuple(x.shape[1:])}: {error}") from error
    labels = torch.cat([y, y_out])
    if not fits or int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise AuditError("the model must return (n, n_classes) logits, with labels in 0 .. n_classes - 1")


def _figures(attack: Callable[[], np.ndarray], truth: np.ndarray) -> dict[str, Any]:
    try:
        scores = attack()
        found = metrics.auc(scores, truth)
    except NotResolvable as error:
        return {"why": str(error)}
    row: dict[str, Any] = {"auc": found.value, "low": found.low, "high": found.high}
    for fpr in (0.01, 0.1):
        try:
            at = metrics.tpr_at_fpr(scores, truth, fpr)
            row[f"tpr_at_{fpr:g}"] = [at.value, at.low, at.high]
        except NotResolvable as error:
            row[f"tpr_at_{fpr:g}"] = str(error)
    return row
