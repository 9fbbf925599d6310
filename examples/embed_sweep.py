"""A sweep from Python: points, seeds and objectives as values, its summary as a dictionary, its frontier printed.

    python examples/embed_sweep.py --out sweeps/embedded

Interrupt it and run it again: it goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from framp_private.sweep import Machine, run_sweep, sweep_of


def main() -> None:
    """Runs what is missing and prints one line for each point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("sweeps/embedded"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    sweep = sweep_of(
        {
            "name": "embedded",
            "preset": "digits-private",
            "set": {"evaluate_every": 40, "home_steps": 50, "hypernetwork.standardise": "own"},
            "axes": {"privacy.epsilon": [1, 8], "pullback": ["server", "client"]},
            "seeds": [0, 1, 2],
            "objectives": ["accuracy.local", "epsilon"],
            "choosing": {"records": "public"},
        }
    )
    begun = (arguments.out / "sweep.yaml").is_file()
    summary = run_sweep(sweep, arguments.out, machine=Machine(workers=arguments.workers), resume=begun)
    front = summary["frontier"][-1]["points"] if summary["frontier"] else []
    states = {row["place"]: row["state"] for row in front}
    for point in summary["points"]:
        if point["replicates"] < len(sweep.seeds):
            print(
                f"{point['axes']}: {point['replicates']} of its runs ended well, see {arguments.out / 'summary.json'}"
            )
            continue
        mean = point["objectives"]["accuracy.local"]
        interval = f"{mean['mean']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]"
        print(f"{point['axes']}: epsilon {point['epsilon']:.2f}, accuracy {interval}, {states[point['place']]}")
    for account in summary["choosing"]["accounts"]:
        print(f"all {account['runs']} runs together, unit {account['unit']}: epsilon {account['epsilon']:.2f}")


if __name__ == "__main__":  # worker processes import this file, too
    main()
