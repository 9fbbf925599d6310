"""Noise from the operating system against torch's seeded generator, interleaved in one run.

python benchmarks/secure_noise.py [--values 10000000] [--repeats 5]
"""

from __future__ import annotations

import argparse
import time

import torch

from framp_private.privacy.discrete import discrete_gaussian
from framp_private.privacy.noise import standard_gaussian
from framp_private.randomness import Entropy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=10**7)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    makers = {
        "torch.randn(dtype=float64)": lambda: torch.randn(arguments.values, dtype=torch.float64),
        "standard_gaussian": lambda: standard_gaussian(arguments.values, Entropy()),
        "discrete_gaussian, sigma 100": lambda: discrete_gaussian(arguments.values, 100.0, Entropy()),
    }
    best = dict.fromkeys(makers, float("inf"))
    for _ in range(arguments.repeats):
        for name, make in makers.items():
            start = time.perf_counter()
            make()
            best[name] = min(best[name], time.perf_counter() - start)
    base = best["torch.randn(dtype=float64)"]
    for name, seconds in best.items():
        print(f"{name:<30}{seconds * 1e3:9.1f} ms  {seconds / base:.2f} x")


if __name__ == "__main__":
    main()
