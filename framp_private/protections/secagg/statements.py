"""What is signed, derived and committed to in secure aggregation: one label and one framing for each purpose."""

from __future__ import annotations

import hashlib

import numpy as np

from framp_private.crypto.agreement import derive
from framp_private.errors import ProtocolError

KEYS, CONFIRM = "secagg keys", "secagg confirmation"
"""Labels of signatures."""


def round_context(run: bytes, round_index: int) -> bytes:
    """What ties every key and signature to one round of one run."""
    return _digest(b"secagg round", run, round_index.to_bytes(8, "big"))


def stated_keys(context: bytes, name: str, mask_key: bytes, seal_key: bytes) -> bytes:
    """What a client signs with its keys."""
    return context + mask_key + seal_key + name.encode()


def anchor(context: bytes, root: bytes, present: bytes, asked: bytes) -> bytes:
    """What one sum stands on: the round, all keys, whose keys came, and the hash of what was asked.

    Masks are derived from it and confirmations sign it. So masks of clients that were shown other keys, or asked with
    another model, do not cancel: whoever is in one sum has seen the same.
    """
    return _digest(b"secagg sum", context, root, present, asked)


def stated_sets(anchored: bytes, active: bytes, dropped: bytes) -> bytes:
    """What a client signs before it opens anything: the sum, and who is in it and who is out."""
    return _digest(b"secagg sets", anchored, active, dropped)


def commitment(seed: bytes) -> bytes:
    """Hides a seed of 32 random bytes, and fits no other."""
    return hashlib.sha256(b"secagg seed" + seed).digest()


def self_seed(seed: bytes, anchored: bytes, channel: str) -> bytes:
    """Of the mask that is removed by opening a surviving client's seed."""
    return derive(seed, "secagg self mask", anchored, channel.encode())


def pair_seed(agreed: bytes, anchored: bytes, channel: str) -> bytes:
    """Of the mask that two neighbours add and subtract."""
    return derive(agreed, "secagg pair mask", anchored, channel.encode())


def bits(packed: bytes, count: int) -> np.ndarray:
    """(count,) bool of a bitmap. Raises `ProtocolError` for another length, or bits behind the last."""
    if len(packed) != -(-count // 8):
        raise ProtocolError("a bitmap has another length than the cohort")
    found = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").astype(bool)
    if found[count:].any():
        raise ProtocolError("a bitmap names clients that are not there")
    return found[:count]


def _digest(*parts: bytes) -> bytes:
    """SHA-256 of parts that are framed by their lengths, so that no two lists of them give the same bytes."""
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
