"""Secrets in shares, of which `threshold` give it back and fewer tell nothing (Shamir 1979).

Over the integers modulo the largest prime below 2^256, in Python's integers: own code on purpose, because well-kept
libraries of shares over other fields are a thousand times slower and would dominate a round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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


def recover_checked(shares: Mapping[int, bytes], threshold: int, fits: Callable[[bytes], bool]) -> bytes | None:
    """The secret that `fits`, if at most (number of shares - threshold) // 2 of the shares are wrong; else None.

    Shares that are no field elements count as missing. The first `threshold` are tried alone; if they do not fit, the
    polynomial is decoded from all of them (Gao 2003, "A new algorithm for decoding Reed-Solomon codes": interpolate,
    then run Euclid's algorithm halfway), which corrects as many errors as can be corrected for certain.
    """
    usable = {x: share for x, share in shares.items() if 0 < x < PRIME and _is_field(share)}
    if len(usable) < threshold or threshold < 1:
        return None
    secret = recover(usable, threshold)
    if fits(secret):
        return secret
    decoded = _decoded([(x, _field(share)) for x, share in sorted(usable.items())], threshold)
    return decoded if decoded is not None and fits(decoded) else None


Polynomial = list[int]
"""Coefficients modulo PRIME, lowest first, without zeros behind the last one."""


def _decoded(points: Sequence[tuple[int, int]], threshold: int) -> bytes | None:
    """The value at zero of the polynomial of degree below `threshold` that all but a few points lie on."""
    whole: Polynomial = [1]
    for x, _ in points:
        whole = _times(whole, [-x % PRIME, 1])
    before, now = whole, _interpolated(points, whole)
    factor_before, factor = [], [1]
    while 2 * (len(now) - 1) >= len(points) + threshold:
        quotient, rest = _divided(before, now)
        before, now = now, rest
        factor_before, factor = factor, _minus(factor_before, _times(quotient, factor))
    found, rest = _divided(now, factor)
    if rest or len(found) > threshold:
        return None
    return (found[0] if found else 0).to_bytes(SECRET_BYTES, "big")


def _interpolated(points: Sequence[tuple[int, int]], whole: Polynomial) -> Polynomial:
    """The polynomial through all points; `whole` vanishes at each of them."""
    total: Polynomial = []
    for x, y in points:
        basis, _ = _divided(whole, [-x % PRIME, 1])
        at = 0
        for coefficient in reversed(basis):
            at = (at * x + coefficient) % PRIME
        total = _minus(total, [-coefficient * y * pow(at, -1, PRIME) % PRIME for coefficient in basis])
    return total


def _times(a: Polynomial, b: Polynomial) -> Polynomial:
    made = [0] * max(0, len(a) + len(b) - 1)
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            made[i + j] = (made[i + j] + left * right) % PRIME
    return _trimmed(made)


def _minus(a: Polynomial, b: Polynomial) -> Polynomial:
    size = max(len(a), len(b))
    left, right = a + [0] * (size - len(a)), b + [0] * (size - len(b))
    return _trimmed([(x - y) % PRIME for x, y in zip(left, right, strict=True)])


def _divided(a: Polynomial, b: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Quotient and rest; b is not zero."""
    rest, inverse = list(a), pow(b[-1], -1, PRIME)
    quotient = [0] * max(0, len(a) - len(b) + 1)
    for at in range(len(quotient) - 1, -1, -1):
        factor = quotient[at] = rest[at + len(b) - 1] * inverse % PRIME
        for j, coefficient in enumerate(b):
            rest[at + j] = (rest[at + j] - factor * coefficient) % PRIME
    return _trimmed(quotient), _trimmed(rest)


def _trimmed(values: Polynomial) -> Polynomial:
    while values and values[-1] == 0:
        values.pop()
    return values


def _is_field(data: bytes) -> bool:
    return len(data) == SECRET_BYTES and int.from_bytes(data, "big") < PRIME


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
