"""Membership inference on the two-layer toy: floors by attack, weakened copies, degenerate references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn

from threat_models import metrics
from threat_models.attacks import membership
from threat_models.attacks.models import confidence
from threat_models.attacks.shadows import train_shadows
from threat_models.errors import AuditError, NotResolvable

POOL, CLASSES, SEED = 2000, 20, 0


def pool():
    """2,000 binary records of 200 columns in 20 clusters: each bit of its class's centre flips with chance .36."""
    rng = np.random.default_rng(SEED)
    y = rng.integers(0, CLASSES, POOL)
    x = (rng.random((CLASSES, 200)) < 0.5)[y] ^ (rng.random((POOL, 200)) < 0.36)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


X, Y = pool()


def train(rows: np.ndarray, seed: int, asked: tuple[torch.Tensor, torch.Tensor] = (X, Y)) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(200, 128, generator=generator) / 200**0.5
    second = torch.randn(128, CLASSES, generator=generator) / 128**0.5
    parameters = [
        first.requires_grad_(),
        torch.zeros(128, requires_grad=True),
        second.requires_grad_(),
        torch.zeros(CLASSES, requires_grad=True),
    ]
    optimizer = torch.optim.Adam(parameters, 3e-3)

    def logits(x):
        return torch.relu(x @ parameters[0] + parameters[1]) @ parameters[2] + parameters[3]

    x, y = X[torch.from_numpy(rows)], Y[torch.from_numpy(rows)]
    for _ in range(30):
        order = torch.randperm(len(y), generator=generator)
        for part in order.split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits(x[part]), y[part]).backward()
            optimizer.step()
    with torch.no_grad():
        return confidence(logits(asked[0]), asked[1])


@pytest.fixture(scope="module")
def toy():
    members = np.random.default_rng(7).permutation(POOL) < POOL // 2
    return train(members, 7), members, train_shadows(train, POOL, 16, seed=1)


def auc(scores, members) -> float:
    return metrics.auc(scores, members).value


def test_floors_with_sixteen_references(toy) -> None:
    phi, members, refs = toy
    online = membership.lira_online(phi, refs.signals, refs.inside)
    assert auc(online, members) >= 0.90
    assert metrics.tpr_at_fpr(online, members, 0.01).value >= 0.25
    assert auc(membership.bavaria(phi, refs.signals, refs.inside), members) >= 0.90
    assert auc(membership.lira_offline(phi, refs.outside), members) >= 0.80
    assert auc(membership.loss(phi), members) >= 0.70


def two_without(refs) -> np.ndarray:
    """(2, POOL) of each record under two references that did not train on it."""
    outside = refs.outside
    return np.array([outside[~np.isnan(outside[:, i]), i][:2] for i in range(POOL)]).T


def rmia(phi: np.ndarray, few: np.ndarray, members: np.ndarray) -> np.ndarray:
    spare = np.flatnonzero(~members)[:500]
    return membership.rmia(expit(phi), few, expit(phi)[spare], few[:, spare])


def test_floors_with_few_references(toy) -> None:
    phi, members, refs = toy
    few = two_without(refs)
    assert auc(membership.calibrated(phi, few), members) >= 0.78
    assert auc(rmia(phi, expit(few), members), members) >= 0.78
    assert auc(membership.attack_r(phi, few), members) >= 0.76


def test_and_weakened_copies_with_few_break_them(toy) -> None:
    phi, members, refs = toy
    few = two_without(refs)
    # references that say the same of every record leave the probability alone, and other records' say nothing
    assert auc(rmia(phi, np.full_like(few, expit(few).mean()), members), members) < 0.78
    shuffled = few[:, np.random.default_rng(8).permutation(POOL)]
    assert auc(membership.calibrated(phi, shuffled), members) < 0.78
    assert auc(rmia(phi, expit(shuffled), members), members) < 0.78
    assert auc(membership.attack_r(phi, shuffled), members) < 0.76


def test_weakened_copies_break_the_floors(toy) -> None:
    phi, members, refs = toy
    shuffled = np.random.default_rng(3).permutation(POOL)
    assert auc(membership.lira_online(phi, refs.signals[:, shuffled], refs.inside[:, shuffled]), members) < 0.90
    assert auc(membership.lira_online(phi, refs.signals, ~refs.inside), members) < 0.5
    assert auc(membership.bavaria(phi, refs.signals[:, shuffled], refs.inside[:, shuffled]), members) < 0.90
    assert auc(membership.lira_offline(phi, refs.outside[:, shuffled]), members) < 0.80
    assert auc(membership.loss(-phi), members) < 0.5


def test_attacks_without_references(toy) -> None:
    phi, members, _ = toy
    features = np.c_[X.numpy() @ np.random.default_rng(4).normal(size=(200, 8)), Y.numpy()]
    aside = np.flatnonzero(~members)[:500]
    keep = np.setdiff1d(np.arange(POOL), aside)
    scores = membership.quantile_regression(phi[keep], features[keep], phi[aside], features[aside])
    assert auc(scores, members[keep]) >= 0.70
    wrong = membership.quantile_regression(-phi[keep], features[keep], phi[aside], features[aside])
    assert auc(wrong, members[keep]) < 0.70


def test_label_only_sees_the_distance_to_the_boundary() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, 2)).astype(np.float32)
    members = rng.random(400) < 0.5
    y = (x[:, 0] > 0).astype(int)
    x[members, 0] += 1.5 * np.sign(x[members, 0])  # members lie farther off
    scores = membership.label_only(lambda rows: (rows[:, 0] > 0).astype(int), x, y, scale=1.0)
    assert auc(scores, members) > 0.8
    with pytest.raises(NotResolvable, match="equal"):
        auc(membership.label_only(lambda rows: (rows[:, 0] > 0).astype(int), x, y, scale=0.0), members)


def test_a_range_query_sees_a_record_from_what_lies_near_it(toy) -> None:
    """Eight copies of each record with one bit in twenty flipped: nobody asks about the record itself."""
    _, members, refs = toy
    rng = np.random.default_rng(6)
    rows = np.r_[np.flatnonzero(members)[:150], np.flatnonzero(~members)[:150]]
    centres, truth = np.repeat(rows, 8), np.arange(300) < 150
    x = (X[centres].numpy() != (rng.random((2400, 200)) < 0.05)).astype(np.float32)
    asked = (torch.from_numpy(x), Y[centres])
    phi = train(members, 7, asked)
    signals = np.array([train(inside, 1 + place, asked) for place, inside in enumerate(refs.inside[:8])])
    scores = membership.lira_online(phi, signals, refs.inside[:8][:, centres]).reshape(300, 8)
    ranged = np.array([membership.range_query(own) for own in scores])
    assert auc(ranged, truth) > 0.85
    # the weakened copy asks about what lies near somebody else
    shuffled = np.array([membership.range_query(own) for own in rng.permuted(scores, axis=0)])
    assert auc(shuffled, truth) < 0.85


def test_a_share_of_a_data_set(toy) -> None:
    phi, members, refs = toy
    scores = membership.lira_online(phi, refs.signals, refs.inside)
    threshold = np.quantile(scores, 0.3)
    tpr, fpr = (scores[members] > threshold).mean(), (scores[~members] > threshold).mean()
    mixed = np.r_[scores[members][:300], scores[~members][:700]]
    assert membership.dataset_usage(mixed > threshold, tpr, fpr) == pytest.approx(0.3, abs=0.05)
    with pytest.raises(NotResolvable):
        membership.dataset_usage(mixed > threshold, 0.5, 0.5)
    # the weakened copy is not debiased
    assert abs((mixed > threshold).mean() - 0.3) > 0.1


@pytest.mark.parametrize("k", [1, 2])
def test_too_few_references_are_an_error_and_never_a_half(toy, k: int) -> None:
    phi, _, refs = toy
    for attack in (membership.lira_online, membership.bavaria):
        with pytest.raises(NotResolvable, match="no variance can be fitted"):
            attack(phi, refs.signals[:k], refs.inside[:k])
    with pytest.raises(NotResolvable):
        membership.lira_offline(phi, refs.outside[:k])


def test_degenerate_inputs(toy) -> None:
    phi, _, refs = toy
    with pytest.raises(AuditError, match="not finite"):
        membership.loss(np.full(5, np.nan))
    with pytest.raises(NotResolvable, match="one model"):
        membership.lira_online(phi, np.repeat(phi[None], 16, 0), refs.inside)
    with pytest.raises(NotResolvable, match="references"):
        membership.attack_r(phi, np.zeros((0, POOL)))


def test_attack_r_breaks_ties_and_keeps_its_order(toy) -> None:
    phi, members, refs = toy
    scores = membership.attack_r(phi, refs.signals[:4])
    assert len(np.unique(scores)) > POOL / 2
    assert auc(scores, members) > 0.6
    with pytest.raises(NotResolvable, match="equal"):  # and not the order in which records were listed
        auc(membership.attack_r(np.zeros(POOL), np.zeros((4, POOL))), members)


def test_shadows_are_kept_and_another_key_trains_anew(tmp_path) -> None:
    calls = []

    def cheap(rows, seed):
        calls.append(seed)
        return rows.astype(float) + seed

    first = train_shadows(cheap, 10, 4, seed=0, cache=tmp_path, key="a")
    again = train_shadows(cheap, 10, 4, seed=0, cache=tmp_path, key="a")
    assert len(calls) == 4 and (first.signals == again.signals).all()
    train_shadows(cheap, 10, 4, seed=0, cache=tmp_path, key="b")
    assert len(calls) == 8 and not list(tmp_path.glob("*.partial"))
    path = next(tmp_path.glob("*.npy"))
    for bad in (b"no array", b""):
        path.write_bytes(bad)
        with pytest.raises(AuditError, match="remove it"):
            [train_shadows(cheap, 10, 4, seed=0, cache=tmp_path, key=key) for key in "ab"]
    np.save(path, np.full(10, np.nan))
    with pytest.raises(AuditError, match="no model gave"):
        [train_shadows(cheap, 10, 4, seed=0, cache=tmp_path, key=key) for key in "ab"]
    with pytest.raises(AuditError):
        train_shadows(lambda rows, seed: np.zeros(3), 10, 2, seed=0)
