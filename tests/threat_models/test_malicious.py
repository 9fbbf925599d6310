"""What a malicious server crafts: each attack works on clients without defence, and what stops it does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from framp_private import Client, ClientState, Entropy, TargetNetwork, decode, encode, messages
from framp_private.crypto.homomorphic import Encryption, new_keys
from framp_private.errors import CryptoError, FrampError, PlanError, ProtocolError
from framp_private.federated.per_sample import summed_clipped
from framp_private.federated.prototypes import GlobalPrototypes, PrototypeBound, local_prototypes
from framp_private.protections import BFVSum, SecAgg
from framp_private.protections.homomorphic.messages import Context
from framp_private.protections.plain import PlainSum
from tests import private
from tests.homomorphic.harness import Round, values_of
from tests.secagg.harness import Round as SecureRound
from tests.tiny import tiny_dataset, tiny_federation
from threat_models import metrics
from threat_models.attacks import coalition, inversion, labels, malicious
from threat_models.errors import NotResolvable

DATASET = tiny_dataset(3, 0)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))


def request(federation, weights):
    mask = torch.ones(federation.network.n_parameters, dtype=torch.bool)
    from framp_private import encode_mask

    empty = np.zeros((0, 0), np.float32)
    shape = (federation.network.n_classes, federation.network.feature_dim) if federation.aligns else (0, 0)
    prototypes = np.zeros(shape, np.float32) if federation.aligns else empty
    return encode(
        messages.TrainRequest(
            federation.digest,
            0,
            weights[mask].numpy(),
            encode_mask(mask.numpy()),
            prototypes,
            np.zeros(shape[0], np.uint8),
        )
    )


def delta(federation, name, weights, dataset=DATASET):
    client = Client(name, dataset.clients[name], federation, Entropy())
    reply, _ = client.handle(request(federation, weights), ClientState.new())
    return federation.plan.protection("update").reveal(decode(reply, messages.TrainReply).update)


def test_b1_dead_layers_leave_the_victim_alone_in_the_sum() -> None:
    federation = tiny_federation(DATASET)
    network = TargetNetwork(perceptron)
    federation = replace(federation, network=network, budgets=dict.fromkeys(DATASET.clients, 1.0))
    weights = network.initial_weights(federation.streams)
    dead = malicious.suppressed(network, weights)
    victim, *others = DATASET.clients
    alone = delta(federation, victim, weights)
    total = alone + sum(delta(federation, name, dead) for name in others)
    first = slice(0, 48)  # the first layer's weights
    assert np.linalg.norm(alone[first]) > 0
    np.testing.assert_array_equal(total[first], alone[first])
    honest = alone + sum(delta(federation, name, weights) for name in others)
    assert np.linalg.norm(honest[first] - alone[first]) > 1e-3
    # the weakened copy only damps the first layer: what others add is still there
    damped = weights.clone()
    damped[first] *= 0.1
    weak = alone + sum(delta(federation, name, damped) for name in others)
    assert np.linalg.norm(weak[first] - alone[first]) > 1e-3
    # under a secure sum the suppressed round is refused: not everybody was sent the same model
    sent = {name: request(federation, weights if name == victim else dead) for name in DATASET.clients}
    values = {name: np.ones(4) for name in DATASET.clients}
    assert len(SecureRound(values).total()[1]) == 3
    with pytest.raises((ProtocolError, CryptoError)):
        SecureRound(values, asked=lambda name: sent[name]).total()
    # and a plan that sends each its own model is none
    with pytest.raises(PlanError, match="client"):
        tiny_federation(DATASET, plan=replace(federation.plan, update=SecAgg(bound=4.0)))


def test_b2_an_imprint_layer_gives_records_of_a_batch() -> None:
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.random((12, 30)), dtype=torch.float32)
    brightness = x.mean(1)
    cuts = (np.sort(brightness.numpy())[:-1] + np.sort(brightness.numpy())[1:]) / 2
    imprint = malicious.Imprint.of(30, [-1.0, *cuts.tolist()])
    weight, bias = imprint.weight.clone().requires_grad_(), imprint.bias.clone().requires_grad_()
    hidden = torch.relu(x @ weight.T + bias)
    (hidden.sum(1) * torch.tensor(rng.random(12), dtype=torch.float32)).sum().backward()
    found = imprint.records(weight.grad, bias.grad)
    close = [min(float((record - each).norm()) for record in found) for each in x]
    assert sum(distance < 1e-2 for distance in close) >= 10
    noisy = imprint.records(weight.grad + torch.randn(weight.shape), bias.grad + torch.randn(bias.shape))
    assert sum(min(float((record - each).norm()) for record in noisy) < 0.5 for each in x) == 0


def test_b3_fishing_makes_one_class_dominate_and_clipping_takes_it_away() -> None:
    network = TargetNetwork(perceptron)
    weights = malicious.fishing(network, network.initial_weights(tiny_federation(DATASET).streams), 2)
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 0, 1, 1, 0, 1, 0, 1, 2])
    from threat_models.attacks.models import gradients

    ones = torch.ones(network.n_parameters)
    places = dict(zip(network.tensors.names, network.tensors.slices(), strict=True))
    head = places[f"{network.classifier_name}.weight"].start

    def shown(given, clip=None):
        """Each record's part in the encoder's gradient; one record is of class 2."""
        found = gradients(network, given, ones, x, y)
        if clip is not None:
            found = found * (clip / found.norm(dim=1, keepdim=True).clamp(min=clip))
        return found[:, :head]

    usual = network.initial_weights(tiny_federation(DATASET).streams)
    assert malicious.dominance(shown(weights).norm(dim=1).numpy()) > 0.99
    assert malicious.dominance(shown(usual).norm(dim=1).numpy()) < 0.5
    # one record's part is no longer than the clip, which noise is sized for
    assert float(shown(weights, clip=0.1)[-1].norm()) <= 0.1 * (1 + 1e-5) < float(shown(weights)[-1].norm())
    with pytest.raises(NotResolvable):
        malicious.dominance(np.zeros(3))


# -- B4: labels


def perceptron_federation(**changes):
    """Clients of one step on all their records, without alignment."""
    federation = tiny_federation(DATASET)
    plain = replace(federation.trainer.alignment, weight=0.0)
    trainer = replace(federation.trainer, steps=1, batch_size=None, alignment=plain, fiarse=False, **changes)
    network = TargetNetwork(perceptron)
    return replace(federation, network=network, trainer=trainer, budgets=dict.fromkeys(DATASET.clients, 1.0))


def bias_gradient(federation, value) -> np.ndarray:
    return value[federation.network.classifier.bias] / federation.trainer.learning_rate


def test_b4_a_blank_classifier_shows_the_labels_of_a_client_and_of_a_whole_sum() -> None:
    federation = perceptron_federation()
    network, uniform = federation.network, np.full(3, 1 / 3)
    usual = 4 * network.initial_weights(federation.streams)  # an early model that is sure of something
    crafted = malicious.blank_classifier(network, usual)
    truth = {name: data.class_counts(3).numpy() / data.n_train for name, data in DATASET.clients.items()}
    found = {}
    for label, weights in (("crafted", crafted), ("honest", usual)):
        values = {name: delta(federation, name, weights) for name in DATASET.clients}
        single = [
            metrics.total_variation(labels.from_bias_gradient(bias_gradient(federation, value), uniform), truth[name])
            for name, value in values.items()
        ]
        total = bias_gradient(federation, sum(values.values())) / len(values)
        whole = metrics.total_variation(labels.from_bias_gradient(total, uniform), np.mean(list(truth.values()), 0))
        found[label] = (max(single), whole)
    assert max(found["crafted"]) < 1e-5  # exact, of one client and of a sum over all
    assert min(found["honest"]) > 0.02  # the weakened copy: the same reading of an honest model


def spread_of_labels(noise_multiplier: float, draws: int) -> float:
    """How far what B4 reads of one client's labels scatters from one round to the next."""
    federation, name = private.federation(noise_multiplier=noise_multiplier), "client-00"
    network, guesses = federation.network, []
    crafted = malicious.blank_classifier(network, network.initial_weights(federation.streams))
    for _ in range(draws):
        client = Client(name, private.DATASET.clients[name], federation, Entropy())
        reply, _ = client.handle(request(federation, crafted), ClientState.new())
        value = federation.plan.protection("update").reveal(decode(reply, messages.TrainReply).update)
        guesses.append(labels.from_bias_gradient(bias_gradient(federation, value), np.full(3, 1 / 3)))
    return float(np.linalg.norm(np.std(guesses, axis=0, ddof=1)))


def test_b4_under_noise_the_labels_are_blurred() -> None:
    """Ten times the noise scatters 9.5 times as much (the rest is cut off at 0): over 15 repetitions the logarithm of
    that ratio had a standard deviation of .13, so that these bounds alarm falsely less than once in 10^5.
    """
    little, much = spread_of_labels(0.2, 40), spread_of_labels(2.0, 40)
    assert much > 0.05
    assert 5 < much / little < 20


# -- B5: one client's model


def test_b5_a_poisoned_generator_aims_at_one_descriptor_alone() -> None:
    federation = tiny_federation(DATASET)
    generator, network = federation.generator, federation.network
    torch.manual_seed(0)
    descriptors = torch.rand(6, federation.descriptor.size(network))
    budgets = torch.ones(6)
    phi = federation.phi_0()
    phi = phi + 0.05 * torch.randn(phi.shape)
    start = generator.generate(phi, descriptors, budgets)
    wanted = malicious.fishing(network, start[2], 1, strength=5.0)
    _, off, moved = malicious.poisoned(generator, phi, descriptors, budgets, 2, wanted)
    assert off < 0.15 and moved < 0.1
    # the weakened copy moves theta_0, and everybody with it
    shifted = phi.clone()
    shifted[: generator.n_target] += wanted - start[2]
    away = (generator.generate(shifted, descriptors, budgets) - start).norm(dim=1) / (wanted - start[2]).norm()
    assert float(away[0]) > 0.9


def test_b5_what_a_client_does_with_any_model_is_bounded_under_dp() -> None:
    federation = private.federation(noise_multiplier=1.0)
    wild = 50 * torch.ones(federation.network.n_parameters)
    mask = torch.ones(federation.network.n_parameters, dtype=torch.bool)
    data = private.DATASET.clients["client-00"]

    def losses(module):
        return nn.functional.cross_entropy(
            federation.network.forward(data.x[data.train], module=module)[0], data.y[data.train], reduction="none"
        )

    federation.network.load(wild)
    total, _ = summed_clipped(federation.network, mask, losses, 0.8, "auto")
    assert float(total.norm()) <= data.n_train * 0.8 * (1 + 1e-4)


# -- B6: one record


def test_b6_a_far_anchor_pulls_on_one_class_alone() -> None:
    federation = tiny_federation(DATASET)
    crafted = malicious.anchors(np.zeros((3, 5), np.float32), 1)
    features, y = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1, 2])
    prototypes = GlobalPrototypes(torch.tensor(crafted), torch.ones(3, dtype=torch.bool))
    losses = federation.trainer.alignment.losses(features, y, prototypes)
    assert float(losses[y == 1].min()) > 100 * float(losses[y != 1].max())


def unit_records(n: int, seed: int) -> torch.Tensor:
    """Records of one length, as normalised pictures are."""
    x = torch.randn(n, 30, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=1, keepdim=True)


def encoder_moves(trapped: bool, record: torch.Tensor, x: torch.Tensor, clip: float | None = None) -> torch.Tensor:
    """(n,) what each record of one class adds to the first layer's gradient, under a far anchor."""
    network = TargetNetwork(lambda: nn.Sequential(nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 3)))
    federation = tiny_federation(DATASET)
    weights = malicious.trap(network, record) if trapped else network.initial_weights(federation.streams)
    far = GlobalPrototypes(
        torch.tensor(malicious.anchors(np.zeros((3, 8), np.float32), 1)), torch.ones(3, dtype=torch.bool)
    )
    network.load(weights)
    rows = []
    for one in x:
        logits, features = network.forward(one[None])
        label = torch.tensor([1])
        loss = nn.functional.cross_entropy(logits, label) + federation.trainer.alignment.loss(features, label, far)
        found = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(network.module.parameters()))])
        if clip is not None:
            found = found * min(1.0, clip / float(found.norm()))
        rows.append(found[:240])
    return torch.stack(rows).norm(dim=1)


def test_b6_a_trap_lets_one_record_through_and_says_whether_it_is_there() -> None:
    record, others = unit_records(1, 0)[0], unit_records(40, 1)
    shown = encoder_moves(True, record, torch.cat([record[None], others]))
    assert malicious.dominance(shown.numpy()) == 1.0 and float(shown[0]) > 1
    # the weakened copy, an anchor alone, isolates a class and no record
    assert malicious.dominance(encoder_moves(False, record, torch.cat([record[None], others])).numpy()) < 0.2
    # is the record among a client's forty? the sum of what they move says so without an error
    inside = [float(encoder_moves(True, record, torch.cat([record[None], unit_records(39, s)])).sum()) for s in (2, 3)]
    outside = [float(encoder_moves(True, record, unit_records(40, s)).sum()) for s in (4, 5)]
    assert min(inside) > 1 and max(outside) == 0
    # clipped, it moves the sum by no more than the clip, which noise is sized for
    assert float(encoder_moves(True, record, record[None], clip=0.5)) <= 0.5 * (1 + 1e-5)


def test_b6_needs_a_layer_that_measures_records() -> None:
    with pytest.raises(NotResolvable, match="does not measure records"):
        malicious.trap(TargetNetwork(perceptron), torch.ones(7))


def test_b7_an_identity_encoder_makes_prototypes_mean_records() -> None:
    network = TargetNetwork(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    weights = malicious.identity_encoder(network, torch.zeros(network.n_parameters))
    data = DATASET.clients["client-00"]
    shifted = replace(data, x=data.x - data.x.min())  # a ReLU passes what is positive
    network.load(weights)
    sums = local_prototypes(network, shifted, shifted.train, "counts").reshape(3, -1)
    for label in (0, 1):
        own = shifted.x[shifted.train][shifted.y[shifted.train] == label]
        np.testing.assert_allclose(sums[label, :6] / sums[label, -1], own.mean(0).numpy(), rtol=1e-5)
    # the weakened copy leaves the usual weights: prototypes are not means of records
    usual = network.initial_weights(tiny_federation(DATASET).streams)
    network.load(usual)
    other = local_prototypes(network, shifted, shifted.train, "counts").reshape(3, -1)
    own = shifted.x[shifted.train][shifted.y[shifted.train] == 0].mean(0).numpy()
    assert np.linalg.norm(other[0, :6] / other[0, -1] - own) > 0.3 * np.linalg.norm(own)
    # one record of any size moves what is noised by no more than its bound
    network.load(weights)
    bound = PrototypeBound(2.0, count_share=0.02)
    moved = [local_prototypes(network, shifted, shifted.train[:count], "counts", bound) for count in (9, 10)]
    assert np.linalg.norm(moved[1] - moved[0]) <= 2.0 * (1 + 1e-5)
    with pytest.raises(NotResolvable):
        malicious.identity_encoder(
            TargetNetwork(lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))), torch.zeros(43)
        )


def test_b8_a_cohort_of_sybils_is_a_cohort_of_one_and_the_roster_refuses_it() -> None:
    assert malicious.sybils("a", 2) == ("a", "sybil-0", "sybil-1")
    rng = np.random.default_rng(2)
    values = {name: rng.normal(size=4) for name in malicious.sybils("a", 2)}
    total = sum(values.values())
    known = {name: value for name, value in values.items() if name != "a"}
    np.testing.assert_allclose(coalition.leave_one_out(total, known, 3), values["a"])
    # the weakened copy leaves one honest client beside the victim
    more = {**values, "honest": rng.normal(size=4)}
    with pytest.raises(NotResolvable, match="sum over 2"):
        coalition.leave_one_out(sum(more.values()), known, 4)
    with pytest.raises(PlanError):
        SecAgg(minimum=3).check(2, False)


def test_b9_a_context_of_the_server_s_own_opens_every_value_unless_its_hash_was_pinned() -> None:
    protection = BFVSum(survivors=0.5)
    parameters = protection.parameters(6)

    def made():
        pair = new_keys(parameters)
        return pair.public, pair.secret

    public, secret = malicious.own_context(made)
    value = np.arange(-5, 5)
    sent = Encryption(public, parameters).encrypt(value)  # what a client without a pin would do

    def opened(key, data):
        return Encryption(key, parameters, secret=True).decrypted_sum([data], len(value))

    np.testing.assert_array_equal(coalition.decrypts(secret, sent, opened), value)
    case = Round(values_of(6), protection, down=lambda name, message: _swapped(message, public))
    with pytest.raises(CryptoError, match=r"^an encryption context is refused$"):
        case.gathered()


def _swapped(message: bytes, public: bytes) -> bytes:
    kind = message[6:]
    if kind.startswith(b"Context") and not kind.startswith((b"ContextRequest", b"ContextOffer", b"ContextKnown")):
        return encode(Context(public))
    return message


def test_what_is_no_request_is_refused_whoever_sends_it() -> None:
    federation = tiny_federation(DATASET)
    client = Client("client-00", DATASET.clients["client-00"], federation, Entropy())
    weights = torch.full((federation.network.n_parameters,), float("nan"))
    with pytest.raises(ProtocolError, match="do not fit"):
        client.handle(request(federation, weights), ClientState.new())
    with pytest.raises(FrampError):
        client.handle(b"no message", ClientState.new())


def test_the_analytic_attack_takes_a_record_from_a_real_client_of_one_step() -> None:
    """One step on one record of a linear target: the uploaded delta is the gradient, and the gradient is the record."""
    dataset = DATASET
    network = TargetNetwork(lambda: nn.Sequential(nn.Linear(6, 3)))
    federation = tiny_federation(dataset)
    plain = replace(federation.trainer.alignment, weight=0.0)
    trainer = replace(federation.trainer, steps=1, batch_size=1, alignment=plain, fiarse=False)
    federation = replace(federation, network=network, trainer=trainer, budgets=dict.fromkeys(dataset.clients, 1.0))
    name = "client-00"
    data = replace(dataset.clients[name], train=dataset.clients[name].train[:1])
    client = Client(name, data, federation, Entropy())
    reply, _ = client.handle(request(federation, network.initial_weights(federation.streams)), ClientState.new())
    value = torch.from_numpy(PlainSum().reveal(decode(reply, messages.TrainReply).update).copy())
    weight, bias = inversion.split(value / trainer.learning_rate, network.module)
    found = inversion.analytic_linear(weight, bias)
    record = data.x[data.train[0]]
    error = float(((found - record) ** 2).mean())
    peak = float(record.abs().max())
    assert 10 * np.log10(peak**2 / error) >= 60
