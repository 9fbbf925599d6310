"""Ledger heads that travel with every message, so that neither side can lose or rewrite what was spent unseen.

::

    up     Envelope(reply, head)       the client's row count and last hash, under its own signature
    down   Envelope(request, receipt)  the last head that the server saw of this client, countersigned

A client whose ledger never had the head in a receipt has lost rows (an old backup, a cut tail): it refuses before it
spends anything more. The server refuses a head that goes back, and whoever holds a receipt can show what both sides
knew. Both halves wrap what is there, `Client.handle` and an engine's `exchange`; the method knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from framp_private.crypto.keys import Identity, PublicIdentity
from framp_private.errors import LedgerError
from framp_private.federated.client import Client, ClientState
from framp_private.federated.messages import Envelope, SignedHead
from framp_private.federated.row_signer import row_signed
from framp_private.privacy.chain import Head
from framp_private.privacy.ledger import Ledger
from framp_private.protections.base import Exchange
from framp_private.wire import decode, encode

_RECEIPT = "ledger receipt"
MAX_HEAD_BYTES = 1024


@dataclass(frozen=True, eq=False)
class WitnessedClient:
    """A client with an account, behind envelopes. server: the key it pinned."""

    client: Client
    server: PublicIdentity

    @property
    def ledger(self) -> Ledger:
        """The client's own."""
        if self.client.account is None:
            raise LedgerError(f"client {self.client.name!r} keeps no ledger: give it an account")
        return self.client.account.ledger

    def handle(self, request: bytes, state: ClientState) -> tuple[bytes, ClientState]:
        """See `Client.handle`; an envelope without a message brings a receipt alone.

        Raises:
            LedgerError: a receipt that the server did not sign, or for a head that this ledger never had.
        """
        envelope = decode(request, Envelope)
        if envelope.head and envelope.head != state.receipt:
            head = self._signed(envelope.head)
            if not state.receipt or head.rows > decode(state.receipt, SignedHead).rows:
                state = replace(state, receipt=envelope.head)
        if state.receipt:  # each time: the ledger may have been put back since, and the receipt not
            self.ledger.verify(_head(decode(state.receipt, SignedHead)))
        reply = b""
        if envelope.message:
            reply, state = self.client.handle(envelope.message, state)
        head = self.ledger.head
        signed = SignedHead(self.client.name, head.rows, bytes.fromhex(head.hash), self.ledger.signature)
        return encode(Envelope(reply, encode(signed))), state

    def _signed(self, receipt: bytes) -> Head:
        head = decode(receipt, SignedHead, max_bytes=MAX_HEAD_BYTES)
        if head.owner != self.client.name or not self.server.signed(_RECEIPT, _stated(head), head.signature):
            raise LedgerError(f"a receipt for {self.client.name!r} is not the pinned server's: nothing was spent")
        self.ledger.verify(_head(head))
        return _head(head)


class Witness:
    """The server's half: remembers the last head of each client, countersigns it, refuses one that goes back.

    Args:
        identity: the server's. roster: the clients' public keys. known: their heads before a restart.
    """

    def __init__(
        self, identity: Identity, roster: Mapping[str, PublicIdentity], known: Mapping[str, SignedHead] | None = None
    ) -> None:
        self._identity, self.roster = identity, roster
        self.known = dict(known or {})
        self._receipts: dict[str, tuple[SignedHead, bytes]] = {}

    def around(self, exchange: Exchange) -> Exchange:
        """An exchange whose messages travel in envelopes. It raises `LedgerError` for a head that must be refused."""

        def exchanged(requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
            for client, reply in exchange(_Enveloped(requests, self)):
                if client not in self.roster:  # a party that is no client has no ledger
                    yield client, reply
                    continue
                envelope = decode(reply, Envelope)
                self._note(client, decode(envelope.head, SignedHead, max_bytes=MAX_HEAD_BYTES))
                yield client, envelope.message

        return exchanged

    def settle(self, exchange: Exchange) -> None:
        """Brings every client its last receipt, after the last round."""
        for _ in self.around(exchange)(dict.fromkeys(self.known, b"")):
            pass

    def receipt(self, client: str) -> bytes:
        """The countersigned last head of a client, nothing if none is known."""
        known = self.known.get(client)
        if known is None:
            return b""
        made = self._receipts.get(client)
        if made is None or made[0] != known:
            signature = self._identity.sign(_RECEIPT, _stated(known))
            made = self._receipts[client] = (known, encode(replace(known, signature=signature)))
        return made[1]

    def _note(self, client: str, head: SignedHead) -> None:
        before = self.known.get(client)
        if head == before:
            return
        if head.owner != client or not row_signed(self.roster[client].key, _head(head).signed_part, head.signature):
            raise LedgerError(f"the ledger head of client {client!r} is not signed with its key: the round is not used")
        if before is not None and head.rows <= before.rows:
            raise LedgerError(
                f"the ledger of client {client!r} went back from row {before.rows} to {head.rows}, or was rewritten: "
                "the round is not used; the client must restore its ledger"
            )
        self.known[client] = head


class _Enveloped(Mapping[str, bytes]):
    def __init__(self, requests: Mapping[str, bytes], witness: Witness) -> None:
        self._requests, self._witness = requests, witness

    def __getitem__(self, client: str) -> bytes:
        if client not in self._witness.roster:
            return self._requests[client]
        return encode(Envelope(self._requests[client], self._witness.receipt(client)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._requests)

    def __len__(self) -> int:
        return len(self._requests)


def _head(head: SignedHead) -> Head:
    if not 0 < head.rows < 2**63 or len(head.hash) != 32:
        raise LedgerError(f"a ledger head of {head.owner!r} is malformed: it has a row count and 32 bytes of hash")
    return Head(head.rows, head.hash.hex())


def _stated(head: SignedHead) -> bytes:
    """What a receipt says: whose head, its row count and hash."""
    return encode(replace(head, signature=b""))
