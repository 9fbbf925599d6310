"""Every generator: starts at the target's initialisation, and pulls back exactly what autograd would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from framp_private import HypernetworkShape
from framp_private.models.hypernetwork import Generator, Hypernetwork, SharedBackbone
from framp_private.models.psi import encode_budgets
from framp_private.randomness import Streams

N, D = 57, 6
FAMILY: dict[str, Generator] = {"shared": SharedBackbone(N)}
for _combine in ("additive", "multiplicative"):
    for _head in ("full", "chunked", "low_rank"):
        FAMILY[f"mlp {_head} {_combine}"] = Hypernetwork(
            N, D, HypernetworkShape(head=_head, hidden=8, chunk=10, rank=5, combine=_combine)
        )
    FAMILY[f"attention {_combine}"] = Hypernetwork(
        N, D, HypernetworkShape(trunk="attention", hidden=8, chunk=10, combine=_combine)
    )
FAMILY["no budget input"] = Hypernetwork(N, D, HypernetworkShape(hidden=8, budget_input=False))
FAMILY["random trunk"] = Hypernetwork(N, D, HypernetworkShape(trunk="random", hidden=8))
FAMILY["own"] = Hypernetwork(N, D, HypernetworkShape(standardise="own", hidden=8))
DESCRIPTORS, BUDGETS = (
    torch.randn(4, D, generator=torch.Generator().manual_seed(0)),
    torch.tensor([1.0, 0.25, 1 / 16, 1 / 64]),
)
THETA = torch.randn(N, generator=torch.Generator().manual_seed(1))


def trained_phi(generator: Generator) -> Tensor:
    """A phi away from its start, where the generated part is not zero."""
    phi = generator.initial(THETA, Streams(0))
    return phi + 0.1 * torch.randn(len(phi), generator=torch.Generator().manual_seed(2))


def learned(generator: Generator) -> Tensor:
    """1 on psi's coordinates that a step may move, 0 on the standardising constants."""
    if isinstance(generator, SharedBackbone):
        return torch.zeros(0)
    constants = ("inputs.", "features.")
    parts = [
        torch.full((value.numel(),), float(not name.startswith(constants)))
        for name, value in generator._working.psi.named_parameters()
    ]
    return torch.cat(parts)


@pytest.mark.parametrize("name", FAMILY)
def test_no_gradient_reaches_the_standardising_constants(name: str) -> None:
    generator = FAMILY[name]
    pulled = generator.pullback(trained_phi(generator), DESCRIPTORS, BUDGETS, torch.ones(4, N))[N:]
    assert not pulled[learned(generator) == 0].any()


@pytest.mark.parametrize("name", FAMILY)
def test_it_starts_at_the_common_initialisation_for_everybody(name: str) -> None:
    generator = FAMILY[name]
    phi = generator.initial(THETA, Streams(0))
    assert phi.shape == (generator.n_phi,)
    assert torch.equal(generator.generate(phi, DESCRIPTORS, BUDGETS), THETA.expand(4, -1))


@pytest.mark.parametrize("name", FAMILY)
def test_pullback_equals_autograd_of_the_composed_map(name: str) -> None:
    generator = FAMILY[name]
    phi = trained_phi(generator)
    deltas = torch.randn(4, N, generator=torch.Generator().manual_seed(3))
    direction = torch.randn(len(phi), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    direction[N:] *= learned(generator)
    step = 1e-3

    def value(shift: float) -> float:
        moved = (phi.double() + shift * direction).float()
        return float((generator.generate(moved, DESCRIPTORS, BUDGETS).double() * deltas.double()).sum())

    pulled = generator.pullback(phi, DESCRIPTORS, BUDGETS, deltas)
    slope = (value(step) - value(-step)) / (2 * step)
    assert float((pulled.double() * direction).sum()) == pytest.approx(slope, rel=2e-2, abs=2e-2)


@pytest.mark.parametrize("name", FAMILY)
def test_the_pullback_of_a_cohort_is_the_sum_of_single_ones(name: str) -> None:
    generator = FAMILY[name]
    phi = trained_phi(generator)
    deltas = torch.randn(4, N, generator=torch.Generator().manual_seed(3))
    together = generator.pullback(phi, DESCRIPTORS, BUDGETS, deltas)
    apart = sum(
        generator.pullback(phi, DESCRIPTORS[i : i + 1], BUDGETS[i : i + 1], deltas[i : i + 1]) for i in range(4)
    )
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "shared"])
def test_a_descriptor_and_a_budget_change_the_weights(name: str) -> None:
    generator = FAMILY[name]
    phi = trained_phi(generator)
    weights = generator.generate(phi, DESCRIPTORS[[0, 1, 0]], BUDGETS[[0, 0, 3]])
    assert not torch.allclose(weights[0], weights[1])
    assert torch.allclose(weights[0], weights[2]) == (name == "no budget input")


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "shared"])
def test_one_clients_weights_do_not_depend_on_who_else_is_generated(name: str) -> None:
    generator = FAMILY[name]
    phi = trained_phi(generator)
    together = generator.generate(phi, DESCRIPTORS, BUDGETS)
    for i in range(4):
        torch.testing.assert_close(
            generator.generate(phi, DESCRIPTORS[i : i + 1], BUDGETS[i : i + 1])[0], together[i], rtol=1e-5, atol=1e-6
        )


def test_low_rank_moves_only_along_its_fixed_directions_and_is_compact() -> None:
    generator = Hypernetwork(23_946, 64, HypernetworkShape(head="low_rank", hidden=32, rank=64))
    assert generator.n_phi <= 1.25 * 23_946
    random = Hypernetwork(23_946, 64, HypernetworkShape(trunk="random", head="low_rank", hidden=64, rank=64))
    assert random.n_phi <= 1.19 * 23_946


@pytest.mark.parametrize("name", [name for name in FAMILY if name not in ("shared", "own")])
def test_calibration_standardises_the_enrolled_and_moves_nothing_it_generates(name: str) -> None:
    generator = FAMILY[name]
    phi = generator.initial(THETA, Streams(0))
    fitted = generator.calibrate(phi, 5 + 3 * DESCRIPTORS, BUDGETS)
    assert torch.equal(generator.generate(fitted, 5 + 3 * DESCRIPTORS, BUDGETS), THETA.expand(4, -1))
    other = generator.calibrate(phi, DESCRIPTORS, BUDGETS)
    moved, still = fitted.clone(), other.clone()
    nudge = torch.randn(len(phi) - N, generator=torch.Generator().manual_seed(5)) * learned(generator)
    moved[N:] += 0.1 * nudge
    still[N:] += 0.1 * nudge
    torch.testing.assert_close(
        generator.generate(moved, 5 + 3 * DESCRIPTORS, BUDGETS),
        generator.generate(still, DESCRIPTORS, BUDGETS),
        rtol=1e-3,
        atol=1e-4,
    )


def test_descriptors_standardised_by_themselves_need_no_calibration() -> None:
    phi = FAMILY["own"].initial(THETA, Streams(0))
    assert torch.equal(FAMILY["own"].calibrate(phi, DESCRIPTORS, BUDGETS), phi)


def test_budgets_are_encoded_smoothly() -> None:
    codes = encode_budgets(torch.tensor([1.0, 0.99, 1 / 64, 0.3]))
    assert codes.shape == (4, 4)
    assert float((codes[0] - codes[1]).abs().max()) < 0.02
    assert int(codes[0].argmax()) == 0 and int(codes[2].argmax()) == 3
