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
from typing import ClassVar, NoReturn

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

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
    """Randomness of the operating system. It cannot be seeded, copied or stored.

    Long draws are expanded by AES-256-CTR (NIST SP 800-38A, section 6.5) under a key that is drawn for that draw
    alone, so there is no state that a fork or a resume could repeat.
    """

    seeded: ClassVar[bool] = False
    """Whether draws can be repeated; a ledger that sees such a source makes no claim."""

    def bytes(self, count: int) -> bytes:
        """`count` unpredictable bytes; raises `OSError` or `NotImplementedError` if the system has none to give."""
        return os.urandom(count)

    def keystream(self) -> Keystream:
        """A stream of unpredictable bytes under a fresh 256-bit key; raises what `bytes` raises."""
        return Keystream(self.bytes(32), self.bytes(16))

    def __reduce__(self) -> NoReturn:
        raise TypeError("Entropy is never serialised: draw from a new one after a fork or a resume")


class SeededEntropy(Entropy):
    """For tests of everything around the noise: repeatable, so whatever draws from it is not private.

    A ledger that is told of it records `seeded noise` and has no epsilon.
    """

    seeded: ClassVar[bool] = True

    def __init__(self, seed: int) -> None:
        self._source = Streams(seed).child("seeded entropy").numpy()
        self._lock = threading.Lock()

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes of a seeded generator."""
        with self._lock:
            return self._source.bytes(count)


class Keystream:
    """The AES-256-CTR keystream of one key and one initial counter block; make it with `Entropy.keystream`."""

    def __init__(self, key: bytes, counter: bytes) -> None:
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()

    def fill(self, buffer: bytearray) -> None:
        """Overwrites all of `buffer` with the next bytes of the stream."""
        with memoryview(buffer) as whole:
            for at in range(0, len(whole), len(_ZEROS)):
                part = whole[at : at + len(_ZEROS)]
                self._encryptor.update_into(_ZEROS[: len(part)], part)


_ZEROS = memoryview(bytes(1 << 20))
