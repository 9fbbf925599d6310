"""What tests of sweeps share: a small sweep, a child process that runs one, and what a study holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from framp_private.sweep import Sweep, sweep_of
from framp_private.sweep.opening import find_study
from framp_private.sweep.record import Record
from framp_private.sweep.storage import open_storage

ROOT = Path(__file__).resolve().parent.parent.parent


def grid(n: int, seeds: int = 1, **more: Any) -> dict[str, Any]:
    """n points at some seeds."""
    rates = [round(0.01 * (i + 1), 4) for i in range(n)]
    return {"name": "tried", "axes": {"learning_rate": rates}, "seeds": list(range(seeds)), **more}


def child(written: dict[str, Any], out: Path, run: str, storage: str | None = None) -> subprocess.Popen[bytes]:
    """A process that runs the sweep with two workers."""
    command = [sys.executable, "-m", "tests.sweep.child", str(out), run, *([storage] if storage else [])]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(written).encode())
    process.stdin.close()
    return process


def stored(out: Path, sweep: Sweep | dict[str, Any], storage: str | None = None) -> list[Record]:
    """All trials as the storage has them."""
    opened = open_storage(storage or f"sqlite:///{out / 'study.db'}")
    try:
        return list(find_study(opened, sweep if isinstance(sweep, Sweep) else sweep_of(sweep)).trials())
    finally:
        opened.close()


def ran(out: Path) -> list[int]:
    """Which trials ran, in order, from what `trials.noted` leaves behind."""
    path = out / "ran.txt"
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []
