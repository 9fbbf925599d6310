"""Runs side by side: those that differ in their seed alone are replicates of one setting, and settings are compared
over the seeds that they share.

A difference comes with its interval and the two-sided p of Student's paired t test, and with p after Holm's correction
for all tests of the comparison together: every measure of every setting that was compared with the first one (Holm
1979). Whoever reads the table looks for a number that differs, whichever it is: where settings do not differ, the
probability that any corrected p is at most 0.05 is at most 0.05, however the measures depend on one another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framp_private.checkpoint import write_atomically
from framp_private.errors import RunError
from framp_private.privacy.claims import UNITS
from framp_private.run_folder import RunFolder
from framp_private.sweep.intervals import CONFIDENCE, difference, interval, range_of
from framp_private.version import __version__

Row = dict[str, Any]
KINDS = ("local", "union", "after_local_training", "unseen")
HASHES = ("config_sha256", "code_sha256", "data_commitment")
"""Of a run's provenance, by which it can be checked."""
UNCOUNTED = ("seed", "threads", "evaluate_every", "checkpoint_every")
"""Settings in which replicates may differ: they change no result but the seed, which is what replicates are over."""
FILE = "comparison.json"


def compare(folders: Sequence[Path]) -> Row:
    """The comparison of finished runs.

    Raises:
        RunError: a folder holds no finished run, one is named twice, or two runs of one setting have one seed.
    """
    if len(folders) < 2 or len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError("compare needs at least two different run folders")
    runs = [_run(folder) for folder in folders]
    groups: list[list[Row]] = []
    for run in runs:
        same = next((group for group in groups if group[0]["settings"] == run["settings"]), None)
        if same is None:
            groups.append([run])
            continue
        if any(other["seed"] == run["seed"] for other in same):
            raise RunError(
                f"{run['folder']} repeats seed {run['seed']} of a setting that is there: replicates need seeds"
            )
        same.append(run)
    settings = [_setting(group, groups) for group in groups]
    return {
        "version": __version__,
        "confidence": CONFIDENCE,
        "settings": settings,
        "differences": _differences(settings),
        "comparable": _comparable(settings),
    }


def write_comparison(found: Row, folder: Path) -> None:
    """Writes `comparison.json` into a folder that is new or holds a comparison. Raises `RunError`."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / FILE).is_file():
        raise RunError(f"out={folder} is not empty and holds no comparison: choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, json.dumps(found, indent=1).encode())
    except OSError as error:
        raise RunError(f"out={folder} cannot be written: {error}") from error


def read_comparison(folder: Path) -> Row:
    """The comparison in a folder. Raises `RunError`."""
    try:
        return dict(json.loads((folder / FILE).read_text()))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} holds no comparison: {error}") from error


def _run(folder: Path) -> Row:
    files = RunFolder(folder)
    summary, config = files.summary(), files.config()
    settings = {key: value for key, value in _flat(config).items() if key not in UNCOUNTED}
    return {"folder": str(folder), "seed": summary["seed"], "settings": settings, "summary": summary}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _setting(group: Sequence[Row], groups: Sequence[Sequence[Row]]) -> Row:
    """One setting over its seeds."""
    own = group[0]["settings"]
    every = [other[0]["settings"] for other in groups]
    keys = sorted({key for settings in every for key in settings})
    differs = [key for key in keys if len({json.dumps(settings.get(key)) for settings in every}) > 1]
    summaries = {str(run["seed"]): run["summary"] for run in group}
    first = next(iter(summaries.values()))
    silent = all(summary["privacy"][u]["epsilon"] == 0 for summary in summaries.values() for u in UNITS)
    unit = next((u for u in UNITS if first["privacy"][u]["epsilon"]), UNITS[0] if silent else None)
    claims = [summary["privacy"][unit] for summary in summaries.values()] if unit else []
    known = bool(claims) and all(claim["epsilon"] is not None for claim in claims)
    values = {name: _by_seed(summaries, name) for name in _measures(first)}
    return {
        "differs": {key: _scalar(own[key]) for key in differs if key in own},
        "folders": [run["folder"] for run in group],
        "seeds": list(summaries),
        "unit": unit if known else None,
        "claim": max(claims, key=lambda claim: claim["epsilon"]) if known else None,
        "values": {name: by_seed for name, by_seed in values.items() if by_seed},
        "means": {
            name: interval(list(by_seed.values()), range_of(name)).as_row()
            for name, by_seed in values.items()
            if by_seed
        },
        "method": first["method"],
        "dataset": first["dataset"],
        "server_view": first.get("server_view", {}),
        "runs": [_identity(run) for run in group],
        "data": sorted({json.dumps([s["dataset"], s["clients"], s["unseen_clients"]]) for s in summaries.values()}),
    }


def _identity(run: Row) -> Row:
    """By which a run can be found and checked."""
    provenance = run["summary"].get("provenance", {})
    hashes = {name: provenance.get(name) for name in HASHES}
    return {"seed": run["seed"], "folder": Path(run["folder"]).name, **hashes}


def _scalar(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | bool) else value


def _measures(summary: Mapping[str, Any]) -> list[str]:
    names = [f"{kind}/{budget}" for kind in KINDS for budget in summary["accuracy"][kind]]
    return [*names, "worst client/local", "worst client/after_local_training", "bytes", "seconds"]


def _by_seed(summaries: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, float]:
    found = {seed: _value(summary, name) for seed, summary in summaries.items()}
    return {seed: value for seed, value in found.items() if value is not None}


def _value(summary: Mapping[str, Any], name: str) -> float | None:
    if name == "bytes":
        return float(sum(sum(way.values()) for way in summary["traffic"].values()))
    if name == "seconds":
        return float(sum(summary["seconds"].values()))
    kind, _, at = name.partition("/")
    if kind == "worst client":
        values = [row[at] for row in summary["by_client"].values() if row[at] is not None]
        return min(values, default=None)
    return summary["accuracy"][kind].get(at)  # type: ignore[no-any-return]


def _differences(settings: Sequence[Row]) -> list[Row]:
    """Each setting minus the first, by measure, over the seeds that both have; p is corrected over all of them."""
    first = settings[0]
    rows: list[Row] = []
    for place, other in enumerate(settings[1:], start=1):
        measures: dict[str, Row] = {}
        for name, values in other["values"].items():
            seeds = [seed for seed in values if seed in first["values"].get(name, {})]
            if seeds:
                pair = [values[seed] for seed in seeds], [first["values"][name][seed] for seed in seeds]
                measures[name] = {**difference(*pair, within=range_of(name)).as_row(), "seeds": seeds}
        rows.append({"setting": place, "measures": measures})
    tested = [measure for row in rows for measure in row["measures"].values() if measure["p"] is not None]
    for measure, adjusted in zip(tested, holm([measure["p"] for measure in tested]), strict=True):
        measure["p_holm"] = adjusted
    return rows


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for being as many as they are (Holm 1979), in the order given."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    found, most = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, (len(values) - rank) * values[place]))
        found[place] = most
    return found


def _comparable(settings: Sequence[Row]) -> list[str]:
    """What keeps the settings from being compared as they are, in words; empty if nothing does."""
    found = []
    if len({tuple(setting["data"]) for setting in settings}) > 1:
        found.append("the runs are on different data or different numbers of clients: their accuracies do not compare")
    if len({setting["unit"] for setting in settings}) > 1:
        found.append("the runs protect different units, or some protect none: their epsilons do not compare")
    claims = [setting["claim"] for setting in settings if setting["claim"]]
    if len({claim["trust_model"] for claim in claims}) > 1:
        found.append("the runs trust different parties: see the trust model of each claim")
    return found
