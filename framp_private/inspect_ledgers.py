"""Ledgers on disk, for people: what was spent, and whether the chains are whole.

A run's folder has `ledger.jsonl`, the federation's, and one of each client in `ledgers/`. A sweep's folder has one in
`ledgers/` for each unit and relation, over all its trials.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framp_private.checkpoint import load_checkpoint
from framp_private.crypto.keys import Identity
from framp_private.crypto.secret_files import PRIVATE
from framp_private.errors import LedgerError, StorageError
from framp_private.federated.row_signer import row_signed
from framp_private.privacy.chain import Head, read_chain
from framp_private.privacy.ledger import Ledger, verify
from framp_private.randomness import Entropy
from framp_private.run_folder import RunFolder
from framp_private.sweep.folder import SweepFolder
from framp_private.sweep.opening import find_study
from framp_private.sweep.record import FINISHED
from framp_private.sweep.storage import open_storage

Row = dict[str, Any]


def ledger_files(folder: Path) -> list[Path]:
    """A run's ledgers: the federation's, then the clients'. Raises `LedgerError` if the folder has none."""
    found = [folder / "ledger.jsonl", *sorted((folder / "ledgers").glob("*.jsonl"))]
    if not found[0].is_file():
        raise LedgerError(
            f"{folder} has no ledger.jsonl and no sweep.yaml: name a run's or a sweep's folder, or the folder given to "
            "--ledger"
        )
    return found


def ledger_rows(folder: Path, delta: float) -> list[Row]:
    """One row for each account of a run or a sweep: owner, releases, and the claim behind them; epsilon is None without
    a guarantee.

    A run's account of a whole client has spent at least what the federation has: the larger one is shown.

    Raises:
        LedgerError: there is no ledger, one is not whole, or a sweep's summary cannot be read.
    """
    if SweepFolder(folder).begun:
        return _sweep_rows(folder, delta)
    rows: list[Row] = []
    trust = _trust(folder)
    for path in ledger_files(folder):
        ledger = _read(path)
        spent = ledger.epsilon(delta)
        if (
            ledger.unit == "client" and rows
        ):  # a sampled round costs also those who were not asked and do not know of it
            whole = rows[0]["epsilon"]
            spent = max(spent, math.inf if whole is None else float(whole))
        rows.append(_row(ledger, spent, delta, trust.get(ledger.unit, "as the run's summary says")))
    return rows


def verify_ledgers(folder: Path) -> list[str]:
    """One line for each ledger of a run or a sweep, and one for the trials of a sweep.

    Raises:
        LedgerError: with the first that does not verify, or that is signed by another key than the run or the sweep
            knew, or by none where others are signed; with the first trial whose summary is not the one that the sweep's
            recorded.
        CryptoError: a sweep's own key is no key, or others than its owner may read it.
    """
    if SweepFolder(folder).begun:
        return _verify_sweep(folder)
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
        checkpoint = load_checkpoint(RunFolder(folder).checkpoint)
        stored, source = (checkpoint.facts["ledgers"], "the checkpoint") if checkpoint is not None else ({}, "")
    return {owner: Head(row["rows"], row["hash"]) for owner, row in stored.items()}, source


def known_signers(folder: Path) -> dict[str, str]:
    """The keys, in hexadecimal, that a run's last checkpoint names; empty where there is none."""
    checkpoint = load_checkpoint(RunFolder(folder).checkpoint)
    return dict(checkpoint.facts["signers"]) if checkpoint is not None else {}


def _read(path: Path) -> Ledger:
    """A ledger as its first row says what it is of, for reading alone."""
    genesis = read_chain(path)[0]
    return Ledger.open(path, unit=genesis["unit"], relation=genesis["relation"], owner=genesis["owner"], repair=False)


def _row(ledger: Ledger, spent: float, delta: float, trust: str) -> Row:
    return {
        "owner": ledger.owner,
        "unit": ledger.unit,
        "relation": ledger.relation,
        "releases": ledger.releases,
        "epsilon": spent if math.isfinite(spent) else None,
        "delta": delta,
        "trust_model": trust,
        "scope": "all releases in this ledger",
    }


@dataclass(frozen=True)
class _Recorded:
    """What a sweep's summary says of the files beside it: heads and trust models by the name of a ledger's file,
    digests by the number of a trial that ended well and left a summary; whether trials were left to run.
    """

    heads: Mapping[str, Head]
    trust: Mapping[str, str]
    digests: Mapping[int, str]
    unfinished: bool


def _recorded(folder: Path) -> _Recorded | None:
    """None where there is no summary. Raises `LedgerError` for one that cannot be read."""
    path = folder / "summary.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
        accounts = {Path(row["ledger"]["file"]).name: row for row in found["choosing"]["accounts"]}
        return _Recorded(
            {name: Head(int(row["ledger"]["rows"]), str(row["ledger"]["hash"])) for name, row in accounts.items()},
            {name: ", ".join(row["trust_models"]) for name, row in accounts.items()},
            {
                int(row["number"]): str(row["result"]["summary_sha256"])
                for row in found["rows"]
                if row["state"] == "complete" and row["result"].get("summary_sha256")
            },
            any(row["state"] not in FINISHED for row in found["rows"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(
            f"{path} is no summary of a sweep: write it anew with `framp-private sweep --resume`"
        ) from error


def _sweep_files(folder: Path, recorded: _Recorded | None) -> list[Path]:
    """A sweep's ledgers.

    Raises:
        LedgerError: one that the summary knows is missing, or there are none and no summary that says so.
    """
    found = sorted((folder / "ledgers").glob("*.jsonl"))
    if recorded is None and not found:
        raise LedgerError(f"{folder} has no ledgers/*.jsonl: its trials have spent nothing yet, or they were removed")
    for name in sorted(recorded.heads if recorded else ()):
        if folder / "ledgers" / name not in found:
            raise LedgerError(f"{folder} has no ledgers/{name}, which summary.json knows: restore it from a copy")
    return found


def _sweep_rows(folder: Path, delta: float) -> list[Row]:
    recorded = _recorded(folder)
    trust = recorded.trust if recorded is not None else {}
    rows = []
    for path in _sweep_files(folder, recorded):
        ledger = _read(path)
        rows.append(_row(ledger, ledger.epsilon(delta), delta, trust.get(path.name) or "as each trial's summary says"))
    return rows


def _verify_sweep(folder: Path) -> list[str]:
    recorded, file = _recorded(folder), folder / PRIVATE / "keys" / "sweep.key"
    key = Identity.of_file(file, Entropy()).public.key.hex() if file.is_file() else ""
    lines = []
    for path in _sweep_files(folder, recorded):
        rows = read_chain(path, row_signed)
        tail, genesis = _tail(path, rows, recorded), rows[0]
        signer = str(genesis["signer"])
        key = key or signer  # where it was moved away, all ledgers are still of one
        if not signer or signer != key:
            raise LedgerError(f"{path} is signed by {signer[:16] or 'nobody'}, and the sweep's key is another")
        what = f"{genesis['owner']}, unit {genesis['unit']}, {genesis['relation']}"
        lines.append(f"{what}: {len(rows)} rows, whole, signed by {signer[:16]}; {tail}")
    _verify_study(SweepFolder(folder))
    return [*lines, _verify_trials(folder, recorded)]


def _verify_study(folder: SweepFolder) -> None:
    """Holds the study that a folder keeps against the folder.

    Raises:
        LedgerError: it is gone, cannot be read, or is another sweep's: nothing knows then what was run.
    """
    if not folder.own:  # on a server, whose password nobody gave
        return
    try:
        storage = open_storage(folder.database, patience=5.0, look=True)
        try:
            study = find_study(storage, folder.sweep())
            study.trials()
        finally:
            storage.close()
    except StorageError as error:
        raise LedgerError(f"the study of this sweep does not verify: {error}; restore it from a copy") from error
    if study.identity != folder.identity:
        raise LedgerError(f"{folder.database} is the study of another sweep of this name: restore it from a copy")


def _tail(path: Path, rows: list[Row], recorded: _Recorded | None) -> str:
    """How far a ledger's end is known, in words.

    A summary that was written while trials were left to run has heads that the ledgers go on from.

    Raises:
        LedgerError: the ledger never had the head in the summary, or goes on from that of a finished sweep.
    """
    known = recorded.heads.get(path.name) if recorded is not None else None
    if recorded is None or (known is None and recorded.unfinished):
        return "tail unverified: no known head"
    if known is None:
        if len(rows) > 1:
            raise LedgerError(f"{path} has {len(rows)} rows, and summary.json knows no such account: one was changed")
        return "nothing spent"
    if recorded.unfinished and 0 < known.rows < len(rows) and rows[known.rows - 1]["hash"] == known.hash:
        return f"as in summary.json up to row {known.rows}, tail unverified: trials were left to run"
    verify(path, known)
    return "tail as in summary.json"


def _verify_trials(folder: Path, recorded: _Recorded | None) -> str:
    """Holds the summary of each trial that is here against the digest that the sweep keeps of it."""
    if recorded is None:
        return "trials: unverified, there is no summary.json"
    paths = {number: SweepFolder(folder).trial(number) / "summary.json" for number in recorded.digests}
    here = {number: path for number, path in paths.items() if path.is_file()}  # the others are on other machines
    for number, path in here.items():
        if hashlib.sha256(path.read_bytes()).hexdigest() != recorded.digests[number]:
            raise LedgerError(
                f"trial {number}: {path} is not the file that the sweep's summary.json records: it was altered, or "
                "another machine ran the trial, too, and its result counts"
            )
    return f"trials: {len(here)} of {len(paths)} summaries are here, each as in summary.json"
