"""Membership inference on a released model (E1, C5): scores from a record's confidence, with and without references.

Every function takes plain arrays, so that any model can be attacked: phi is the logit-scaled confidence log p_y -
log(1 - p_y) (`models.confidence`), one value a record; references are models that trained on known halves of a pool.
Larger scores mean member. Expected on the two-layer toy of the tests (AUC): LOSS .76, difficulty calibration .83 with
two references, LiRA .93 and BaVarIA .93 with sixteen, RMIA .87; under epsilon at most Phi(mu / sqrt 2).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import norm, rankdata, t

from threat_models.errors import AuditError, NotResolvable

POOLED_BELOW = 64
"""References under which a variance of each record's own costs more than it gives (LiRA, section VI.C)."""


def loss(phi: np.ndarray) -> np.ndarray:
    """LOSS: the confidence itself (Yeom et al., arXiv 1709.01604). Cost: one query."""
    return _finite(phi)


def calibrated(phi: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Difficulty calibration: phi minus its mean over models that never saw the record (Watson, arXiv 2111.08440).

    Args:
        outside: (K, n) of reference models without the record.
    """
    return np.asarray(_finite(phi) - _references(outside, 1).mean(0))


def attack_r(phi: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Attack-R: the share of reference models that are less sure (Ye et al., arXiv 2111.09679, section 4.2).

    The score has K + 1 values, so that a low false positive rate takes many references; ties are broken by phi.
    """
    rank = (_references(outside, 1) < phi).mean(0) + 0.5 * (outside == phi).mean(0)
    order = rankdata(_finite(phi)) / (len(phi) + 1)  # equals share a rank: their places in the table say nothing
    return np.asarray(rank + order / (len(outside) + 1))


def lira_online(phi: np.ndarray, references: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """LiRA online: log N(phi; in) - log N(phi; out), Gaussians fitted per record (Carlini et al., arXiv 2112.03570).

    Args:
        references: (K, n) phi under each reference. inside: (K, n) bool, whether it trained on the record.

    Raises:
        NotResolvable: a record without a reference on each side, or no second one anywhere to fit a variance to.
    """
    (mean_in, in_n, ss_in), (mean_out, out_n, ss_out) = _sides(references, inside)
    if len(references) < POOLED_BELOW:
        spread_in, spread_out = _pooled(ss_in, in_n), _pooled(ss_out, out_n)
    else:
        spread_in, spread_out = ss_in / (in_n - 1), ss_out / (out_n - 1)
    top = norm.logpdf(_finite(phi), mean_in, np.sqrt(spread_in))
    return np.asarray(top - norm.logpdf(phi, mean_out, np.sqrt(spread_out)))


def lira_offline(phi: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """LiRA offline: Phi((phi - mean_out) / sd_out), as its logarithm, from references without the record alone.

    Args:
        outside: (K, n), NaN where a reference trained on the record.

    Raises:
        NotResolvable: a record without a reference, or no second one anywhere.
    """
    known = ~np.isnan(outside)
    n = known.sum(0)
    if (n < 1).any() or (n - 1).sum() < 1 or (len(outside) >= POOLED_BELOW and (n < 2).any()):
        raise NotResolvable("LiRA takes references without each record, and two somewhere for a variance: train more")
    mean = np.nanmean(outside, 0)
    squares = np.nansum((outside - mean) ** 2, 0)
    if squares.sum() <= 1e-20 * float(np.nansum(outside**2)):
        raise NotResolvable("the references agree to the last bit: they are one model")
    spread = squares / (n - 1) if len(outside) >= POOLED_BELOW else _pooled(squares, n)
    return np.asarray(norm.logcdf((_finite(phi) - mean) / np.sqrt(spread)))


def bavaria(phi: np.ndarray, references: np.ndarray, inside: np.ndarray, *, strength: float = 8.0) -> np.ndarray:
    """BaVarIA: the log ratio of Student-t predictives, each record's variance shrunk to the pooled one.

    A normal-inverse-gamma prior with `strength` degrees of freedom at the pooled variance (arXiv 2603.11799); between a
    pooled and a free variance, so best where references are few.

    Raises:
        NotResolvable: as `lira_online`.
    """
    total = np.zeros(len(_finite(phi)))
    for sign, (mean, n, squares) in zip((1, -1), _sides(references, inside), strict=True):
        pooled = _pooled(squares, n)
        freedom = strength + n - 1
        scale = np.sqrt((strength * pooled + squares) / freedom * (1 + 1 / n))
        total += sign * t.logpdf(phi, freedom, mean, scale)
    return total


def rmia(
    probability: np.ndarray,
    outside: np.ndarray,
    population: np.ndarray,
    population_out: np.ndarray,
    *,
    gamma: float = 2.0,
    offline: float = 0.3,
) -> np.ndarray:
    """RMIA: the share of population records z that the record beats: ratio(x) / ratio(z) >= gamma.

    ratio(x) = p(x | target) / p(x), with p(x) from references without x: ((1 + a) p_out + 1 - a) / 2 (Zarifzadeh et
    al., arXiv 2312.03262). Works with two references.

    Args:
        probability: (n,) of the true label under the target. outside: (K, n) the same under references, NaN where a
            reference trained on the record. population, population_out: the same of (z,) records that nobody has.
    """
    if np.isnan(outside).all(0).any():
        raise NotResolvable("RMIA takes a reference without each record: train more")

    def ratio(target: np.ndarray, references: np.ndarray) -> np.ndarray:
        return np.asarray(
            _finite(target) / np.maximum(((1 + offline) * np.nanmean(references, 0) + 1 - offline) / 2, 1e-30)
        )

    levels = np.sort(ratio(population, population_out))
    own = ratio(probability, outside)
    beaten = np.searchsorted(levels, own / gamma, side="right") / len(levels)
    return np.asarray(beaten + 1e-6 * own / own.max())  # among equals the larger ratio


def quantile_regression(
    phi: np.ndarray, features: np.ndarray, outside_phi: np.ndarray, outside_features: np.ndarray, *, seed: int = 0
) -> np.ndarray:
    """QMIA: how far phi lies above what is usual for a non-member with such features (Bertran et al., NeurIPS 2023).

    Two pinball regressions on non-members, of the median and the 84th percentile; the score is the distance in units
    of theirs. One model is needed and no shadow. Cost: two fits.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    if features.shape[1] > WIDE:  # trees on hundreds of columns take minutes
        directions = np.random.default_rng(seed).standard_normal((features.shape[1], WIDE // 2))
        features, outside_features = features @ directions, outside_features @ directions

    def fitted(level: float) -> np.ndarray:
        model = HistGradientBoostingRegressor(
            loss="quantile", quantile=level, max_iter=60, max_leaf_nodes=8, random_state=seed
        )
        return np.asarray(model.fit(outside_features, outside_phi).predict(features))

    middle, high = fitted(0.5), fitted(0.84)
    return np.asarray((_finite(phi) - middle) / np.maximum(high - middle, 0.1 * np.std(outside_phi)))


def label_only(
    predict: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    *,
    scale: float,
    copies: int = 32,
    seed: int = 0,
) -> np.ndarray:
    """Label-only: the share of noisy copies of a record that keep its label (Choquette-Choo et al., arXiv 2007.14321).

    Members lie farther from the decision boundary. Cost: `copies` queries a record; `scale` is of the order of the
    distance between records of two classes.
    """
    rng = np.random.default_rng(seed)
    kept = np.zeros(len(y))
    for _ in range(copies):
        kept += predict(x + scale * rng.standard_normal(x.shape).astype(x.dtype)) == y
    return np.asarray(kept / copies)


def range_query(scores: np.ndarray, trim: float = 0.25) -> float:
    """E2, RaMIA: one score for a set of records near one another: the mean of the highest ones (arXiv 2408.05131)."""
    kept = np.sort(_finite(scores))[-max(1, round(len(scores) * trim)) :]
    return float(kept.mean())


def dataset_usage(decisions: np.ndarray, tpr: float, fpr: float) -> float:
    """E3, DUCI: the share of a data set that was used: (mean decision - fpr) / (tpr - fpr), cut to [0, 1].

    Debiased membership decisions (Tong et al., ICLR 2025); tpr and fpr are the attack's on references.

    Raises:
        NotResolvable: an attack no better than chance.
    """
    if tpr - fpr < 0.02:
        raise NotResolvable(f"tpr={tpr:.3f} and fpr={fpr:.3f} are too close: the attack tells nothing apart")
    return float(np.clip((np.mean(decisions) - fpr) / (tpr - fpr), 0, 1))


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        raise AuditError("a confidence is not finite: compute it from logits, in evaluation mode")
    return values


def _references(values: np.ndarray, least: int) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 2 or len(values) < least:
        raise NotResolvable(f"{len(values)} references, at least {least} are needed")
    return values


def _pooled(squares: np.ndarray, n: np.ndarray) -> float:
    return float(squares.sum() / (n - 1).sum())


WIDE = 80
"""Columns from which on features are projected at random to half as many, for the quantile regressions."""

Side = tuple[np.ndarray, np.ndarray, np.ndarray]


def _sides(references: np.ndarray, inside: np.ndarray) -> tuple[Side, Side]:
    """(mean, count, sum of squares) by record of references with it, and without it."""
    found = []
    for chosen in (inside, ~inside):
        n = chosen.sum(0)
        if (n < 1).any() or (n - 1).sum() < 1:
            raise NotResolvable(
                f"{len(references)} references leave a record without one on each side, or none with two: no variance "
                "can be fitted; train at least four"
            )
        mean = np.where(chosen, references, 0).sum(0) / n
        found.append((mean, n, (np.where(chosen, references - mean, 0) ** 2).sum(0)))
    spread = found[0][2].sum() + found[1][2].sum()
    if spread <= 1e-20 * float((references**2).sum()):
        raise NotResolvable("the references agree to the last bit: they are one model")
    return found[0], found[1]
