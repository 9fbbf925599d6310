"""The hypernetwork's gradient is no defence (A7), and neither is keeping a descriptor secret (C6).

theta = theta_0 + h(v; psi): the derivative of theta by a shared bias is the identity, so the gradient of the output
layer's bias is the gradient of the submodel, to the last bit. Without a bias the gradient of its weight is the outer
product of the submodel's gradient and the last hidden activation, whose rank-one factor is the gradient up to scale.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from threat_models.errors import NotResolvable


def from_bias(bias_gradient: Tensor) -> Tensor:
    """A7: the submodel's gradient is the output bias's. Difference 0; only DP or a sum over many helps."""
    return bias_gradient


def from_rank_one(weight_gradient: Tensor) -> tuple[Tensor, float]:
    """A7: (n_target,) the submodel's gradient up to scale and sign, from (n_target, hidden); and s2 / s1.

    Cost: one singular value decomposition. A ratio that is not small says that several clients are summed.

    Raises:
        NotResolvable: a gradient of zero.
    """
    left, sizes, _ = torch.linalg.svd(weight_gradient.double(), full_matrices=False)
    if sizes[0] == 0:
        raise NotResolvable("the gradient is zero")
    return left[:, 0].float(), float(sizes[1] / sizes[0]) if len(sizes) > 1 else 0.0


def descriptor_search(generate: Callable[[Tensor], Tensor], target: Tensor, candidates: Tensor) -> np.ndarray:
    """C6: (m,) scores of candidate descriptors: -|h(v) - theta|, the largest for the one that made the model.

    Whoever may query the generator and holds somebody's model finds their descriptor among candidates (all label
    mixes, say). Cost: one generation a candidate. Without defence the true one is at distance 0.

    Args:
        generate: (d,) descriptor -> (n,) weights. target: (n,) the model. candidates: (m, d).
    """
    return np.array([-float((generate(candidate) - target).norm()) for candidate in candidates])
