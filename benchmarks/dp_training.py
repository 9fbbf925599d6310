"""A DP-SGD step against the same step without privacy, and against plain Opacus in each of its modes, in one run.

    python benchmarks/dp_training.py [--networks lenet cnn resnet18] [--batch 64] [--repeats 10]

Every contender takes the same batch: forward, backward, clip, noise, one step. Interleaved; the fastest repeat counts.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleExpandedWeights
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn
from torch.nn import functional

from framp_private import TargetNetwork
from framp_private.federated.per_sample import MaskedOptimizer
from framp_private.models.vision import lenet, resnet18, small_cnn
from framp_private.randomness import Entropy, Streams

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet": (lenet, (3, 32, 32)),
    "cnn": (small_cnn, (1, 8, 8)),
    "resnet18": (resnet18, (3, 32, 32)),
}
CLIP, NOISE, RATE = 1.0, 1.0, 0.1
Step = Callable[[], None]


def without_privacy(build: Callable[[], nn.Module], x: torch.Tensor, y: torch.Tensor) -> Step:
    module = build()
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        optimizer.step()

    return step


def ours(build: Callable[[], nn.Module], x: torch.Tensor, y: torch.Tensor, kept: float) -> Step:
    network = TargetNetwork(build)
    mask = torch.rand(network.n_parameters, generator=Streams(0).torch()) < kept
    optimizer = MaskedOptimizer(
        network, mask, Entropy(), clip_norm=CLIP, noise_multiplier=NOISE, expected_batch_size=len(x)
    )

    def losses(module: nn.Module) -> torch.Tensor:
        return functional.cross_entropy(network.forward(x, module=module)[0], y, reduction="none")

    def step() -> None:
        network.weights.add_(optimizer.noisy_gradient(losses, "bookkeeping"), alpha=-RATE)

    return step


def opacus(build: Callable[[], nn.Module], x: torch.Tensor, y: torch.Tensor, mode: str) -> Step:
    if mode == "ghost":
        return opacus_ghost(build, x, y)
    wrap = {
        "hooks": GradSampleModule,
        "ew": GradSampleModuleExpandedWeights,
        "functorch": lambda module: GradSampleModule(module, force_functorch=True),
    }[mode]
    module = wrap(build())
    optimizer = DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=RATE),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        expected_batch_size=len(x),
    )

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        optimizer.step()

    return step


def opacus_ghost(build: Callable[[], nn.Module], x: torch.Tensor, y: torch.Tensor) -> Step:
    module = GradSampleModuleFastGradientClipping(build(), max_grad_norm=CLIP)
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(module.parameters(), lr=RATE),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        expected_batch_size=len(x),
    )
    criterion = DPLossFastGradientClipping(module, optimizer, nn.CrossEntropyLoss(), "mean")

    def step() -> None:
        optimizer.zero_grad()
        criterion(module(x), y).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["lenet", "cnn"], choices=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in arguments.networks:
        build, shape = NETWORKS[name]
        generator = Streams(1).torch()
        x = torch.randn(arguments.batch, *shape, generator=generator)
        y = torch.randint(10, (arguments.batch,), generator=generator)
        steps = {"without privacy": without_privacy(build, x, y)}
        steps |= {f"opacus {mode}": opacus(build, x, y, mode) for mode in ("hooks", "ew", "functorch", "ghost")}
        steps |= {"book-keeping": ours(build, x, y, 1.1), "book-keeping, budget 1/4": ours(build, x, y, 0.25)}
        best = dict.fromkeys(steps, float("inf"))
        for _ in range(arguments.repeats + 1):
            for label, step in steps.items():
                start = time.perf_counter()
                step()
                best[label] = min(best[label], time.perf_counter() - start)
        for label, seconds in best.items():
            print(f"{name:<10}{label:<28}{1e3 * seconds:9.2f} ms  {seconds / best['without privacy']:.2f} x")


if __name__ == "__main__":
    main()
