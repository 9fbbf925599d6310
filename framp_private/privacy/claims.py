"""What a run may say about privacy. Every table, log line and report takes its words from here.

A claim is never an epsilon alone: it names its unit, neighbouring relation, delta, trust model and scope.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Unit = Literal["record", "client"]
UNITS: tuple[Unit, ...] = ("record", "client")


@dataclass(frozen=True)
class Claim:
    """One privacy claim.

    Args:
        unit: what one neighbour differs in: one record, or all of one client.
        epsilon: None where there is no guarantee, which reads as infinite.
        delta: in (0, 1); None without a guarantee.
        relation: the neighbouring relation.
        trust_model: whom the guarantee needs to be honest.
        scope: which releases are counted.
        protects: what one record is, where that needs saying: of graphs.
        why: what keeps the run from a guarantee, where noise might suggest one.
    """

    unit: Unit
    epsilon: float | None
    delta: float | None
    relation: str
    trust_model: str
    scope: str
    protects: str = ""
    why: str = ""

    def as_row(self) -> dict[str, object]:
        """The claim as it stands in `summary.json`: without its unit, which is the key there, and empty words."""
        return {key: value for key, value in asdict(self).items() if key != "unit" and value != ""}

    @property
    def of_what(self) -> str:
        """Unit, and what one is where that needs saying."""
        return f"{self.unit} ({self.protects})" if self.protects else self.unit

    @property
    def bounded(self) -> bool:
        """Whether there is any guarantee."""
        return self.epsilon is not None and math.isfinite(self.epsilon)


THIS_RUN = "this run alone"


def no_guarantee(unit: Unit, scope: str = THIS_RUN, why: str = "") -> Claim:
    """The claim of a run in which something left a client without noise that bounds what it shows."""
    return Claim(unit, None, None, "add/remove", "none: every receiver of a message is trusted", scope, why=why)


def nothing_released(unit: Unit) -> Claim:
    """The claim of a run in which nothing left any client."""
    return Claim(unit, 0.0, 0.0, "add/remove", "nobody: no message was sent", THIS_RUN)


def statement(claims: Sequence[Claim]) -> str:
    """One line for terminals and reports."""
    held = [claim for claim in claims if claim.bounded]
    if not held:
        why = next((f": {claim.why}" for claim in claims if claim.why), "")
        return f"privacy: none, epsilon = infinite{why}"
    return "; ".join(
        f"privacy: epsilon = {claim.epsilon:.3g}, delta = {claim.delta:g}, unit {claim.of_what}, {claim.relation}, "
        f"{claim.trust_model}, scope: {claim.scope}"
        for claim in held
    )
