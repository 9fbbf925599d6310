"""Who attacks: which messages an adversary has seen, what else it may do, and what it may know from elsewhere.

A capability is what an attack asks for (`requires`); an adversary that lacks one cannot run it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

Capability = Literal["uploads", "requests", "sends", "own_records", "released_models", "descriptors_of_others"]
"""uploads: everybody's replies. requests: what was sent to them. sends: it chooses what it sends. own_records: those of
the clients it holds. released_models: the models that were served. descriptors_of_others: it may query the generator at
any descriptor."""

SERVER: frozenset[Capability] = frozenset({"uploads", "requests", "released_models", "descriptors_of_others"})


class Adversary(Protocol):
    """A frozen value.

    name: for tables. capabilities: what it can do. clients: those it holds, whose records and secrets it knows.
    """

    @property
    def name(self) -> str:
        """For tables."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do."""

    @property
    def clients(self) -> tuple[str, ...]:
        """Whose records, messages and secrets it holds."""

    def sees(self, client: str) -> bool:
        """Whether it sees the messages to and from a client."""


@dataclass(frozen=True)
class HonestServer:
    """Follows the protocol and keeps every byte (honest but curious)."""

    name: ClassVar[str] = "honest server"
    capabilities: ClassVar[frozenset[Capability]] = SERVER
    clients: ClassVar[tuple[str, ...]] = ()

    def sees(self, client: str) -> bool:
        """All messages pass it."""
        del client
        return True


@dataclass(frozen=True)
class MaliciousServer(HonestServer):
    """Sees what the honest server sees, and sends what it likes."""

    name: ClassVar[str] = "malicious server"
    capabilities: ClassVar[frozenset[Capability]] = SERVER | {"sends"}


@dataclass(frozen=True)
class CuriousClient:
    """One client that follows the protocol and looks at what it gets."""

    client: str
    name: ClassVar[str] = "curious client"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"requests", "own_records"})

    @property
    def clients(self) -> tuple[str, ...]:
        """Itself."""
        return (self.client,)

    def sees(self, client: str) -> bool:
        """Its own messages."""
        return client == self.client


@dataclass(frozen=True)
class Coalition:
    """Clients that pool what they saw, with the server or without it. k = len(clients)."""

    clients: tuple[str, ...]
    with_server: bool = True

    @property
    def name(self) -> str:
        """For tables."""
        return f"{'server and ' if self.with_server else ''}{len(self.clients)} clients"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Those of its parts."""
        own: frozenset[Capability] = frozenset({"requests", "own_records"})
        return own | SERVER if self.with_server else own

    def sees(self, client: str) -> bool:
        """All with the server, else its members' messages."""
        return self.with_server or client in self.clients


@dataclass(frozen=True)
class ExternalUser:
    """Gets the released models and no message."""

    name: ClassVar[str] = "external user"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"released_models"})
    clients: ClassVar[tuple[str, ...]] = ()

    def sees(self, client: str) -> bool:
        """None."""
        del client
        return False
