"""The server's half of encrypted sums: it carries ciphertexts that it cannot read to whoever can open their sum."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from framp_private.crypto.homomorphic import Encryption
from framp_private.errors import BelowThreshold, CryptoError, PlanError, ProtocolError, WireError
from framp_private.protections.base import Exchange, Lift, Meeting, Pin, Session, Total, plain_lift
from framp_private.protections.homomorphic.messages import (
    KEY_HOLDER,
    SIGNED,
    Context,
    ContextKnown,
    ContextOffer,
    ContextRequest,
    Encrypt,
    EncryptedValue,
    OpenedSum,
    OpenRequest,
    stated,
    unframed,
)
from framp_private.wire import decode, encode

SMALL = 64
"""Bytes: more than any reply that says yes or no."""


def agreed(
    key: object, clients_hold: bool, cohort: Sequence[str], size: int | None, lift: Lift, meeting: Meeting | None
) -> tuple[bytes, set[str]]:
    """The public context, and which clients have it; made once for all channels of one protection, `key`.

    Raises:
        PlanError: values that do not add up as they are. BelowThreshold: nobody gives the context.
        CryptoError: it is not the pinned one.
    """
    if meeting is None or meeting.pin is None or lift is not plain_lift or size is None:
        raise PlanError("an encrypted sum takes values of one size that add up as they are, a roster and a pinned key")
    if key not in meeting.shared:
        context = fetched(meeting, clients_hold, cohort)
        meeting.shared[key] = context, _brought(meeting, cohort, context)
    found: tuple[bytes, set[str]] = meeting.shared[key]
    return found


def fetched(meeting: Meeting, clients_hold: bool, cohort: Sequence[str]) -> bytes:
    """The public context: the one that the server has already, or else from the first who holds the key and answers.

    Raises:
        PlanError: no key is pinned. BelowThreshold: nobody gives it. CryptoError: it is not the pinned one.
    """
    if meeting.pin is None:
        raise PlanError("an encrypted sum takes a pinned key")
    if meeting.pin.public:
        return _checked(meeting.pin.public, meeting.pin)
    for holder in list(cohort) if clients_hold else [KEY_HOLDER]:
        for _, reply in meeting.exchange({holder: encode(ContextRequest())}):
            return _checked(decode(reply, Context).context, meeting.pin)
    raise BelowThreshold("nobody who holds the key answered: nothing is asked for; repeat the round")


def _checked(context: bytes, pin: Pin) -> bytes:
    if hashlib.sha256(context).digest() != pin.digest:
        raise CryptoError("an encryption context is refused")
    return context


def _brought(meeting: Meeting, cohort: Sequence[str], context: bytes) -> set[str]:
    offer = encode(ContextOffer(hashlib.sha256(context).digest()))
    known = {
        client: decode(reply, ContextKnown, max_bytes=SMALL).known
        for client, reply in meeting.exchange(dict.fromkeys(cohort, offer))
    }
    missing = [client for client, has in known.items() if not has]
    if missing:
        for client, reply in meeting.exchange(dict.fromkeys(missing, encode(Context(context)))):
            known[client] = decode(reply, ContextKnown, max_bytes=SMALL).known
    return {client for client, has in known.items() if has}


@dataclass
class CiphertextSum(Session):
    """One channel of one round. known: clients that have the context. clients: who hold the key, if no party does."""

    meeting: Meeting
    encryption: Encryption
    digest: bytes
    known: set[str]
    size: int
    least: int
    unit: float
    clients: list[str]
    _arrived: dict[str, bytes] = field(default_factory=dict)

    def brief(self, client: str) -> bytes | None:
        """Which context to encrypt under; None for a client that was silent when it was offered."""
        return encode(Encrypt(self.digest)) if client in self.known else None

    def add(self, client: str, payload: bytes) -> None:
        """Keeps a client's ciphertexts. What nobody would open is left out: that client is in no sum of this channel.

        Raises:
            ProtocolError: the client is not awaited.
        """
        if client not in self.known or client in self._arrived:
            raise ProtocolError(f"client {client!r} is not awaited in this round: it is no member or sent twice")
        try:
            self._check(client, payload)
        except (CryptoError, WireError, ProtocolError):
            return
        self._arrived[client] = payload

    def _check(self, client: str, payload: bytes) -> None:
        """Raises `CryptoError`, `WireError` or `ProtocolError` for what is not signed, or no ciphertext."""
        parameters = self.encryption.parameters
        count = parameters.ciphertexts(self.size)
        value = decode(payload, EncryptedValue, max_bytes=count * (parameters.most_bytes + 4) + 4096)
        said = stated(self.meeting.run, self.meeting.round_index, self.meeting.channel, self.digest, value)
        if not self.meeting.roster[client].signed(SIGNED, said, value.signature):
            raise CryptoError("a ciphertext is refused")
        if value.asked != hashlib.sha256(self.meeting.asked).digest():  # nobody would open it beside the others
            raise ProtocolError("a value answers another request")
        for place, data in enumerate(unframed(value.ciphertexts, count)):
            self.encryption.read(data, min(parameters.slots, self.size - place * parameters.slots))

    def close(self, exchange: Exchange) -> Total:
        """The sum that the key holder opened."""
        del exchange
        if len(self._arrived) < self.least:
            raise BelowThreshold(
                f"{len(self._arrived)} clients sent values, {self.least} are needed: nothing is opened; repeat the "
                "round"
            )
        request = encode(OpenRequest(self.meeting.channel, self.size, self._arrived))
        for holder in self.clients or [KEY_HOLDER]:
            for _, reply in self.meeting.exchange({holder: request}):
                units = decode(reply, OpenedSum).units
                if units.shape != (self.size,) or units.dtype != np.int64:
                    raise ProtocolError("a sum of another size was opened")
                return Total(units * self.unit, len(self._arrived))
        raise BelowThreshold("nobody who holds the key answered: nothing is opened; repeat the round")
