"""Which records or clients take part: true Poisson sampling, or samples of fixed size, of the kind that is accounted.

The draw comes from the operating system: amplification by sampling holds only against those who cannot foresee
the sample, so a seed that the server knows will not do.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from framp_private.randomness import Entropy


def poisson_sample(n: int, probability: float, entropy: Entropy) -> Tensor:
    """Indices (k,) int64, increasing: each of 0 .. n-1 independently with `probability` in [0, 1]; k may be 0.

    The probability is met to within 2^-53 by comparing 53-bit uniforms.
    """
    if probability >= 1:
        return torch.arange(n)
    words = np.frombuffer(entropy.bytes(8 * n), dtype="<u8") >> np.uint64(11)
    return torch.from_numpy(np.flatnonzero(words < probability * 2.0**53))


def uniform_sample(n: int, size: int, entropy: Entropy) -> Tensor:
    """Indices (size,) int64, increasing: `size` of 0 .. n-1, every subset alike to within n^2 2^-64."""
    keys = np.frombuffer(entropy.bytes(8 * n), dtype="<u8")
    return torch.from_numpy(np.sort(np.argsort(keys, kind="stable")[:size]))
