"""Everything it takes to run a sweep again, and to check what it ran on."""

from __future__ import annotations

from framp_private.report.document import Block, Cell, Code, Details, Items, Notice, Section, Table, joined, text
from framp_private.report.given import OLD
from framp_private.report.operation import COMMITMENT
from framp_private.report.sources import Data, number
from framp_private.run_folder import config_bytes


def reproducibility(data: Data) -> Section:
    """Code, versions, seeds, ledgers, hashes of every run, and the sweep itself; no trial where one alone is shown."""
    best = data["choosing"]["publish"] == "best"
    blocks: list[Block] = [*_code(data), _seeds(data)]
    if not best and data["choosing"]["accounts"]:
        blocks.append(Items(tuple(_head(data, at) for at in range(len(data["choosing"]["accounts"])))))
    if not best:
        blocks += _hashes(data)
    blocks.append(Details("The sweep as it was run", (Code("sweep.yaml", config_bytes(data["spec"]).decode()),)))
    own = "Configuration, seeds, hashes, model card and impact assessment of each run stand in that run's own report."
    return Section("Reproducibility", (*blocks, text(own)), "reproducibility")


def _code(data: Data) -> list[Block]:
    rows = []
    for place, row in enumerate(data["provenance"]):
        at = ("provenance", place)
        versions = [text(f"{name} ", number(data, (*at, "versions", name))) for name in (row["versions"] or {})]
        rows.append((number(data, (*at, "code_sha256")), joined(versions, ", ")))
    blocks: list[Block] = []
    if len(rows) > 1:
        blocks.append(Notice("caution", "Trials were run by different code: they are not alike", ()))
    if rows:
        blocks.append(Table("Code and versions of the trials.", ("code, SHA-256", "versions"), tuple(rows)))
    return blocks


def _seeds(data: Data) -> Block:
    seeds = [number(data, ("spec", "seeds", at)) for at in range(len(data["spec"]["seeds"]))]
    parts = ("Seeds, the same for every point: ", joined(seeds, ", "), ". Digest of the sweep: ")
    written = (". Its summary was written by framp_private ", number(data, "version"), ".")
    return text(*parts, number(data, "digest"), *written)


def _head(data: Data, place: int) -> Cell:
    at = ("choosing", "accounts", place, "ledger")
    file, rows, head = (number(data, (*at, name)) for name in ("file", "rows", "hash"))
    return text(file, ": ", rows, " rows, head ", head)


def _hashes(data: Data) -> list[Block]:
    """By which each run's own files and data can be checked."""
    rows = []
    for at, row in enumerate(data["rows"]):
        if row["state"] != "complete":
            continue
        result = ("rows", at, "result")
        paths = (("provenance", "config_sha256"), ("summary_sha256",), ("provenance", "data_commitment"))
        hashes = [number(data, (*result, *path)) if data.has((*result, *path)) else OLD for path in paths]
        rows.append((number(data, ("rows", at, "number")), *hashes))
    if not rows:
        return []
    header = ("trial", "config.yaml, SHA-256", "summary.json, SHA-256", "commitment to the data")
    table = Table("Hashes of every finished run.", header, tuple(rows))
    return [Details("Hashes of every run", (table, text(f"The commitment is an {COMMITMENT}.", tone="soft")))]
