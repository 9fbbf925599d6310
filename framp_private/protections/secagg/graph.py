"""Who shares with whom, and how a client knows that the keys it is shown are the ones that everybody was shown.

The server commits to all signed keys of a round by the root of a Merkle tree (RFC 6962, section 2.1) whose leaves stand
at the clients' places in the planned cohort, empty where no keys came. Only then each client draws its own neighbours,
from its own randomness (Bell et al. 2020, the protocol against malicious servers): a graph that followed from the set
of keys would be the server's choice, since it is the server that says which keys came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from framp_private.randomness import Entropy

HASH_BYTES = 32
_WORD = 1 << 64


def draw_places(places: Sequence[int], count: int, entropy: Entropy) -> tuple[int, ...]:
    """`count` of the places, uniform without replacement, ascending; all of them if they are no more.

    From `entropy` alone, without bias: the first steps of a Fisher-Yates shuffle over rejected 64-bit words.
    """
    pool = list(places)
    if count >= len(pool):
        return tuple(sorted(pool))
    for at in range(count):
        other = at + _below(len(pool) - at, entropy)
        pool[at], pool[other] = pool[other], pool[at]
    return tuple(sorted(pool[:count]))


def _below(bound: int, entropy: Entropy) -> int:
    """Uniform in 0 .. bound - 1."""
    limit = _WORD - _WORD % bound
    while True:
        drawn = int.from_bytes(entropy.bytes(8), "big")
        if drawn < limit:
            return drawn % bound


def bitmap(places: Sequence[int], count: int) -> bytes:
    """A bit for each of `count` places, lowest first in each byte."""
    flags = np.zeros(count, bool)
    flags[list(places)] = True
    return np.packbits(flags, bitorder="little").tobytes()


class MerkleTree:
    """The tree over some leaves. Memory: two hashes a leaf."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [[_leaf(leaf) for leaf in leaves]]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            pairs = [_node(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)]
            self._levels.append(pairs + below[len(pairs) * 2 :])

    @property
    def root(self) -> bytes:
        """32 bytes that stand for all leaves and their places."""
        return self._levels[-1][0]

    def proof(self, index: int) -> bytes:
        """What leads from one leaf to the root: its siblings' hashes, lowest first."""
        path = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            index //= 2
        return b"".join(path)


def proven(root: bytes, count: int, index: int, leaf: bytes, proof: bytes) -> bool:
    """Whether a leaf stands at an index of the tree of `count` leaves that has this root."""
    if not 0 <= index < count or len(proof) % HASH_BYTES:
        return False
    path = [proof[at : at + HASH_BYTES] for at in range(0, len(proof), HASH_BYTES)]
    found, width = _leaf(leaf), count
    while width > 1:
        if index ^ 1 < width:
            if not path:
                return False
            sibling = path.pop(0)
            found = _node(sibling, found) if index % 2 else _node(found, sibling)
        index, width = index // 2, (width + 1) // 2
    return not path and found == root


def _leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\0" + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
