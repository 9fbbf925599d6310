"""What leaves a client, decoded from its bytes, against what is declared; and planted bugs that must be caught.

Each check below runs on the real path: `Client.handle` on request bytes. `test_every_check_passes` runs them on the code as
it is; `test_every_planted_bug_is_caught` patches the code and runs the same checks. False-alarm rate of each
statistical check: 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from framp_private.federated import dp_sgd, per_sample
from framp_private.privacy import noise
from framp_private.privacy.noise import standard_gaussian
from framp_private.privacy.sampling import poisson_sample
from framp_private.protections import LocalGaussian, PlainSum
from framp_private.protections import gaussian as gaussian_module
from framp_private.randomness import Entropy
from tests import private

ALPHA = 1e-6
CHANNELS = ("descriptor", "update", "prototypes")
Patch = Callable[[pytest.MonkeyPatch], None]


@contextmanager
def silence() -> Iterator[None]:
    """Without noise a client's reply is a function of the request: what noise is measured against."""
    with pytest.MonkeyPatch.context() as patch:
        nothing = lambda count, entropy: torch.zeros(count, dtype=torch.float64)  # noqa: E731
        patch.setattr(per_sample, "standard_gaussian", nothing)
        patch.setattr(noise, "standard_gaussian", nothing)
        yield


def noise_of(made, name: str, channel: str, count: int = 1, round_index: int = 0) -> np.ndarray:  # noqa: ANN001
    """(count, size) noise of fresh replies on one channel, in declared standard deviations.

    Prototypes are those of a trained network, whose noise is not this channel's: they are measured with untrained steps.
    """
    quiet = made
    if channel == "prototypes":
        quiet = private.federation(learning_rate=0.0)
    with silence():
        exact = private.uploads(quiet, name, round_index)[channel]
    drawn = [private.uploads(quiet, name, round_index)[channel] - exact for _ in range(count)]
    return np.array(drawn, np.float64) / private.deviations(made, name)[channel]


REPEATS = {"descriptor": 520, "update": 2, "prototypes": 170}
"""How many replies make at least 10,000 values."""


def check_scale(channel: str) -> None:
    """The declared scale is accepted, and two thirds and three halves of it are rejected."""
    drawn = noise_of(private.federation(), "client-00", channel, REPEATS[channel]).ravel()
    assert len(drawn) >= 10_000
    assert kstest(drawn, "norm").pvalue > ALPHA, channel
    for wrong in (2 / 3, 3 / 2):
        assert kstest(drawn / wrong, "norm").pvalue < ALPHA, channel


def check_counts() -> None:
    """The last number of each class's row is noised like the others."""
    made = private.federation()
    drawn = noise_of(made, "client-01", "prototypes", 120).reshape(120, made.network.n_classes, -1)[:, :, -1].ravel()
    assert kstest(drawn, "norm").pvalue > ALPHA
    assert drawn.std() > 0.5


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    n = min(len(a), len(b))
    return abs(float(np.corrcoef(a[:n], b[:n])[0, 1])) * math.sqrt(n)


def check_fresh() -> None:
    """Noise of two rounds, two clients, two channels and two runs is uncorrelated (4.9 deviations)."""
    made = private.federation()
    first = noise_of(made, "client-00", "update")[0]
    others = [
        noise_of(made, "client-00", "update", round_index=1)[0],
        noise_of(made, "client-02", "update")[0],
        noise_of(private.federation(), "client-00", "update")[0],
        noise_of(made, "client-00", "prototypes", 40).ravel(),
    ]
    for other in others:
        assert correlation(first, other) < 4.9


def check_bound() -> None:
    """Without noise, each record alone moves a step by at most the clip, and the sum is the sum of those moves."""
    with silence():
        made = private.federation(learning_rate=1.0)
        whole = private.DATASET.clients["client-00"]
        count = whole.n_train
        moves = []
        for row in range(count):
            alone = replace(whole, train=whole.train[row : row + 1])
            moves.append(_update(made, alone) * count)
        assert max(float(np.linalg.norm(move)) for move in moves) <= private.CLIP * (1 + 1e-5)
        np.testing.assert_allclose(_update(made, whole) * count, np.sum(moves, 0), atol=1e-4)


def _update(made, data) -> np.ndarray:  # noqa: ANN001
    """The update of `client-00` with other records; the divisor stays what it declared."""
    from framp_private.data.base import FederatedDataset

    clients = {**private.DATASET.clients, "client-00": data}
    other = FederatedDataset(private.DATASET.name, private.DATASET.schema, clients)
    return private.uploads(made, "client-00", dataset=other)["update"]


def check_divisor() -> None:
    """A step is divided by q times the declared number, so a sample of half the size makes half the step."""
    with silence(), pytest.MonkeyPatch.context() as patch:
        made = private.federation(sampling_probability=0.5, learning_rate=1.0, clip_norm=1e-3)
        rows = private.DATASET.clients["client-00"].n_train
        picks = iter((torch.arange(rows), torch.arange(rows // 2)))
        patch.setattr(dp_sgd, "poisson_sample", lambda n, p, entropy: next(picks))
        whole = private.uploads(made, "client-00")["update"]
        half = private.uploads(made, "client-00")["update"]
    ratio = float(np.linalg.norm(whole) / np.linalg.norm(half))
    assert 1.5 < ratio < 2.6


def check_sampling() -> None:
    """Batch sizes have a binomial's spread: shuffled batches of one size do not."""
    sizes: list[int] = []
    real = per_sample.MaskedOptimizer.noisy_gradient

    def seen(self, loss, mode, *more):  # noqa: ANN001, ANN002, ANN202
        def counted(module):  # noqa: ANN001, ANN202
            losses = loss(module)
            sizes.append(len(losses))
            return losses

        if loss is None:
            sizes.append(0)
        return real(self, None if loss is None else counted, mode, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(per_sample.MaskedOptimizer, "noisy_gradient", seen)
        made = private.federation(sampling_probability=0.3, steps=400, learning_rate=0.0)
        private.uploads(made, "client-00")
    n = private.DATASET.clients["client-00"].n_train
    ratio = np.var(sizes, ddof=1) / (n * 0.3 * 0.7)
    assert len(sizes) == 400
    assert abs(ratio - 1) < 5.5 * math.sqrt(2 / 400)


def check_empty() -> None:
    """A step whose sample is empty adds its noise, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dp_sgd, "poisson_sample", lambda n, p, entropy: torch.arange(0))
        drawn = private.uploads(private.federation(), "client-00")["update"]
    scaled = drawn / private.deviations(private.federation(), "client-00")["update"]
    assert kstest(scaled, "norm").pvalue > ALPHA


CHECKS: dict[str, Callable[[], None]] = {
    **{f"scale {channel}": (lambda channel=channel: check_scale(channel)) for channel in CHANNELS},
    "counts": check_counts,
    "fresh": check_fresh,
    "bound": check_bound,
    "divisor": check_divisor,
    "sampling": check_sampling,
    "empty": check_empty,
}


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_passes(name: str) -> None:
    CHECKS[name]()


def _scaled(factor: float) -> Patch:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (per_sample, noise):
            monkeypatch.setattr(
                module, "standard_gaussian", lambda count, entropy: factor * standard_gaussian(count, entropy)
            )

    return patch


def _variance_for_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    real = gaussian_module.add_gaussian
    monkeypatch.setattr(
        gaussian_module, "add_gaussian", lambda value, deviation, entropy: real(value, deviation**2, entropy)
    )


def _variance_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """noise_multiplier * clip_norm^2 instead of noise_multiplier * clip_norm."""
    real = per_sample.MaskedOptimizer.add_noise

    def wrong(self) -> None:  # noqa: ANN001
        self.noise_multiplier *= self.max_grad_norm
        real(self)
        self.noise_multiplier /= self.max_grad_norm

    monkeypatch.setattr(per_sample.MaskedOptimizer, "add_noise", wrong)


def _one_draw_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same noise in every round, at every client and on every channel."""
    fixed = standard_gaussian(1 << 16, Entropy())
    for module in (per_sample, noise):
        monkeypatch.setattr(module, "standard_gaussian", lambda count, entropy: fixed[:count].clone())


def _noise_kept_across_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[int, Tensor] = {}

    def drawn(count: int, entropy: Entropy) -> Tensor:
        return kept.setdefault(count, standard_gaussian(count, entropy)).clone()

    monkeypatch.setattr(per_sample, "standard_gaussian", drawn)


def _noise_before_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    real = per_sample.MaskedOptimizer.add_noise

    def wrong(self) -> None:  # noqa: ANN001
        real(self)
        gradient = self._network.gradient
        gradient.mul_(min(1.0, self.max_grad_norm / float(gradient.norm())))

    monkeypatch.setattr(per_sample.MaskedOptimizer, "add_noise", wrong)


def _batch_level_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    real = per_sample.MaskedOptimizer.noisy_gradient

    def wrong(self, loss, mode, *more):  # noqa: ANN001, ANN002, ANN202
        self._factors = torch.ones_like
        gradient = real(self, loss, mode, *more)
        limit = self.max_grad_norm / self.expected_batch_size
        return gradient.mul_(min(1.0, limit / max(float(gradient.norm()), 1e-12)))

    monkeypatch.setattr(per_sample.MaskedOptimizer, "noisy_gradient", wrong)


def _actual_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    real = per_sample.MaskedOptimizer.noisy_gradient

    def wrong(self, loss, mode, *more):  # noqa: ANN001, ANN002, ANN202
        def counted(module):  # noqa: ANN001, ANN202
            losses = loss(module)
            self.expected_batch_size = len(losses)
            return losses

        return real(self, None if loss is None else counted, mode, *more)

    monkeypatch.setattr(per_sample.MaskedOptimizer, "noisy_gradient", wrong)


def _shuffled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fixed_size(n: int, probability: float, entropy: Entropy) -> Tensor:
        order = np.frombuffer(entropy.bytes(8 * n), "<u8").argsort()
        return torch.from_numpy(np.sort(order[: round(probability * n)]))

    monkeypatch.setattr(dp_sgd, "poisson_sample", fixed_size)


def _empty_batches_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    real = per_sample.MaskedOptimizer.noisy_gradient

    def wrong(self, loss, mode, *more):  # noqa: ANN001, ANN002, ANN202
        return self._network.gradient.zero_() if loss is None else real(self, loss, mode, *more)

    monkeypatch.setattr(per_sample.MaskedOptimizer, "noisy_gradient", wrong)


def _counts_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    real = LocalGaussian.protect

    def wrong(self, value: np.ndarray, entropy: Entropy, seat: object = None) -> bytes:  # noqa: ANN001
        noised = PlainSum().reveal(real(self, value, entropy)).copy()
        width = 21
        if len(value) % width == 0:
            noised[width - 1 :: width] = value[width - 1 :: width]
        return PlainSum().protect(noised, entropy)

    monkeypatch.setattr(LocalGaussian, "protect", wrong)


MUTANTS: dict[str, tuple[Patch, str]] = {
    "noise halved in training": (_scaled(0.5), "scale update"),
    "noise halved on sums": (_scaled(0.5), "scale prototypes"),
    "noise doubled": (_scaled(2.0), "scale descriptor"),
    "variance for deviation on sums": (_variance_for_deviation, "scale descriptor"),
    "variance for deviation in training": (_variance_in_training, "scale update"),
    "noise reused across rounds": (_noise_kept_across_rounds, "fresh"),
    "same noise on all clients": (_one_draw_for_all, "fresh"),
    "noise before clipping": (_noise_before_clipping, "scale update"),
    "batch-level clipping": (_batch_level_clipping, "bound"),
    "division by the actual batch": (_actual_batch, "divisor"),
    "shuffling accounted as Poisson": (_shuffled, "sampling"),
    "skipped empty batches": (_empty_batches_skipped, "empty"),
    "unnoised counts": (_counts_in_the_clear, "counts"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_every_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, check = MUTANTS[name]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        CHECKS[check]()


def test_sampling_itself_is_what_training_uses() -> None:
    assert dp_sgd.poisson_sample is poisson_sample
