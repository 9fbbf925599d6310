"""Ledgers on disk, for people: what was spent, and whether the chains are whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from framp_private.checkpoint import load_checkpoint
from framp_private.errors import LedgerError
from framp_private.federated.row_signer import row_signed
from framp_private.privacy.chain import Head, read_chain
from framp_private.privacy.ledger import Ledger, verify


def ledger_files(folder: Path) -> list[Path]:
    """The federation's ledger, then the clients'. Raises `LedgerError` if the folder has none."""
    found = [folder / "ledger.jsonl", *sorted((folder / "ledgers").glob("*.jsonl"))]
    if not found[0].is_file():
        raise LedgerError(f"{folder} has no ledger.jsonl: name a run folder, or the folder given to --ledger")
    return found


def ledger_rows(folder: Path, delta: float) -> list[dict[str, Any]]:
    """One row for each account: owner, releases, and the claim behind them; epsilon is None without a guarantee.

    An account of a whole client has spent at least what the federation has: the larger one is shown.
    """
    rows: list[dict[str, Any]] = []
    trust = _trust(folder)
    for path in ledger_files(folder):
        genesis = read_chain(path)[0]
        ledger = Ledger.open(
            path, unit=genesis["unit"], relation=genesis["relation"], owner=genesis["owner"], repair=False
        )
        spent = ledger.epsilon(delta)
        if (
            ledger.unit == "client" and rows
        ):  # a sampled round costs also those who were not asked and do not know of it
            whole = rows[0]["epsilon"]
            spent = max(spent, math.inf if whole is None else float(whole))
        rows.append(
            {
                "owner": ledger.owner,
                "unit": ledger.unit,
                "relation": ledger.relation,
                "releases": ledger.releases,
                "epsilon": spent if math.isfinite(spent) else None,
                "delta": delta,
                "trust_model": trust.get(ledger.unit, "as the run's summary says"),
                "scope": "all releases in this ledger",
            }
        )
    return rows


def verify_ledgers(folder: Path) -> list[str]:
    """One line for each ledger.

    Raises:
        LedgerError: with the first that does not verify, or that is signed by another key than the run knew, or by none
            where others are signed.
    """
    heads, source = known_heads(folder)
    signers = known_signers(folder)
    paths = {str(rows[0]["owner"]): (path, rows) for path in ledger_files(folder) if (rows := read_chain(path))}
    some = any(rows[0]["signer"] for _, rows in paths.values())
    lines = []
    for owner, (path, rows) in paths.items():
        head, signer = verify(path, heads.get(owner), row_signed), str(rows[0]["signer"])
        if signer != signers.get(owner, signer) or (some and not signer):
            raise LedgerError(f"{path} is signed by {signer[:16] or 'nobody'}, and the run knew another key")
        known = f"tail as in {source}" if owner in heads else "tail unverified: no known head"
        signed = f"signed by {signer[:16]}" if signer else "not signed"
        lines.append(f"{owner}: {head.rows} rows, whole, {signed}; {known}")
    return lines


def _trust(folder: Path) -> dict[str, str]:
    """By unit, whom the guarantee needs to be honest; a ledger knows events alone, a finished run's summary says it."""
    summary = folder / "summary.json"
    if not summary.is_file():
        return {}
    return {unit: str(row["trust_model"]) for unit, row in json.loads(summary.read_text())["privacy"].items()}


def known_heads(folder: Path) -> tuple[dict[str, Head], str]:
    """The heads that a run wrote down elsewhere, and where: its summary, else its last checkpoint."""
    summary = folder / "summary.json"
    if summary.is_file():
        stored, source = json.loads(summary.read_text())["ledgers"], summary.name
    else:
        checkpoint = load_checkpoint(folder / "checkpoint")
        stored, source = (checkpoint.facts["ledgers"], "the checkpoint") if checkpoint is not None else ({}, "")
    return {owner: Head(row["rows"], row["hash"]) for owner, row in stored.items()}, source


def known_signers(folder: Path) -> dict[str, str]:
    """The keys, in hexadecimal, that a run's last checkpoint names; empty where there is none."""
    checkpoint = load_checkpoint(folder / "checkpoint")
    return dict(checkpoint.facts["signers"]) if checkpoint is not None else {}
