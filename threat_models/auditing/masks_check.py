"""Whether what a secure sum carries looks like masks that were drawn for it alone, from the transcript.

A mask that serves two rounds leaves the difference of two values, whose high bits hardly move; one that serves two
clients leaves the difference of theirs. Bytes of two masked vectors agree at one place in 256; more is found out by an
exact binomial test. The bytes themselves must be uniform.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from scipy.stats import binom, chisquare

from framp_private import Federation, messages
from threat_models.auditing.replay import Finding
from threat_models.view import View


def check_masks(view: View, *, alpha: float = 1e-6) -> list[Finding]:
    """Findings on the update channel of a run with secure sums; comparisons and uniformity have half of alpha each."""
    vectors = _vectors(view)
    pairs = [("two rounds", a, b) for rounds in vectors.values() for a, b in pairwise(rounds)]
    first = [rounds[0] for rounds in vectors.values() if rounds]
    pairs += [("two clients", a, b) for a, b in list(combinations(first, 2))[:60]]
    found = []
    for words, one, other in pairs:
        if len(one) != len(other) or len(one) < 64:
            continue
        same = int((one == other).sum())
        if binom.sf(same - 1, len(one), 1 / 256) < alpha / 2 / max(1, len(pairs)):
            found.append(Finding("masks", "update", f"{words} share {same} of {len(one)} bytes: a mask was used twice"))
            break
    counts = np.bincount(np.concatenate(first), minlength=256) if first else np.zeros(256)
    if counts.sum() >= 5 * 256 and chisquare(counts).pvalue < alpha / 2:
        found.append(Finding("masks", "update", "masked bytes are not uniform"))
    return found


def masked(federation: Federation) -> bool:
    """Whether the update channel is a secure sum."""
    return type(federation.plan.protection("update").carrier).__name__ == "SecAgg"


def _vectors(view: View) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for client, _, reply in view.exchanges():
        if isinstance(reply, messages.TrainReply):
            found.setdefault(client, []).append(np.frombuffer(reply.update, np.uint8))
    return found
