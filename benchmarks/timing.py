"""What the benchmarks that compare functions have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]


def measure(contenders: Mapping[str, Work], repeats: int) -> dict[str, float]:
    """Seconds of the fastest repeat of each, in turns."""
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(repeats):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - start)
    return best
