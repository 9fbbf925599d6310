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
    return hashlib.sha256(b"secagg round" + len(run).to_bytes(4, "big") + run + round_index.to_bytes(8, "big")).digest()


def stated_keys(context: bytes, name: str, mask_key: bytes, seal_key: bytes) -> bytes:
    """What a client signs with its keys."""
    return context + mask_key + seal_key + name.encode()


def stated_sets(context: bytes, root: bytes, asked: bytes, active: bytes, dropped: bytes) -> bytes:
    """What a client signs before it opens anything: round, all keys, what was asked, and who is in and out."""
    sizes = len(active).to_bytes(4, "big") + len(dropped).to_bytes(4, "big")
    return context + root + asked + sizes + active + dropped


def commitment(seed: bytes) -> bytes:
    """Hides a seed of 32 random bytes, and fits no other."""
    return hashlib.sha256(b"secagg seed" + seed).digest()


def self_seed(seed: bytes, context: bytes, channel: str) -> bytes:
    """Of the mask that is removed by opening a surviving client's seed."""
    return derive(seed, "secagg self mask", context, channel.encode())


def pair_seed(agreed: bytes, context: bytes, channel: str) -> bytes:
    """Of the mask that two neighbours add and subtract."""
    return derive(agreed, "secagg pair mask", context, channel.encode())


def bits(packed: bytes, count: int) -> np.ndarray:
    """(count,) bool of a bitmap. Raises `ProtocolError` for another length, or bits behind the last."""
    if len(packed) != -(-count // 8):
        raise ProtocolError("a bitmap has another length than the cohort")
    found = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").astype(bool)
    if found[count:].any():
        raise ProtocolError("a bitmap names clients that are not there")
    return found[:count]
