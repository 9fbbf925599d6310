"""From what clients trained to a step on phi = [theta_0 | psi].

The hypernetwork step needs g = sum_i J_i^T delta_i with J_i = d theta_i / d phi, which depends on client i's
descriptor, so a sum of the deltas does not give g. Either the server pulls each update back itself (`SERVER`,
FRAMP as published: it sees every update), or each client does (`CLIENT`: only sums are needed, and the
descriptor stays home). Both fill the same vector::

    contribution = [ J^T delta on theta_0 | J^T delta on psi | mask as 0/1 ]      n_target + n_psi (+ n_target)

The last part counts how many clients trained each coordinate, so that theta_0 can move by a per-coordinate mean. It is
left out where theta_0 moves by the cohort's mean: under client-level noise a mask would fill the whole clip. The part
on psi is left out in a run in which psi never moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from framp_private.federated.local_training import Decay, decayed
from framp_private.models.hypernetwork import Generator


class Pullback(Enum):
    """Where J_i^T delta_i is computed."""

    SERVER = "server"
    CLIENT = "client"


def contribution_size(generator: Generator, counted: bool = True, moves: bool = True) -> int:
    """Length of a contribution, with or without its mask, with or without psi."""
    return (generator.n_phi if moves else generator.n_target) + (generator.n_target if counted else 0)


def contributions(
    generator: Generator,
    phi: Tensor,
    descriptors: Tensor,
    budgets: Tensor,
    deltas: Tensor,
    masks: Tensor,
    *,
    resting: bool = False,
    counted: bool = True,
    moves: bool = True,
) -> np.ndarray:
    """The summed contribution of n clients, float64.

    Args:
        generator, phi: J is the derivative of the generator's weights at phi (n_phi,).
        descriptors: (n, d). budgets: (n,).
        deltas: (n, n_target) given minus trained weights, zero outside the (n, n_target) bool masks.
        resting: psi is where it started and stays there this round, so g is zero and J^T delta on psi is not needed:
            it is left zero.
        counted: whether the masks are part of it. moves: whether psi moves in any round of the run.
    """
    total = np.zeros(contribution_size(generator, counted, moves))
    pulled = deltas.sum(0) if resting else generator.pullback(phi, descriptors, budgets, deltas)
    total[: len(pulled)] = pulled
    if counted:
        total[-generator.n_target :] = masks.sum(0)
    return total


@dataclass(frozen=True)
class StepState:
    """The optimiser's memory for psi: first and second moment, (n_psi,) where used, and the number of steps taken."""

    first: Tensor
    second: Tensor
    count: int = 0


@dataclass(frozen=True)
class ServerStep:
    """How phi moves.

    Args:
        optimizer: of psi, `adam` (betas .9, .999) or `sgd` with momentum.
        learning_rate: of psi, times `decay` over the part of the run in which psi moves.
        start: psi rests for this share of the run, in [0, 1]: theta_0 alone learns what all clients have in
        common first; at 1 psi never moves. backbone_rate: of theta_0; 1 takes the whole step.
        backbone: theta_0 moves by the mean over clients that trained a coordinate (`coordinate_mean`) or over
        the cohort (`cohort_mean`).
        average: what is served is the mean of phi over this last share of the run's rounds, in [0, 1]; 0 serves the
        last phi. Training goes on from the last phi either way.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    decay: Decay = "linear"
    momentum: float = 0.9
    start: float = 0.0
    backbone_rate: float = 1.0
    backbone: Literal["coordinate_mean", "cohort_mean"] = "coordinate_mean"
    average: float = 0.0

    def initial(self, generator: Generator) -> StepState:
        """No memory; a moment that the optimiser does not use is empty."""
        n_psi = generator.n_phi - generator.n_target
        first = n_psi if self.optimizer == "adam" or self.momentum else 0
        return StepState(torch.zeros(first), torch.zeros(n_psi if self.optimizer == "adam" else 0))

    def update(self, generator: Generator, total: np.ndarray, planned: int) -> tuple[Tensor, Tensor]:
        """(step of theta_0, gradient of psi) from a summed contribution and the planned cohort size."""
        n, end = generator.n_target, generator.n_phi if self.moves else generator.n_target
        deltas, pulled, counts = total[:n], total[n:end], total[end:]
        divisor = np.maximum(counts, 1) if self.counted else planned
        return torch.from_numpy(deltas / divisor).float(), torch.from_numpy(pulled / planned).float()

    def apply(
        self, generator: Generator, phi: Tensor, state: StepState, total: np.ndarray, planned: int, progress: float
    ) -> tuple[Tensor, StepState]:
        """phi after one round; deltas point from trained to given weights, so the step is subtracted."""
        backbone, gradient = self.update(generator, total, planned)
        moved = phi.clone()
        moved[: generator.n_target] -= self.backbone_rate * backbone
        if self.rests(progress):
            return moved, state
        direction, state = self._direction(gradient, state)
        rate = self.learning_rate * decayed(self.decay, (progress - self.start) / (1 - self.start))
        moved[generator.n_target :] -= rate * direction
        return moved, state

    @property
    def counted(self) -> bool:
        """Whether contributions carry masks."""
        return self.backbone == "coordinate_mean"

    @property
    def moves(self) -> bool:
        """Whether psi moves in any round."""
        return self.start < 1

    def rests(self, progress: float) -> bool:
        """Whether psi stays where it is at this point of the run."""
        return progress < self.start

    def _direction(self, gradient: Tensor, state: StepState) -> tuple[Tensor, StepState]:
        count = state.count + 1
        if self.optimizer == "sgd":
            if not self.momentum:
                return gradient, StepState(state.first, state.second, count)
            velocity = state.first * self.momentum + gradient
            return velocity, StepState(velocity, state.second, count)
        first = state.first.lerp(gradient, 0.1)
        second = state.second.lerp(gradient.square(), 0.001)
        direction = (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
        return direction, StepState(first, second, count)
