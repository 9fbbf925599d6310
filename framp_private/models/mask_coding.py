"""A mask on the wire: close to its entropy, whatever the budget.

A mask with k of n bits set needs log2 C(n, k) bits. The gaps between set bits are close to geometric, for which
Rice coding is nearly optimal (Golomb 1966; Rice and Plaunt 1971): a gap g becomes g >> r in unary and r low
bits. Its length is about k (r + 1) + (n - k) / 2^r however the bits are clustered. Where more than half of the
bits are set, the clear ones are coded; where neither helps, the bitmap travels. Layout: a mode byte, the Rice
parameter r, the count of coded bits (uint32, little endian), all unary parts, then all low bits, padded to a byte.
"""

from __future__ import annotations

import math
import struct

import numpy as np

from framp_private.errors import WireError

_HEAD = struct.Struct("<BBI")
_ONES, _ZEROS, _BITMAP = 0, 1, 2


def entropy_bound_bits(n: int, k: int) -> float:
    """log2 C(n, k): no code for all masks with k of n bits set is shorter on average."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def encode_mask(mask: np.ndarray) -> bytes:
    """The coded form of a (n,) bool mask; n itself is not stored."""
    ones = int(mask.sum())
    mode, places = (_ONES, np.flatnonzero(mask)) if 2 * ones <= len(mask) else (_ZEROS, np.flatnonzero(~mask))
    gaps = np.diff(places, prepend=-1) - 1
    lengths = [_rice_bits(gaps, parameter) for parameter in range(24)]
    best = int(np.argmin(lengths))
    if lengths[best] >= len(mask):
        return _HEAD.pack(_BITMAP, 0, ones) + np.packbits(mask).tobytes()
    return _HEAD.pack(mode, best, len(places)) + np.packbits(_rice_encode(gaps, best)).tobytes()


def decode_mask(code: bytes, n: int) -> np.ndarray:
    """The (n,) bool mask of a code.

    Raises:
        WireError: the code is truncated, has bits left over, or names places outside the mask.
    """
    if len(code) < _HEAD.size:
        raise WireError(f"coded mask has {len(code)} bytes, at least {_HEAD.size} are needed")
    mode, parameter, count = _HEAD.unpack(code[: _HEAD.size])
    bits = np.unpackbits(np.frombuffer(code[_HEAD.size :], np.uint8)).astype(bool)
    if mode == _BITMAP:
        if len(bits) != -(-n // 8) * 8 or bits[n:].any() or bits.sum() != count:
            raise WireError("coded bitmap does not fit the mask's length and count")
        return bits[:n]
    if mode not in (_ONES, _ZEROS) or count > n or parameter > 24:
        raise WireError(f"coded mask header ({mode}, {parameter}, {count}) is not possible")
    places = np.cumsum(_rice_decode(bits, parameter, count) + 1) - 1
    if count and places[-1] >= n:
        raise WireError("coded mask names a place outside the network")
    mask = np.full(n, mode == _ZEROS)
    mask[places] = mode == _ONES
    return mask


def _rice_bits(gaps: np.ndarray, parameter: int) -> int:
    return int((gaps >> parameter).sum()) + len(gaps) * (parameter + 1)


def _rice_encode(gaps: np.ndarray, parameter: int) -> np.ndarray:
    unary = np.zeros(int((gaps >> parameter).sum()) + len(gaps), bool)
    unary[np.cumsum((gaps >> parameter) + 1) - 1] = True
    low = (gaps[:, None] >> np.arange(parameter)) & 1
    return np.concatenate([unary, low.reshape(-1).astype(bool)])


def _rice_decode(bits: np.ndarray, parameter: int, count: int) -> np.ndarray:
    low_bits = count * parameter
    ends = np.flatnonzero(bits)[:count]
    used = (int(ends[-1]) + 1 if count and len(ends) == count else 0) + low_bits
    if len(ends) < count or len(bits) - used not in range(8) or bits[used:].any():
        raise WireError("coded mask is truncated or has bits left over")
    high = np.diff(ends, prepend=-1) - 1
    low = bits[used - low_bits : used].reshape(count, parameter)
    gaps: np.ndarray = (high << parameter) + (low << np.arange(parameter)).sum(1)
    return gaps
