"""An audit as a gate: `framp-audit` as a child process on a finished run, and what it says of the run's claims.

Nothing here imports the attacks: they read what a run left behind, like anybody who was given its folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from framp_private.errors import RunError

REFUTED = 3
"""Exit status of `framp-audit`, and of a gated run, when a claim is refuted."""


def audit(folder: Path, data_root: Path | None = None, *, quiet: bool = False) -> dict[str, Any]:
    """The rows of `audit.json`, which `framp-audit run` writes into the run's folder beside `audit.html`.

    Raises:
        RunError: the audit did not come to an end; the run itself stays as it is.
    """
    command = [sys.executable, "-m", "threat_models.cli", "run", str(folder)]
    if data_root is not None:
        command += ["--data-root", str(data_root)]
    ended = subprocess.run(command, check=False, stdout=subprocess.DEVNULL if quiet else None)
    path = folder / "audit.json"
    if ended.returncode not in (0, REFUTED) or not path.is_file():
        raise RunError(f"the audit of {folder} ended with status {ended.returncode}: run `framp-audit run {folder}`")
    return dict(json.loads(path.read_text()))


def refuted(rows: dict[str, Any]) -> list[str]:
    """What refutes the run's claims, in words; empty if nothing does."""
    found = [claim for claim in rows["claims"] if claim["state"] == "refuted"]
    return [f"{claim.get('channel', claim['scope'])}: {claim['words']}" for claim in found]
