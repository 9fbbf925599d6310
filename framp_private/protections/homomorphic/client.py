"""The client's half of encrypted sums: it pins the context, encrypts and signs; where clients hold the key, it opens.

The server brings the context, so it could bring one whose key it knows: a client takes none but the one whose hash it
pinned before the run, on the parameters that it works out itself.
"""

from __future__ import annotations

import hashlib
from typing import cast

import numpy as np

from framp_private.crypto.homomorphic import Encryption, Parameters
from framp_private.errors import CryptoError, ProtocolError
from framp_private.protections.base import Member, Seat
from framp_private.protections.homomorphic.messages import (
    SIGNED,
    Context,
    ContextKnown,
    ContextOffer,
    ContextRequest,
    Encrypt,
    EncryptedValue,
    Held,
    OpenRequest,
    framed,
    stated,
)
from framp_private.protections.homomorphic.opening import Rules, open_once
from framp_private.wire import decode, encode

Asked = ContextOffer | Context | ContextRequest | OpenRequest


def answer(
    rules: Rules, holds: bool, message: bytes, held: bytes, member: Member, planned: int, round_index: int
) -> tuple[bytes, bytes]:
    """A reply, and what to hold then; `holds` if clients hold the key.

    Raises:
        WireError: the bytes are no such message. CryptoError: another context than the pinned one.
        ProtocolError, BelowThreshold: see `open_once`, and whoever asks for what this client does not have.
    """
    request = cast(Asked, decode(message, ContextOffer, Context, ContextRequest, OpenRequest))
    state = _held(held)
    if isinstance(request, ContextOffer):
        if request.digest != _pin(member):
            raise CryptoError("an encryption context is refused")
        return encode(ContextKnown(bool(state.context))), encode(state)
    if isinstance(request, Context):
        if hashlib.sha256(request.context).digest() != _pin(member):
            raise CryptoError("an encryption context is refused")
        Encryption(request.context, rules.parameters(planned))
        return encode(ContextKnown(True)), encode(Held(request.context, state.asked, state.opened))
    if not holds or member.pin is None:
        raise ProtocolError("this client holds no key: a party of its own does")
    if isinstance(request, ContextRequest):
        return encode(Context(member.pin.public)), encode(state)
    reply, opened = open_once(
        rules, message, state.opened, member.pin, member.roster, member.run, planned, round_index, member.entropy
    )
    return reply, encode(Held(state.context, state.asked, opened))


def receive(brief: bytes, asked: bytes, held: bytes, member: Member) -> bytes:
    """What to hold once the request for a value has come. Raises `ProtocolError`, `CryptoError` without its context."""
    state = _held(held)
    if decode(brief, Encrypt).digest != _pin(member):
        raise CryptoError("an encryption context is refused")
    if not state.context:
        raise ProtocolError("a round of encrypted sums begins with the context")
    return encode(Held(state.context, hashlib.sha256(asked).digest(), state.opened))


def encrypted(values: np.ndarray, parameters: Parameters, seat: Seat, member: Member) -> bytes:
    """A signed vector. Raises `ProtocolError` for another request than the one that was received."""
    state, asked = _held(seat.held), hashlib.sha256(seat.asked).digest()
    if not state.context or state.asked != asked:
        raise ProtocolError("a value is encrypted for the one request that it answers")
    made = EncryptedValue(framed(Encryption(state.context, parameters).encrypt(values)), asked, b"")
    statement = stated(member.run, seat.round_index, seat.channel, _pin(member), made)
    return encode(EncryptedValue(made.ciphertexts, asked, member.identity.sign(SIGNED, statement)))


def _held(held: bytes) -> Held:
    return decode(held, Held) if held else Held(b"", b"", {})


def _pin(member: Member) -> bytes:
    if member.pin is None:
        raise ProtocolError("this client pinned no encryption context")
    return member.pin.digest
