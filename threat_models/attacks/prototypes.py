"""Attacks on class prototypes: what one upload, two rounds, or the global means give away (A2 to A4, C1 to C4).

Representations h(x) are the adversary's own to compute: it knows the network, and the weights that made them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from threat_models.errors import NotInView, NotResolvable
from threat_models.view import ClassSums


@dataclass(frozen=True, eq=False)
class Whitening:
    """z = W (h - centre): mean zero and unit covariance on reference representations."""

    centre: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, reference: np.ndarray, dimensions: int | None = None) -> Whitening:
        """From (n, d) representations that are nobody's members, along the largest principal directions."""
        centre = reference.mean(0)
        _, spread, directions = np.linalg.svd(reference - centre, full_matrices=False)
        spread = spread / np.sqrt(max(1, len(reference) - 1))
        kept = min(int((spread > 1e-6 * spread[0]).sum()), dimensions or len(spread))
        return cls(centre, directions[:kept] / spread[:kept, None])

    def __call__(self, representations: np.ndarray) -> np.ndarray:
        """(..., kept)."""
        return np.asarray((representations - self.centre) @ self.matrix.T)


def trace(prototype: np.ndarray, representations: np.ndarray, whitening: Whitening) -> np.ndarray:
    """A2, C3: (m,) scores of membership in the mean that is the prototype: <z(p), z(h)>.

    Source: Homer et al. 2008, Dwork et al. 2015 ("Robust traceability from trace amounts"). Cost: one product a record.
    Without defence AUC = Phi(sqrt(d/n) / sqrt 2) for n members of d whitened dimensions; under noise of GDP mu at most
    Phi(mu / sqrt 2); behind an encrypted or masked sum there is no prototype to score.
    """
    return np.asarray(whitening(representations) @ whitening(prototype))


def tracing_auc(d: int, n: int, noise: float = 0.0) -> float:
    """What `trace` reaches: SNR = (d/n) / sqrt(d (1/n + s^2)), AUC = Phi(SNR / sqrt 2), noise s in whitened units."""
    return float(ndtr(d / n / np.sqrt(d * (1 / n + noise**2)) / np.sqrt(2)))


def nearest(prototype: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """A3: (N,) scores of the gallery's representations, largest for the one that the prototype is.

    Cost: one distance an entry. A class of one record uploads its representation: the distance is zero, top-1 is 1.
    Under noise top-1 of N is at most Phi(Phi^-1(1/N) + mu).
    """
    return np.asarray(-np.linalg.norm(gallery - prototype, axis=1))


def single_records(sums: ClassSums) -> dict[int, np.ndarray]:
    """A3: class -> the representation of its only record, for classes whose count is one.

    Exact without defence. With noised counts it finds classes that look like one, and their sums are noise.
    """
    alone = np.flatnonzero(np.round(sums.counts) == 1)
    return {int(label): sums.sums[label] for label in alone}


def added_record(before: ClassSums, after: ClassSums) -> dict[int, np.ndarray]:
    """A4: class -> the representation that was added between two uploads under one encoder.

    sum_{t+1} - sum_t for classes whose count grew by one (Melis et al., arXiv 1805.04049, section 4). Exact without
    defence to the rounding of float32; under noise its error is sigma sqrt 2 a coordinate.
    """
    grown = np.flatnonzero(np.round(after.counts - before.counts) == 1)
    return {int(label): after.sums[label] - before.sums[label] for label in grown}


def others(total: np.ndarray, total_count: float, own: np.ndarray, own_count: float) -> np.ndarray:
    """C1: the mean of all other clients' records of a class: (N P - n p) / (N - n).

    With two clients it is the other's prototype, exactly.

    Raises:
        NotResolvable: nobody else has a record of the class.
    """
    rest = total_count - own_count
    if rest < 0.5:
        raise NotResolvable("the class has no record of anybody else")
    return np.asarray((total_count * total - own_count * own) / rest)


def intersection(means: list[np.ndarray], counts: list[float], cohorts: list[frozenset[str]]) -> dict[str, np.ndarray]:
    """C2: client -> its class sum, from global means of changing cohorts: least squares on who was there.

    Solvable clients alone are returned: those whose column the cohorts determine. Exact without defence when the
    encoder and the clients' sums stay the same over the rounds.

    Raises:
        NotResolvable: the cohorts determine nobody.
    """
    names = sorted(frozenset().union(*cohorts))
    present = np.array([[name in cohort for name in names] for cohort in cohorts], float)
    sums = np.array([mean * count for mean, count in zip(means, counts, strict=True)])
    inverse = np.linalg.pinv(present, rcond=1e-9)
    solvable = np.abs(inverse @ present - np.eye(len(names))).max(1) < 1e-8
    if not solvable.any():
        raise NotResolvable("the cohorts do not determine any client: the same clients are always together")
    found = inverse @ sums
    return {name: found[place] for place, name in enumerate(names) if solvable[place]}


def present_classes(prototypes: dict[int, tuple[np.ndarray, np.ndarray]], round_index: int) -> np.ndarray:
    """C4: (n_classes,) bool: which classes anybody has, read off the global prototypes of a round.

    Raises:
        NotInView: no prototypes of that round were sent.
    """
    if round_index not in prototypes:
        raise NotInView(f"no prototypes of round {round_index} were sent")
    return prototypes[round_index][1]
