"""The report of a run that is finished, from the files it left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from framp_private.errors import RunError
from framp_private.report.document import Document
from framp_private.report.run import run_document
from framp_private.run_folder import RunFolder
from framp_private.version import __version__


def report_of_run(folder: Path) -> Document:
    """Reads summary.json, metrics.jsonl, config.yaml and, where they are there, ledger.jsonl and audit.json.

    Raises:
        RunError: the folder holds no finished run, or a file in it does not read.
        LedgerError: the ledger was altered.
    """
    files = RunFolder(folder)
    summary, config, rows = files.summary(), files.config(), files.metrics()
    try:
        return run_document(summary, rows, config, __version__, ledger=files.ledger(), audit=_audit(folder))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise RunError(f"{folder} lacks what a report needs ({error}): its files were altered; restore them") from error


def _audit(folder: Path) -> dict[str, Any] | None:
    path = folder / "audit.json"
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else None
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path} cannot be read: {error}; audit the run again with framp-audit run") from error
