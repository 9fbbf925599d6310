"""Clipping: what bounds how much one record or one client can move a sum."""

from __future__ import annotations

import math
import numbers

import numpy as np
import torch
from torch import Tensor

from framp_private.errors import PrivacyParameterError

SHRINK = 1 - 2.0**-16
"""Factors are rounded down by this: norms of long float32 rows are off by up to a few times 2^-18."""


LEAST_CLIP, MOST_CLIP = 1e-18, 1e18
"""Bounds beyond which squares of float32 values are zero or infinite, and what was clipped to them is nothing."""


def check_clip(clip_norm: float) -> None:
    """Raises `PrivacyParameterError` unless it is a real number in 1e-18 .. 1e18."""
    if not _is_real(clip_norm) or not LEAST_CLIP <= clip_norm <= MOST_CLIP:
        raise PrivacyParameterError(
            f"clip_norm={clip_norm!r} must be a positive finite number, {LEAST_CLIP:g} .. {MOST_CLIP:g}: it is the "
            "sensitivity; scale the values"
        )


def _is_real(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_noise(noise_multiplier: float) -> None:
    """Raises `PrivacyParameterError` unless it is a real number and 0 < noise_multiplier < infinity."""
    if not _is_real(noise_multiplier) or not 0 < noise_multiplier < math.inf:
        raise PrivacyParameterError(
            f"noise_multiplier={noise_multiplier!r} must be a positive finite number: "
            "to send something without noise and without a claim, say PlainSum()"
        )


def clip_rows(rows: Tensor, clip_norm: float) -> Tensor:
    """Rows (n, d) scaled so that none has an L2 norm above `clip_norm`; a non-finite row becomes zero.

    | row | becomes |
    |---|---|
    | zero | zero |
    | norm at most clip_norm | itself, to within 2^-16 |
    | norm above | the same direction, norm at most clip_norm |
    | NaN or infinity in it | zero |
    """
    exact = rows.double()
    factors = clip_factors(exact.square().sum(1), clip_norm)
    return (torch.nan_to_num(exact, 0.0, 0.0, 0.0) * factors[:, None]).to(rows.dtype)


def clip_factors(squared_norms: Tensor, clip_norm: float) -> Tensor:
    """(n,) factors in [0, 1] that bring rows of the given squared norms to at most `clip_norm`; 0 where not finite."""
    norms = squared_norms.sqrt()
    factors = (clip_norm / norms.clamp(min=1e-300)).clamp(max=1.0) * SHRINK
    return torch.where(torch.isfinite(norms), factors, torch.zeros_like(factors))


def clip_vector(value: np.ndarray, clip_norm: float) -> np.ndarray:
    """The same for one vector of any shape."""
    row = torch.from_numpy(np.asarray(value, np.float32).reshape(1, -1))
    return clip_rows(row, clip_norm).numpy().reshape(value.shape)
