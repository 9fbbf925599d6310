"""Encrypted sums against TenSEAL called directly, their sizes, and rounds with encrypted against clear prototypes.

    python benchmarks/homomorphic.py [--repeats 15] [--rounds 8]

Same vectors, one run, interleaved; the fastest repeat of each counts, and for rounds the median of paired ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import tenseal
import torch
from timing import measure

from framp_private import make_config
from framp_private.assemble import federation_of, network_of
from framp_private.crypto.homomorphic import Encryption, Parameters, batching_prime, new_keys
from framp_private.datasets import load_dataset
from framp_private.protections import BFVSum
from framp_private.simulation import Simulation

CLIENTS = 20


def sizes() -> None:
    """Bytes of one client's prototypes under fixed and under chosen parameters."""
    values = np.random.default_rng(0).integers(-10_000, 10_001, 10 * 129)
    for primes, special in (((54,), 55), ((40,), 60)):
        fixed = Parameters("bfv", 4096, primes, special, plain_modulus=batching_prime(4096, 1_000_001))
        (data,) = Encryption(new_keys(fixed).public, fixed).encrypt(values)
        print(f"10 x 128 and counts at [{primes[0]},{special}], N = 4096: {len(data) / 1000:.1f} kB")
    chosen = BFVSum().parameters(CLIENTS)
    public = new_keys(chosen).public
    (data,) = Encryption(public, chosen).encrypt(values)
    print(
        f"10 x 128 and counts, chosen for {CLIENTS} clients ({list(chosen.primes)} and {chosen.special}, N = "
        f"{chosen.degree}): {len(data) / 1000:.1f} kB, float32 {4 * len(values) / 1000:.1f} kB; public context "
        f"{len(public) / 1000:.0f} kB, once"
    )
    print(f"100 x 512 and counts: {chosen.ciphertexts(100 * 513)} ciphertexts")


def operations(repeats: int) -> None:
    """Encrypting, adding and decrypting the prototypes of 20 clients, by our wrappers and by TenSEAL itself."""
    chosen = BFVSum().parameters(CLIENTS)
    keys = new_keys(chosen)
    public, secret = Encryption(keys.public, chosen), Encryption(keys.secret, chosen, secret=True)
    theirs, opener = tenseal.context_from(keys.public), tenseal.context_from(keys.secret)
    values = np.random.default_rng(0).integers(-10_000, 10_001, (CLIENTS, 10 * 129))
    vectors = [public.encrypt(row) for row in values]

    def added() -> list[int]:
        total = tenseal.bfv_vector_from(opener, vectors[0][0])
        for vector in vectors[1:]:
            total += tenseal.bfv_vector_from(opener, vector[0])
        return list(total.decrypt())

    found = measure(
        {
            "encrypt": lambda: public.encrypt(values[0]),
            "TenSEAL encrypts": lambda: tenseal.bfv_vector(theirs, values[0].tolist()).serialize(),
            "add and decrypt": lambda: secret.decrypted_sum(vectors, values.shape[1]),
            "TenSEAL adds and decrypts": added,
        },
        repeats,
    )
    for ours, other in (("encrypt", "TenSEAL encrypts"), ("add and decrypt", "TenSEAL adds and decrypts")):
        ratio = found[ours] / found[other]
        print(f"{ours}: {1e3 * found[ours]:.2f} ms, {other} in {1e3 * found[other]:.2f} ms, ratio {ratio:.2f}")


def rounds(count: int) -> None:
    """A round of digits with encrypted prototypes against the same round in the clear, in turns."""
    simulations = {}
    for name in ("plain", "bfv"):
        more = {"encryption": {"bound": 1000.0}, "protections": {"prototypes": name}}
        config = make_config(preset="digits", assignments=more)
        torch.set_num_threads(1)
        dataset = load_dataset(config, None)
        declared = {client: data.n_train for client, data in dataset.clients.items()}
        simulations[name] = Simulation(federation_of(config, network_of(config, dataset.schema), declared), dataset)
        simulations[name].enrol()
    seconds: dict[str, list[float]] = {name: [] for name in simulations}
    for index in range(count + 1):
        for name, simulation in simulations.items():
            start = time.perf_counter()
            simulation.step()
            if index:  # the first brings the context, and warms up
                seconds[name].append(time.perf_counter() - start)
    ratio = statistics.median(b / a for a, b in zip(seconds["plain"], seconds["bfv"], strict=True))
    print(
        f"digits, a round: plain {statistics.median(seconds['plain']):.3f} s, encrypted prototypes "
        f"{statistics.median(seconds['bfv']):.3f} s, ratio {ratio:.2f}"
    )


def main() -> None:
    """Prints sizes, times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    sizes()
    operations(arguments.repeats)
    rounds(arguments.rounds)


if __name__ == "__main__":
    main()
