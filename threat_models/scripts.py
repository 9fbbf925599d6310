"""Membership inference on any model and any records, without a federation: what `framp-audit membership` runs."""

from __future__ import annotations

import hashlib
import importlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from threat_models import metrics
from threat_models.attacks import membership
from threat_models.attacks.models import confidence
from threat_models.attacks.shadows import OnDone, Shadows, fitted, train_shadows
from threat_models.errors import AuditError, NotResolvable

Model = Callable[[Tensor], Tensor]


def load_model(place: str) -> Model:
    """A TorchScript file, an exported program (.pt2), or `package.module:function`, which returns a callable.

    Only the last runs code of the caller's choice; files are not unpickled.

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
        key = hashlib.sha256(repr(start).encode() + x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
        trainer = fitted(start, x, y)
        return train_shadows(trainer, len(y), self.count, seed=seed, cache=self.cache, key=key, on_done=self.on_done)


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
    x_in, y_in = load_records(members)
    x_out, y_out = load_records(non_members)
    aside, kept = torch.arange(len(y_out)) % 2 == 0, torch.arange(len(y_out)) % 2 == 1
    if x_in.shape[1:] != x_out.shape[1:]:
        raise AuditError(f"members have shape {tuple(x_in.shape[1:])}, non-members {tuple(x_out.shape[1:])}")
    x, y = torch.cat([x_in, x_out[kept]]), torch.cat([y_in, y_out[kept]])
    truth = np.arange(len(y)) < len(y_in)
    _check_fit(target, x, y, x_out[aside], y_out[aside])
    with torch.no_grad():
        phi, outside = confidence(target(x), y), confidence(target(x_out[aside]), y_out[aside])
        known = [load_model(each) for each in references]
        rest = np.array([confidence(each(x), y) for each in known])
        beside = np.array([confidence(each(x_out[aside]), y_out[aside]) for each in known])

    def predict(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(target(torch.from_numpy(rows)).argmax(1).numpy())

    def columns(rows: Tensor, labels: Tensor) -> np.ndarray:
        return np.asarray(np.c_[rows.flatten(1).numpy(), labels.numpy()])

    attacks: dict[str, Callable[[], np.ndarray]] = {
        "LOSS": lambda: membership.loss(phi),
        "quantile regression": lambda: membership.quantile_regression(
            phi, columns(x, y), outside, columns(x_out[aside], y_out[aside]), seed=seed
        ),
        "label-only": lambda: membership.label_only(predict, x.numpy(), y.numpy(), scale=float(x.std()) / 2, seed=seed),
    }
    if len(rest):
        attacks["difficulty calibration"] = lambda: membership.calibrated(phi, rest)
        attacks["Attack-R"] = lambda: membership.attack_r(phi, rest)
    if (shadows := trained.on(x, y, seed)) is not None:
        attacks["LiRA online"] = lambda: membership.lira_online(phi, shadows.signals, shadows.inside)
        attacks["BaVarIA"] = lambda: membership.bavaria(phi, shadows.signals, shadows.inside)
    if len(rest) >= 2:
        attacks["LiRA offline"] = lambda: membership.lira_offline(phi, rest)
        attacks["RMIA"] = lambda: membership.rmia(expit(phi), expit(rest), expit(outside), expit(beside))
    return {
        "members": len(y_in),
        "non_members": int(kept.sum()),
        "references": len(rest),
        "shadows": trained.count if trained.network is not None else 0,
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
