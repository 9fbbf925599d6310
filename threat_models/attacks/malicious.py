"""What a server crafts (B1 to B9): models, prototypes, cohorts and keys that make an honest client give more.

Functions make what is sent, and read what comes back. Whether a client takes it is for the client: a request that
differs from the others' is refused under a secure sum, a cohort under the least size too, a context that was not pinned
too. Where nothing is refused DP alone bounds what is learned: it holds for any model that a client is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from framp_private import TargetNetwork
from threat_models.errors import NotResolvable


def suppressed(network: TargetNetwork, weights: Tensor) -> Tensor:
    """B1: weights under which no record has a gradient before the last bias: the first layer passes nothing on.

    Sent to all but the victim, the secure sum is the victim's update (Pasquini et al., arXiv 2111.07380). The first
    linear or convolution layer gets a bias of -1e6 and weights of zero, so that ReLU passes nothing on.
    """
    dead = weights.clone()
    places = dict(zip(network.tensors.names, network.tensors.slices(), strict=True))
    first = network.tensors.names[0].rpartition(".")[0]
    dead[places[f"{first}.weight"]] = 0.0
    if f"{first}.bias" in places:
        dead[places[f"{first}.bias"]] = -1e6
    return dead


@dataclass(frozen=True, eq=False)
class Imprint:
    """B2: a layer whose neuron i fires for records whose mean brightness is over its threshold i."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, inputs: int, thresholds: Sequence[float]) -> Imprint:
        """Rows measure the mean of a record; biases are minus the thresholds, ascending."""
        ordered = sorted(thresholds)
        return cls(torch.full((len(ordered), inputs), 1 / inputs), -torch.tensor(ordered))

    def records(self, weight_gradient: Tensor, bias_gradient: Tensor, least: float = 1e-9) -> list[Tensor]:
        """The records alone in a bin: (G_W[i] - G_W[i+1]) / (G_b[i] - G_b[i+1]) (Fowl et al., arXiv 2110.13057).

        Exact without defence for every record whose bin holds no other; noise or clipping of each record spoils it.
        """
        found = []
        for place in range(len(bias_gradient)):
            after = place + 1 < len(bias_gradient)
            weight = weight_gradient[place] - (weight_gradient[place + 1] if after else 0)
            bias = bias_gradient[place] - (bias_gradient[place + 1] if after else 0)
            if abs(float(bias)) > least:
                found.append(weight / bias)
        return found


def fishing(network: TargetNetwork, weights: Tensor, label: int, *, strength: float = 30.0) -> Tensor:
    """B3: weights whose classifier never expects one class (Wen et al., arXiv 2202.00580, class fishing).

    All rows but the class's are zero, and its bias is far down, so that p_c is nearly zero. What flows back into the
    encoder is (p_c - [y = c]) times that row: only records of the class are in it, and with one of them in a batch the
    encoder's gradient is that of a batch of one. Clipping each record bounds what it shows; noise hides it.
    """
    crafted = weights.clone()
    places = dict(zip(network.tensors.names, network.tensors.slices(), strict=True))
    matrix = crafted[places[f"{network.classifier_name}.weight"]].view(network.n_classes, -1)
    own = matrix[label].clone()
    matrix[:] = 0.0
    matrix[label] = own
    bias = torch.zeros(network.n_classes)
    bias[label] = -strength
    crafted[places[f"{network.classifier_name}.bias"]] = bias
    return crafted


def dominance(norms: np.ndarray) -> float:
    """B3: the largest share of one record in the norms of a part of the gradient: over .5 is a batch of one.

    Raises:
        NotResolvable: no record has a gradient.
    """
    if norms.sum() <= 0:
        raise NotResolvable("no record has a gradient")
    return float(norms.max() / norms.sum())


def linear_at(theta_0: Tensor, wanted: Tensor) -> Tensor:
    """B5: the theta_0 that moves every generated model theta_0 + h(v) by what the server wants.

    Whoever chooses phi chooses every client's model; nothing but DP is claimed for what a client does with it.
    """
    return theta_0 + wanted


def anchors(prototypes: np.ndarray, label: int, *, far: float = 100.0) -> np.ndarray:
    """B6: prototypes among which one alone is far: alignment then pulls on records of that class a hundredfold."""
    crafted = prototypes.copy()
    crafted[label] += far
    return crafted


def identity_encoder(network: TargetNetwork, weights: Tensor) -> Tensor:
    """B7: weights under which the first hidden units repeat the inputs, so that prototypes are mean records.

    For networks of linear layers with at least as many units as inputs before the classifier.

    Raises:
        NotResolvable: a network that cannot repeat its inputs.
    """
    crafted = torch.zeros_like(weights)
    for name, part, shape in zip(network.tensors.names, network.tensors.slices(), network.tensors.shapes, strict=True):
        layer = name.rpartition(".")[0]
        if not name.endswith("weight") or layer == network.classifier_name:
            continue
        if len(shape) != 2 or (shape[0] < shape[1] and layer != network.classifier_name):
            raise NotResolvable(f"{name} of shape {tuple(shape)} cannot repeat its inputs")
        crafted[part] = torch.eye(shape[0], shape[1]).flatten()
    return crafted


def own_context(new_keys: Callable[[], tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """B9: (public, secret) context of the server's own making, to be sent in the place of the agreed one.

    Whoever encrypts under it shows the server every value; a client that pinned the hash of the right one refuses.
    """
    return new_keys()


def sybils(victim: str, count: int) -> tuple[str, ...]:
    """B8: a cohort of the victim and `count` names that the server invented: the sum minus their known values is it."""
    return (victim, *(f"sybil-{place}" for place in range(count)))
