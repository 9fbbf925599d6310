"""What secure aggregation costs a client: bytes from messages of the right form, seconds from this machine.

`framp-private secagg plan` prints it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from framp_private.crypto.agreement import AgreementKey, derive
from framp_private.crypto.keys import SIGNATURE_BYTES, Identity
from framp_private.crypto.prg import add_mask
from framp_private.crypto.sealed import seal, unseal
from framp_private.crypto.shamir import SECRET_BYTES, draw_secret, share
from framp_private.protections.secagg.graph import HASH_BYTES
from framp_private.protections.secagg.messages import (
    Confirmation,
    ConfirmRequest,
    Delivery,
    KeyEntry,
    KeysRequest,
    Opened,
    SharePair,
    Shares,
    SharesRequest,
    SignedKeys,
    UnmaskRequest,
)
from framp_private.protections.secagg.planning import Design
from framp_private.randomness import Entropy
from framp_private.wire import encode


def client_costs(design: Design, values: int, ring_bits: int) -> dict[str, Any]:
    """Bytes by trip and direction, and seconds by kind of work, of one client in one round."""
    return {
        **asdict(design),
        "bytes": client_bytes(design.cohort, design.neighbours, values, ring_bits),
        "seconds": client_seconds(design, values, ring_bits),
    }


def client_bytes(cohort: int, neighbours: int, values: int, ring_bits: int) -> dict[str, dict[str, int]]:
    """By trip, what comes down to a client and what goes up. Names are as long as `client-00000`."""
    names = [f"client-{place:05d}" for place in range(neighbours)]
    near = [*names, f"client-{neighbours:05d}"]  # who confirms and opens: the client itself among them
    keys = SignedKeys(bytes(32), bytes(32), bytes(SIGNATURE_BYTES))
    entry = encode(KeyEntry(names[0], 0, encode(keys)))
    proof = bytes(HASH_BYTES * max(1, (cohort - 1).bit_length()))
    pair = encode(SharePair(bytes(SECRET_BYTES), bytes(SECRET_BYTES)))
    sealed = dict.fromkeys(names, bytes(len(pair) + 28))
    bitmap = bytes(-(-cohort // 8))
    request = SharesRequest(
        bytes(HASH_BYTES), cohort, 0, proof, dict.fromkeys(names, entry), dict.fromkeys(names, proof)
    )
    return {
        "keys": {"down": len(encode(KeysRequest(0, cohort))), "up": len(encode(keys))},
        "shares": {"down": len(encode(request)), "up": len(encode(Shares(sealed, bytes(HASH_BYTES))))},
        "masked": {"down": len(encode(Delivery(sealed))), "up": -(-values * ring_bits // 8)},
        "confirm": {
            "down": len(encode(ConfirmRequest(bitmap, bitmap))),
            "up": len(encode(Confirmation(bytes(SIGNATURE_BYTES)))),
        },
        "unmask": {
            "down": len(encode(UnmaskRequest(dict.fromkeys(near, bytes(SIGNATURE_BYTES))))),
            "up": len(encode(Opened(dict.fromkeys(near, bytes(SECRET_BYTES)), {}))),
        },
    }


def client_seconds(design: Design, values: int, ring_bits: int) -> dict[str, float]:
    """Of one client in one round, from the speed of each kind of work on this machine, one thread."""
    entropy, near = Entropy(), design.neighbours
    identity, own, peer = Identity.new(entropy), AgreementKey.new(entropy), AgreementKey.new(entropy)
    signature = identity.sign("plan", b"x" * 100)
    secret, key = draw_secret(entropy), entropy.bytes(32)
    sealed = seal(key, bytes(100), b"", entropy)
    target = np.zeros(values, np.uint32 if ring_bits <= 32 else np.uint64)
    points = list(range(1, near + 2))
    return {
        "signatures": 2 * near * _each(lambda: identity.public.signed("plan", b"x" * 100, signature)),
        "agreements": 3 * near * _each(lambda: derive(own.agree(peer.public), "plan")),
        "sealing": near * _each(lambda: (seal(key, bytes(100), b"", entropy), unseal(key, sealed, b""))),
        "sharing": 2 * _each(lambda: share(secret, design.threshold, points, entropy), 3),
        "masking": (near + 1) * _each(lambda: add_mask(target, key), 3),
    }


def _each(work: Callable[[], object], times: int = 20) -> float:
    """Seconds of one call, the fastest of a few."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
