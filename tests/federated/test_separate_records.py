"""Networks of users' own: per-record gradients are right, or the network is refused by name before anything is spent.

And at weights that a server chose: no record moves another's part of a sum, however they are rounded.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from framp_private import Alignment, ClientData, FederatedDataset, Options, TargetNetwork, fedavg, federate, train
from framp_private.errors import ModelError
from framp_private.federated import per_sample, separate_records
from framp_private.federated.dp_sgd import DpSGD
from framp_private.federated.gradient_sum import GradientSum
from framp_private.federated.local_training import AtHome
from framp_private.federated.micro_batches import Losses, micro_batch
from framp_private.federated.per_sample import Mode, right, summed_clipped
from framp_private.federated.prototypes import PrototypeBound, local_prototypes
from framp_private.models.vision import lenet
from framp_private.privacy.events import Budget
from framp_private.protections import PlainSum, Plan
from framp_private.randomness import Entropy, Streams
from tests.federated.networks import APART, MEETING

CLIP = 0.3


def records(shape: tuple[int, ...], n: int = 9) -> tuple[Tensor, Tensor]:
    generator = Streams(3).torch()
    y = torch.arange(n) % 4
    if shape == (5,):
        return torch.randint(0, 11, (n, 5), generator=generator).float(), y
    x = torch.randn(n, *shape, generator=generator) * torch.linspace(0.1, 3, n).view(-1, *[1] * len(shape))
    return x, y


def one_by_one(network: TargetNetwork, x: Tensor, y: Tensor) -> Tensor:
    """(n_parameters,) float64: a plain backward pass for each record, clipped and added; frozen weights get zero."""
    total = torch.zeros(network.n_parameters, dtype=torch.float64)
    for i in range(len(x)):
        network.gradient.zero_()
        functional.cross_entropy(network.forward(x[i : i + 1].clone())[0], y[i : i + 1]).backward()
        gradient = network.gradient.double().clone()
        total += gradient * min(1.0, CLIP / float(gradient.norm()))
    return total


@pytest.mark.parametrize("name", APART)
def test_gradients_of_a_users_network_are_those_of_single_records(name: str) -> None:
    build, shape = APART[name]
    network = TargetNetwork(build)
    x, y = records(shape)
    if "amounts" in name:
        x = x.abs()
    network.load(network.initial_weights(Streams(1)))
    losses = Losses(
        lambda rows, m: functional.cross_entropy(network.forward(x[rows], module=m)[0], y[rows], reduction="none"),
        torch.arange(9),
    )
    flags = [value.requires_grad for value in network.module.parameters()]
    mask = torch.ones(network.n_parameters, dtype=torch.bool)
    found, _ = summed_clipped(network, mask, losses, CLIP, "auto")
    wanted = one_by_one(network, x, y)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-4
    assert flags == [value.requires_grad for value in network.module.parameters()]
    # a mask: the same on its coordinates, with norms over them alone
    half = torch.arange(network.n_parameters) % 3 > 0
    cut, _ = summed_clipped(network, half, losses, 1e6, "auto")
    whole, _ = summed_clipped(network, mask, losses, 1e6, "auto")
    torch.testing.assert_close(cut, whole * half, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MEETING)
def test_a_network_in_which_records_meet_or_that_keeps_something_is_refused(name: str) -> None:
    build, shape, reason = MEETING[name]
    network = TargetNetwork(build)
    weights = network.weights.clone()
    with pytest.raises(ModelError, match=reason):
        right("auto", network, True, shape)
    assert torch.equal(network.weights, weights)


def of(name: str) -> tuple[FederatedDataset, TargetNetwork]:
    build, shape, _ = MEETING[name]
    rng = np.random.default_rng(0)
    sites = {f"s{i}": (rng.normal(size=(30, *shape)), np.arange(30) % 4) for i in range(2)}
    return FederatedDataset.from_arrays(sites), TargetNetwork(build)


@pytest.mark.parametrize("name", ["batch mean", "dropout", "sums used later"])
def test_it_is_refused_before_a_row_is_written(name: str, tmp_path: Path) -> None:
    """Networks that train without privacy: the private run says no, and leaves no folder behind."""
    dataset, network = of(name)
    method = replace(fedavg(), trainer=DpSGD(1, 0.5, 1.0, 2.0, 0.1, alignment=Alignment(0.0)))
    made = federate(
        method,
        network,
        list(dataset.clients),
        rounds=1,
        budgets=[1],
        plan=Plan(None, PlainSum(), None, None),
        declared={k: v.n_train for k, v in dataset.clients.items()},
    )
    with pytest.raises(ModelError, match="layer"):
        train(made, dataset, out=tmp_path / "run", options=Options(home_steps=1, budget=Budget(50.0, 1e-5)))
    assert not (tmp_path / "run").exists()


def test_a_network_that_takes_nothing_made_up_asks_for_examples() -> None:
    def build() -> nn.Module:
        class Strict(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a = nn.Linear(6, 4)

            def forward(self, x: Tensor) -> Tensor:
                if not bool((x[:, 0] == 42).all()):
                    raise ValueError("the first column is 42")
                made: Tensor = self.a(x)
                return made

        return Strict()

    with pytest.raises(ModelError, match="examples="):
        right("auto", TargetNetwork(build), True, (6,))
    examples = torch.rand(3, 6)
    examples[:, 0] = 42
    assert right("auto", TargetNetwork(build, examples=examples), True, (6,))


@pytest.mark.parametrize("mode", ["hooks", "ew", "functorch", "vmap", "single"])
@pytest.mark.parametrize(
    "name", ["picture: padding circular", "words: padding word", "sequence: packed", "table: tied"]
)
def test_whatever_mode_is_asked_for_a_right_one_is_used(name: str, mode: Mode) -> None:
    build, shape = APART[name]
    network = TargetNetwork(build)
    x, y = records(shape)
    network.load(network.initial_weights(Streams(1)))
    losses = Losses(
        lambda rows, m: functional.cross_entropy(network.forward(x[rows], module=m)[0], y[rows], reduction="none"),
        torch.arange(9),
    )
    found, _ = summed_clipped(network, torch.ones(network.n_parameters, dtype=torch.bool), losses, CLIP, mode)
    wanted = one_by_one(network, x, y)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-4


def test_what_is_tried_finds_a_wrong_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bookkeeping that clips the batch, one that leaves a record out, one that is right only for few records."""
    real = per_sample._SUMS["bookkeeping"]

    def batch(network, loss, mask, factors):  # noqa: ANN001, ANN202
        return real(network, loss, mask, torch.ones_like)

    def short(network, loss, mask, factors):  # noqa: ANN001, ANN202
        return real(
            network, loss.at(loss.rows[1:]), mask, lambda squared: factors(torch.cat([squared[:1], squared]))[1:]
        )

    for wrong in (batch, short):
        monkeypatch.setitem(per_sample._SUMS, "bookkeeping", wrong)
        assert right("auto", TargetNetwork(lambda: nn.Sequential(nn.Linear(8, 4))), True, (8,)) != "bookkeeping"


# -- weights that a server chose


def data_of(x: Tensor, y: Tensor) -> ClientData:
    rows = torch.arange(len(x))
    return ClientData(x, y, rows, rows[:0], rows[:1])


NETWORKS = {
    "odd table": (lambda: nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 4)), (7,)),
    "table of 13": (lambda: nn.Sequential(nn.Linear(13, 16), nn.Tanh(), nn.Linear(16, 4)), (13,)),
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), (1, 8, 8)),
    "wide": (lambda: nn.Sequential(nn.Linear(300, 20), nn.ReLU(), nn.Linear(20, 4)), (300,)),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)),
        (1, 8, 8),
    ),
    "gated units": (APART["sequence: GRU"][0], (12,)),
}


def crafted(network: TargetNetwork, x: Tensor, seed: int) -> Tensor:
    """Weights at which a change of rounding is a change of any size: large, and cancelling for the records themselves.

    A server that knows some records makes what the first layer says of them zero but for rounding, times 10^5 to 10^9.
    """
    generator = Streams(seed).child("crafted").torch()
    weights = network.initial_weights(Streams(seed))
    scale = 10.0 ** float(torch.empty(1).uniform_(5, 9, generator=generator))
    if seed % 3 == 2:
        return (torch.randint(0, 2, weights.shape, generator=generator) * 2.0 - 1) * scale + weights
    first = next(at for at, shape in enumerate(network.tensors.shapes) if len(shape) == 2)
    part, shape = network.tensors.slices()[first], network.tensors.shapes[first]
    flat = x.flatten(1).double()
    if shape[1] != flat.shape[1]:
        return weights * scale
    null = torch.linalg.svd(flat[: shape[1] - 2])[2][min(len(flat), shape[1] - 2) :]
    mixed = torch.randn(shape[0], len(null), generator=generator).double() @ null
    weights[part] = (mixed * scale).float().flatten()
    return weights


SIZES = (4, 5, 33, 66, 130)


@pytest.mark.parametrize("mode", ["auto", "hooks", "functorch"])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_weights_make_one_record_move_the_others(name: str, mode: Mode) -> None:
    """A search over crafted weights: leaving out any record of 4 to 130 moves the sum by the clip at most."""
    build, shape = NETWORKS[name]
    network = TargetNetwork(build)
    trainer = GradientSum(CLIP, 1.0, 1, Alignment(0.0), mode=mode)
    mask = torch.ones(network.n_parameters, dtype=torch.bool)
    generator = Streams(7).torch()
    for seed in range(15 if mode == "auto" else 5):
        n = SIZES[seed % len(SIZES)]
        x, y = torch.randn(n, *shape, generator=generator), torch.arange(n) % 4
        weights, rows = crafted(network, x, seed), torch.arange(n)
        whole = trainer.delta(network, weights, mask, data_of(x, y), None)
        for gone in (0, 3, n - 1):
            left = replace(data_of(x, y), train=rows[rows != gone])
            without = trainer.delta(network, weights, mask, left, None)
            assert float((whole - without).norm()) <= CLIP


def test_the_search_finds_batches_that_are_as_large_as_they_happen_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without micro-batches of one size, as all the records at once: one record moves the sum by more than the clip."""
    monkeypatch.setattr(per_sample, "right", lambda *given: "bookkeeping")
    monkeypatch.setattr(per_sample, "micro_batch", lambda network, mode: 1 << 20)
    monkeypatch.setattr(per_sample, "padded", lambda rows, size: rows)
    worst, generator = 0.0, Streams(7).torch()
    for name in ("odd table", "table of 13", "wide"):
        build, shape = NETWORKS[name]
        network = TargetNetwork(build)
        trainer = GradientSum(CLIP, 1.0, 1, Alignment(0.0))
        mask = torch.ones(network.n_parameters, dtype=torch.bool)
        for seed in range(20):
            n = SIZES[seed % len(SIZES)]
            x, y = torch.randn(n, *shape, generator=generator), torch.arange(n) % 4
            weights, rows = crafted(network, x, seed), torch.arange(n)
            whole = trainer.delta(network, weights, mask, data_of(x, y), None)
            for gone in (0, 3, n - 1):
                left = replace(data_of(x, y), train=rows[rows != gone])
                moved = whole - trainer.delta(network, weights, mask, left, None)
                worst = max(worst, float(moved.norm()) / CLIP)
    if worst <= 1.0:
        pytest.skip("on this processor matrix products of these sizes round alike: nothing to find")


@pytest.mark.parametrize("name", NETWORKS)
def test_nor_the_others_representations(name: str) -> None:
    build, shape = NETWORKS[name]
    network, generator = TargetNetwork(build), Streams(8).torch()
    bound = PrototypeBound(1.0, 0.2)
    for seed in range(12):
        n = (5, 66, 130)[seed % 3]
        x, y = torch.randn(n, *shape, generator=generator), torch.arange(n) % 4
        network.load(crafted(network, x, seed))
        data, rows = data_of(x, y), torch.arange(n)
        whole = local_prototypes(network, data, rows, "counts", bound)
        for gone in (0, 3, n - 1):
            without = local_prototypes(network, data, rows[rows != gone], "counts", bound)
            assert np.linalg.norm(whole - without) <= bound.clip_norm * (1 + 1e-6)


def test_records_come_in_batches_of_one_size_whatever_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch that the network sees has the size that follows from the network, in DP-SGD with any sample too."""
    network = TargetNetwork(lambda: lenet(3, 16, 4))
    right("auto", network, True, (3, 16, 16))
    sizes: set[int] = set()
    real = TargetNetwork.forward

    def seen(self, x, *more, **named):  # noqa: ANN001, ANN002, ANN003, ANN202
        sizes.add(len(x))
        return real(self, x, *more, **named)

    monkeypatch.setattr(TargetNetwork, "forward", seen)
    x, y = records((3, 16, 16), 150)
    mask = torch.ones(network.n_parameters, dtype=torch.bool)
    for rate in (0.02, 0.5, 1.0):
        trainer = DpSGD(3, rate, alignment=Alignment(0.0))
        weights = network.initial_weights(Streams(1))
        trainer.train(network, weights, mask, data_of(x, y), None, Streams(0), 0.0, AtHome(Entropy(), 150))
    assert sizes == {micro_batch(network, "bookkeeping")}


def test_a_record_that_the_network_raises_an_error_for_counts_as_zero() -> None:
    """An error that ended the run would tell of it; and the others' parts stay what they were to the last bit."""
    network = TargetNetwork(APART["words: embedding"][0])
    x, y = records((5,), 12)
    mask = torch.ones(network.n_parameters, dtype=torch.bool)
    weights = network.initial_weights(Streams(1))
    trainer = GradientSum(CLIP, 1.0, 1, Alignment(0.0))
    bad = x.clone()
    bad[4, 2] = 99.0  # no such word
    spoilt = trainer.delta(network, weights, mask, data_of(bad, y), None)
    rest = replace(data_of(x, y), train=torch.tensor([i for i in range(12) if i != 4]))
    assert torch.equal(spoilt, trainer.delta(network, weights, mask, rest, None))
    everybody = data_of(torch.full((3, 5), 99.0), y[:3])
    assert not trainer.delta(network, weights, mask, everybody, None).any()
    assert math.isfinite(float(spoilt.norm())) and separate_records.RIGHT == 1e-4
