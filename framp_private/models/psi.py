"""The learned part of a hypernetwork as a module: inputs -> trunk -> head.

Its parameters, flattened, are psi. The standardising constants are among them, so that they travel and are
stored with psi, but no gradient reaches them: they are fitted once, when clients enrol.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from framp_private.errors import ModelError
from framp_private.models.heads import AttentionHead, ChunkedHead, FullHead, LowRankHead
from framp_private.models.prior import ClassPrior
from framp_private.randomness import Streams

BUDGET_CENTRES = (0.0, 1 / 3, 2 / 3, 1.0)


@dataclass(frozen=True)
class HypernetworkShape:
    """Everything that fixes the size and form of a hypernetwork.

    Args:
        trunk: `mlp` learns two ReLU layers; `random` draws them from a fixed seed and never sends or moves
        them, so that
            only the head learns; `attention`: one token per chunk attends to the others and to the client's token.
        standardise: `enrolled` centres and scales descriptors and trunk features by constants of the enrolled
            clients, which takes a server that sees descriptors; `own` standardises each over its own coordinates.
        head: `full` (a linear map to all weights), `chunked` (one small generator, a learned embedding per chunk) or
            `low_rank` (coefficients of `rank` fixed seeded directions). The attention trunk makes chunks by itself.
        hidden: width of the trunk's two layers; for attention, of a token.
        chunk: weights per chunk. rank: directions of the low-rank head.
        budget_input: whether the budget is an input beside the descriptor.
        combine: `additive` theta_0 + g, or `multiplicative` theta_0 * (1 + g).
        prior: what class shares alone say of the classifier; the descriptor must then be the class shares.
    """

    trunk: Literal["mlp", "random", "attention"] = "mlp"
    standardise: Literal["enrolled", "own"] = "enrolled"
    head: Literal["full", "chunked", "low_rank"] = "full"
    hidden: int = 128
    chunk: int = 512
    rank: int = 64
    budget_input: bool = True
    combine: Literal["additive", "multiplicative"] = "additive"
    prior: ClassPrior | None = None

    def __post_init__(self) -> None:
        if min(self.hidden, self.chunk, self.rank) < 1 or (self.trunk == "attention" and self.hidden % 4):
            raise ModelError(
                f"hypernetwork.hidden={self.hidden}, chunk={self.chunk}, rank={self.rank}: all must be at least 1, and "
                "hidden a multiple of 4, the number of heads, where trunk='attention'"
            )


class Standardise(nn.Module):
    """(x - centre) / scale with constants that `fit` sets; the root mean square norm of what it was fitted to is 1."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(size))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.centre.detach()) / self.scale.detach()

    def fit(self, x: Tensor) -> None:
        """Sets the constants from (n, size) rows; rows that are all equal leave the scale at 1."""
        with torch.no_grad():
            self.centre.copy_(x.mean(0))
            spread = (x - self.centre).square().sum(1).mean().sqrt()
            self.scale.copy_(spread if spread > 0 else torch.ones(()))


class RandomTrunk(nn.Module):
    """Two ReLU layers of fixed random weights (He's scale), the same in every run: no parameters."""

    first: Tensor
    second: Tensor
    bias: Tensor

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        generator = Streams(0).child("random trunk").torch()
        self.register_buffer("first", torch.randn(inputs, hidden, generator=generator) * (2 / inputs) ** 0.5, False)
        self.register_buffer("second", torch.randn(hidden, hidden, generator=generator) * (2 / hidden) ** 0.5, False)
        self.register_buffer("bias", torch.randn(2, hidden, generator=generator) / 10, False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(x @ self.first + self.bias[0])
        return torch.relu(hidden @ self.second + self.bias[1])


class Psi(nn.Module):
    """(n, descriptor_dim), (n,) -> the generated part (n, n_target), zero at the start."""

    def __init__(self, n_target: int, descriptor_dim: int, shape: HypernetworkShape) -> None:
        super().__init__()
        self._shape = shape
        inputs = descriptor_dim + (len(BUDGET_CENTRES) if shape.budget_input else 0)
        self.inputs = Standardise(descriptor_dim)
        self.trunk, self.features = _trunk(inputs, shape)
        self.head = _head(inputs, n_target, shape)

    def forward(self, descriptors: Tensor, budgets: Tensor) -> Tensor:
        generated: Tensor = self.head(self._to_head(self._hidden(descriptors, budgets)))
        return generated

    def fit(self, descriptors: Tensor, budgets: Tensor) -> None:
        """Fits the standardising constants to (n, descriptor_dim) descriptors and (n,) budgets."""
        if self._shape.standardise == "enrolled":
            self.inputs.fit(descriptors)
            if isinstance(self.features, Standardise):
                self.features.fit(self._hidden(descriptors, budgets))

    def _hidden(self, descriptors: Tensor, budgets: Tensor) -> Tensor:
        if self._shape.standardise == "own":
            z = nn.functional.layer_norm(descriptors, descriptors.shape[1:]) / descriptors.shape[1] ** 0.5
        else:
            z = self.inputs(descriptors)
        hidden: Tensor = self.trunk(torch.cat([z, encode_budgets(budgets)], 1) if self._shape.budget_input else z)
        return hidden

    def _to_head(self, hidden: Tensor) -> Tensor:
        if isinstance(self.features, Standardise) and self._shape.standardise == "own":
            normed = nn.functional.layer_norm(hidden, hidden.shape[1:])
            return normed / math.sqrt(hidden.shape[1])
        standardised: Tensor = self.features(hidden)
        return standardised


def encode_budgets(budgets: Tensor) -> Tensor:
    """(n, 4) smooth features of log2(budget): bumps at 1, 1/4, 1/16 and 1/64, defined for every budget in (0, 1]."""
    position = -torch.log2(budgets.float()) / 6
    return torch.exp(-((position[:, None] - torch.tensor(BUDGET_CENTRES)) ** 2) * 25) / 2


def _trunk(inputs: int, shape: HypernetworkShape) -> tuple[nn.Module, nn.Module]:
    hidden = shape.hidden
    if shape.trunk == "attention":
        return nn.Identity(), nn.Identity()
    if shape.trunk == "random":
        return RandomTrunk(inputs, hidden), Standardise(hidden)
    layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
    for layer in (layers[0], layers[2]):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
        nn.init.normal_(layer.bias, std=0.1)  # type: ignore[arg-type]
    return layers, Standardise(hidden)


def _head(inputs: int, n_target: int, shape: HypernetworkShape) -> nn.Module:
    if shape.trunk == "attention":
        return AttentionHead(inputs, shape.hidden, n_target, shape.chunk)
    if shape.head == "full":
        return FullHead(shape.hidden, n_target)
    if shape.head == "chunked":
        return ChunkedHead(shape.hidden, n_target, shape.chunk)
    return LowRankHead(shape.hidden, n_target, shape.rank)
