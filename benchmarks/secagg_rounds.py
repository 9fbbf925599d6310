"""Client and server CPU of whole rounds of secure aggregation, by cohort and size, here and in another checkout.

    python benchmarks/secagg_rounds.py [--before DIR] [--cases 10:10000 100:1000000 ...] [--repeats 1]

DIR is another checkout of this project, whose code runs the same rounds in the same minutes, one after the other, each
in a process of its own with one thread. What is printed of a client is the mean over the cohort.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

CASES = ("10:10000", "100:10000", "1000:10000", "10:1000000", "100:1000000")


def round_of(clients: int, size: int) -> dict[str, float]:
    """One round with as many clients, in this process: seconds of CPU of a client and of the server."""
    import numpy as np

    from framp_private.crypto.keys import Identity
    from framp_private.protections import SecAgg
    from framp_private.protections.base import Member
    from framp_private.protections.secagg.client import answer, masked, receive
    from framp_private.protections.secagg.messages import Delivery
    from framp_private.protections.secagg.server import Gathering
    from framp_private.randomness import Entropy
    from framp_private.wire import decode

    names, protection = [f"client-{place:05d}" for place in range(clients)], SecAgg()
    identities = {name: Identity.new(Entropy()) for name in names}
    roster = {name: identity.public for name, identity in identities.items()}
    members = {name: Member(name, identities[name], roster, b"run", Entropy()) for name in names}
    terms, ring, states, spent = protection.terms(clients), protection.ring(clients), {}, 0.0

    def exchange(requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        nonlocal spent
        for name in requests:
            request, start = requests[name], time.process_time()
            reply, states[name] = answer(request, states.get(name), members[name], terms)
            spent += time.process_time() - start
            yield name, reply

    begun, value = time.process_time(), np.zeros(size)
    gathering = Gathering(names, terms, roster, b"run", 0)
    gathering.collect_keys(exchange)
    gathering.collect_shares(exchange)
    for name in names:
        data, start = gathering.delivery(name), time.process_time()
        states[name] = receive(decode(data, Delivery), b"", states[name], members[name], terms)
        vector = masked(value, "update", ring, states[name])
        spent += time.process_time() - start
        gathering.add(name, "update", vector, size, ring)
    total, _ = gathering.open(exchange, {"update": ring})
    whole = time.process_time() - begun
    assert not total["update"].any()
    return {"client": spent / clients, "server": whole - spent, "neighbours": terms.neighbours}


def measured(root: Path, case: str, repeats: int) -> dict[str, float]:
    """The fastest of a few rounds, by the code in a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--round", case]
    found = [
        json.loads(subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True).stdout)
        for _ in range(repeats)
    ]
    return {key: min(row[key] for row in found) for key in found[0]}


def main() -> None:
    """Prints a line for each cohort and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--round", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.round:
        clients, _, size = arguments.round.partition(":")
        print(json.dumps(round_of(int(clients), int(size))))
        return
    here = Path(__file__).resolve().parent.parent
    print(f"{'clients':>8}{'values':>10}{'k':>6}{'client ms':>12}{'server ms':>12}")
    for case in arguments.cases:
        clients, _, size = case.partition(":")
        rows = {"": measured(here, case, arguments.repeats)}
        if arguments.before:
            rows["before"] = measured(arguments.before.resolve(), case, arguments.repeats)
        for label, row in rows.items():
            print(
                f"{clients:>8}{int(size):>10,}{row['neighbours']:>6}{1e3 * row['client']:>12.1f}"
                f"{1e3 * row['server']:>12.1f} {label}"
            )
        if "before" in rows:
            ratio = {key: rows["before"][key] / rows[""][key] for key in ("client", "server")}
            print(f"{'before / now':>24}{ratio['client']:>12.2f}{ratio['server']:>12.2f}")


if __name__ == "__main__":
    main()
