"""Methods side by side over seeds: accuracy by budget, mean +- sd, and paired differences to the first method.

    python examples/compare_methods.py --preset digits --methods framp fiarse fedavg local --seeds 0 1 2 3 4

Each run's summary is kept under --out, so that an interrupted comparison goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from framp_private import make_config, run_config
from framp_private.config import read_assignments


def run(arguments: argparse.Namespace, method: str, seed: int) -> dict[str, Any]:
    """One run's summary, from disk if it was made before."""
    path = arguments.out / f"{arguments.preset}-{method}-{seed}.json"
    if not path.exists():
        settings = {**read_assignments(arguments.set), "method": method, "seed": seed}
        config = make_config(preset=arguments.preset, assignments=settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(run_config(config, data_root=arguments.data_root).summary)))
    return dict(json.loads(path.read_text()))


def values(summaries: list[dict[str, Any]], kind: str) -> tuple[list[str], np.ndarray]:
    """Column names and a (seeds, columns) array: by budget, the mean, the worst client; NaN where there is none.

    A method that trains at home all along stands in the table after home training with what it has.
    """
    if all(v is None for v in summaries[0]["accuracy"][kind].values()) and kind == "after_local_training":
        kind = "local"
    names = list(summaries[0]["accuracy"][kind])
    rows = []
    for summary in summaries:
        row = [np.nan if (v := summary["accuracy"][kind][name]) is None else v for name in names]
        clients = [found[kind] for found in summary["by_client"].values() if found.get(kind) is not None]
        rows.append([*row, min(clients) if clients else np.nan])
    return [*names, "worst client"], np.array(rows)


def main() -> None:
    """Runs what is missing and prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--methods", nargs="+", default=["framp", "fiarse", "fedavg", "local"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    arguments = parser.parse_args()
    runs = {method: [run(arguments, method, seed) for seed in arguments.seeds] for method in arguments.methods}
    for kind in ("local", "union", "unseen", "after_local_training"):
        names, first = values(runs[arguments.methods[0]], kind)
        if np.isnan(first).all():  # a federation without unseen clients, or a run that trains at home all along
            continue
        print(f"\n### {kind.replace('_', ' ')}, {len(arguments.seeds)} seeds\n")
        print("| method | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
        for method, summaries in runs.items():
            table = values(summaries, kind)[1]
            sd = table.std(0, ddof=1) if len(table) > 1 else np.zeros(len(names))
            print(
                f"| {method} | "
                + " | ".join(
                    "–" if np.isnan(m) else f"{m:.3f} ± {s:.3f}" for m, s in zip(table.mean(0), sd, strict=True)
                )
                + " |"
            )
        for method in arguments.methods[1:] if len(arguments.seeds) > 1 else []:
            difference = first - values(runs[method], kind)[1]
            half = t.ppf(0.975, len(difference) - 1) * difference.std(0, ddof=1) / len(difference) ** 0.5
            cells = (
                "–" if np.isnan(m) else f"{m:+.3f} ± {h:.3f}" for m, h in zip(difference.mean(0), half, strict=True)
            )
            print(f"| {arguments.methods[0]} minus {method}, 95 % | " + " | ".join(cells) + " |")
            least = ("–" if np.isnan(m) else f"{m:+.3f}" for m in difference.min(0))
            print(f"| {arguments.methods[0]} minus {method}, least of the seeds | " + " | ".join(least) + " |")


if __name__ == "__main__":
    main()
