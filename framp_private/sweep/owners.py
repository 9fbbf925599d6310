"""Who runs a trial, and whether it still lives.

A process of this machine is looked up. One of another machine is watched: it raises a counter in the study now and
then, and counts as dead once the counter has stood still for `GRACE_SECONDS` by the watcher's own clock, so that clocks
need not agree.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from framp_private.randomness import Entropy

BEAT_SECONDS = 10.0
GRACE_SECONDS = 120.0


@dataclass(frozen=True)
class Owner:
    """One process that runs trials. host: names machine, boot and process space. started: tells reused numbers
    apart."""

    id: str
    host: str
    pid: int
    started: str

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        return cls(Entropy().bytes(8).hex(), _host(), os.getpid(), _started(os.getpid()))

    def to_row(self) -> dict[str, object]:
        """As a study holds it."""
        return asdict(self)

    @classmethod
    def of_row(cls, row: Mapping[str, object]) -> Owner:
        """The inverse of `to_row`."""
        return cls(str(row["id"]), str(row["host"]), int(str(row["pid"])), str(row["started"]))


@dataclass
class Watch:
    """What one process knows of the others' counters."""

    grace: float = GRACE_SECONDS
    _seen: dict[str, tuple[object, float]] = field(default_factory=dict)

    def alive(self, owner: Owner, counter: object) -> bool:
        """Whether an owner still runs, as far as can be known. counter: its last, None if it never raised one.

        An owner of this very process may have given up while the process lives, so that its counter tells.
        """
        if owner.host == _host() and owner.pid != os.getpid():
            return owner.started == _started(owner.pid)
        before, since = self._seen.get(owner.id, (None, 0.0))
        if owner.id not in self._seen or before != counter:
            self._seen[owner.id] = (counter, time.monotonic())
            return True
        return time.monotonic() - since < self.grace


def _host() -> str:
    parts = [platform.node()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(str(Path(path).readlink()) if Path(path).is_symlink() else Path(path).read_text())
        except OSError:
            parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty if there is none. Where that is not told, whether there is."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if stat[0] in ("Z", "X") else stat[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"
