"""What audits cost: a bound, a membership audit with sixteen references, and all of an audit of the default run.

    python benchmarks/audit.py [--skip-run]

Bounds: fastest of twenty. The toy: a two-layer network on half of 2,000 binary records, sixteen references of the same
kind, five attacks. The default run: `framp-audit run` on a recorded `digits-secure` with its run of canaries.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from framp_private import Options, make_config, run_config
from threat_models import metrics
from threat_models.attacks import membership
from threat_models.attacks.models import confidence
from threat_models.attacks.shadows import train_shadows
from threat_models.auditing import f_dp, one_run
from threat_models.cli import main as framp_audit

POOL, CLASSES = 2000, 20


def fastest(what: Callable[[], object], repeats: int = 20) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        what()
        best = min(best, time.perf_counter() - start)
    return best


def one_bound(m: int, form: one_run.PValue) -> Callable[[], float]:
    r, v = m // 5, round(m / 5 * 0.8)
    return lambda: one_run.lower_bound(m, r, v, delta=1e-5, alpha=0.05, p_value=form)


def bounds() -> None:
    for m in (1000, 10_000, 1_000_000):
        sharp, published = fastest(one_bound(m, one_run.sharp)), fastest(one_bound(m, one_run.published), 3)
        print(f"one-run bound, m = {m:>9,}: sharp {1e3 * sharp:8.2f} ms, published {1e3 * published:9.2f} ms")
    curve = fastest(lambda: f_dp.lower_bound(10_000, 2000, 1500, declared="gaussian", delta=1e-5, alpha=0.05), 5)
    print(f"f-DP one-run bound, m =    10,000: {1e3 * curve:8.2f} ms")


def toy() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, POOL)
    bits = (rng.random((CLASSES, 200)) < 0.5)[labels] ^ (rng.random((POOL, 200)) < 0.36)
    x, y = torch.tensor(bits, dtype=torch.float32), torch.tensor(labels)

    def train(rows: np.ndarray, seed: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        sizes = ((200, 128), (128, CLASSES))
        weights = [(torch.randn(size, generator=generator) / size[0] ** 0.5).requires_grad_() for size in sizes]
        shifts = [torch.zeros(size[1], requires_grad=True) for size in sizes]
        optimizer = torch.optim.Adam([*weights, *shifts], 3e-3)

        def logits(part: torch.Tensor) -> torch.Tensor:
            return torch.relu(part @ weights[0] + shifts[0]) @ weights[1] + shifts[1]

        own_x, own_y = x[torch.from_numpy(rows)], y[torch.from_numpy(rows)]
        for _ in range(30):
            for part in torch.randperm(len(own_y), generator=generator).split(100):
                optimizer.zero_grad()
                nn.functional.cross_entropy(logits(own_x[part]), own_y[part]).backward()
                optimizer.step()
        with torch.no_grad():
            return confidence(logits(x), y)

    start = time.perf_counter()
    members = rng.random(POOL) < 0.5
    phi, shadows = train(members, 7), train_shadows(train, POOL, 16, seed=1)
    found = {
        "LOSS": membership.loss(phi),
        "difficulty calibration": membership.calibrated(phi, np.nan_to_num(shadows.outside, nan=phi.mean())),
        "LiRA online": membership.lira_online(phi, shadows.signals, shadows.inside),
        "LiRA offline": membership.lira_offline(phi, shadows.outside),
        "BaVarIA": membership.bavaria(phi, shadows.signals, shadows.inside),
    }
    values = ", ".join(f"{name} {metrics.auc(scores, members).value:.3f}" for name, scores in found.items())
    print(f"16 references on the toy: {time.perf_counter() - start:.1f} s; AUC {values}")


def whole_audit() -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder, options = Path(name) / "run", Options(record_transcript=True)
        start = time.perf_counter()
        run_config(make_config(preset="digits-secure"), out=folder, options=options)
        ran, start = time.perf_counter() - start, time.perf_counter()
        status = framp_audit(["run", str(folder), "--json"])
        audited = time.perf_counter() - start
    print(f"digits-secure: run {ran:.1f} s, audit {audited:.1f} s (status {status})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-run", action="store_true")
    arguments = parser.parse_args()
    bounds()
    toy()
    if not arguments.skip_run:
        whole_audit()
