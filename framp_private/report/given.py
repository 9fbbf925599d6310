"""What a run's report is drawn from: the files of its folder, each under the name that sources call it by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framp_private.privacy.claims import UNITS, Claim
from framp_private.report.document import Gap, Number
from framp_private.report.sources import Data, Keys, derived, number

OLD = Gap("not in the summary: the run was made by an older version")


@dataclass(frozen=True)
class Given:
    """The data of one run.

    Args:
        summary: summary.json. metrics: the rows of metrics.jsonl. config: config.yaml, empty if there was none.
        report: facts of this rendering: the version that made it.
        ledger: number of rows, last hash and declared plan of ledger.jsonl, None where it was not read.
        audit: audit.json, None if there is none.
    """

    summary: Data
    metrics: Data
    config: Data
    report: Data
    ledger: Data | None = None
    audit: Data | None = None

    @property
    def claims(self) -> list[Claim]:
        """The claims that the summary states."""
        return claims_of(self.summary.content)

    @property
    def held(self) -> list[Claim]:
        """Those among them with a guarantee."""
        return [claim for claim in self.claims if claim.bounded]

    @property
    def silent(self) -> bool:
        """Whether nothing left any client."""
        return not any(self.summary[("traffic", "up")].values())

    @property
    def bounded(self) -> bool:
        """Whether messages were sent and a guarantee holds for them."""
        return bool(self.held) and not self.silent

    def number(self, path: Keys, form: str = "") -> Number:
        """A value of the summary; raises `KeyError` if there is none."""
        return number(self.summary, path, form)

    def number_or_gap(self, path: Keys, form: str = "") -> Number | Gap:
        """A value of the summary, marked as missing where an older version wrote it."""
        return self.number(path, form) if self.summary.has(path) else OLD

    def setting(self, path: Keys, form: str = "") -> Number | Gap:
        """A setting of the configuration."""
        return number(self.config, path, form) if self.config.has(path) else Gap("not among the run's settings")

    def over_clients(self, how: str, field: str, form: str = "") -> Number:
        """What `how` makes of a field of all clients; see `sources.HOW`."""
        return derived(how, self.summary, ("by_client", "*", field), form)

    def worst(self, field: str) -> str | None:
        """The name of the client with the smallest value, None where nobody has one."""
        clients = self.summary["by_client"]
        known = {name: row[field] for name, row in clients.items() if row[field] is not None}
        return min(known, key=lambda name: known[name]) if known else None


def claims_of(summary: Mapping[str, Any]) -> list[Claim]:
    """The claims that a summary states."""
    return [Claim(unit=unit, **summary["privacy"][unit]) for unit in UNITS]


def ledger_data(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a report reads from a ledger: `rows`, the last `hash`, how many `releases`, and the events of the `plan`."""
    plans = [row["events"] for row in rows if row["kind"] == "plan"]
    return {
        "rows": len(rows),
        "hash": rows[-1]["hash"] if rows else None,
        "releases": sum(row["kind"] == "spend" for row in rows),
        "plan": plans[0] if plans else [],
    }
