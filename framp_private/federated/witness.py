"""Ledger heads that travel with every message, so that neither side can lose or rewrite what was spent unseen.

::

    up     Envelope(reply, head)       the client's row count and last hash, under its own signature
    down   Envelope(request, receipt)  the last head that the server saw of this client, countersigned

A client whose ledger never had the head in a receipt has lost rows (an old backup, a cut tail): it refuses before it
spends anything more. No request comes without a receipt; a server that knows no head of a client signs that it knows
none, and receipts never go back. The server refuses a head that goes back, and whoever holds a receipt can show what
both sides knew. Both halves wrap what is there, `Client.handle` and an engine's `exchange`; the method knows nothing of
them.
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
from framp_private.protections.base import Exchange, Lazy
from framp_private.wire import decode, encode

_RECEIPT = "ledger receipt"


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
            LedgerError: no receipt, one that the server did not sign, one that is older than the last, or one for a
                head that this ledger never had.
        """
        envelope = decode(request, Envelope)
        receipt = envelope.head(self.client.name)
        if encode(receipt) != state.receipt:
            self._check(receipt, state)
            state = replace(state, receipt=encode(receipt))
        if receipt.rows:  # each time: the ledger may have been put back since, and the receipt not
            self.ledger.verify(_head(receipt))
        reply = b""
        if envelope.message:
            reply, state = self.client.handle(envelope.message, state)
        head = self.ledger.head
        if (head.rows, bytes.fromhex(head.hash)) == (receipt.rows, receipt.hash):
            return encode(Envelope(reply, 0, b"", b"")), state
        return encode(Envelope(reply, head.rows, bytes.fromhex(head.hash), self.ledger.signature)), state

    def _check(self, receipt: SignedHead, state: ClientState) -> None:
        if not self.server.signed(_RECEIPT, _stated(receipt), receipt.signature):
            raise LedgerError(f"a receipt for {self.client.name!r} is not the pinned server's: nothing was spent")
        before = decode(state.receipt, SignedHead).rows if state.receipt else 0
        if receipt.rows < before:
            raise LedgerError(
                f"the server knows {receipt.rows} rows of the ledger of {self.client.name!r}, and has signed that it "
                f"knew {before}: it lost some, or an old receipt was sent again; nothing was spent"
            )


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
        self._receipts: dict[str, SignedHead] = {}

    def around(self, exchange: Exchange) -> Exchange:
        """An exchange whose messages travel in envelopes. It raises `LedgerError` for a head that must be refused."""

        def exchanged(requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
            def made(name: str) -> bytes:
                return self.envelope(name, requests[name]) if name in self.roster else requests[name]

            for client, reply in exchange(Lazy(requests, made)):
                if client not in self.roster:  # a party that is no client has no ledger
                    yield client, reply
                    continue
                envelope = decode(reply, Envelope)
                self._note(client, envelope.head(client))
                yield client, envelope.message

        return exchanged

    def settle(self, exchange: Exchange) -> None:
        """Brings every client its last receipt, after the last round."""
        for _ in self.around(exchange)(dict.fromkeys(self.known, b"")):
            pass

    def envelope(self, client: str, message: bytes) -> bytes:
        """A message with the countersigned last head of its client, of no rows if none is known."""
        receipt = self.receipt(client)
        return encode(Envelope(message, receipt.rows, receipt.hash, receipt.signature))

    def receipt(self, client: str) -> SignedHead:
        """The countersigned last head of a client."""
        known = replace(self.known.get(client, SignedHead(client, 0, b"", b"")), signature=b"")
        made = self._receipts.get(client)
        if made is None or replace(made, signature=b"") != known:
            made = replace(known, signature=self._identity.sign(_RECEIPT, _stated(known)))
            self._receipts[client] = made
        return made

    def learn(self, client: str, receipt: bytes) -> None:
        """Takes over a receipt of its own that a client kept, where it is of a later head than the last one known.

        Raises:
            LedgerError: it is not this server's.
        """
        head = decode(receipt, SignedHead)
        if head.owner != client or not self._identity.public.signed(_RECEIPT, _stated(head), head.signature):
            raise LedgerError(f"the receipt that {client!r} kept is not this server's: restore the keys that made it")
        if head.rows > (self.known[client].rows if client in self.known else 0):
            self.known[client] = head

    def _note(self, client: str, head: SignedHead) -> None:
        before = self.known.get(client)
        if not (head.rows or head.hash or head.signature) and before is not None:
            return  # the one that its receipt was for
        if before is not None and (head.rows, head.hash) == (before.rows, before.hash):
            return
        if not row_signed(self.roster[client].key, _head(head).signed_part, head.signature):
            raise LedgerError(f"the ledger head of client {client!r} is not signed with its key: the round is not used")
        if before is not None and head.rows <= before.rows:
            raise LedgerError(
                f"the ledger of client {client!r} went back from row {before.rows} to {head.rows}, or was rewritten: "
                "the round is not used; the client must restore its ledger"
            )
        self.known[client] = head


def _head(head: SignedHead) -> Head:
    if not 0 < head.rows < 2**63 or len(head.hash) != 32:
        raise LedgerError(f"a ledger head of {head.owner!r} is malformed: it has a row count and 32 bytes of hash")
    return Head(head.rows, head.hash.hex())


def _stated(head: SignedHead) -> bytes:
    """What a receipt says: whose head, its row count and hash."""
    return encode(replace(head, signature=b""))
