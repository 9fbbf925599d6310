"""The example sweep on digits, whole and killed: seconds, the longest trial, and whether SIGKILL changes anything.

    python benchmarks/killed_sweep.py [--noise-off] [--kills 3] [--workers 2]

It runs `examples/sweeps/digits_epsilon.yaml` once without interruption, and once killed at random moments and resumed.
With `--noise-off` the same federations run without noise, over as many learning rates as there were epsilons: then both
sweeps must end exactly equal, but for clocks, keys, the sizes of compressed ciphertexts, and the order in which workers
asked to spend.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from framp_private.sweep import sweep_of
from framp_private.sweep.opening import find_study
from framp_private.sweep.record import Record
from framp_private.sweep.storage import open_storage

EXAMPLE = Path(__file__).parent.parent / "examples" / "sweeps" / "digits_epsilon.yaml"
CHANGING = ("seconds", "bytes", "summary_sha256", "provenance")
"""Clocks, the sizes of compressed ciphertexts, and what hangs on keys."""
Written = dict[str, Any]


def noise_off(written: Written) -> Written:
    """The same federations without noise; learning rates take the place of epsilons."""
    found = copy.deepcopy(written)
    count = len(found["axes"].pop("privacy.epsilon"))
    for settings in found["axes"]["guarantee"].values():
        settings["privacy"] = "none"
        if settings["preset"] in ("digits-secure", "digits-distributed"):
            # the same sums without the noise in them, and with room for values that no clip bounds
            settings |= {"protections.update": "secagg", "secagg.bound": 64.0, "encryption.bound": 4096.0}
    found["axes"]["learning_rate"] = [0.1, 0.2, 0.5, 1.0, 2.0][:count]
    return {
        **found,
        "name": f"{found['name']}-without-noise",
        "objectives": ["accuracy.local", "accuracy.worst_client"],
    }


def start(file: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """The command that runs a sweep, or goes on with it."""
    resume = ["--resume"] if (out / "sweep.yaml").is_file() else []
    command = ["-m", "framp_private", "sweep", str(file), "--out", str(out), "--workers", str(workers), *resume]
    return subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(written: Written, out: Path) -> dict[int, Record]:
    """Trials that have ended, as the study keeps them."""
    storage = open_storage(f"sqlite:///{out / 'study.db'}")
    try:
        return {trial.number: trial for trial in find_study(storage, sweep_of(written)).trials() if trial.finished}
    finally:
        storage.close()


def killed(file: Path, written: Written, out: Path, workers: int, moments: list[float]) -> float:
    """Runs a sweep that is killed after each of these seconds and resumed; seconds in all."""
    before: dict[int, Record] = {}
    spent = 0.0
    for moment in [*moments, None]:
        begun, process = time.perf_counter(), start(file, out, workers)
        try:
            status: int | None = process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
        spent += time.perf_counter() - begun
        if (out / "study.db").is_file():
            now = finished(written, out)
            unchanged = all(now[number] == row for number, row in before.items())
            ended = "killed" if status is None else f"ended with status {status}"
            print(f"  {ended} after {time.perf_counter() - begun:.0f} s: {len(now)} finished, unchanged: {unchanged}")
            before = now
    return spent


def timeless(summary: Written) -> Written:
    """A summary without what changes from one sweep to the next: see `CHANGING`, and the ledgers' order of rows."""
    found = copy.deepcopy(summary)
    for row in found["rows"]:
        for key in CHANGING:
            row.get("result", {}).pop(key, None)
    for point in found["points"]:
        for key in CHANGING:
            point.pop(key, None)
    for account in found["choosing"]["accounts"]:
        account["ledger"].pop("hash")
    return found


def tell(name: str, spent: float, summary: Written) -> None:
    """One line on a sweep that ended."""
    longest = max(row["result"]["seconds"] for row in summary["rows"] if "result" in row)
    runs = [account["runs"] for account in summary["choosing"]["accounts"]]
    numbers = [row["number"] for row in summary["rows"]]
    once = numbers == list(range(summary["trials"]["planned"]))
    print(
        f"{name}: {spent:.0f} s, trials {summary['trials']}, each once: {once}, longest {longest:.1f} s, spent {runs}"
    )


def main() -> None:
    """Runs both and compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise-off", action="store_true")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    written = yaml.safe_load(EXAMPLE.read_text())
    written = noise_off(written) if arguments.noise_off else written
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        file = root / "sweep.yaml"
        file.write_text(yaml.safe_dump(written, sort_keys=False))
        begun = time.perf_counter()
        start(file, root / "whole", arguments.workers).wait()
        spent = time.perf_counter() - begun
        whole = json.loads((root / "whole" / "summary.json").read_text())
        tell("whole", spent, whole)
        share = spent / (arguments.kills + 1)
        moments = [random.SystemRandom().uniform(0.3 * share, 1.2 * share) for _ in range(arguments.kills)]
        spent = killed(file, written, root / "killed", arguments.workers, moments)
        found = json.loads((root / "killed" / "summary.json").read_text())
        tell("killed", spent, found)
        if arguments.noise_off:
            print(f"equal to the last bit: {timeless(found) == timeless(whole)}")


if __name__ == "__main__":
    main()
