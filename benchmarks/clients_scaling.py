"""Memory from 10 to 1,000 clients: peak resident size of a run, each size in a process of its own.

Every client takes part in every round, so that whatever grows with the cohort shows. Records are pictures of
the digits' shape, 30 per client; what they take is subtracted, as the data are the clients' own.

    python benchmarks/clients_scaling.py [--sizes 10 100 1000] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

import numpy as np
import torch

from framp_private import FederatedDataset, TargetNetwork, federate, framp
from framp_private.models.vision import small_cnn
from framp_private.simulation import Simulation

RECORDS = 30


def measure(n_clients: int, rounds: int) -> dict[str, float]:
    """Peak memory before and after the rounds, in megabytes, and seconds per client and round."""
    import time

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    clients = {f"client-{i:04d}": (rng.random((RECORDS, 1, 8, 8)), np.arange(RECORDS) % 10) for i in range(n_clients)}
    dataset = FederatedDataset.from_arrays(clients)
    del clients
    simulation = Simulation(federate(framp(), TargetNetwork(small_cnn), list(dataset.clients), rounds=rounds), dataset)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    simulation.enrol()
    began = time.perf_counter()
    for _ in range(rounds):
        simulation.step()
    seconds = (time.perf_counter() - began) / rounds / n_clients
    return {"before": before, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "seconds": seconds}


def main() -> None:
    """Prints one line per size and the growth of what the rounds themselves take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.rounds)))
        return
    for size in arguments.sizes:
        command = [sys.executable, __file__, "--one", str(size), "--rounds", str(arguments.rounds)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        grown = found["peak"] - found["before"]
        print(
            f"{size:5d} clients: {found['peak']:7.0f} MB peak, of which the rounds {grown:5.0f} MB; "
            f"{1000 * found['seconds']:.1f} ms per client and round"
        )


if __name__ == "__main__":
    main()
