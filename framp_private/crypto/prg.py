"""Mask vectors: 32 bytes expanded to uniform integers modulo 2^b by AES-256-CTR (NIST SP 800-38A, section 6.5).

A seed is the key and is used for one vector, so the counter begins at zero.
"""

from __future__ import annotations

import numpy as np

from framp_private.errors import CryptoError
from framp_private.randomness import Keystream

SEED_BYTES = 32
CHUNK_BYTES = 1 << 18
"""Keystream is made and added in pieces that stay in the processor's cache."""


def add_mask(target: np.ndarray, seed: bytes, sign: int = 1) -> None:
    """Adds (or with sign -1 subtracts) a seed's vector in place, modulo 2^32 for uint32, 2^64 for uint64.

    Any smaller ring is a matter of cutting the sum to its lowest bits: `target &= ring.mask`.

    Raises:
        CryptoError: a seed of another length, another dtype, or a sign other than 1 and -1.
    """
    if len(seed) != SEED_BYTES or target.dtype not in (np.uint32, np.uint64) or sign not in (1, -1):
        raise CryptoError("a mask takes a seed of 32 bytes, uint32 or uint64 values, and a sign of 1 or -1")
    stream, width = Keystream(seed, bytes(16)), target.dtype.itemsize
    buffer = bytearray(min(CHUNK_BYTES, target.nbytes))
    for at in range(0, len(target), CHUNK_BYTES // width):
        part = target[at : at + CHUNK_BYTES // width]
        if part.nbytes < len(buffer):
            buffer = bytearray(part.nbytes)
        stream.fill(buffer)
        words = np.frombuffer(buffer, f"<u{width}")
        if sign > 0:
            part += words
        else:
            part -= words


def mask(seed: bytes, count: int, bits: int) -> np.ndarray:
    """(count,) a seed's vector: uniform integers modulo 2^bits."""
    made = np.zeros(count, np.uint32 if bits <= 32 else np.uint64)
    add_mask(made, seed)
    np.bitwise_and(made, (1 << bits) - 1, out=made)
    return made
