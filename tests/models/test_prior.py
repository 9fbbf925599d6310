"""The part of a hypernetwork that class shares fix: it enters generation and pullback alike."""

from __future__ import annotations

import math

import pytest
import torch

from framp_private.errors import ModelError
from framp_private.models.hypernetwork import Hypernetwork
from framp_private.models.prior import ClassPrior, Places
from framp_private.models.psi import HypernetworkShape

CLASSES, WIDTH = 3, 4
PLACES = Places(slice(5, 5 + CLASSES * WIDTH), slice(17, 20))
N = 22
SHARES = torch.tensor([[0.7, 0.3, 0.0], [0.05, -0.1, 1.05]])
PRIOR = ClassPrior(strength=0.8, floor=0.1, absent=0.5)


def test_bias_and_rows_follow_the_formula() -> None:
    bias = PRIOR.bias(SHARES)
    assert bias[0].tolist() == pytest.approx([0.8 * math.log(7), 0.8 * math.log(3), 0.0])
    scale = PRIOR.scale(SHARES, PLACES, N)
    rows = scale[:, PLACES.weight].reshape(2, CLASSES, WIDTH)
    assert rows[0, :, 0].tolist() == pytest.approx([1.0, 1.0, 0.5])
    assert rows[1, :, 3].tolist() == pytest.approx([0.5, 0.5, 1.0])
    outside = torch.ones(N, dtype=torch.bool)
    outside[PLACES.weight] = False
    assert (scale[:, outside] == 1).all()


@pytest.mark.parametrize("combine", ["additive", "multiplicative"])
def test_generation_and_pullback_are_a_function_and_its_derivative(combine: str) -> None:
    shape = HypernetworkShape(hidden=8, combine=combine, prior=PRIOR)  # type: ignore[arg-type]
    generator = Hypernetwork(N, CLASSES, shape, PLACES)
    torch.manual_seed(0)
    phi = torch.randn(generator.n_phi) * 0.3
    budgets, deltas = torch.tensor([1.0, 0.25]), torch.randn(2, N)
    pulled = generator.pullback(phi, SHARES, budgets, deltas)
    base = generator.generate(phi, SHARES, budgets)
    for _ in range(5):
        direction = _without_constants(generator, torch.randn(generator.n_phi))
        moved = generator.generate(phi + 1e-3 * direction, SHARES, budgets) - generator.generate(
            phi - 1e-3 * direction, SHARES, budgets
        )
        along = float((moved / 2e-3 * deltas).sum())
        assert along == pytest.approx(float((pulled * direction).sum()), rel=0.02, abs=0.02)
    plain = Hypernetwork(N, CLASSES, HypernetworkShape(hidden=8, combine=combine))  # type: ignore[arg-type]
    expected = plain.generate(phi, SHARES, budgets) * PRIOR.scale(SHARES, PLACES, N)
    expected[:, PLACES.bias] += PRIOR.bias(SHARES)
    torch.testing.assert_close(base, expected)


def _without_constants(generator: Hypernetwork, direction: torch.Tensor) -> torch.Tensor:
    """Standardising constants stand in phi and get no gradient, so they do not move here either."""
    at = generator.n_target
    for name, value in generator._working.psi.named_parameters():
        if name.endswith(("centre", "scale")):
            direction[at : at + value.numel()] = 0
        at += value.numel()
    return direction


@pytest.mark.parametrize(
    "bad", [{"strength": -1}, {"floor": 0}, {"floor": 1}, {"absent": 0}, {"absent": 1.1}, {"strength": math.nan}]
)
def test_values_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ModelError, match="prior"):
        ClassPrior(**bad)
    with pytest.raises(ModelError, match="classifier"):
        Hypernetwork(N, CLASSES, HypernetworkShape(prior=PRIOR))
