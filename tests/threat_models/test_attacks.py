"""Attacks reach their floors without defence, weakened copies miss them, and shuffled truth leaves nothing.

Floors and expected figures are computed, or of the toys whose seeds stand here.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from threat_models import metrics
from threat_models.attacks import graphs, hypernetwork, inversion, labels, linkage, prototypes
from threat_models.auditing.gaussian import auc_ceiling, mu_of, tpr_ceiling
from threat_models.errors import NotResolvable
from threat_models.view import ClassSums


def tracing(d: int, n: int, noise: float = 0.0, trials: int = 60, weak: bool = False, seed: int = 0):
    """Scores of n members and n others in the mean of the members, over trials; embeddings are whitened Gaussians."""
    rng = np.random.default_rng(seed)
    identity = prototypes.Whitening(np.zeros(d), np.eye(d))
    scores, members = [], []
    for _ in range(trials):
        inside, outside = rng.normal(size=(n, d)), rng.normal(size=(n, d))
        mean = inside.mean(0) + noise * rng.normal(size=d)
        for rows, member in ((inside, True), (outside, False)):
            found = -np.linalg.norm(rows - rows.mean(), axis=1) if weak else prototypes.trace(mean, rows, identity)
            scores.append(found)
            members.append(np.full(n, member))
    return np.concatenate(scores), np.concatenate(members)


@pytest.mark.parametrize(("d", "n"), [(64, 5), (64, 20), (64, 100), (64, 500), (256, 20), (256, 100), (256, 500)])
def test_tracing_reaches_its_formula(d: int, n: int) -> None:
    found = metrics.auc(*tracing(d, n, trials=max(12, 6000 // n))).value
    assert found == pytest.approx(prototypes.tracing_auc(d, n), abs=0.03)


def test_weakened_tracing_misses_it() -> None:
    assert metrics.auc(*tracing(64, 20, weak=True)).value < prototypes.tracing_auc(64, 20) - 0.1


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
def test_tracing_under_noise_keeps_under_the_ceiling_of_its_epsilon(epsilon: float) -> None:
    # clipped to norm 1, replaced: sensitivity 2/n; noise for epsilon at delta 1e-5
    rng, d, n = np.random.default_rng(1), 64, 5
    mu = mu_of(epsilon, 1e-5)
    identity = prototypes.Whitening(np.zeros(d), np.eye(d))
    scores, members = [], []
    for _ in range(600):
        both = rng.normal(size=(2 * n, d))
        both /= np.linalg.norm(both, axis=1, keepdims=True)
        mean = both[:n].mean(0) + 2 / n / mu * rng.normal(size=d)
        scores.append(prototypes.trace(mean, both, identity))
        members.append(np.arange(2 * n) < n)
    found = metrics.auc(np.concatenate(scores), np.concatenate(members))
    assert found.low <= auc_ceiling(mu)
    expected = {1.0: 0.537, 4.0: 0.634, 8.0: 0.711}[epsilon]
    assert found.value == pytest.approx(expected, abs=0.02)


def test_a_whitened_tracing_of_real_embeddings_beats_one_that_is_not() -> None:
    rng = np.random.default_rng(2)
    mix = rng.normal(size=(32, 32)) * np.geomspace(8, 0.05, 32)

    def draw(n):
        return rng.normal(size=(n, 32)) @ mix

    whitening = prototypes.Whitening.of(draw(2000))
    plain = prototypes.Whitening(np.zeros(32), np.eye(32))
    found = {"white": [], "plain": []}
    members = np.arange(40) < 20
    for _ in range(40):
        both = draw(40)
        for name, rule in (("white", whitening), ("plain", plain)):
            found[name].append(metrics.auc(prototypes.trace(both[:20].mean(0), both, rule), members).value)
    assert np.mean(found["white"]) > np.mean(found["plain"]) + 0.15


def sums(rows: np.ndarray, y: np.ndarray, classes: int = 3) -> ClassSums:
    total = np.array([rows[y == c].sum(0) for c in range(classes)], np.float32)
    return ClassSums(0, "a", total, np.bincount(y, minlength=classes).astype(float))


def test_a_class_of_one_is_its_record_and_a_difference_is_the_new_one() -> None:
    rng = np.random.default_rng(3)
    rows, y = rng.normal(size=(9, 7)), np.array([0, 0, 0, 0, 1, 2, 2, 2, 2])
    before = sums(rows, y)
    assert set(prototypes.single_records(before)) == {1}
    np.testing.assert_allclose(prototypes.single_records(before)[1], rows[4], rtol=1e-6)
    new = rng.normal(size=7)
    after = sums(np.r_[rows, new[None]], np.r_[y, 2])
    np.testing.assert_allclose(prototypes.added_record(before, after)[2], new, rtol=1e-4, atol=1e-5)
    gallery = np.r_[rng.normal(size=(99, 7)), rows[4][None]]
    assert prototypes.nearest(prototypes.single_records(before)[1], gallery).argmax() == 99


def test_inversion_in_a_gallery_under_noise_keeps_under_its_ceiling() -> None:
    rng, mu, hits = np.random.default_rng(4), mu_of(4.0, 1e-5), 0
    for _ in range(800):
        gallery = rng.normal(size=(50, 16))
        gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
        # replace-one: two records of norm 1 are at most 2 apart
        noised = gallery[7] + 2 / mu * rng.normal(size=16)
        hits += prototypes.nearest(noised, gallery).argmax() == 7
    assert hits / 800 <= tpr_ceiling(1 / 50, mu) + 3 * math.sqrt(0.1 / 800)


def test_subtracting_ones_own_part_leaves_the_other() -> None:
    rng = np.random.default_rng(5)
    own, other = rng.normal(size=(4, 6)), rng.normal(size=(9, 6))
    total = np.r_[own, other].mean(0)
    np.testing.assert_allclose(prototypes.others(total, 13, own.mean(0), 4), other.mean(0), atol=1e-12)
    # the weakened copy forgets that means have weights; noise of epsilon 1 on a sum of norm-one records hides the rest
    assert np.linalg.norm(2 * total - own.mean(0) - other.mean(0)) > 0.3
    noised = [prototypes.others(total + rng.normal(size=6) * 3.7 / 13, 13, own.mean(0), 4) for _ in range(200)]
    assert np.std(noised, 0).mean() == pytest.approx(3.7 / 9, rel=0.15)
    with pytest.raises(NotResolvable):
        prototypes.others(own.mean(0), 4, own.mean(0), 4)


def test_changing_cohorts_give_single_clients_and_constant_ones_give_none() -> None:
    rng = np.random.default_rng(6)
    truth = {name: rng.normal(size=5) for name in "abc"}
    cohorts = [frozenset("ab"), frozenset("bc"), frozenset("ac")]
    means = [sum(truth[name] for name in cohort) / len(cohort) for cohort in cohorts]
    found = prototypes.intersection(means, [2, 2, 2], cohorts)
    for name in "abc":
        np.testing.assert_allclose(found[name], truth[name], atol=1e-9)
    # the weakened copy takes the mean of a cohort for each of its clients; fresh noise a round is not averaged away
    assert np.linalg.norm(means[0] - truth["a"]) > 0.5
    noisy = [mean + rng.normal(size=5) for mean in means]
    assert np.linalg.norm(prototypes.intersection(noisy, [2, 2, 2], cohorts)["a"] - truth["a"]) > 0.5
    with pytest.raises(NotResolvable):
        prototypes.intersection([means[0]] * 3, [2] * 3, [cohorts[0]] * 3)


@pytest.mark.parametrize(("noise", "most"), [(0.0, 0.03), (0.01, 0.06), (0.05, 0.22)])
def test_labels_from_the_bias_gradient(noise: float, most: float) -> None:
    rng, errors, uniform, weak = np.random.default_rng(7), [], [], []
    for _ in range(200):
        shares = rng.dirichlet(np.full(10, 0.5))
        y = rng.choice(10, 32, p=shares)
        logits = 0.3 * rng.normal(size=(32, 10))
        softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        truth = np.bincount(y, minlength=10) / 32
        gradient = softmax.mean(0) - truth + noise * rng.normal(size=10)
        errors.append(metrics.total_variation(labels.from_bias_gradient(gradient, np.full(10, 0.1)), truth))
        weak.append(metrics.total_variation(np.clip(gradient, 0, None) / np.clip(gradient, 0, None).sum(), truth))
        uniform.append(metrics.total_variation(np.full(10, 0.1), truth))
    assert np.mean(errors) <= most < np.mean(uniform)
    assert np.mean(weak) > 0.5  # the sign forgotten


def test_counts_are_the_label_distribution_and_empty_rows_the_missing_classes() -> None:
    found = sums(np.ones((6, 2)), np.array([0, 0, 0, 0, 0, 2]))
    np.testing.assert_array_equal(labels.from_counts(found), [5 / 6, 0, 1 / 6])
    np.testing.assert_array_equal(labels.held_classes(found), [True, False, True])
    with pytest.raises(NotResolvable):
        labels.from_counts(ClassSums(0, "a", np.zeros((3, 2)), np.array([-1.0, 0.0, -2.0])))


def toy_cnn(uniform: bool) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(768, 10),
    )
    if uniform:  # with the usual initialisation the sigmoids saturate nothing and the attack finds nothing
        for value in module.parameters():
            nn.init.uniform_(value, -0.5, 0.5)
    return module


def leaked(module: nn.Module, place: int, noise: float):
    """One record's clipped gradient, with noise."""
    digits = load_digits()
    x = torch.tensor(digits.images[place : place + 1, None] / 16, dtype=torch.float32)
    y = torch.tensor(digits.target[place : place + 1])
    gradient = torch.autograd.grad(nn.functional.cross_entropy(module(x), y), list(module.parameters()))
    norm = torch.cat([part.flatten() for part in gradient]).norm()
    generator = torch.Generator().manual_seed(place)
    return x, y, [part + noise * norm * torch.randn(part.shape, generator=generator) for part in gradient]


def test_dlg_recovers_a_digit_without_noise_and_not_under_it() -> None:
    module, found = toy_cnn(True), {}
    for noise in (0.0, 0.1):
        found[noise] = [_dlg_psnr(module, place, noise) for place in (3, 5, 11)]
    assert np.median(found[0.0]) >= 60
    baseline = np.median([_mean_picture_psnr(place) for place in (3, 5, 11)])
    assert np.median(found[0.1]) <= baseline


def _dlg_psnr(module: nn.Module, place: int, noise: float, **settings) -> float:
    x, y, gradient = leaked(module, place, noise)
    picture, _ = inversion.dlg(module, gradient, (1, 8, 8), y, **settings)
    return metrics.psnr(picture.numpy(), x.numpy())


def _mean_picture_psnr(place: int) -> float:
    digits = load_digits()
    return metrics.psnr(digits.images.mean(0) / 16, digits.images[place] / 16)


def test_a_weakened_dlg_looks_like_a_good_defence() -> None:
    assert _dlg_psnr(toy_cnn(True), 3, 0.0, iterations=2, restarts=1) < 60


def test_the_analytic_attack_is_exact_for_one_record() -> None:
    layer, x = nn.Linear(64, 10), torch.rand(1, 64, generator=torch.Generator().manual_seed(1))
    loss = nn.functional.cross_entropy(layer(x), torch.tensor([4]))
    weight, bias = torch.autograd.grad(loss, [layer.weight, layer.bias])
    assert metrics.psnr(inversion.analytic_linear(weight, bias).numpy(), x[0].numpy()) >= 60
    noisy = inversion.analytic_linear(weight + 0.1 * torch.randn(weight.shape), bias + 0.1 * torch.randn(bias.shape))
    assert metrics.psnr(noisy.numpy(), x[0].numpy()) < 20
    with pytest.raises(NotResolvable):
        inversion.analytic_linear(weight, torch.zeros(10))


def test_cosine_inversion_beats_the_mean_picture_on_a_relu_network() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 10))
    x, y, gradient = leaked(module, 7, 0.0)
    found = inversion.cosine_inversion(module, gradient, (1, 8, 8), y)
    assert metrics.psnr(found.numpy(), x.numpy()) > _mean_picture_psnr(7) + 6
    weak = inversion.cosine_inversion(module, gradient, (1, 8, 8), y, steps=3)
    assert metrics.psnr(weak.numpy(), x.numpy()) < _mean_picture_psnr(7)


def test_several_local_steps_are_inverted_too() -> None:
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(10, 64, generator=generator) * 0.3, torch.zeros(10)]
    x, y = torch.rand(1, 64, generator=generator), torch.tensor([3])

    def network(parameters, rows):
        return rows @ parameters[0].T + parameters[1]

    current = [value.clone().requires_grad_() for value in weights]
    for _ in range(4):
        steps = torch.autograd.grad(nn.functional.cross_entropy(network(current, x), y), current)
        current = [(value - 0.1 * step).detach().requires_grad_() for value, step in zip(current, steps)]
    delta = [before - after.detach() for before, after in zip(weights, current)]
    found, _ = inversion.fedavg_inversion(network, weights, delta, (64,), y, local_steps=4, rate=0.1)
    assert metrics.psnr(found.numpy(), x.numpy()) > 30
    wrong, _ = inversion.fedavg_inversion(network, weights, delta, (64,), y, local_steps=1, rate=0.1)
    assert metrics.psnr(wrong.numpy(), x.numpy()) < metrics.psnr(found.numpy(), x.numpy()) - 5


@pytest.mark.parametrize("bias", [True, False])
def test_a_hypernetwork_s_gradient_is_the_submodel_s(bias: bool) -> None:
    torch.manual_seed(3)
    head, hidden = nn.Linear(16, 50, bias=bias), torch.randn(1, 16)
    gradient = torch.randn(50)
    (head(hidden)[0] @ gradient).backward()
    if bias:
        assert (hypernetwork.from_bias(head.bias.grad) - gradient).abs().max() == 0
    found, ratio = hypernetwork.from_rank_one(head.weight.grad)
    assert ratio < 1e-6
    assert abs(float(torch.nn.functional.cosine_similarity(found, gradient, dim=0))) > 1 - 1e-6
    two = torch.outer(torch.randn(50), torch.randn(16)) + torch.outer(torch.randn(50), torch.randn(16))
    assert hypernetwork.from_rank_one(two)[1] > 0.1


def test_a_descriptor_is_found_among_candidates() -> None:
    torch.manual_seed(4)
    made = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 30))
    candidates = torch.rand(200, 4)
    with torch.no_grad():
        target = made(candidates[17])
        assert hypernetwork.descriptor_search(made, target, candidates).argmax() == 17
        noisy = target + 5 * torch.randn(30)
        ranks = (-hypernetwork.descriptor_search(made, noisy, candidates)).argsort()
    assert ranks[0] != 17


def test_clients_are_matched_over_rounds_and_not_under_noise() -> None:
    rng = np.random.default_rng(8)
    profile = rng.dirichlet(np.full(10, 0.3), 20)
    near = [profile + 0.02 * rng.normal(size=profile.shape) for _ in range(2)]
    assert metrics.exact_match(linkage.rematch(*near), np.arange(20)).value >= 0.95
    far = [profile + 10 * rng.normal(size=profile.shape) for _ in range(2)]
    assert metrics.exact_match(linkage.rematch(*far), np.arange(20)).value <= 0.3


def test_a_property_is_learned_from_descriptors_and_not_from_noise() -> None:
    rng = np.random.default_rng(9)
    has_it = rng.random(120) < 0.5
    rows = rng.normal(size=(120, 6)) + 1.5 * has_it[:, None]
    scores = linkage.property_scores(rows[:60], has_it[:60], rows[60:])
    assert metrics.auc(scores, has_it[60:]).value > 0.95
    noise = linkage.property_scores(rng.normal(size=(60, 6)), has_it[:60], rng.normal(size=(60, 6)))
    assert abs(metrics.auc(noise, has_it[60:]).value - 0.5) < 0.25
    with pytest.raises(NotResolvable):
        linkage.property_scores(rows, np.ones(120, bool), rows)
    # one half told from .55 with accuracy .9 is what some hundred samples would tell
    assert linkage.leaked_samples(0.9, 0.5, 0.55) == pytest.approx(math.log(0.36) / math.log(0.5 / 0.55), rel=1e-6)
    assert linkage.leaked_samples(0.5, 0.2, 0.5) == 0.0


def test_a_size_that_follows_what_is_held_is_seen_within_budgets() -> None:
    rng = np.random.default_rng(13)
    budgets, held = np.repeat([1, 2, 3, 4], 5), rng.permutation(20)
    leaking = 1000 * budgets + 7 * held  # a different size for everybody
    assert linkage.size_leak(leaking, held, budgets)[1] < 0.01
    assert linkage.size_leak(1000 * budgets, held, budgets) == (0.0, 1.0)
    assert linkage.size_leak(rng.permutation(leaking), held, np.ones(20))[1] > 0.01
    with pytest.raises(NotResolvable, match="no three clients"):
        linkage.size_leak(leaking, np.ones(20), budgets)


@pytest.mark.parametrize("distance", list(graphs.DISTANCES))
def test_links_are_stolen_from_smooth_posteriors_and_not_from_private_ones(distance: str) -> None:
    rng = np.random.default_rng(11)
    n = 200
    blocks = rng.integers(0, 20, n)
    adjacency = (blocks[:, None] == blocks) & (rng.random((n, n)) < 0.95)
    adjacency = np.triu(adjacency, 1)
    adjacency = adjacency | adjacency.T | np.eye(n, dtype=bool)
    raw = rng.normal(size=(n, 8))
    smooth = adjacency @ raw / adjacency.sum(1, keepdims=True)

    def posteriors(values):
        return np.exp(3 * values) / np.exp(3 * values).sum(1, keepdims=True)

    pairs = np.array([(i, j) for i in range(n) for j in range(i + 1, n)])
    linked = adjacency[pairs[:, 0], pairs[:, 1]]
    assert metrics.auc(graphs.steal_links(posteriors(smooth), pairs, distance), linked).value > 0.9
    assert abs(metrics.auc(graphs.steal_links(posteriors(raw), pairs, distance), linked).value - 0.5) < 0.05


def test_shuffled_membership_leaves_every_score_at_chance() -> None:
    scores, members = tracing(64, 20)
    rng = np.random.default_rng(12)
    found = metrics.auc(scores, rng.permutation(members)).value
    assert abs(found - 0.5) <= 3 * math.sqrt((1 / members.sum() + 1 / (~members).sum()) / 12)
