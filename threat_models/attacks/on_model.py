"""All membership attacks on one model (E1), from callables that make logits: what runs, given which references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from threat_models.attacks import membership
from threat_models.attacks.models import confidence
from threat_models.attacks.shadows import Shadows

Model = Callable[[Tensor], Tensor]
"""(n, ...) records -> (n, n_classes) logits, in evaluation mode."""

Attack = Callable[[], np.ndarray]
"""() -> (n,) scores, larger for members. Raises `NotResolvable` where the references do not suffice."""


@dataclass(frozen=True, eq=False)
class Records:
    """x: (n, ...) float32. y: (n,) int64."""

    x: Tensor
    y: Tensor

    def under(self, model: Model) -> np.ndarray:
        """(n,) logit-scaled confidence of a model in each record."""
        with torch.no_grad():
            return confidence(model(self.x), self.y)

    @property
    def columns(self) -> np.ndarray:
        """(n, d + 1) features and label, for regressions."""
        return np.asarray(np.c_[self.x.flatten(1).numpy(), self.y.numpy()])


def attacks_on(
    target: Model,
    asked: Records,
    population: Records,
    references: Sequence[Model] = (),
    shadows: Shadows | None = None,
    *,
    scale: float,
    copies: int = 32,
    seed: int = 0,
) -> Mapping[str, Attack]:
    """name -> attack, each run when it is called.

    Args:
        asked: whose membership is asked. population: records that nobody trained on, none of them asked.
        references: models that saw none of them. shadows: models that saw known halves of `asked`.
        scale: of the noise of label-only copies; copies: of each record.
    """
    phi, outside = asked.under(target), population.under(target)
    rest = np.array([asked.under(model) for model in references])
    beside = np.array([population.under(model) for model in references])

    def predict(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(target(torch.from_numpy(rows)).argmax(1).numpy())

    made: dict[str, Attack] = {"LOSS": lambda: membership.loss(phi)}
    if len(rest):
        made["difficulty calibration"] = lambda: membership.calibrated(phi, rest)
    if len(rest) >= 2:
        made["LiRA offline"] = lambda: membership.lira_offline(phi, rest)
        made["RMIA"] = lambda: membership.rmia(expit(phi), expit(rest), expit(outside), expit(beside))
    if shadows is not None:
        made["LiRA online"] = lambda: membership.lira_online(phi, shadows.signals, shadows.inside)
        made["BaVarIA"] = lambda: membership.bavaria(phi, shadows.signals, shadows.inside)
    if shadows is not None or len(rest):
        made["Attack-R"] = lambda: membership.attack_r(phi, rest if shadows is None else shadows.without)
    made["quantile regression"] = lambda: membership.quantile_regression(
        phi, asked.columns, outside, population.columns, seed=seed
    )
    made["label-only"] = lambda: membership.label_only(
        predict, asked.x.numpy(), asked.y.numpy(), scale=scale, copies=copies, seed=seed
    )
    return made
