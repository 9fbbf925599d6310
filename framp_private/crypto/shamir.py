"""Secrets in shares, of which `threshold` give it back and fewer tell nothing (Shamir 1979).

Over the integers modulo the largest prime below 2^256, in Python's integers: own code on purpose, because well-kept
libraries of shares over other fields are a thousand times slower and would dominate a round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from framp_private.errors import CryptoError
from framp_private.randomness import Entropy

PRIME = 2**256 - 189
SECRET_BYTES = 32


def draw_secret(entropy: Entropy) -> bytes:
    """32 bytes, uniform below the prime."""
    while True:
        drawn = entropy.bytes(SECRET_BYTES)
        if int.from_bytes(drawn, "big") < PRIME:
            return drawn


def share(secret: bytes, threshold: int, points: Sequence[int], entropy: Entropy) -> dict[int, bytes]:
    """A share of 32 bytes for each point.

    Args:
        secret: 32 bytes below the prime. threshold: how many shares give it back, 1 .. number of points.
        points: distinct, in 1 .. PRIME - 1; public.

    Raises:
        CryptoError: a value outside its range.
    """
    value = _field(secret)
    if not 1 <= threshold <= len(points) or len(set(points)) != len(points) or not all(0 < x < PRIME for x in points):
        raise CryptoError(f"threshold={threshold} of {len(points)} points: at least 1, at most all, points distinct")
    coefficients = [_field(draw_secret(entropy)) for _ in range(threshold - 1)]
    shares = {}
    for x in points:
        y = 0
        for coefficient in reversed(coefficients):
            y = (y + coefficient) * x % PRIME
        shares[x] = ((y + value) % PRIME).to_bytes(SECRET_BYTES, "big")
    return shares


def recover(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret, from at least `threshold` shares by point; any `threshold` of them are used.

    What comes back must be checked against something public: wrong shares give a wrong secret without notice.

    Raises:
        CryptoError: too few shares, or one that is none.
    """
    if len(shares) < threshold or threshold < 1:
        raise CryptoError(f"{len(shares)} shares do not reach the threshold {threshold}")
    if not all(0 < x < PRIME for x in shares):
        raise CryptoError("a share's point is out of range")
    chosen = sorted(shares)[:threshold]
    weights = _weights(tuple(chosen))
    total = sum(weight * _field(shares[x]) for x, weight in zip(chosen, weights, strict=True))
    return (total % PRIME).to_bytes(SECRET_BYTES, "big")


def _weights(points: tuple[int, ...]) -> list[int]:
    """Lagrange's basis at zero."""
    found = []
    for x in points:
        top = bottom = 1
        for other in points:
            if other != x:
                top = top * other % PRIME
                bottom = bottom * (other - x) % PRIME
        found.append(top * pow(bottom, -1, PRIME) % PRIME)
    return found


def _field(data: bytes) -> int:
    value = int.from_bytes(data, "big")
    if len(data) != SECRET_BYTES or value >= PRIME:
        raise CryptoError("a share or a secret must be 32 bytes below the prime")
    return value
