"""Masks: exactly k kept, ties in order of index, what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framp_private import SubmodelRule, TargetNetwork
from framp_private.errors import ModelError
from framp_private.models.submodel import Moments, kept, top_k
from framp_private.randomness import Streams
from tests.tiny import build

NETWORK = TargetNetwork(build)
WEIGHTS = NETWORK.initial_weights(Streams(0))


def naive_top_k(scores: list[float], count: int) -> list[bool]:
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    return [place in order[:count] for place in range(len(scores))]


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]), max_size=40), st.integers(0, 40))
def test_top_k_is_exact_and_ties_follow_the_index(scores: list[float], count: int) -> None:
    count = min(count, len(scores))
    assert top_k(torch.tensor(scores), count).tolist() == naive_top_k(scores, count)


@pytest.mark.parametrize("budget", [1.0, 0.9, 1 / 4, 1 / 16, 1 / 64, 0.3])
@pytest.mark.parametrize("scope", ["global", "layerwise"])
@pytest.mark.parametrize("importance", ["magnitude", "fiarse", "taylor", "fisher"])
def test_exactly_the_budget_is_kept(budget: float, scope: str, importance: str) -> None:
    moments = Moments(torch.randn(NETWORK.n_parameters), torch.rand(NETWORK.n_parameters))
    mask = SubmodelRule(scope=scope, importance=importance).mask(NETWORK, WEIGHTS, budget, moments)
    assert int(mask[NETWORK.maskable].sum()) == int(budget * NETWORK.n_maskable)
    assert bool(mask[~NETWORK.maskable].all())


def test_the_global_mask_keeps_the_largest_over_the_whole_network() -> None:
    mask = SubmodelRule().mask(NETWORK, WEIGHTS, 0.25)
    candidates = WEIGHTS[NETWORK.maskable].abs()
    chosen = mask[NETWORK.maskable]
    assert candidates[chosen].min() >= candidates[~chosen].max()


def test_the_layerwise_mask_gives_every_tensor_its_share() -> None:
    mask = SubmodelRule(scope="layerwise").mask(NETWORK, WEIGHTS, 0.5)
    for part, keep in zip(NETWORK.tensors.slices(), NETWORK.tensors.maskable, strict=True):
        size = part.stop - part.start
        assert not keep or abs(int(mask[part].sum()) - size / 2) <= 1


def test_importances_rank_by_their_formula() -> None:
    moments = Moments(torch.randn(NETWORK.n_parameters), torch.rand(NETWORK.n_parameters))
    where = NETWORK.maskable
    for importance, scores in (("taylor", (WEIGHTS * moments.first).abs()), ("fisher", WEIGHTS**2 * moments.second)):
        mask = SubmodelRule(importance=importance).mask(NETWORK, WEIGHTS, 0.25, moments)
        assert torch.equal(mask[where], top_k(scores[where], kept(NETWORK, 0.25)))
        plain = SubmodelRule(importance=importance).mask(NETWORK, WEIGHTS, 0.25, None)
        assert torch.equal(plain, SubmodelRule().mask(NETWORK, WEIGHTS, 0.25))


def test_moments_are_running_means() -> None:
    moments = Moments(torch.zeros(2), torch.zeros(2)).after(torch.tensor([1.0, -2.0])).after(torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(moments.first, torch.tensor([0.19, -0.18]))
    torch.testing.assert_close(moments.second, torch.tensor([0.19, 0.36]))


@pytest.mark.parametrize("budget", [0.0, -0.1, 1.0001, float("nan"), 1e-6])
def test_budgets_that_keep_nothing_or_too_much_are_refused(budget: float) -> None:
    with pytest.raises(ModelError, match="budget="):
        kept(NETWORK, budget)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ModelError, match="not finite"):
        SubmodelRule().mask(NETWORK, WEIGHTS * float("nan"), 0.5)
    with pytest.raises(ModelError, match="count="):
        top_k(torch.zeros(3), 4)
