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

from framp_private import Generator, TargetNetwork
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


def blank_classifier(network: TargetNetwork, weights: Tensor) -> Tensor:
    """B4: weights whose classifier says the same of every record, so that every softmax is uniform.

    The bias gradient of one step is then 1/C - share_c whatever the records are: `labels.from_bias_gradient` reads the
    label counts of a client, or of a whole secure sum, without an estimate (after Fowl et al., arXiv 2202.00580, and
    the label fishing of arXiv 2406.15731). Exact for one step; DP noise blurs it.
    """
    crafted = weights.clone()
    places = dict(zip(network.tensors.names, network.tensors.slices(), strict=True))
    for kind in ("weight", "bias"):
        crafted[places[f"{network.classifier_name}.{kind}"]] = 0.0
    return crafted


def poisoned(
    generator: Generator,
    phi: Tensor,
    descriptors: Tensor,
    budgets: Tensor,
    victim: int,
    wanted: Tensor,
    *,
    steps: int = 4000,
    rate: float = 0.05,
) -> tuple[Tensor, float, float]:
    """B5: phi under which one descriptor gets the weights that the server wants, and all others what they had.

    Adam on the squared distances, by the generator's own pullback; theta_0, which moves everybody, is left alone. The
    victim cannot tell: its weights are generated like anybody's. Nothing but DP is claimed for what a client does with
    a model that it is given; where clients generate at home the server does not know whose descriptor to aim at.

    Args:
        descriptors: (n, d), of all clients. budgets: (n,). victim: the row aimed at. wanted: (n_target,).

    Returns:
        (phi, how far the victim's weights still are, how far others' have moved at most), both as shares of the way
        that the victim's had to go.
    """
    start = generator.generate(phi, descriptors, budgets)
    aims = start.clone()
    aims[victim] = wanted
    crafted, first, second = phi.clone(), torch.zeros_like(phi), torch.zeros_like(phi)
    for step in range(1, steps + 1):
        off = generator.generate(crafted, descriptors, budgets) - aims
        gradient = generator.pullback(crafted, descriptors, budgets, off)
        gradient[: generator.n_target] = 0.0
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.01)
        crafted = crafted - rate * (1 - step / (steps + 1)) * (first / (1 - 0.9**step)) / (
            (second / (1 - 0.99**step)).sqrt() + 1e-12
        )
    off = (generator.generate(crafted, descriptors, budgets) - aims).norm(dim=1) / (wanted - start[victim]).norm()
    others = torch.cat([off[:victim], off[victim + 1 :]])
    return crafted, float(off[victim]), float(others.max()) if len(others) else 0.0


def anchors(prototypes: np.ndarray, label: int, *, far: float = 100.0) -> np.ndarray:
    """B6: prototypes among which one alone is far: alignment then pulls on records of that class a hundredfold."""
    crafted = prototypes.copy()
    crafted[label] += far
    return crafted


def trap(network: TargetNetwork, record: Tensor, *, margin: float = 0.1) -> Tensor:
    """B6: weights whose encoder passes one record on and no other; with a far anchor alignment is about it alone.

    Every unit of the first layer measures <record, x> / |record|^2, which is 1 at the record itself, less 1 - margin;
    the layers above pass it on, and the classifier is blank. An update of the encoder that is not zero says that the
    record is there. For networks of linear layers with ReLU, and records of about one length.

    Raises:
        NotResolvable: a first layer that is not linear.
    """
    crafted = torch.zeros(network.n_parameters)
    layers = list(zip(network.tensors.names, network.tensors.slices(), network.tensors.shapes, strict=True))
    flat, seen = record.flatten(), False
    for name, part, shape in layers:
        layer, kind = name.rpartition(".")[0], name.rpartition(".")[2]
        if layer == network.classifier_name:
            continue
        if not seen and kind == "weight":
            if len(shape) != 2 or shape[1] != flat.numel():
                raise NotResolvable(f"{name} of shape {tuple(shape)} does not measure records of {flat.numel()} values")
            crafted[part] = (flat / flat.square().sum()).expand(shape[0], -1).flatten()
            first, seen = layer, True
        elif kind == "weight":
            crafted[part] = torch.eye(shape[0], shape[1]).flatten()
        elif layer == first:
            crafted[part] = margin - 1
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
