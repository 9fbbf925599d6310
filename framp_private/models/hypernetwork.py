"""Descriptor and budget -> full-size weights: theta_i = theta_0 + g(z_i, budget_i; psi).

The generated part g starts at zero, so that every client starts at the target network's normal initialisation
and a global top-k means something in the first round. `Generator` keeps the two learned vectors together as
phi = [theta_0 | psi] and offers the two operations a federation needs: generate, and pull an update back to
phi-space with the vector-Jacobian product J^T delta, J = d theta / d phi (Shamsian et al., arXiv 2103.04628, eq. 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from framp_private.models.flat import bind, flatten
from framp_private.models.heads import AttentionHead, ChunkedHead, FullHead, LowRankHead
from framp_private.randomness import Streams

BUDGET_CENTRES = (0.0, 1 / 3, 2 / 3, 1.0)


class Generator(Protocol):
    """Makes weights for (descriptor, budget) pairs from one vector phi whose first `n_target` entries are theta_0."""

    @property
    def n_target(self) -> int:
        """Length of theta."""

    @property
    def n_phi(self) -> int:
        """Length of phi."""

    def initial(self, theta_0: Tensor, streams: Streams) -> Tensor:
        """(n_phi,) float32: phi before the first round; generates `theta_0` for everybody."""

    def generate(self, phi: Tensor, descriptors: Tensor, budgets: Tensor) -> Tensor:
        """(n, n_target) weights for descriptors (n, d) and budgets (n,)."""

    def pullback(self, phi: Tensor, descriptors: Tensor, budgets: Tensor, deltas: Tensor) -> Tensor:
        """(n_phi,): the sum over n clients of J_i^T delta_i, for deltas (n, n_target)."""


@dataclass(frozen=True)
class SharedBackbone:
    """No hypernetwork: everybody gets theta_0, and the pullback of an update is the update."""

    n_target: int

    @property
    def n_phi(self) -> int:
        """phi is theta_0 alone."""
        return self.n_target

    def initial(self, theta_0: Tensor, streams: Streams) -> Tensor:
        """A copy of theta_0."""
        del streams
        return theta_0.clone()

    def generate(self, phi: Tensor, descriptors: Tensor, budgets: Tensor) -> Tensor:
        """theta_0 in each of the n rows."""
        del descriptors
        return phi.expand(len(budgets), -1)

    def pullback(self, phi: Tensor, descriptors: Tensor, budgets: Tensor, deltas: Tensor) -> Tensor:
        """The sum of the rows."""
        del phi, descriptors, budgets
        return deltas.sum(0)


@dataclass(frozen=True)
class HypernetworkShape:
    """Everything that fixes the size and form of a hypernetwork.

    Args:
        trunk: `mlp`, or `attention`: one token per chunk attends to the others and to the client's token.
        head: `full` (a linear map to all weights), `chunked` (one small generator, a learned embedding per chunk) or
            `low_rank` (coefficients of `rank` fixed seeded directions). The attention trunk makes chunks by itself.
        hidden: width of the trunk's two layers; for attention, of a token.
        chunk: weights per chunk. rank: directions of the low-rank head.
        budget_input: whether the budget is an input beside the descriptor.
        combine: `additive` theta_0 + g, or `multiplicative` theta_0 * (1 + g).
    """

    trunk: Literal["mlp", "attention"] = "mlp"
    head: Literal["full", "chunked", "low_rank"] = "full"
    hidden: int = 64
    chunk: int = 512
    rank: int = 64
    budget_input: bool = True
    combine: Literal["additive", "multiplicative"] = "additive"


class Hypernetwork:
    """A `Generator` with learned psi; see the module docstring for the method and `HypernetworkShape` for the form."""

    def __init__(self, n_target: int, descriptor_dim: int, shape: HypernetworkShape) -> None:
        self.n_target, self.shape, self._descriptor_dim = n_target, shape, descriptor_dim
        self._module = self._build(Streams(0).child("structure"))
        self._weights, self._gradient = bind(self._module)
        self.n_phi = n_target + len(self._weights)

    def initial(self, theta_0: Tensor, streams: Streams) -> Tensor:
        """[theta_0 | psi] with psi drawn from the stream and g = 0."""
        return torch.cat([theta_0, flatten(self._build(streams))])

    def generate(self, phi: Tensor, descriptors: Tensor, budgets: Tensor) -> Tensor:
        """(n, n_target) weights; no gradient is recorded."""
        with torch.no_grad():
            theta_0, generated = self._run(phi, descriptors, budgets)
            return theta_0 + generated if self.shape.combine == "additive" else theta_0 * (1 + generated)

    def pullback(self, phi: Tensor, descriptors: Tensor, budgets: Tensor, deltas: Tensor) -> Tensor:
        """(n_phi,): sum_i J_i^T delta_i, exact up to float32 rounding."""
        self._gradient.zero_()
        theta_0, generated = self._run(phi, descriptors, budgets)
        if self.shape.combine == "additive":
            to_theta_0, to_generated = deltas, deltas
        else:
            to_theta_0, to_generated = deltas * (1 + generated.detach()), deltas * theta_0
        generated.backward(to_generated)  # type: ignore[no-untyped-call]
        return torch.cat([to_theta_0.sum(0), self._gradient])

    def _run(self, phi: Tensor, descriptors: Tensor, budgets: Tensor) -> tuple[Tensor, Tensor]:
        self._weights.copy_(phi[self.n_target :])
        return phi[: self.n_target], self._module(self._conditions(descriptors, budgets))

    def _conditions(self, descriptors: Tensor, budgets: Tensor) -> Tensor:
        """Each descriptor is standardised over its own coordinates, so that no other client's enters."""
        z = nn.functional.layer_norm(descriptors, descriptors.shape[1:])
        return torch.cat([z, encode_budgets(budgets)], 1) if self.shape.budget_input else z

    def _build(self, streams: Streams) -> nn.Module:
        inputs = self._descriptor_dim + (len(BUDGET_CENTRES) if self.shape.budget_input else 0)
        shape, hidden = self.shape, self.shape.hidden
        with streams.as_torch_default():
            if shape.trunk == "attention":
                return AttentionHead(inputs, hidden, self.n_target, shape.chunk)
            trunk = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
            if shape.head == "full":
                head: nn.Module = FullHead(hidden, self.n_target)
            elif shape.head == "chunked":
                head = ChunkedHead(hidden, self.n_target, shape.chunk)
            else:
                head = LowRankHead(hidden, self.n_target, shape.rank)
            return nn.Sequential(trunk, head)


def encode_budgets(budgets: Tensor) -> Tensor:
    """(n, 4) smooth features of log2(budget): bumps at 1, 1/4, 1/16 and 1/64, defined for every budget in (0, 1]."""
    position = -torch.log2(budgets.float()) / 6
    return torch.exp(-((position[:, None] - torch.tensor(BUDGET_CENTRES)) ** 2) * 18)
