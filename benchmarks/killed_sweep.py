"""The example sweep on digits, whole and killed: seconds, the longest trial, and whether SIGKILL changes anything.

    python benchmarks/killed_sweep.py [--noise-off] [--kills 3] [--workers 2]

It runs `examples/sweeps/digits_epsilon.yaml` once without interruption, and once killed at random moments and resumed.
With `--noise-off` the same federations run without noise and masks, over as many learning rates as there were epsilons:
then both sweeps must end exactly equal, but for clocks, keys, and the order in which workers asked to spend. Exit
status 1 says that something was lost, ran twice or differs.
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

from framp_private.errors import StorageError
from framp_private.sweep import sweep_of
from framp_private.sweep.opening import find_study
from framp_private.sweep.record import Record
from framp_private.sweep.storage import open_storage

EXAMPLE = Path(__file__).parent.parent / "examples" / "sweeps" / "digits_epsilon.yaml"
CHANGING = ("seconds", "summary_sha256", "provenance")
"""Clocks, and what hangs on keys."""
Written = dict[str, Any]


def noise_off(written: Written) -> Written:
    """The same federations without noise and masks; learning rates take the place of epsilons.

    A secure sum that is interrupted is lost with its round, as masks are never stored: what follows would differ.
    """
    found = copy.deepcopy(written)
    count = len(found["axes"].pop("privacy.epsilon"))
    for settings in found["axes"]["guarantee"].values():
        settings |= {"privacy": "none", "protections.update": "auto", "protections.prototypes": "auto"}
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
    """Trials that have ended, as the study keeps them; none if it was killed before there was one."""
    if not (out / "study.db").is_file():
        return {}
    storage = open_storage(f"sqlite:///{out / 'study.db'}")
    try:
        return {trial.number: trial for trial in find_study(storage, sweep_of(written)).trials() if trial.finished}
    except StorageError:
        return {}
    finally:
        storage.close()


def folders(out: Path) -> dict[str, int]:
    """When each finished run of a trial wrote its summary: a trial that ran again would have written it again."""
    return {path.parent.name: path.stat().st_mtime_ns for path in sorted(out.glob("trials/*/summary.json"))}


def killed(file: Path, written: Written, out: Path, workers: int, moments: list[float]) -> tuple[float, bool]:
    """Runs a sweep that is killed after each of these seconds and resumed; seconds in all, and whether all was kept."""
    rows: dict[int, Record] = {}
    runs: dict[str, int] = {}
    spent, kept = 0.0, True
    for moment in [*moments, None]:
        begun, process = time.perf_counter(), start(file, out, workers)
        try:
            status: int | None = process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
        seconds = time.perf_counter() - begun
        spent += seconds
        now, ran = finished(written, out), folders(out)
        unchanged = all(now[number] == row for number, row in rows.items())
        unchanged &= all(ran[name] == written_at for name, written_at in runs.items())
        kept &= unchanged and (status is None) == (moment is not None)  # one that ended by itself was not killed
        ended = "killed" if status is None else f"ended with status {status}"
        print(f"  {ended} after {seconds:.0f} s: {len(now)} finished, those before unchanged: {unchanged}")
        rows, runs = now, ran
    return spent, kept


def timeless(summary: Written) -> Written:
    """A summary without what changes from one sweep to the next: see `CHANGING`, and the ledgers' order of rows."""
    found = copy.deepcopy(summary)
    for each in [*found["points"], *(row.get("result", {}) for row in found["rows"])]:
        for key in CHANGING:
            each.pop(key, None)
    for account in found["choosing"]["accounts"]:
        account["ledger"].pop("hash")
    return found


def tell(name: str, spent: float, summary: Written) -> bool:
    """One line on a sweep that ended; whether each of its trials is there once, and done."""
    results = [row["result"] for row in summary["rows"] if "result" in row]
    slots = {(row["place"], row["seed"]) for row in summary["rows"]}
    planned = summary["trials"]["planned"]
    whole = bool(summary["trials"]["done"] == planned == len(slots) == len(results))
    spends = [(account["unit"], account["runs"]) for account in summary["choosing"]["accounts"]]
    longest = max(result["seconds"] for result in results)
    print(f"{name}: {spent:.0f} s, {len(results)} of {planned} trials done, each once: {whole}", end=", ")
    print(f"longest {longest:.1f} s, runs in the sweep's ledgers {spends}")
    return whole


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
        fine = tell("whole", spent, whole)
        share = spent / (arguments.kills + 1)
        moments = [random.SystemRandom().uniform(0.3 * share, 1.2 * share) for _ in range(arguments.kills)]
        spent, kept = killed(file, written, root / "killed", arguments.workers, moments)
        found = json.loads((root / "killed" / "summary.json").read_text())
        fine &= tell("killed", spent, found) and kept
        if arguments.noise_off:
            equal = timeless(found) == timeless(whole)
            print(f"equal to the last bit: {equal}")
            fine &= equal
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
