"""One trial: a run in a folder of its own, resumed if it was begun, and the row that the study keeps of it."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from framp_private.audit_gate import audit
from framp_private.config import Config
from framp_private.errors import RunError
from framp_private.privacy.claims import UNITS
from framp_private.privacy.events import leaves
from framp_private.run_folder import RunFolder
from framp_private.runs import load_setup, run_config
from framp_private.training import Options

Row = dict[str, Any]
Spend = Callable[[Row], None]
"""Takes what a run is about to spend, and returns once that is written down; see `Task`."""


@dataclass(frozen=True)
class Task:
    """What a worker is asked to run.

    Args:
        number: of the trial. config: of the run. folder: where it goes. threads: how many the run may use at most.
        data_root: where data sets are. audited: attack the finished run, too.
    """

    number: int
    config: Config
    folder: Path
    threads: int = 1
    data_root: Path | None = None
    audited: bool = False


class RunTrial(Protocol):
    """Runs a task and returns the row to keep of it; must be importable by name from a module.

    It calls `spend` with its plan before it releases anything: `{}` if it releases nothing.
    """

    def __call__(self, task: Task, spend: Spend) -> Row:
        """See the class."""


def run_trial(task: Task, spend: Spend) -> Row:
    """Trains what the task describes, or goes on with it, or reads it if it was finished before."""
    files = RunFolder(task.folder)
    config = task.config.model_copy(update={"threads": min(task.config.threads, max(1, task.threads))})
    if not files.finished:
        resume = (task.folder / "config.yaml").is_file()
        if resume:  # models are the same for any number of threads, and a run goes on with the one it began with
            config = config.model_copy(update={"threads": files.config().get("threads", config.threads)})
        if not resume and task.folder.is_dir():
            shutil.rmtree(task.folder)  # a process died before its run was begun
        spend(planned(task, config))
        start = perf_counter()
        run_config(
            config,
            out=task.folder,
            data_root=task.data_root,
            resume=resume,
            options=Options(record_transcript=task.audited),
        )
        seconds = perf_counter() - start
    else:
        before = {**files.config(), "threads": config.threads}
        if before != config.model_dump(mode="json"):
            raise RunError(
                f"{task.folder} holds a finished run of other settings: it belongs to another sweep; move it away"
            )
        spend(planned(task, config))
        seconds = sum(files.summary()["seconds"].values())
    found = audit(task.folder, task.data_root, quiet=True) if task.audited else None
    return row_of(task.folder, seconds, found)


def planned(task: Task, config: Config) -> Row:
    """What the run may release in all, as its ledger prices it: unit, relation, delta, elementary events with
    counts."""
    setup = load_setup(config, data_root=task.data_root)
    federation = setup.federation
    if not setup.exchanges or not federation.channels:
        return {}
    counts: dict[str, int] = {}
    values = 0
    largest = max(federation.budgets, key=lambda name: federation.budgets[name])
    for event, count in federation.planned(largest):
        values += count * event.noise_values
        for leaf, times in leaves(event.mechanism, count).items():
            counts[leaf] = counts.get(leaf, 0) + times
    return {
        "unit": federation.unit,
        "relation": federation.relation,
        "trust_model": federation.trust,
        "delta": config.privacy.delta if config.privacy is not None else None,
        "events": counts,
        "noise_values": values,
    }


def row_of(folder: Path, seconds: float, audited: Mapping[str, Any] | None) -> Row:
    """What the study keeps of a finished run; everything in it stands in the run's own files.

    Raises:
        RunError: no finished run there.
    """
    files = RunFolder(folder)
    summary, metrics = files.summary(), files.metrics()
    unit = next((u for u in UNITS if summary["privacy"][u]["epsilon"] not in (None, 0.0)), None)
    silent = all(summary["privacy"][u]["epsilon"] == 0.0 for u in UNITS)
    last = metrics[-1].get("accuracy") if metrics else None
    return {
        "method": summary["method"],
        "dataset": summary["dataset"],
        "seed": summary["seed"],
        "accuracy": summary["accuracy"],
        "worst_client": min(row["local"] for row in summary["by_client"].values()),
        "validation": last["validation"]["mean"] if last and last["validation"] else None,
        "unit": unit,
        "epsilon": 0.0 if silent else summary["privacy"][unit]["epsilon"] if unit else None,
        "privacy": summary["privacy"],
        "bytes": sum(sum(way.values()) for way in summary["traffic"].values()),
        "seconds": round(seconds, 3),
        "empirical_epsilon": empirical_epsilon(audited) if audited is not None else None,
        "refuted": [c["scope"] for c in audited["claims"] if c["state"] == "refuted"] if audited is not None else None,
        "server_view": summary["server_view"],
        "provenance": summary["provenance"],
        "summary_sha256": hashlib.sha256((folder / "summary.json").read_bytes()).hexdigest(),
    }


def empirical_epsilon(audited: Mapping[str, Any]) -> float | None:
    """The largest lower bound on epsilon in an audit, of estimators whose assumptions hold; None if nothing was tested.

    Bounds that assume Gaussian noise count where the audit says that the mechanism is one.
    """
    found: list[float] = []
    for claim in audited["claims"]:
        gaussian = claim.get("mechanism") == "gaussian"
        for bound in claim.get("bounds", []):
            if bound["sound"] and (gaussian or bound["assumption"] == "none"):
                found.append(math.inf if bound["value"] == "unbounded" else float(bound["value"]))
    return max(found, default=None)


def check_root(root: Path | None) -> Path | None:
    """The data root as an absolute path, as workers may stand elsewhere. Raises `RunError` if it is none."""
    if root is not None and not root.is_dir():
        raise RunError(f"--data-root {root} is no folder")
    return root.resolve() if root is not None else None
