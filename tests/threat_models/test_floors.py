"""Floors that attacks reach without defence, weakened copies that miss them, and what a defence leaves.

The larger families have files of their own: membership on released models, malicious servers, coalitions.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from framp_private import (
    ClientData,
    Delivery,
    encode,
    load_setup,
    make_config,
    messages,
)
from framp_private.crypto.homomorphic import Encryption, new_keys
from framp_private.errors import FrampError
from framp_private.federated.prototypes import local_prototypes
from framp_private.protections import BFVSum, LocalGaussian
from framp_private.randomness import Entropy
from tests.threat_models.test_malicious import request
from tests.tiny import tiny_dataset, tiny_federation
from threat_models import metrics
from threat_models.attacks import coalition, hypernetwork, linkage, prototypes
from threat_models.attacks.models import logits_and_features
from threat_models.attacks.updates import source_by_loss, source_by_prototype
from threat_models.auditing import canary_clients
from threat_models.auditing.gaussian import auc_ceiling, mu_of
from threat_models.auditing.mislabelled import mislabel
from threat_models.trials import Subject, attack_run
from threat_models.view import ClassSums, Update

DATASET = tiny_dataset(4, 0)


def uploaded(rows, z: float | None = None) -> ClassSums:
    """A client's class sums under one encoder, through the real code and, with z, the real noise."""
    federation = tiny_federation(DATASET)
    network = federation.network
    network.load(network.initial_weights(federation.streams))
    data = DATASET.clients["client-00"]
    value = local_prototypes(network, data, rows, "counts")
    if z is not None:
        protection = LocalGaussian(1.0, z)
        value = protection.reveal(protection.protect(value, Entropy()))
    table = value.reshape(3, -1)
    return ClassSums(0, "client-00", table[:, :-1], table[:, -1])


def test_a4_two_rounds_give_the_record_that_was_added() -> None:
    data = DATASET.clients["client-00"]
    federation = tiny_federation(DATASET)
    weights = federation.network.initial_weights(federation.streams)
    record = data.train[-1]
    label = int(data.y[record])
    truth = logits_and_features(federation.network, weights, data.x[record][None])[1][0].double().numpy()
    before, after = uploaded(data.train[:-1]), uploaded(data.train)
    found = prototypes.added_record(before, after)
    assert set(found) == {label}
    np.testing.assert_allclose(found[label], truth, rtol=1e-4, atol=1e-5)
    # the weakened copy subtracts means, not sums
    assert np.linalg.norm(after.means[label] - before.means[label] - truth) > 0.5 * np.linalg.norm(truth)
    # under noise the error is sigma sqrt 2 a coordinate
    off = [
        uploaded(data.train, 3.0).sums[label] - uploaded(data.train[:-1], 3.0).sums[label] - truth for _ in range(200)
    ]
    assert np.std(off) == pytest.approx(3.0 * 2**0.5, rel=0.1)


def overfitted(rows: torch.Tensor, data, network, steps: int = 300) -> torch.Tensor:
    """Weights after many steps on few records."""
    torch.manual_seed(0)
    module = network.as_module(network.initial_weights(tiny_federation(DATASET).streams)).train()
    optimizer = torch.optim.Adam(module.parameters(), 0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(data.x[rows]), data.y[rows]).backward()
        optimizer.step()
    return torch.cat([value.detach().flatten() for value in module.parameters()])


def test_a9_sources_are_told_by_loss_and_by_prototype() -> None:
    """Clients of one mix of classes, so that nothing but the records themselves says who has them."""
    rng = np.random.default_rng(0)
    network = tiny_federation(DATASET).network
    clients, changes, means = {}, [], {}
    for name in "abcd":
        y = torch.from_numpy(rng.integers(0, 3, 12))
        clients[name] = replace(
            DATASET.clients["client-00"],
            x=torch.from_numpy(rng.normal(size=(12, 6))).float(),
            y=y,
            train=torch.arange(12),
        )
        given = network.initial_weights(tiny_federation(DATASET).streams)
        trained = overfitted(torch.arange(12), clients[name], network, steps=1000)
        changes.append(Update(0, name, torch.ones_like(given, dtype=torch.bool), given, given - trained, given))
        means[name] = np.array([clients[name].x[y == c].mean(0).numpy() for c in range(3)])
    right, near, weak = [], [], []
    for name, data in clients.items():
        right += [guess == name for guess in source_by_loss(network, changes, data.x, data.y)]
        weak += [guess == name for guess in source_by_loss(network, changes, data.x, (data.y + 1) % 3)]
        near += [guess == name for guess in source_by_prototype(means, data.x.numpy(), data.y.numpy())]
    assert np.mean(right) >= 0.7 and np.mean(near) >= 0.5
    assert np.mean(weak) < 0.4  # the weakened copy asks for the loss of a wrong label; chance is .25
    hidden = {name: value + 50 * rng.normal(size=value.shape) for name, value in means.items()}
    blurred = [
        guess == name
        for name, data in clients.items()
        for guess in source_by_prototype(hidden, data.x.numpy(), data.y.numpy())
    ]
    assert np.mean(blurred) < 0.5


# -- clients


@pytest.mark.parametrize(("d", "n"), [(64, 100), (64, 500), (256, 500)])
def test_c3_membership_in_a_mean_over_everybody_reaches_the_formula_at_its_number(d: int, n: int) -> None:
    """Ten clients' records in one mean: the larger n, the less is left; noise for epsilon 1 leaves the ceiling."""
    rng = np.random.default_rng(2)
    identity = prototypes.Whitening(np.zeros(d), np.eye(d))
    scores, weak, members = [], [], []
    for _ in range(max(12, 6000 // n)):
        both = rng.normal(size=(2 * n, d))
        parts = np.split(both[:n], 10)  # every client's own sum, and what all are sent
        mean = sum(part.sum(0) for part in parts) / n
        scores.append(prototypes.trace(mean, both, identity))
        weak.append(prototypes.trace(parts[0].mean(0), both[:, ::-1], identity))
        members.append(np.arange(2 * n) < n)
    truth, formula = np.concatenate(members), prototypes.tracing_auc(d, n)
    assert metrics.auc(np.concatenate(scores), truth).value == pytest.approx(formula, abs=0.03)
    assert metrics.auc(np.concatenate(weak), truth).value < formula - 0.05


def test_c5_others_records_are_told_in_a_generated_model_that_remembers_them() -> None:
    """A model that was sent to one client, fitted to the records of the others, whose labels nothing else explains."""
    rng = np.random.default_rng(11)
    clients = {}
    for name in DATASET.clients:
        x = torch.from_numpy(rng.normal(size=(48, 6))).float()
        y = torch.from_numpy(rng.integers(0, 3, 48))
        clients[name] = ClientData(x, y, torch.arange(24), torch.arange(0), torch.arange(24, 48))
    dataset = replace(DATASET, clients=clients)
    federation = tiny_federation(dataset)
    every = replace(
        clients["client-00"],
        x=torch.cat([data.x for data in list(clients.values())[1:]]),
        y=torch.cat([data.y for data in list(clients.values())[1:]]),
    )
    members = torch.cat([48 * place + torch.arange(24) for place in range(3)])

    def found(weights: torch.Tensor) -> float:
        sent = Delivery(0, "down", "client-00", encode(messages.Envelope(request(federation, weights), 0, b"", b"")))
        rows = attack_run(Subject(federation, dataset, [("round-000000", sent)], {}), ["C5"])
        return max(row.value for row in rows)

    assert found(overfitted(members, every, federation.network, steps=2000)) > 0.7
    assert found(federation.network.initial_weights(federation.streams)) < 0.65  # the weakened copy was not trained


def test_c4_which_class_anybody_has_shows_in_rows_that_are_sent() -> None:
    shown = {3: (np.zeros((4, 2)), np.array([True, False, True, True]))}
    truth = np.array([True, False, True, True])
    assert (prototypes.present_classes(shown, 3) == truth).all()
    # the weakened copy takes rows of zeros for classes that nobody has
    assert ((np.abs(shown[3][0]).sum(1) > 0) == truth).mean() < 1
    with pytest.raises(FrampError, match="round 2"):
        prototypes.present_classes(shown, 2)


def test_c6_a_descriptor_is_found_in_the_real_generator_and_not_by_a_weakened_search() -> None:
    federation = tiny_federation(DATASET)
    generator, budgets = federation.generator, torch.ones(1)
    torch.manual_seed(1)
    phi = federation.phi_0()
    phi = phi + 0.1 * torch.randn(phi.shape)
    candidates = torch.rand(60, 5)

    def generate(v: torch.Tensor) -> torch.Tensor:
        return generator.generate(phi, v[None], budgets)[0]

    hits = [
        hypernetwork.descriptor_search(generate, generate(candidates[k]), candidates).argmax() == k for k in range(20)
    ]
    assert all(hits)
    blind = [  # at the generator of before training everybody gets the same
        np.ptp(hypernetwork.descriptor_search(lambda v: federation.theta_0, generate(candidates[k]), candidates)) == 0
        for k in range(3)
    ]
    assert all(blind)
    noised = candidates + torch.from_numpy(np.random.default_rng(3).normal(size=(60, 5))).float()
    missed = [
        hypernetwork.descriptor_search(generate, generate(noised[k]), candidates).argmax() == k for k in range(20)
    ]
    assert np.mean(missed) < 0.5


# -- coalitions


def test_d2_who_holds_the_key_opens_single_values_and_who_does_not_opens_none() -> None:
    protection = BFVSum(survivors=0.5)
    parameters = protection.parameters(4)
    pair = new_keys(parameters)
    value = np.arange(-7, 8)
    upload = Encryption(pair.public, parameters).encrypt(value)

    def opened(key: bytes, data: bytes) -> np.ndarray:
        return Encryption(key, parameters, secret=True).decrypted_sum([data], len(value))

    np.testing.assert_array_equal(coalition.decrypts(pair.secret, upload, opened), value)
    with pytest.raises(FrampError):  # the server holds the public half alone
        coalition.decrypts(pair.public, upload, opened)
    other = coalition.decrypts(new_keys(parameters).secret, upload, opened)
    assert (other == value).mean() < 0.3


def test_d5_noise_of_each_sum_hides_the_client_that_one_of_them_lacks() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(6, 400))
    exact = coalition.difference(values.sum(0), values[1:].sum(0))
    np.testing.assert_allclose(exact, values[0], atol=1e-12)
    moved = values.copy()
    moved[1:] += rng.normal(size=(5, 400))  # the weakened copy differences two rounds of a model that moved on
    assert np.abs(coalition.difference(values.sum(0), moved[1:].sum(0)) - values[0]).max() > 1
    noisy = coalition.difference(
        values.sum(0) + 20 * rng.normal(size=400), values[1:].sum(0) + 20 * rng.normal(size=400)
    )
    assert abs(np.corrcoef(noisy, values[0])[0, 1]) < 0.2


def test_d6_sybils_around_another_descriptor_say_less() -> None:
    torch.manual_seed(2)
    made = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 9))
    victim, far, steps = torch.rand(4), torch.rand(4) + 4, 1e-3 * torch.eye(4)
    with torch.no_grad():
        found = coalition.sybil_descriptors(made, victim, steps)
        other = coalition.sybil_descriptors(made, far, steps)
    jacobian = torch.autograd.functional.jacobian(made, victim).numpy().T
    assert np.abs(found - jacobian).max() < 0.01 < np.abs(other - jacobian).max()


# -- users and the operator


def test_e5_a_property_shows_in_released_weights_and_not_in_noised_ones() -> None:
    """Whether a client is mostly of class 0, from its personal model, by models of clients where it is known."""
    rng = np.random.default_rng(5)
    network = tiny_federation(DATASET).network
    rows, has_it = [], np.arange(24) % 2 == 0
    for place in range(24):
        y = torch.from_numpy(rng.choice(3, 20, p=[0.8, 0.1, 0.1] if has_it[place] else [0.1, 0.45, 0.45]))
        data = replace(DATASET.clients["client-00"], x=torch.from_numpy(rng.normal(size=(20, 6))).float(), y=y)
        rows.append(overfitted(torch.arange(20), data, network, steps=60)[network.classifier.bias].numpy())
    released = np.array(rows)
    scores = linkage.property_scores(released[:12], has_it[:12], released[12:])
    assert metrics.auc(scores, has_it[12:]).value > 0.9
    swapped = linkage.property_scores(released[:12], rng.permutation(has_it[:12]), released[12:])
    noised = released + 30 * rng.normal(size=released.shape)
    blurred = linkage.property_scores(noised[:12], has_it[:12], noised[12:])
    assert metrics.auc(swapped, has_it[12:]).value < 0.9
    assert metrics.auc(blurred, has_it[12:]).value < 0.9


def test_f3_canary_clients_see_their_coins_where_there_is_no_noise() -> None:
    settings = {"rounds": 3, "clients": 20, "privacy": {"epsilon": 30.0}}
    setup = load_setup(make_config(preset="digits-client-private", assignments=settings))
    scores, coins = canary_clients.trials(setup.federation, setup.dataset, seed=0)
    found = metrics.auc(scores, coins, alpha=1e-4)  # each side is wrong once in 20,000 runs
    claim = canary_clients.claim_of_round(setup.federation, 1e-5)
    assert found.value > 0.75 and found.high > 0.95 and found.low <= auc_ceiling(mu_of(claim.epsilon, 1e-5))
    shuffled = np.random.default_rng(6).permutation(coins)  # the weakened copy has lost which coin was whose
    assert abs(metrics.auc(scores, shuffled).value - 0.5) < 0.25


def test_f4_false_labels_are_remembered_by_a_model_that_overfits_and_by_none_under_noise() -> None:
    dataset = tiny_dataset(2, 0)
    made = mislabel(dataset, 40, seed=0)
    network = tiny_federation(dataset).network
    released, young = {}, {}
    for name, data in made.dataset.clients.items():
        released[name] = overfitted(data.train, data, network, steps=2000).numpy()
        young[name] = network.initial_weights(tiny_federation(dataset).streams).numpy()
    # 40 coins: chance is over .72 once in 200, and what training remembers differs by processor
    assert metrics.auc(made.scores(network, released), made.coins).value > 0.72
    assert metrics.auc(made.scores(network, young), made.coins).value < 0.7
    noised = {name: w + 2 * np.random.default_rng(7).normal(size=w.shape).astype("f4") for name, w in released.items()}
    assert metrics.auc(made.scores(network, noised), made.coins).value < 0.8
