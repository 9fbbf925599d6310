"""What clients learn together, or with the server (D1 to D6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from scipy.stats import chisquare
from torch import Tensor

from threat_models.errors import NotResolvable


def leave_one_out(total: np.ndarray, colluders: Mapping[str, np.ndarray], cohort: int) -> np.ndarray:
    """D1: the victim's value, from a sum and what all others put into it; exact to the ring's step.

    Raises:
        NotResolvable: fewer than K - 1 colluders: several clients are left in the difference.
    """
    if len(colluders) < cohort - 1:
        raise NotResolvable(f"{len(colluders)} of {cohort} collude: the rest is a sum over {cohort - len(colluders)}")
    return np.asarray(total - sum(colluders.values()))


def uniform(elements: np.ndarray, modulus_bits: int, bins: int = 64) -> float:
    """D1: p-value that ring elements are uniform, which is all that a coalition under the threshold holds."""
    high = np.asarray(elements, np.uint64) >> np.uint64(max(0, modulus_bits - int(math.log2(bins))))
    return float(chisquare(np.bincount(high.astype(int).ravel(), minlength=bins)).pvalue)


def decrypts(secret_context: bytes, ciphertext: bytes, decrypt: Callable[[bytes, bytes], np.ndarray]) -> np.ndarray:
    """D2: whoever holds the decryption key opens every single value that it gets hold of, not sums alone."""
    return decrypt(secret_context, ciphertext)


def key_from_feedback(c0: np.ndarray, c1: np.ndarray, decrypted: np.ndarray, modulus: int) -> np.ndarray:
    """D3: the CKKS secret key from a ciphertext and its exact decryption: s = (m' - c0) / c1 in Z_q[x]/(x^n + 1).

    Li and Micciancio, ePrint 2020/1533, section 4. For a prime q with 2n | q - 1, by a slow transform of size n: a
    model of what a library's users face. Rounding or flooding the decryption before it leaves stops it.

    Raises:
        NotResolvable: c1 has no inverse (probability about n / q).
    """
    n = len(c0)
    root = _root(2 * n, modulus)
    points = [pow(root, 2 * k + 1, modulus) for k in range(n)]

    def at(poly: np.ndarray) -> list[int]:
        return [sum(int(c) * pow(x, i, modulus) for i, c in enumerate(poly)) % modulus for x in points]

    top = at((np.asarray(decrypted, object) - np.asarray(c0, object)) % modulus)
    bottom = at(np.asarray(c1, object) % modulus)
    if 0 in bottom:
        raise NotResolvable("c1 has no inverse: take another ciphertext")
    values = [a * pow(b, -1, modulus) % modulus for a, b in zip(top, bottom, strict=True)]
    scale = pow(n, -1, modulus)
    return np.array(
        [scale * sum(v * pow(x, -i, modulus) for v, x in zip(values, points, strict=True)) % modulus for i in range(n)]
    )


def _root(order: int, modulus: int) -> int:
    for candidate in range(2, modulus):
        found = pow(candidate, (modulus - 1) // order, modulus)
        if pow(found, order // 2, modulus) == modulus - 1:
            return found
    raise NotResolvable(f"{modulus} has no root of unity of order {order}")


def remaining_noise(multiplier: float, survivors: int, colluding: int) -> float:
    """D4: the noise multiplier that is left when so many of the survivors give their shares away.

    Each adds sigma^2 / K: multiplier sqrt((K - t) / K). A claim with `colluding` = t is sized for it.
    """
    return multiplier * math.sqrt(max(0, survivors - colluding) / survivors)


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """D5: two sums over cohorts that differ in one client, under one model, differ by its value.

    Exact without defence; a client that answers a round once is in one of them alone.
    """
    return np.asarray(first - second)


def sybil_descriptors(generate: Callable[[Tensor], Tensor], around: Tensor, steps: Tensor) -> np.ndarray:
    """D6: the generator's Jacobian around a descriptor, from the models that sybil clients are given there.

    Args:
        generate: what a client with that descriptor is sent. around: (d,). steps: (k, d) small moves.
    """
    centre = generate(around)
    rows = [((generate(around + step) - centre) / step.norm()).numpy() for step in steps]
    return np.array(rows)
