"""Descriptor and budget -> full-size weights: theta_i = theta_0 + g(z_i, budget_i; psi).

The generated part g starts at zero, so that every client starts at the target network's normal initialisation
and a global top-k means something in the first round. A `Generator` keeps the two learned vectors together as
phi = [theta_0 | psi] and offers the two operations a federation needs: generate, and pull an update back to
phi-space with the vector-Jacobian product J^T delta, J = d theta / d phi (Shamsian et al., arXiv 2103.04628, eq. 3).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from framp_private.errors import ModelError
from framp_private.models.flat import bind, flatten
from framp_private.models.prior import Places
from framp_private.models.psi import HypernetworkShape, Psi
from framp_private.randomness import Streams


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

    def calibrate(self, phi: Tensor, descriptors: Tensor, budgets: Tensor) -> Tensor:
        """phi with its constants fitted to the enrolled clients, before the first step."""

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

    def calibrate(self, phi: Tensor, descriptors: Tensor, budgets: Tensor) -> Tensor:
        """Nothing to fit."""
        del descriptors, budgets
        return phi

    def generate(self, phi: Tensor, descriptors: Tensor, budgets: Tensor) -> Tensor:
        """theta_0 in each of the n rows."""
        del descriptors
        return phi.expand(len(budgets), -1)

    def pullback(self, phi: Tensor, descriptors: Tensor, budgets: Tensor, deltas: Tensor) -> Tensor:
        """The sum of the rows."""
        del phi, descriptors, budgets
        return deltas.sum(0)


class Hypernetwork:
    """A `Generator` with learned psi; `HypernetworkShape` fixes its form.

    `places` is where the classifier lies in the target's weights; needed for a prior, whose scale multiplies all of
    theta_0 + g.
    """

    def __init__(
        self, n_target: int, descriptor_dim: int, shape: HypernetworkShape, places: Places | None = None
    ) -> None:
        if shape.prior is not None and places is None:
            raise ModelError("hypernetwork.prior needs a classifier with a bias, and where it lies")
        self._places = places
        self.n_target, self.shape, self._descriptor_dim = n_target, shape, descriptor_dim
        self._own = threading.local()
        self.n_phi = n_target + len(self._working.weights)

    def initial(self, theta_0: Tensor, streams: Streams) -> Tensor:
        """[theta_0 | psi] with psi drawn from the stream and g = 0."""
        return torch.cat([theta_0, flatten(self._build(streams))])

    def calibrate(self, phi: Tensor, descriptors: Tensor, budgets: Tensor) -> Tensor:
        """Fits the standardising constants; unchanged where each descriptor is standardised by itself."""
        working = self._load(phi)
        working.loaded = None  # fitting writes to the working copy
        working.psi.fit(descriptors, budgets)
        return torch.cat([phi[: self.n_target], working.weights])

    def generate(self, phi: Tensor, descriptors: Tensor, budgets: Tensor) -> Tensor:
        """(n, n_target) weights; no gradient is recorded."""
        working = self._load(phi)
        with torch.no_grad():
            theta_0 = phi[: self.n_target]
            generated: Tensor = working.psi(descriptors, budgets)
            weights = theta_0 + generated if self.shape.combine == "additive" else theta_0 * (1 + generated)
            if self.shape.prior is not None and self._places is not None:
                weights = weights * self.shape.prior.scale(descriptors, self._places, self.n_target)
                weights[:, self._places.bias] += self.shape.prior.bias(descriptors)
            return weights

    def pullback(self, phi: Tensor, descriptors: Tensor, budgets: Tensor, deltas: Tensor) -> Tensor:
        """(n_phi,): sum_i J_i^T delta_i, exact up to float32 rounding."""
        working = self._load(phi)
        working.gradient.zero_()
        if self.shape.prior is not None and self._places is not None:
            deltas = deltas * self.shape.prior.scale(descriptors, self._places, self.n_target)
        theta_0, generated = phi[: self.n_target], working.psi(descriptors, budgets)
        if self.shape.combine == "additive":
            to_theta_0, to_generated = deltas, deltas
        else:
            to_theta_0, to_generated = deltas * (1 + generated.detach()), deltas * theta_0
        generated.backward(to_generated)
        return torch.cat([to_theta_0.sum(0), working.gradient])

    @property
    def _working(self) -> _Working:
        """This thread's working module, so that clients can generate and pull back side by side."""
        working: _Working | None = getattr(self._own, "working", None)
        if working is None:
            working = self._own.working = _Working(self._build(Streams(0).child("structure")))
        return working

    def _load(self, phi: Tensor) -> _Working:
        """Copies psi into the working module, once for all clients of a round: phi is never changed in place."""
        working = self._working
        if phi is not working.loaded:
            working.weights.copy_(phi[self.n_target :])
            working.loaded = phi
        return working

    def _build(self, streams: Streams) -> Psi:
        with streams.as_torch_default():
            return Psi(self.n_target, self._descriptor_dim, self.shape)


class _Working:
    """One module with its flat buffers, and the phi that it holds."""

    def __init__(self, psi: Psi) -> None:
        self.psi = psi
        self.weights, self.gradient = bind(psi)
        self.loaded: Tensor | None = None
