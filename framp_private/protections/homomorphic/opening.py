"""What whoever holds the key does with it, and what it refuses: the one place where anything is decrypted.

The server chooses what to ask for, so it could ask for a sum over one client. Against that stand three rules: the
holder adds up ciphertexts that rostered clients signed for this very round, channel and request; it wants as many of
them as the protection says; and it opens one sum for each round and channel, ever. They hold as long as those clients
encrypted values of their own: nothing here shows that they did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from framp_private.crypto.homomorphic import Encryption, Parameters
from framp_private.crypto.keys import PublicIdentity
from framp_private.errors import BelowThreshold, CryptoError, ProtocolError
from framp_private.protections.base import Pin
from framp_private.protections.homomorphic.messages import (
    SIGNED,
    EncryptedValue,
    OpenedSum,
    OpenRequest,
    Record,
    stated,
    unframed,
)
from framp_private.randomness import Entropy
from framp_private.wire import decode, encode

Records = Mapping[str, bytes]


class Rules(Protocol):
    """What the holder of a key needs to know of an encrypted sum."""

    @property
    def most_openings(self) -> int | None:
        """Decryptions that one key is good for; None without a limit."""

    def parameters(self, cohort: int) -> Parameters:
        """Of the scheme, for a cohort."""

    def least_survivors(self, cohort: int) -> int:
        """Signers that a sum needs."""

    def opened(
        self, encryption: Encryption, vectors: Sequence[Sequence[bytes]], size: int, cohort: int, entropy: Entropy
    ) -> np.ndarray:
        """The sum in units, as it may be told to the server."""


def open_once(
    rules: Rules,
    message: bytes,
    records: Records,
    pin: Pin,
    roster: Mapping[str, PublicIdentity],
    run: bytes,
    planned: int,
    round_index: int,
    entropy: Entropy,
) -> tuple[bytes, dict[str, bytes]]:
    """The reply to an `OpenRequest`, and what must be on disk before it leaves.

    Args:
        records: what was opened before. pin: with the key. roster: of the round's cohort.

    Raises:
        ProtocolError: another sum of this round or of an earlier one was opened on this channel, or too many were.
        BelowThreshold: too few clients' values. CryptoError: a value that no rostered client signed for this sum.
    """
    request, asked = decode(message, OpenRequest), hashlib.sha256(message).digest()
    before = {name: decode(each, Record) for name, each in records.items()}
    last = before.get(request.channel)
    if last is not None and (last.round_index, last.asked) == (round_index, asked):
        return last.reply, dict(records)
    if last is not None and round_index <= last.round_index:
        raise ProtocolError(f"a sum of round {last.round_index} was opened on this channel: each round has one")
    if rules.most_openings is not None and sum(each.count for each in before.values()) >= rules.most_openings:
        raise ProtocolError(f"{rules.most_openings} sums were opened under this key: take a new one for more")
    encryption = Encryption(pin.secret, rules.parameters(planned), secret=True)
    vectors = _vectors(request, encryption.parameters, pin.digest, roster, run, round_index)
    if len(vectors) < rules.least_survivors(planned):
        raise BelowThreshold(
            f"{len(vectors)} clients' values are to be summed, {rules.least_survivors(planned)} are needed: nothing is "
            "opened; repeat the round"
        )
    units = rules.opened(encryption, vectors, request.size, planned, entropy)
    reply = encode(OpenedSum(units))
    count = (last.count if last is not None else 0) + 1
    return reply, {**records, request.channel: encode(Record(round_index, asked, reply, count))}


def _vectors(
    request: OpenRequest,
    parameters: Parameters,
    digest: bytes,
    roster: Mapping[str, PublicIdentity],
    run: bytes,
    round_index: int,
) -> list[list[bytes]]:
    """The clients' ciphertexts, each checked to be signed for this sum, all in answer to one request."""
    if request.size < 1:
        raise ProtocolError(f"size={request.size}: a sum is over vectors of at least one value")
    vectors: list[list[bytes]] = []
    asked: set[bytes] = set()
    count = parameters.ciphertexts(request.size)
    for client, data in request.values.items():
        value = decode(data, EncryptedValue, max_bytes=count * (parameters.most_bytes + 4) + 4096)
        if client not in roster or not roster[client].signed(
            SIGNED, stated(run, round_index, request.channel, digest, value), value.signature
        ):
            raise CryptoError("a ciphertext is refused")
        asked.add(value.asked)
        vectors.append(unframed(value.ciphertexts, count))
    if len(asked) > 1:
        raise ProtocolError("the values answer different requests: clients of one sum saw the same one")
    return vectors
