"""What a run cost on the wire and in time, and what it takes to check or repeat it."""

from __future__ import annotations

from framp_private.report import figures
from framp_private.report.document import Block, Cell, Code, Details, Facts, Figure, Gap, Section, Table, joined, text
from framp_private.report.given import OLD, Given
from framp_private.report.sources import derived, named, number
from framp_private.run_folder import config_bytes

COMMITMENT = (
    "HMAC-SHA256 of the data's fingerprint under a random key that stays in the folder keys of the run. It shows "
    "nothing of the data; whoever is shown key and data can check that these were the data"
)


def traffic(given: Given) -> Section:
    """Bytes by channel and direction."""
    channels = given.summary.keys("traffic.up")
    rows = []
    for way in ("down", "up"):
        sizes = (given.number(("traffic", way, name), ",") for name in channels)
        rows.append((way, *sizes, derived("sum", given.summary, ("traffic", way, "*"), ",")))
    caption = (
        "Bytes as the engine carried them, whole run, all clients; protocol: keys, shares, ledger heads and headers."
    )
    table = Table(caption, ("direction", *channels, "together"), tuple(rows))
    return Section("Traffic", (table, Figure(figures.traffic_by_channel(given.summary))), "traffic")


def cost(given: Given) -> Section:
    """Seconds by phase."""
    rows = [(name, given.number(("seconds", name), ".1f")) for name in given.summary.keys("seconds")]
    together = ("together", derived("sum", given.summary, "seconds.*", ".1f"))
    table = Table("Wall-clock seconds by phase, all clients on one machine.", ("phase", "seconds"), (*rows, together))
    sizes = text(
        "The target network has ",
        given.number("parameters.target", ","),
        " parameters, what the server learns (phi) ",
        given.number("parameters.phi", ","),
        ".",
    )
    return Section("Cost", (table, sizes), "cost")


def reproducibility(given: Given) -> Section:
    """Seed, versions, digests, ledger heads, settings."""
    blocks: list[Block] = [
        text(
            "With the same code, settings, seed and data a run without noise can be repeated exactly on the same kind "
            "of machine. Noise and keys come from the operating system and cannot be.",
            tone="soft",
        ),
        Facts(_digests(given)),
        *_ledgers(given),
    ]
    if given.config.content:
        settings = config_bytes(given.config.content).decode()
        blocks.append(Details("All settings", (Code("Settings, as in config.yaml", settings),)))
    return Section("Reproducibility", tuple(blocks), "reproducibility")


def _digests(given: Given) -> tuple[tuple[str, Cell], ...]:
    return (
        ("Seed", given.number("seed")),
        ("Versions", _versions(given)),
        ("Code that finished the run, SHA-256", given.number_or_gap("provenance.code_sha256")),
        ("Settings, SHA-256 of config.yaml", given.number_or_gap("provenance.config_sha256")),
        ("Commitment to the data", _commitment(given)),
    )


def _commitment(given: Given) -> Cell:
    found = given.number_or_gap("provenance.data_commitment")
    if isinstance(found, Gap):
        return found
    if found.value is None:
        return Gap("the run has no folder that could keep its key")
    return text(found, f". {COMMITMENT}")


def _versions(given: Given) -> Cell:
    at = ("provenance", "versions")
    if not given.summary.has(at):
        return OLD
    return joined([text(f"{name} ", given.number((*at, name))) for name in given.summary.keys(at)], ", ")


def _ledgers(given: Given) -> list[Block]:
    """Heads of all ledgers, and whether the federation's file ends with the one that the summary knows."""
    owners = given.summary.keys("ledgers")
    rows = [
        (named(given.summary, at), given.number((*at, "rows"), ","), given.number((*at, "hash")))
        for at in (("ledgers", owner) for owner in owners)
    ]
    table = Table("Ledger heads: row count and last hash of each.", ("owner", "rows", "last hash"), tuple(rows))
    if given.ledger is None:
        read = text(Gap("no ledger of the run's own was read: it continues a shared one, or the file is missing"))
    else:
        head = (number(given.ledger, "rows", ","), " rows, last hash ", number(given.ledger, "hash"))
        same = (given.ledger["rows"], given.ledger["hash"]) == tuple(_federation_head(given))
        verdict = (
            "as the summary says" if same else "which is not what the summary says: rows were added, cut or replaced"
        )
        read = text("The federation's ledger as read for this report: ", *head, f", {verdict}.")
    return [read, Details("Heads of all ledgers", (table,))]


def _federation_head(given: Given) -> tuple[object, object]:
    at = ("ledgers", "federation")
    known = given.summary.has(at)
    return (given.summary[(*at, "rows")], given.summary[(*at, "hash")]) if known else (None, None)
