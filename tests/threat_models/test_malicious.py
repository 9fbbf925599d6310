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
from framp_private.protections import BFVSum, SecAgg
from framp_private.protections.homomorphic.messages import Context
from framp_private.protections.plain import PlainSum
from tests import private
from tests.homomorphic.harness import Round, values_of
from tests.tiny import tiny_dataset, tiny_federation
from threat_models.attacks import coalition, inversion, malicious
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
    # where one sum is made over all, everybody gets the same request: a plan that sends each its own is refused
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


def test_b5_whoever_chooses_theta_0_chooses_the_model_and_dp_holds_for_it() -> None:
    federation = private.federation(noise_multiplier=1.0)
    name = "client-00"
    wild = malicious.linear_at(
        torch.zeros(federation.network.n_parameters), 50 * torch.ones(federation.network.n_parameters)
    )
    mask = torch.ones(federation.network.n_parameters, dtype=torch.bool)
    data = private.DATASET.clients[name]

    def losses(module):
        return nn.functional.cross_entropy(
            federation.network.forward(data.x[data.train], module=module)[0], data.y[data.train], reduction="none"
        )

    federation.network.load(wild)
    total, _ = summed_clipped(federation.network, mask, losses, 0.8, "auto")
    assert float(total.norm()) <= data.n_train * 0.8 * (1 + 1e-4)


def test_b6_a_far_anchor_pulls_on_one_class_alone_and_clipping_bounds_it() -> None:
    federation = tiny_federation(DATASET)
    crafted = malicious.anchors(np.zeros((3, 5), np.float32), 1)
    features, y = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1, 2])
    from framp_private.federated.prototypes import GlobalPrototypes

    prototypes = GlobalPrototypes(torch.tensor(crafted), torch.ones(3, dtype=torch.bool))
    losses = federation.trainer.alignment.losses(features, y, prototypes)
    assert float(losses[y == 1].min()) > 100 * float(losses[y != 1].max())


def test_b7_an_identity_encoder_makes_prototypes_mean_records() -> None:
    network = TargetNetwork(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    weights = malicious.identity_encoder(network, torch.zeros(network.n_parameters))
    from framp_private.federated.prototypes import local_prototypes

    data = DATASET.clients["client-00"]
    shifted = replace(data, x=data.x - data.x.min())  # a ReLU passes what is positive
    network.load(weights)
    sums = local_prototypes(network, shifted, shifted.train, "counts").reshape(3, -1)
    for label in (0, 1):
        own = shifted.x[shifted.train][shifted.y[shifted.train] == label]
        np.testing.assert_allclose(sums[label, :6] / sums[label, -1], own.mean(0).numpy(), rtol=1e-5)
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
