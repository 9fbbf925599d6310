"""Each method's best schedule: the same number of trials for every method, ranked by validation accuracy.

    python examples/search_schedules.py --jobs 2 --seeds 100 101 --out runs/search

Test records are never read for the ranking, and the seeds are not those of the tables in docs/reproducing.md.
Each trial's result is kept under --out, so that an interrupted search goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from framp_private import make_config, run_config
from framp_private.errors import FrampError

PLAIN = [{"learning_rate": rate} for rate in (0.2, 0.4, 0.8, 1.2)]
MOMENTUM = [{"learning_rate": rate, "momentum": 0.9} for rate in (0.05, 0.1, 0.2, 0.4)]
FRAMP = [
    {"learning_rate": rate, "server.learning_rate": step, "alignment.weight": weight}
    for rate, step, weight in (
        (0.4, 6.0, 5.0),
        (0.8, 6.0, 5.0),
        (1.2, 6.0, 5.0),
        (0.8, 3.0, 5.0),
        (0.8, 12.0, 5.0),
        (0.8, 6.0, 1.0),
        (0.8, 6.0, 10.0),
        (1.2, 3.0, 5.0),
    )
]
GRID: dict[str, list[dict[str, float]]] = {
    "framp": FRAMP,
    "fiarse": [{"momentum": 0.0} | setting for setting in PLAIN + MOMENTUM],
    "fedavg": [{"momentum": 0.0} | setting for setting in PLAIN + MOMENTUM],
    "local": [{"momentum": 0.0} | setting for setting in PLAIN + MOMENTUM],
}


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested mappings."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        (found.setdefault(section, {}) if section else found)[name] = value
    return found


def trial(out: Path, method: str, place: int, seed: int) -> float:
    """Mean validation accuracy over budgets after the last round; 0 where training diverged."""
    path = out / f"{method}-{place}-{seed}.json"
    if not path.exists():
        settings = nested({**GRID[method][place], "method": method, "seed": seed, "evaluate_every": 100})
        try:
            run = run_config(make_config(preset="digits", assignments=settings))
            score = run.simulation.accuracies()["validation"]["mean"]
        except FrampError as error:
            if "diverged" not in str(error):
                raise
            score = 0.0
        path.write_text(json.dumps(score))
    return float(json.loads(path.read_text()))


def main() -> None:
    """Runs what is missing and prints a Markdown table per method, best first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(GRID))
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/search"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        jobs = {
            (method, place): [pool.submit(trial, arguments.out, method, place, seed) for seed in arguments.seeds]
            for place in range(len(FRAMP))
            for method in arguments.methods
        }
        scores = {key: sum(job.result() for job in found) / len(found) for key, found in jobs.items()}
    for method in arguments.methods:
        print(f"\n### {method}, {len(arguments.seeds)} seeds\n\n| settings | validation accuracy |\n|---|---|")
        for place in sorted(range(len(GRID[method])), key=lambda place: -scores[method, place]):
            print(f"| {GRID[method][place]} | {scores[method, place]:.3f} |")


if __name__ == "__main__":
    main()
