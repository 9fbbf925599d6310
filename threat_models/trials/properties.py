"""Trials of properties of whole clients: from descriptors (A8), and from released models (E5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from threat_models import metrics
from threat_models.attacks import linkage
from threat_models.attacks.models import logits_and_features
from threat_models.errors import NotResolvable
from threat_models.metrics import Estimate
from threat_models.results import Result, judged
from threat_models.trials.subject import Subject, shares

PROBES = 200
"""Test records on which released models are asked."""


def from_descriptors(subject: Subject) -> Iterator[Result]:
    """A8: whether a client holds much of class c, from the other clients' descriptors where it is known."""
    yield _worst_class("A8", subject.server.adversary.name, subject, subject.server.descriptors())


def from_released(subject: Subject) -> Iterator[Result]:
    """E5: the same from what each client's released model says of records that are nobody's member."""
    network, released = subject.facts.network, subject.external.released
    if len({weights.tobytes() for weights in released.values()}) < 2:
        raise NotResolvable("all clients get the same model: it says nothing of one of them")
    x, _ = subject.others_test(next(iter(released)))
    asked = x[torch.linspace(0, len(x) - 1, min(PROBES, len(x))).long()]
    known = {
        name: torch.softmax(logits_and_features(network, torch.from_numpy(weights.copy()), asked)[0], 1).mean(0).numpy()
        for name, weights in released.items()
    }
    yield _worst_class("E5", subject.external.adversary.name, subject, known)


def held_out_scores(known: np.ndarray, has_it: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """(n,) each client's score by a regression on the others, without one of the other kind either, which is drawn.

    Without that one a client with the property would be scored by a regression that has seen fewer of its kind, and
    one without it by one that has seen more: scores of noise would come out the wrong way round (Airola et al. 2011).
    """
    rng, scores, n = np.random.default_rng(seed), np.zeros(len(has_it)), len(has_it)
    for place in range(n):
        keep = np.arange(n) != place
        keep[rng.choice(np.flatnonzero(has_it != has_it[place]))] = False
        scores[place] = linkage.property_scores(known[keep], has_it[keep], known[[place]], strength=0.1)[0]
    return scores


def _worst_class(id: str, adversary: str, subject: Subject, rows: Mapping[str, np.ndarray]) -> Result:
    """The class whose share is told best, each client by others alone; alpha is shared by the classes."""
    names, classes = list(rows), subject.facts.network.n_classes
    known = np.array([rows[name] for name in names])
    best: tuple[float, int, Estimate, float] | None = None
    for label in range(classes):
        share = np.array([shares(subject, name)[label] for name in names])
        has_it = share > np.median(share)
        if min(has_it.sum(), (~has_it).sum()) < 3:
            continue
        scores = held_out_scores(known, has_it)
        found = metrics.auc(scores, has_it, alpha=0.05 / classes)
        if best is None or found.value > best[0]:
            right = float(np.mean((scores > 0) == has_it))
            ratios = (float(share[has_it].mean()), float(share[~has_it].mean()))
            best = (found.value, label, found, linkage.leaked_samples(right, *np.clip(ratios, 0.01, 0.99)))
    if best is None:
        raise NotResolvable("no class splits the clients")
    words = f"worst class {best[1]} of {classes}; record-level DP does not bound it"
    worst = {"class": str(best[1]), "n_leaked": round(best[3], 2)}
    return judged(
        id, adversary, "client property", "AUC", best[2], baseline=0.5, ceiling=None, worst=worst, words=words
    )
