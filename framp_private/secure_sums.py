"""`secure_sum`: the whole protocol around a sum, on plain arrays, in this process.

>>> import numpy as np
>>> from framp_private import secure_sum
>>> from framp_private.protections import BFVSum, SecAgg
>>> values = {"a": np.array([0.25, -0.5]), "b": np.array([0.5, 0.5]), "c": np.array([0.0, 0.75])}
>>> secure_sum(values, SecAgg()).value.round(4).tolist()
[0.75, 0.75]
>>> secure_sum(values, SecAgg(), drop={"b": "masked"}).count
2
>>> secure_sum(values, BFVSum()).value.round(4).tolist()
[0.75, 0.75]
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from framp_private.crypto.homomorphic import new_keys
from framp_private.crypto.keys import Identity
from framp_private.errors import PlanError, ProtocolError
from framp_private.protections.base import (
    Channel,
    Interactive,
    Meeting,
    Member,
    Pin,
    Protection,
    Seat,
    Total,
    plain_lift,
)
from framp_private.protections.homomorphic import EncryptedSum
from framp_private.protections.homomorphic.messages import KEY_HOLDER, Context, ContextRequest, OpenRequest
from framp_private.protections.homomorphic.opening import open_once
from framp_private.randomness import Entropy
from framp_private.transcript import Delivery, Transcript
from framp_private.wire import decode, encode

Stage = Literal["keys", "shares", "masked", "unmask"]
STAGES: tuple[Stage, ...] = ("keys", "shares", "masked", "unmask")
CHANNEL: Channel = "update"
"""Any will do: there is one alone."""


def secure_sum(
    values: Mapping[str, np.ndarray],
    protection: Protection,
    *,
    drop: Mapping[str, Stage] | None = None,
    transcript: Transcript | None = None,
) -> Total:
    """The sum of the clients' values, as the server learns it under a protection.

    Args:
        values: by client, arrays of one shape. drop: client -> the stage before which it vanishes.
        transcript: takes every message that travels.

    Raises:
        BelowThreshold: too few clients survive; nothing is opened.
        ProtocolError: shapes differ, or a value that is not finite or beyond the protection's bound.
        PlanError: `drop` names an unknown client or stage.
    """
    gone = dict(drop or {})
    shapes = {np.shape(value) for value in values.values()}
    if len(shapes) != 1:
        raise ProtocolError(f"values have shapes {sorted(map(str, shapes))}: a sum takes arrays of one shape")
    for name, value in values.items():
        if np.asarray(value).dtype.kind not in "fiu":
            raise ProtocolError(
                f"the value of {name!r} is of {np.asarray(value).dtype}: a sum takes real numbers, not complex ones, "
                "truth values or text"
            )
    if not set(gone) <= set(values) or not set(gone.values()) <= set(STAGES):
        raise PlanError(f"drop={gone}: clients are {', '.join(values)}, stages {', '.join(STAGES)}")
    clients = _Clients(values, protection, gone, transcript)
    names, size = list(values), int(np.size(next(iter(values.values()))))
    meeting = Meeting(CHANNEL, clients.run, 0, clients.roster, clients.protocol, {}, clients.pin)
    session = protection.open(names, size, plain_lift, clients.protocol, meeting)
    asked = {name: brief for name in names if (brief := session.brief(name)) is not None}
    for name, payload in clients.values_of(asked):
        session.add(name, payload)
    total = session.close(clients.protocol)
    return replace(total, value=total.value.reshape(shapes.pop()))


def _key(protection: Protection, cohort: int) -> Pin | None:
    """A fresh key, where values are encrypted."""
    if not isinstance(protection.carrier, EncryptedSum):
        return None
    pair = new_keys(protection.carrier.parameters(cohort))
    return Pin(hashlib.sha256(pair.public).digest(), pair.public, pair.secret)


class _Clients:
    """All clients, each with keys of its own, and the wire between them and the server."""

    def __init__(
        self,
        values: Mapping[str, np.ndarray],
        protection: Protection,
        gone: Mapping[str, Stage],
        transcript: Transcript | None,
    ) -> None:
        self._values, self._protection, self._gone, self._transcript = values, protection, gone, transcript
        self._entropy, self._trips, self._asked = Entropy(), 0, False
        self.run = self._entropy.bytes(32)
        identities = {name: Identity.new(self._entropy) for name in values}
        self.roster = {name: identity.public for name, identity in identities.items()}
        key = _key(protection, len(values))
        self.pin = Pin(key.digest) if key is not None else None
        carrier = protection.carrier
        held = key if isinstance(carrier, EncryptedSum) and carrier.key_holder == "clients" else self.pin
        self._holder = key if held is not key else None
        self._members = {
            name: Member(name, identity, self.roster, self.run, self._entropy, held)
            for name, identity in identities.items()
        }
        self._held = dict.fromkeys(values, b"")
        if transcript is not None:
            transcript.begin("secure-sum")

    def protocol(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """A trip of the protection's own: the first is `keys`, the second `shares`, all after the values `unmask`."""
        carrier = self._protection.carrier
        assert isinstance(carrier, Interactive)

        def answer(name: str, request: bytes) -> bytes:
            if name == KEY_HOLDER:
                return self._from_holder(request)
            reply, self._held[name] = carrier.answer(
                request, self._held[name], self._members[name], len(self._values), 0, True
            )
            return reply

        return self._carried("unmask" if self._asked else STAGES[min(self._trips, 1)], requests, answer)

    def values_of(self, briefs: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """The trip in which values travel, with what the protection sends along."""
        self._asked = True
        carrier, cohort = self._protection.carrier, len(self._values)

        def answer(name: str, brief: bytes) -> bytes:
            value = np.ravel(self._values[name])
            if isinstance(carrier, Interactive):
                self._held[name] = carrier.receive(brief, b"", self._held[name], self._members[name], cohort, 0)
            else:
                value = value.astype(np.float32)
            seat = Seat(CHANNEL, cohort, self._held[name], b"", 0, self._members[name])
            return self._protection.protect(value, self._entropy, seat)

        return self._carried("masked", briefs, answer)

    def _from_holder(self, request: bytes) -> bytes:
        """What the party that holds the key answers; it opens one sum, as there is one alone."""
        carrier, key = self._protection.carrier, self._holder
        assert isinstance(carrier, EncryptedSum) and key is not None
        if isinstance(decode(request, ContextRequest, OpenRequest), ContextRequest):
            return encode(Context(key.public))
        return open_once(carrier, request, {}, key, self.roster, self.run, len(self._values), 0, self._entropy)[0]

    def _carried(
        self, stage: Stage, requests: Mapping[str, bytes], answer: Callable[[str, bytes], bytes]
    ) -> Iterator[tuple[str, bytes]]:
        """Delivers, and yields the replies of clients that have not vanished."""
        trip, self._trips = self._trips, self._trips + 1
        for name in requests:
            self._carry(Delivery(trip, "down", name, requests[name]))
            if name not in self._gone or STAGES.index(self._gone[name]) > STAGES.index(stage):
                reply = answer(name, requests[name])
                self._carry(Delivery(trip, "up", name, reply))
                yield name, reply

    def _carry(self, delivery: Delivery) -> None:
        if self._transcript is not None:
            self._transcript.write(delivery)
