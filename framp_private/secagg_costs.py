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
    CohortRequest,
    Confirmation,
    ConfirmRequest,
    Delivery,
    KeysRequest,
    Neighbours,
    Opened,
    Sample,
    SampleRequest,
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
        "bytes": client_bytes(design, values, ring_bits),
        "seconds": client_seconds(design, values, ring_bits),
    }


def client_bytes(design: Design, values: int, ring_bits: int) -> dict[str, dict[str, int]]:
    """By trip, what comes down to a client and what goes up.

    On a sparse graph as many are taken to have drawn a client as it drew, which is so in the mean.
    """
    cohort, near = design.cohort, range(1, design.neighbours + 1)
    sparse = design.neighbours < cohort - 1
    peers = range(1, design.neighbours + _drawn_by(design) + 1)
    keys = SignedKeys(bytes(32), bytes(32), bytes(SIGNATURE_BYTES))
    proof = bytes(HASH_BYTES * (cohort - 1).bit_length()) if sparse else b""
    pair = SharePair(bytes(SECRET_BYTES), bytes(SECRET_BYTES)).packed
    sealed, bitmap, root = dict.fromkeys(near, bytes(len(pair) + 28)), bytes(-(-cohort // 8)), bytes(HASH_BYTES)
    proofs = dict.fromkeys(peers if sparse else (), proof)
    request = SharesRequest(root, bitmap, proof, dict.fromkeys(peers, keys.packed), proofs)
    sample = range(cohort, cohort + design.sample) if sparse else range(0)
    shown = dict.fromkeys([0, *near, *sample], bytes(SIGNATURE_BYTES))
    drawing = {"neighbours": {"down": len(encode(CohortRequest(root, bitmap))), "up": len(encode(Neighbours(bitmap)))}}
    checking = {"sample": {"down": len(encode(SampleRequest(root))), "up": len(encode(Sample(bitmap)))}}
    return {
        "keys": {"down": len(encode(KeysRequest(0, cohort))), "up": len(encode(keys))},
        **(drawing if sparse else {}),
        "shares": {"down": len(encode(request)), "up": len(encode(Shares(sealed, root)))},
        "masked": {"down": len(encode(Delivery(sealed, bitmap))), "up": -(-values * ring_bits // 8)},
        "confirm": {
            "down": len(encode(ConfirmRequest(bitmap, bitmap))),
            "up": len(encode(Confirmation(bytes(SIGNATURE_BYTES)))),
        },
        **(checking if sparse else {}),
        "unmask": {
            "down": len(encode(UnmaskRequest(shown, dict.fromkeys(sample, proof)))),
            "up": len(encode(Opened(dict.fromkeys([0, *near], bytes(SECRET_BYTES)), {}))),
        },
    }


def _drawn_by(design: Design) -> int:
    """Neighbours that draw a client and that it did not draw, in the mean."""
    others = design.cohort - 1
    return round(design.neighbours * (1 - design.neighbours / others))


def client_seconds(design: Design, values: int, ring_bits: int) -> dict[str, float]:
    """Of one client in one round, from the speed of each kind of work on this machine, one thread."""
    entropy, near = Entropy(), design.neighbours
    peers = near + _drawn_by(design)
    checked = peers + near + 1 + (design.sample if near < design.cohort - 1 else 0)
    identity, own, peer = Identity.new(entropy), AgreementKey.new(entropy), AgreementKey.new(entropy)
    signature = identity.sign("plan", b"x" * 100)
    secret, key = draw_secret(entropy), entropy.bytes(32)
    sealed = seal(key, bytes(100), b"", entropy)
    target = np.zeros(values, np.uint32 if ring_bits <= 32 else np.uint64)
    points = list(range(1, near + 2))
    return {
        "signatures": checked * _each(lambda: identity.public.signed("plan", b"x" * 100, signature)),
        "agreements": (2 * peers + 2 * near) * _each(lambda: derive(own.agree(peer.public), "plan")),
        "sealing": near * _each(lambda: (seal(key, bytes(100), b"", entropy), unseal(key, sealed, b""))),
        "sharing": 2 * _each(lambda: share(secret, design.threshold, points, entropy), 3),
        "masking": (peers + 1) * _each(lambda: add_mask(target, key), 3),
    }


def _each(work: Callable[[], object], times: int = 20) -> float:
    """Seconds of one call, the fastest of a few."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
