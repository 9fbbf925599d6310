"""Clipping: no row ever has a norm above the clip, whatever is in it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from framp_private.errors import PrivacyParameterError
from framp_private.privacy.clipping import check_clip, check_noise, clip_rows, clip_vector


@pytest.mark.parametrize("clip", [1e-4, 1e-3, 0.5, 1.0, 7.0, 1e6])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-3, 1.0, 1e3, 1e19, 1e37])
def test_norms_stay_at_or_below_the_clip(clip: float, scale: float) -> None:
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 33)).astype(np.float32)) * scale
    clipped = clip_rows(rows, clip)
    norms = clipped.double().norm(dim=1)
    assert (norms <= clip).all()
    short = rows.double().norm(dim=1) <= clip
    torch.testing.assert_close(clipped[short], rows[short], rtol=3e-5, atol=0)
    long = ~short & (rows.double().norm(dim=1) < 1e30)
    torch.testing.assert_close(norms[long], torch.full_like(norms[long], clip), rtol=3e-5, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_becomes_zero_and_touches_no_other(bad: float) -> None:
    rows = torch.ones(3, 4)
    rows[1, 2] = bad
    clipped = clip_rows(rows, 10.0)
    assert torch.equal(clipped[1], torch.zeros(4))
    assert torch.equal(clipped[[0, 2]], clip_rows(torch.ones(2, 4), 10.0))


def test_vectors_of_any_shape() -> None:
    assert clip_vector(np.zeros((2, 0), np.float32), 1.0).shape == (2, 0)
    assert np.linalg.norm(clip_vector(np.full((3, 3), 5.0), 1.0)) == pytest.approx(1.0, rel=3e-5)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_parameters_without_a_guarantee_are_refused(bad: float) -> None:
    with pytest.raises(PrivacyParameterError, match="clip_norm"):
        check_clip(bad)
    with pytest.raises(PrivacyParameterError, match="noise_multiplier"):
        check_noise(bad)
