"""Gaussian noise from the operating system's randomness.

Floating-point Gaussian noise is not the real-valued Gaussian of the proofs: its values lie on a grid, and its tail
ends (Mironov 2012, "On significance of the least significant bits for differential privacy"). Here a value is
made of two 63-bit uniforms by the transform of Box and Muller (1958), and the uniform behind a far tail gets 63
bits more, so that the tail ends at 13.2 standard deviations instead of the 5.77 of 24-bit uniforms; sums are formed
in float64 and then rounded to a public grid of about 2^-16 standard deviations (`on_grid`), so that the lowest bits of
a noised value say nothing of what it was before. `TAIL` goes into the ledger's delta. What remains, the grid inside the
tail, is a stated residual risk (docs/sharp_edges.md).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from framp_private.randomness import Entropy

TAIL = 2.0**-126
"""Probability mass, per value, of the tail that is cut off: P(R > REACH) for R Rayleigh-distributed."""

REACH = math.sqrt(2 * 126 * math.log(2))
"""The largest magnitude of a standard value, in standard deviations."""

_BLOCK = 1 << 16
_FINE = 1 << 52
"""Words below this, one in 2^11, have fewer than 52 significant bits, and get more."""


def standard_gaussian(count: int, entropy: Entropy) -> Tensor:
    """(count,) float64 independent standard Gaussian values.

    Guarantees: drawn from `entropy` alone; no call repeats or shares values with another one, in any thread or process.
    """
    made = torch.empty(count, dtype=torch.float64)
    if not count:
        return made
    block = min(_BLOCK, count + count % 2)
    stream, half = entropy.keystream(), block // 2
    buffer = bytearray(8 * block)
    words = torch.frombuffer(buffer, dtype=torch.int64)
    radius, angle = torch.empty(half, dtype=torch.float64), torch.empty(half, dtype=torch.float64)
    for at in range(0, count, block):
        stream.fill(buffer)
        part = made[at : at + block]
        first = (len(part) + 1) // 2
        # 63 bits make u in (0, 1]; the other words, signed, an angle in [-pi, pi)
        radius.copy_(_uniform(words[:half].bitwise_and(2**63 - 1), entropy)).log_().mul_(-2.0).sqrt_()
        angle.copy_(words[half:]).mul_(math.pi * 2.0**-63)
        torch.mul(radius[:first], torch.cos(angle[:first]), out=part[:first])
        torch.mul(radius[: len(part) - first], torch.sin(angle[: len(part) - first]), out=part[first:])
    return made


def _uniform(words: Tensor, entropy: Entropy) -> Tensor:
    """Uniforms in (0, 1] from 63-bit words, with a relative precision of 2^-52 down to 2^-126."""
    uniform = words.to(torch.float64).add_(1.0)
    small = np.flatnonzero(words.numpy() < _FINE)
    if small.size:
        more = np.frombuffer(entropy.bytes(8 * small.size), dtype="<u8") >> np.uint64(1)
        uniform.numpy()[small] = words.numpy()[small] + (more.astype(np.float64) + 1) * 2.0**-63
    return uniform.mul_(2.0**-63)


def add_gaussian(value: np.ndarray, deviation: float, entropy: Entropy) -> np.ndarray:
    """`value` plus noise of the given standard deviation, formed in float64 and rounded once, to float32.

    It lies on the public grid of `on_grid`. Non-finite entries are the caller's to remove: noise does not hide them.
    """
    noise = standard_gaussian(value.size, entropy).numpy().reshape(value.shape)
    noised = torch.from_numpy(value.astype(np.float64) + deviation * noise)
    return on_grid(noised, deviation).numpy().astype(np.float32)


GRID_BITS = 16
"""Bits of the grid below the noise's standard deviation."""


def on_grid(noised: Tensor, deviation: float) -> Tensor:
    """float64 noised values rounded to multiples of the largest power of two up to deviation 2^-16, in place.

    Which floating-point numbers a sum of value and noise can be depends on the value (Mironov 2012); after rounding to
    a grid that everybody knows, its lowest bits say nothing. It is a function of what was noised, and costs nothing.
    """
    grid = 2.0 ** (math.floor(math.log2(deviation)) - GRID_BITS)
    return noised.div_(grid).round_().mul_(grid)
