"""Two sources of randomness that never mix.

`Streams` is seeded: data, initialisation, sampling and simulation draw from it, so that a run can be repeated.
`Entropy` is the operating system's: names, and every noise, key or mask. Neither converts into the other,
and neither touches the process-wide generators of numpy, Python or torch beyond the scope of a call.

    >>> Streams(7).child("client", 3).numpy().integers(10) == Streams(7).child("client", 3).numpy().integers(10)
    True
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch

_DEFAULT_GENERATOR = threading.RLock()


@dataclass(frozen=True)
class Streams:
    """A tree of named, seeded streams: equal seed and path give equal draws, different paths independent ones.

    Args:
        seed: any integer >= 0.
        path: names from the root; use `child` rather than setting it.
    """

    seed: int
    path: tuple[str, ...] = ()

    def child(self, *names: str | int) -> Streams:
        """The stream below this one; `child("a").child("b")` equals `child("a", "b")`."""
        return Streams(self.seed, (*self.path, *(str(name) for name in names)))

    def integer(self) -> int:
        """A 63-bit integer that identifies this stream (SHA-256 of seed and path)."""
        message = json.dumps(["framp-private", self.seed, *self.path]).encode()
        return int.from_bytes(hashlib.sha256(message).digest()[:8], "big") >> 1

    def numpy(self) -> np.random.Generator:
        """A fresh numpy generator at the start of this stream."""
        return np.random.default_rng(self.integer())

    def torch(self) -> torch.Generator:
        """A fresh CPU torch generator at the start of this stream."""
        return torch.Generator().manual_seed(self.integer())

    @contextmanager
    def as_torch_default(self) -> Iterator[None]:
        """Module constructors and dropout draw from this stream inside the block; the global state is put back.

        One thread at a time: the generator is the process's.
        """
        with _DEFAULT_GENERATOR:
            state = torch.random.get_rng_state()
            # torch.manual_seed would also queue a call per accelerator
            torch.default_generator.manual_seed(self.integer())
            try:
                yield
            finally:
                torch.random.set_rng_state(state)


class Entropy:
    """Randomness of the operating system. It cannot be seeded, copied or stored."""

    def bytes(self, count: int) -> bytes:
        """`count` unpredictable bytes; raises `OSError` or `NotImplementedError` if the system has none to give."""
        return os.urandom(count)

    def __reduce__(self) -> NoReturn:
        raise TypeError("Entropy is never serialised: draw from a new one after a fork or a resume")
