"""Client-level noise from a trusted server against noise in shares from the clients, paired by seed.

    python examples/compare_noise.py --seeds 0 1 2 3 4 5 6 7 8 9 --data-root DIR

500 clients of the census table, equal epsilon. Both arms are the same preset but for the noise; distributed noise is
larger, as clients may drop out and one may give its share away. Few neighbours keep the protocol cheap here: the opened
sum is the same for any number of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from framp_private import make_config, run_config

SETTINGS: dict[str, Any] = {
    "dataset": "adult",
    "network": "mlp",
    "clients": 500,
    "rounds": 15,
    "local_steps": 5,
    "learning_rate": 0.2,
    "evaluate_every": 15,
    "home_steps": 1,
    "alignment": {"weight": 0.0},
}
SECURE = {"secagg": {"neighbours": 8, "threshold": 0.75, "survivors": 0.8}}


def accuracy(preset: str, seed: int, root: Path | None) -> tuple[float, float]:
    """Mean local accuracy of the served models, and epsilon."""
    more = SECURE if preset == "digits-distributed" else {}
    config = make_config(preset=preset, assignments={**SETTINGS, **more, "seed": seed})
    summary = run_config(config, data_root=root).summary
    return summary["accuracy"]["local"]["mean"], summary["privacy"]["client"]["epsilon"]


def main() -> None:
    """Prints each pair, and the mean difference with its 95 % interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data-root", type=Path)
    arguments = parser.parse_args()
    differences = []
    for seed in arguments.seeds:
        central, spent = accuracy("digits-client-private", seed, arguments.data_root)
        shared, spent_too = accuracy("digits-distributed", seed, arguments.data_root)
        differences.append(shared - central)
        print(
            f"seed {seed}: central {central:.4f} (epsilon {spent:.3f}), distributed {shared:.4f} ({spent_too:.3f})",
            flush=True,
        )
    if len(differences) > 1:
        found = np.array(differences)
        half = t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
        print(f"distributed minus central: {found.mean():+.4f} ± {half:.4f} (95 %, {len(found)} paired seeds)")


if __name__ == "__main__":
    main()
