"""Coded masks: exact, close to the entropy bound, and closed to nonsense."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framp_private.errors import WireError
from framp_private.models.mask_coding import decode_mask, encode_mask, entropy_bound_bits


@given(st.lists(st.booleans(), max_size=300))
def test_every_mask_comes_back(bits: list[bool]) -> None:
    mask = np.array(bits, bool)
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), len(mask)), mask)


@pytest.mark.parametrize("n", [23_946, 121_182, 1_000_000])
@pytest.mark.parametrize("budget", [1 / 256, 1 / 64, 1 / 16, 1 / 4, 0.4, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("shape", ["uniform", "clustered"])
def test_the_code_is_within_15_percent_of_the_entropy_bound(n: int, budget: float, shape: str) -> None:
    rng, k = np.random.default_rng(0), int(budget * n)
    scores = rng.random(n) if shape == "uniform" else rng.random(n) * np.linspace(0.2, 1, n)
    mask = np.zeros(n, bool)
    mask[np.argsort(-scores)[:k]] = True
    bits = 8 * len(encode_mask(mask))
    assert bits <= 1.15 * entropy_bound_bits(n, k)
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), n), mask)


def test_a_full_mask_costs_next_to_nothing() -> None:
    assert len(encode_mask(np.ones(10_000, bool))) < 16


def test_the_bound_is_the_logarithm_of_the_binomial() -> None:
    assert entropy_bound_bits(50, 11) == pytest.approx(math.log2(math.comb(50, 11)))


@pytest.mark.parametrize("n", [64, 2_000])
@pytest.mark.parametrize("budget", [0.05, 0.5])
def test_truncated_extended_and_shifted_codes_are_refused(n: int, budget: float) -> None:
    mask = np.random.default_rng(1).random(n) < budget
    code = encode_mask(mask)
    for cut in range(len(code)):
        with pytest.raises(WireError):
            decode_mask(code[:cut], n)
    with pytest.raises(WireError):
        decode_mask(code + b"\x01", n)
    with pytest.raises(WireError):
        decode_mask(code, n // 4)


@given(st.binary(max_size=60), st.integers(0, 200))
def test_noise_is_refused_or_names_places_inside(code: bytes, n: int) -> None:
    try:
        mask = decode_mask(code, n)
    except WireError:
        return
    assert mask.shape == (n,)
