"""Sums of real vectors as sums of integers modulo 2^b: quantising, headroom, and values packed at their width.

A client's value x becomes round(x / step) in -bound/step .. bound/step, a negative one 2^b minus its size. With
`Ring.fitting` the sum of a whole cohort cannot wrap, so that what is opened is the sum of the quantised values exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from framp_private.errors import CryptoError, PrivacyParameterError, ProtocolError

Ints = np.ndarray
"""uint32 for rings up to 32 bits, else uint64."""
MOST_BITS = 62


def headroom(cohort: int, levels: int) -> int:
    """The fewest bits in which the sum of `cohort` integers of size at most `levels` does not wrap."""
    return (2 * cohort * levels).bit_length()


@dataclass(frozen=True)
class Ring:
    """Integers modulo 2^bits that stand for multiples of `step`.

    Args:
        bits: 2 .. 62. step: > 0, what one unit stands for. levels: largest size of one client's integer.

    Raises:
        PrivacyParameterError: a value outside its range.
    """

    bits: int
    step: float
    levels: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= MOST_BITS or not 0 < self.step < math.inf or self.levels < 1:
            raise PrivacyParameterError(
                f"bits={self.bits} must lie in 2 .. {MOST_BITS}, step={self.step} be positive, levels={self.levels} at "
                "least 1: take a larger step, a smaller bound or a smaller cohort"
            )

    @classmethod
    def fitting(cls, cohort: int, bound: float, step: float) -> Ring:
        """The smallest ring for a cohort whose values lie in -bound .. bound.

        The step is made a little smaller, so that the bound is a whole number of steps.
        """
        if cohort < 1 or not 0 < bound < math.inf or not 0 < step <= bound:
            raise PrivacyParameterError(
                f"cohort={cohort}, bound={bound}, step={step}: a cohort of at least 1, and 0 < step <= bound < inf"
            )
        levels = math.ceil(bound / step)
        return cls(headroom(cohort, levels), bound / levels, levels)

    @property
    def dtype(self) -> type[np.uint32] | type[np.uint64]:
        """What its integers are stored in."""
        return np.uint32 if self.bits <= 32 else np.uint64

    @property
    def mask(self) -> int:
        """2^bits - 1."""
        return (1 << self.bits) - 1

    def encode(self, values: np.ndarray) -> Ints:
        """(n,) ring integers of (n,) reals, rounded to the nearest step, halves to even.

        Raises:
            ProtocolError: a value that is not finite, or beyond the bound.
        """
        scaled = np.rint(np.asarray(values, np.float64) / self.step)
        if not np.isfinite(scaled).all():
            raise ProtocolError("a value to be summed is not finite: clip it, or let it count as zero")
        if scaled.size and float(np.abs(scaled).max()) > self.levels:
            raise ProtocolError(
                f"a value to be summed is {float(np.abs(scaled).max()) * self.step:g}, beyond the bound "
                f"{self.levels * self.step:g}: clip it, or agree on a larger bound"
            )
        return self.wrap(scaled.astype(np.int64))

    def decode(self, total: Ints) -> np.ndarray:
        """(n,) float64 reals of (n,) ring integers."""
        return self.centred(total) * self.step

    def wrap(self, integers: np.ndarray) -> Ints:
        """Signed integers as ring integers."""
        return (integers & self.mask).astype(self.dtype)

    def centred(self, total: Ints) -> np.ndarray:
        """Ring integers as signed ones, int64 in -2^(bits-1) .. 2^(bits-1) - 1."""
        signed = total.astype(np.int64)
        return np.where(signed >= 1 << (self.bits - 1), signed - (1 << self.bits), signed)


def pack(values: Ints, bits: int) -> bytes:
    """Ring integers at `bits` bits each, lowest bits first: ceil(n / 8) * bits bytes, cut to ceil(n * bits / 8)."""
    count = len(values)
    padded = np.zeros(-(-count // 8) * 8, np.uint64)
    padded[:count] = values
    groups = np.ascontiguousarray(padded.reshape(-1, 8).T)
    packed = np.zeros((groups.shape[1], bits), np.uint8)
    for place in range(bits):
        low = 8 * place
        first, last = low // bits, min((low + 7) // bits, 7)
        for index in range(first, last + 1):
            shift = index * bits - low
            part = groups[index] << np.uint64(shift) if shift >= 0 else groups[index] >> np.uint64(-shift)
            packed[:, place] |= part.astype(np.uint8)
    return packed.tobytes()[: -(-count * bits // 8)]


def unpack(data: bytes, count: int, bits: int) -> Ints:
    """The inverse of `pack`. Raises `CryptoError` for another length, or for bits set behind the last value.

    Eight values fill `bits` bytes, so that the first, second, ... of all groups stand `bits` bytes apart: each is read
    with one strided view of 64-bit words that need not be aligned, and for widths of more than 57 one of bytes.
    """
    if len(data) != -(-count * bits // 8):
        raise CryptoError(f"{len(data)} bytes do not hold {count} values of {bits} bits")
    groups, dtype = -(-count // 8), np.uint32 if bits <= 32 else np.uint64
    flat, mask = np.zeros(groups * 8, dtype), np.uint64((1 << bits) - 1)
    raw = np.frombuffer(data.ljust(groups * bits + _WORD, b"\0"), np.uint8)
    for index in range(8 if groups else 0):
        first, shift = divmod(index * bits, 8)
        words = np.ndarray((groups,), "<u8", raw, first, (bits,)) >> np.uint64(shift)
        if shift + bits > 8 * _WORD:
            words |= raw[first + _WORD :: bits][:groups].astype(np.uint64) << np.uint64(8 * _WORD - shift)
        flat[index::8] = words & mask
    if flat[count:].any():
        raise CryptoError("packed values have bits set behind the last one")
    return flat[:count]


_WORD = 8
"""Bytes of a word."""
