"""What each preparation of records reads before the first release: a guarantee stands on what it is.

A number that was fitted on records, and then shapes what other records become or who holds them, is a release that no
account holds. So every way to prepare says what it reads, and whoever offers a guarantee refuses what is private to its
unit, or not stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from framp_private.errors import ConfigError

Part = Literal["features", "labels", "edges"]


@dataclass(frozen=True)
class Reads:
    """parts: of records that are read. together: of all clients' records at once, which sites could do by sharing only.

    places: reads them to decide who holds which record, in a simulation whose sites are drawn; elsewhere a site holds
    what it holds.
    """

    parts: frozenset[Part] = frozenset()
    together: bool = False
    places: bool = False


NOTHING = Reads()
FEATURES: Mapping[str, Reads] = {
    "projection": NOTHING,
    "sparse": NOTHING,
    "svd": Reads(frozenset({"features"}), together=True),
}
"""Of `features`, by name."""
PARTITIONS: Mapping[str, Reads] = {
    "dirichlet": Reads(frozenset({"labels"}), places=True),
    "class-dirichlet": Reads(frozenset({"labels"}), places=True),
    "classes": Reads(frozenset({"labels"}), places=True),
    "metis": Reads(frozenset({"edges"}), together=True, places=True),
    "sites": NOTHING,
}
"""Of `partition`, by name."""

PROTECTED: Mapping[str, frozenset[Part]] = {
    "record": frozenset({"features", "labels"}),
    "client": frozenset({"features", "labels", "edges"}),
    "nodes": frozenset({"features", "labels", "edges"}),
    "edges": frozenset({"edges"}),
}
"""By what a guarantee is for, the parts of records that it is about."""


def check_reads(setting: str, name: str, protects: str, known: Mapping[str, Reads]) -> None:
    """Refuses a preparation under a guarantee, if it read what the guarantee is about.

    A partition of a simulation that reads labels stands for sites that exist, and is given; one that reads edges is not
    under a guarantee for edges, as nothing else would be left of it.

    Raises:
        ConfigError: with the cure.
    """
    reads, private = known.get(name), PROTECTED[protects]
    if reads is None:
        raise ConfigError(f"{setting}={name!r} does not say what it reads of records: none has a guarantee with it")
    fitted = not reads.places and (reads.together or bool(reads.parts & private))
    if fitted or (reads.places and protects == "edges" and "edges" in reads.parts):
        cure = "features=projection" if setting == "features" else "partition=sites"
        raise ConfigError(
            f"{setting}={name!r} reads {', '.join(sorted(reads.parts))} of all clients before the first release, which "
            f"no account holds: under a guarantee for {protects} use {cure}, or privacy=none"
        )
