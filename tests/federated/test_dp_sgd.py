"""DP-SGD against a loop over single records, on every layer type and in every mode; and the rule it leans on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from torch import Tensor, nn
from torch.nn import functional

from framp_private import Alignment, ClientData, LocalSGD, TargetNetwork
from framp_private.errors import ModelError, PrivacyParameterError
from framp_private.federated.dp_sgd import DpSGD
from framp_private.federated.local_training import AtHome, HomeSchedule, fiarse_factor
from framp_private.federated.per_sample import Mode, chosen
from framp_private.federated.prototypes import GlobalPrototypes
from framp_private.models import book_keeping
from framp_private.models.vision import lenet, perceptron, resnet18, small_cnn
from framp_private.randomness import Entropy, SeededEntropy, Streams

MODES: tuple[Mode, ...] = ("bookkeeping", "hooks", "ew", "functorch", "ghost")
N, CLASSES = 9, 4


def table_net() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 5, bias=False), nn.ReLU(), nn.Linear(5, CLASSES)
    )


def sequence_net() -> nn.Module:
    """Linear layers on three places of each record."""
    return nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Linear(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(12, CLASSES))


def norm_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.GroupNorm(4, 8), nn.ReLU(),
        nn.Conv2d(8, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 9, CLASSES),
    )  # fmt: skip


NETWORKS = {
    "table": (TargetNetwork(table_net), (6,)),
    "sequence": (TargetNetwork(sequence_net), (6,)),
    "norms": (TargetNetwork(norm_net), (3, 8, 8)),
    "cnn": (TargetNetwork(lambda: small_cnn(1, 8, CLASSES)), (1, 8, 8)),
    "perceptron": (TargetNetwork(lambda: perceptron(1, 8, CLASSES)), (1, 8, 8)),
    "lenet": (TargetNetwork(lambda: lenet(3, 16, CLASSES)), (3, 16, 16)),
}


class NoNoise(Entropy):
    """Noise of exactly zero: what is left is the clipped mean."""


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "framp_private.federated.per_sample.standard_gaussian",
        lambda count, entropy: torch.zeros(count, dtype=torch.float64),
    )


def records(shape: tuple[int, ...], n: int = N, seed: int = 0) -> ClientData:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=generator) * torch.linspace(0.1, 3, n).view(-1, *[1] * len(shape))
    y = torch.randint(CLASSES, (n,), generator=generator)
    everything = torch.arange(n)
    return ClientData(x, y, everything, everything[:0], everything[:1])


def prototypes_of(network: TargetNetwork) -> GlobalPrototypes:
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(CLASSES, network.feature_dim, generator=generator)
    return GlobalPrototypes(values, torch.tensor([True, False, True, True]))


def naive_step(network: TargetNetwork, weights: Tensor, mask: Tensor, data: ClientData, trainer: DpSGD) -> Tensor:
    """One noiseless step over all records, one backward pass a record, in float64 sums."""
    network.load(weights * mask)
    total = torch.zeros(network.n_parameters, dtype=torch.float64)
    prototypes = prototypes_of(network)
    for row in range(data.n_train):
        network.gradient.zero_()
        logits, features = network.forward(data.x[row : row + 1])
        loss = functional.cross_entropy(logits, data.y[row : row + 1])
        label = int(data.y[row])
        if prototypes.present[label]:
            loss = loss + trainer.alignment.weight * (features[0] - prototypes.values[label]).square().mean()
        loss.backward()
        gradient = network.gradient.double() * mask
        total += gradient * min(1.0, trainer.clip_norm / float(gradient.norm()))
    return (weights * mask).double() - trainer.learning_rate * total / data.n_train


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.usefixtures("silent")
def test_clipping_equals_the_loop_over_single_records(name: str, mode: Mode, share: float) -> None:
    network, shape = NETWORKS[name]
    if mode == "ghost" and share < 1:
        with pytest.raises(ModelError, match="ghost"):
            chosen(mode, network, full=False)
        return
    weights, data = network.initial_weights(Streams(1)), records(shape)
    mask = torch.rand(network.n_parameters, generator=torch.Generator().manual_seed(2)) < share
    trainer = DpSGD(1, 1.0, clip_norm=0.7, learning_rate=0.3, alignment=Alignment(0.5), mode=mode)
    moved = trainer.train(network, weights, mask, data, prototypes_of(network), Streams(0), 0.0, AtHome(Entropy(), N))
    expected = naive_step(network, weights, mask, data, trainer)
    torch.testing.assert_close(moved.double(), expected, rtol=1e-4, atol=2e-6)
    assert not moved[~mask].any()


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
@pytest.mark.usefixtures("silent")
def test_gradients_too_many_to_keep_are_clipped_like_the_others(
    bad: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of layers whose per-record gradients do not fit the cache, taken by a small network."""
    network, shape = NETWORKS["cnn"]
    weights, data = network.initial_weights(Streams(1)), records(shape)
    mask = torch.rand(network.n_parameters, generator=torch.Generator().manual_seed(2)) < 0.3
    trainer = DpSGD(1, 1.0, clip_norm=0.7, learning_rate=0.3, alignment=Alignment(0.0))
    if bad is not None:
        x = data.x.clone()
        x[4] = bad
        data = replace(data, x=x)

    def moved() -> Tensor:
        return trainer.train(network, weights, mask, data, None, Streams(0), 0.0, AtHome(Entropy(), N))

    formed = moved()
    calls = []
    real = book_keeping._Conv._one_by_one
    monkeypatch.setattr(book_keeping, "_IN_CACHE", 0)
    monkeypatch.setattr(book_keeping._Conv, "_one_by_one", lambda self, mask: calls.append(1) or real(self, mask))
    torch.testing.assert_close(moved(), formed, rtol=1e-5, atol=1e-6)
    assert calls


@pytest.mark.slow
@pytest.mark.usefixtures("silent")
def test_resnet_too() -> None:
    network, data = TargetNetwork(lambda: resnet18(3, 32, CLASSES)), records((3, 32, 32), 4)
    weights, mask = network.initial_weights(Streams(1)), torch.ones(network.n_parameters, dtype=torch.bool)
    trainer = DpSGD(1, 1.0, clip_norm=0.7, learning_rate=0.3, alignment=Alignment(0.5))
    moved = trainer.train(network, weights, mask, data, prototypes_of(network), Streams(0), 0.0, AtHome(Entropy(), 4))
    step, expected = moved.double() - weights, naive_step(network, weights, mask, data, trainer) - weights
    assert float((step - expected).norm() / expected.norm()) < 1e-2  # deep float32 backward passes differ by batch


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("silent")
def test_one_record_moves_a_step_by_at_most_the_clip_and_no_other_records_share(mode: Mode) -> None:
    """Two neighbours: the difference of the sums is the changed record's own clipped gradient, and nothing else."""
    network, shape = NETWORKS["cnn"]
    weights, data = network.initial_weights(Streams(1)), records(shape)
    mask = torch.ones(network.n_parameters, dtype=torch.bool)
    trainer = DpSGD(1, 1.0, clip_norm=0.7, learning_rate=1.0, alignment=Alignment(0.0), mode=mode)

    def summed(rows: list[int]) -> Tensor:
        part = replace(data, train=torch.tensor(rows, dtype=torch.int64))
        moved = trainer.train(network, weights, mask, part, None, Streams(0), 0.0, AtHome(Entropy(), N))
        return (weights - moved).double() * N

    whole = summed(list(range(N)))
    for gone in range(N):
        difference = whole - summed([row for row in range(N) if row != gone])
        torch.testing.assert_close(difference, summed([gone]), rtol=1e-3, atol=1e-5)
        assert float(difference.norm()) <= 0.7 * (1 + 1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
@pytest.mark.usefixtures("silent")
def test_a_record_that_is_not_finite_adds_zero(mode: Mode, bad: float) -> None:
    network, shape = NETWORKS["perceptron"]
    weights, data = network.initial_weights(Streams(1)), records(shape)
    mask = torch.ones(network.n_parameters, dtype=torch.bool)
    trainer = DpSGD(1, 1.0, alignment=Alignment(0.0), mode=mode)
    x = data.x.clone()
    x[4] = bad
    spoilt = trainer.train(network, weights, mask, replace(data, x=x), None, Streams(0), 0.0, AtHome(Entropy(), N))
    rest = replace(data, train=torch.tensor([row for row in range(N) if row != 4]))
    clean = trainer.train(network, weights, mask, rest, None, Streams(0), 0.0, AtHome(Entropy(), N))
    torch.testing.assert_close(spoilt, clean, rtol=1e-5, atol=1e-6)


def test_empty_batches_are_noise_and_move_the_weights() -> None:
    network, shape = NETWORKS["table"]
    weights, data = network.initial_weights(Streams(1)), records(shape)
    mask = torch.rand(network.n_parameters, generator=torch.Generator().manual_seed(2)) < 0.5
    nobody = replace(data, train=torch.zeros(0, dtype=torch.int64))
    trainer = DpSGD(400, 0.5, clip_norm=2.0, noise_multiplier=3.0, learning_rate=0.1, alignment=Alignment(0.0))
    moved = trainer.train(network, weights, mask, nobody, None, Streams(0), 0.0, AtHome(Entropy(), 10))
    assert not moved[~mask].any()
    deviation = float((moved - weights * mask)[mask].std())
    expected = 0.1 * math.sqrt(400) * 3.0 * 2.0 / (0.5 * 10)
    assert deviation == pytest.approx(expected, rel=0.5)  # a hundred values: five deviations of a sample deviation


@pytest.mark.parametrize("data_seed", [0, 1])
def test_one_class_and_single_records_proceed(data_seed: int) -> None:
    network, shape = NETWORKS["table"]
    weights, data = network.initial_weights(Streams(1)), records(shape, 3, data_seed)
    mask = torch.ones(network.n_parameters, dtype=torch.bool)
    for part in (replace(data, y=torch.zeros_like(data.y)), replace(data, train=data.train[:1])):
        trainer = DpSGD(3, 0.5, alignment=Alignment(0.0))
        assert torch.isfinite(
            trainer.train(network, weights, mask, part, None, Streams(0), 0.0, AtHome(Entropy(), 50))
        ).all()


@pytest.mark.usefixtures("silent")
def test_the_divisor_is_public_whatever_the_batch() -> None:
    network, shape = NETWORKS["table"]
    weights, data = network.initial_weights(Streams(1)), records(shape)
    mask = torch.ones(network.n_parameters, dtype=torch.bool)
    trainer = DpSGD(1, 1.0, learning_rate=1.0, alignment=Alignment(0.0))
    steps = [
        weights - trainer.train(network, weights, mask, data, None, Streams(0), 0.0, AtHome(Entropy(), declared))
        for declared in (N, 10 * N)
    ]
    torch.testing.assert_close(steps[0], 10 * steps[1], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("silent")
def test_momentum_and_fiarse_s_factor_read_only_what_was_noised() -> None:
    network, shape = NETWORKS["table"]
    weights, data = network.initial_weights(Streams(1)), records(shape)
    mask = torch.rand(network.n_parameters, generator=torch.Generator().manual_seed(2)) < 0.6
    trainer = DpSGD(3, 1.0, 1e9, 1e-12, learning_rate=0.1, momentum=0.9, fiarse=True, alignment=Alignment(0.0))
    moved = trainer.train(network, weights, mask, data, None, Streams(0), 0.0, AtHome(Entropy(), N))
    plain = LocalSGD(3, None, 0.1, momentum=0.9, fiarse=True, alignment=Alignment(0.0))
    torch.testing.assert_close(
        moved, plain.train(network, weights, mask, data, None, Streams(0), 0.0), rtol=1e-4, atol=1e-5
    )
    assert fiarse_factor(weights, 0.1, network.maskable).shape == weights.shape


def test_a_round_is_accounted_as_its_steps() -> None:
    event = DpSGD(steps=7, sampling_probability=0.2, noise_multiplier=1.5).event(11)
    step = PoissonSampledDpEvent(0.2, GaussianDpEvent(1.5))
    assert event.mechanism == SelfComposedDpEvent(step, 7) and event.unit == "record" and event.noise_values == 77
    assert DpSGD(steps=1, sampling_probability=1.0).event(1).mechanism == GaussianDpEvent(1.0)


def test_graphs_are_refused_with_the_reason() -> None:
    network, shape = NETWORKS["table"]
    data = replace(records(shape), edge_index=torch.tensor([[0, 1], [1, 0]]))
    mask = torch.ones(network.n_parameters, dtype=torch.bool)
    with pytest.raises(PrivacyParameterError, match="neighbours"):
        DpSGD().train(
            network, network.initial_weights(Streams(1)), mask, data, None, Streams(0), 0.0, AtHome(Entropy(), N)
        )


def test_training_at_home_is_plain() -> None:
    made = DpSGD().at_home(HomeSchedule(5, 0.1, "cosine", None))
    assert isinstance(made, LocalSGD) and made.event(1) is None
    assert (made.steps, made.learning_rate, made.decay, made.batch_size) == (5, 0.1, "cosine", None)


@pytest.mark.parametrize(
    "bad",
    [
        {"clip_norm": 0.0}, {"clip_norm": -1.0}, {"clip_norm": math.inf}, {"clip_norm": math.nan},
        {"noise_multiplier": 0.0}, {"noise_multiplier": math.nan}, {"noise_multiplier": math.inf},
        {"sampling_probability": 0.0}, {"sampling_probability": 1.01}, {"sampling_probability": math.nan},
        {"alignment": Alignment(1.0, "l2")},
    ],
)  # fmt: skip
def test_parameters_without_a_guarantee_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(PrivacyParameterError):
        DpSGD(**bad)  # type: ignore[arg-type]


def test_it_needs_a_source_of_noise() -> None:
    network, shape = NETWORKS["table"]
    with pytest.raises(PrivacyParameterError, match="Entropy"):
        DpSGD().train(
            network,
            network.initial_weights(Streams(1)),
            torch.ones(network.n_parameters, dtype=torch.bool),
            records(shape),
            None,
            Streams(0),
            0.0,
        )


def test_equal_seeded_noise_gives_equal_weights_and_real_noise_does_not() -> None:
    network, shape = NETWORKS["table"]
    weights, mask = network.initial_weights(Streams(1)), torch.ones(network.n_parameters, dtype=torch.bool)

    def once(entropy: Entropy) -> Tensor:
        return DpSGD(2, 0.5).train(network, weights, mask, records(shape), None, Streams(0), 0.0, AtHome(entropy, N))

    assert torch.equal(once(SeededEntropy(1)), once(SeededEntropy(1)))
    assert not torch.equal(once(Entropy()), once(Entropy()))


def test_layers_that_are_not_known_take_another_mode() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6))
            self.out = nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.out(x * self.scale)
            return made

    network = TargetNetwork(Odd)
    assert chosen("auto", network, full=True) == "hooks"
    with pytest.raises(ModelError, match="bookkeeping"):
        chosen("bookkeeping", network, full=True)
    assert chosen("auto", NETWORKS["cnn"][0], full=True) == "bookkeeping"
    assert np.isfinite(N)
