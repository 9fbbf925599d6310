"""Cost of asking a ledger whether one more release fits, at the 10th and at the 10,000th release, in one run.

python benchmarks/ledger_check.py
"""

from __future__ import annotations

import statistics
import time

from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent

from framp_private import Ledger
from framp_private.privacy.events import Budget

EVENT = PoissonSampledDpEvent(0.01, GaussianDpEvent(2.0))


def milliseconds(ledger: Ledger, repeats: int = 200) -> float:
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        ledger.would_exceed(EVENT, Budget(8.0, 1e-5))
        found.append(time.perf_counter() - start)
    return 1e3 * statistics.median(found)


def main() -> None:
    ledger = Ledger.open(None, unit="record")
    ledger.would_exceed(EVENT, Budget(8.0, 1e-5))  # the first check of an event computes its RDP
    measured = {}
    for index in range(10_000):
        ledger.spend(EVENT, f"step {index}")
        if index + 1 in (10, 10_000):
            measured[index + 1] = milliseconds(ledger)
    for count, value in measured.items():
        print(f"check at release {count:>6,}: {value:.3f} ms, {value / measured[10]:.2f} x")


if __name__ == "__main__":
    main()
