"""Who shares with whom: a neighbour graph that follows from a hash of all signed keys, and the tree of that hash.

The graph is Bell et al. 2020's: a random Harary graph, here the circle on which everybody is joined to the k / 2 next
on both sides, with places shuffled. The shuffle comes from the root of the Merkle tree over all signed keys (RFC 6962,
section 2.1), so that nobody chooses its neighbours, and each client checks its own with the root and few proofs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from framp_private.crypto.agreement import derive
from framp_private.crypto.prg import mask

HASH_BYTES = 32


def neighbourhood(root: bytes, count: int, neighbours: int, index: int) -> tuple[int, ...]:
    """Indices of a client's neighbours, ascending, itself left out: `neighbours` (even), or all others if as many.

    Symmetric: i is a neighbour of j if j is one of i.
    """
    if neighbours >= count - 1:
        return tuple(other for other in range(count) if other != index)
    seats = _seats(root, count)
    seat = int(np.flatnonzero(seats == index)[0])
    reach = range(1, neighbours // 2 + 1)
    return tuple(sorted(int(seats[(seat + way * step) % count]) for step in reach for way in (1, -1)))


def connected(root: bytes, count: int, neighbours: int, kept: Sequence[int]) -> bool:
    """Whether the graph on the kept indices hangs together.

    On a circle joined to the k / 2 next on both sides it falls apart where k / 2 seats in a row are empty, twice.
    """
    if neighbours >= count - 1 or len(kept) < 2:
        return True
    seats = _seats(root, count)
    there = np.zeros(count, bool)
    there[list(kept)] = True
    places = np.flatnonzero(there[seats])
    gaps = np.diff(places, append=places[0] + count) - 1
    return int((gaps >= neighbours // 2).sum()) < 2


def _seats(root: bytes, count: int) -> np.ndarray:
    """(count,) who sits where on the circle."""
    return np.argsort(mask(derive(root, "neighbour graph"), count, 62), kind="stable")


class MerkleTree:
    """Over leaves in order. Raises `ValueError` without any."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            raise ValueError("a tree has leaves")
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
