"""From a run folder or a config to the subject of an audit and the claim that is audited."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from framp_private import Config, Options, RunFolder, channel_costs, load_run, load_setup, make_config, read_transcript
from framp_private import run_config as trained
from framp_private.errors import RunError
from threat_models.auditing.claims_check import gaussian
from threat_models.claims import PrivacyClaim
from threat_models.facts import DELTA
from threat_models.trials import Subject
from threat_models.view import Log

OnRound = Callable[[int, int], None]


def subject_of_folder(folder: Path, data_root: Path | None = None) -> tuple[Subject, PrivacyClaim]:
    """A recorded run.

    Raises:
        RunError: no finished run, or one without a transcript. FrampError: its data cannot be loaded.
    """
    files = RunFolder(folder)
    summary = files.summary()
    if not RunFolder(folder).transcript.is_dir():
        raise RunError(f"{folder} has no transcript: record one with --record-transcript, or audit its config.yaml")
    setup = load_setup(make_config(assignments=files.config()), data_root=data_root, out=folder)
    run = load_run(folder, data_root=data_root)
    log = list(read_transcript(RunFolder(folder).transcript))
    _require_whole(log, setup.federation.rounds if setup.exchanges else 0)
    released = {name: run.weights(name).weights.numpy() for name in setup.dataset.clients}
    named = make_config(assignments=files.config())
    subject = Subject(
        setup.federation,
        setup.dataset,
        log,
        released,
        natural=not _made_up(named),
        accuracy=_accuracy(summary),
        folder=folder,
    )
    return subject, claim_of(subject, summary["privacy"])


def _accuracy(summary: dict[str, Any]) -> float | None:
    try:
        found = float(summary["accuracy"]["local"]["mean"])
    except (KeyError, TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _made_up(config: Config) -> bool:
    """Whether clients were cut at random, given their classes, out of one data set."""
    return config.partition in ("dirichlet", "class-dirichlet", "classes") and not Path(config.dataset).is_dir()


def _require_whole(log: Log, rounds: int) -> None:
    """Raises `RunError` for a transcript that lacks rounds: nothing would be attacked, and nothing found."""
    seen = {phase for phase, _ in log}
    missing = [index for index in range(rounds) if f"round-{index:06d}" not in seen]
    if missing:
        raise RunError(f"the transcript lacks {len(missing)} of {rounds} rounds, the first is {missing[0] + 1}")


def subject_of_config(
    config: Config, data_root: Path | None = None, on_round: OnRound = lambda done, total: None
) -> tuple[Subject, PrivacyClaim]:
    """A run made for the audit: the same federation, its transcript kept as long as it takes to read it."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "run"
        options = Options(record_transcript=True, on_round=lambda done, row: on_round(done, config.rounds))
        trained(config, out=out, data_root=data_root, options=options)
        return subject_of_folder(out, data_root)


def claim_of(subject: Subject, privacy: dict[str, Any]) -> PrivacyClaim:
    """The claim that a run's summary states, of the unit that has one."""
    for unit, row in privacy.items():
        if row["epsilon"] is not None and math.isfinite(row["epsilon"]):
            return _claim(subject, unit, row)
    row = privacy["record"]
    return PrivacyClaim(math.inf, 0.0, "record", row["relation"], "other", row["scope"])


def _claim(subject: Subject, unit: Any, row: dict[str, Any]) -> PrivacyClaim:
    channels = channel_costs(subject.facts, row["delta"] or DELTA)
    kind = "gaussian" if channels and all(gaussian(subject.facts, name) for name in channels) else "other"
    return PrivacyClaim(float(row["epsilon"]), float(row["delta"]), unit, row["relation"], kind, row["scope"])  # type: ignore[arg-type]


def is_public(dataset: str) -> bool:
    """Whether the setting names a published data set, so that pictures of records may stand in a report.

    The setting and not the data set's own name: a site's folder may be called like one.
    """
    return dataset in {"digits", "cifar10", "cifar100"}
