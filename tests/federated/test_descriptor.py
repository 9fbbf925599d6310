"""Descriptors: fixed, comparable between clients, and made of training records only."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from framp_private import DescriptorRule, TargetNetwork
from framp_private.randomness import Streams
from tests.tiny import build, tiny_dataset

NETWORK = TargetNetwork(build)
INITIAL = NETWORK.initial_weights(Streams(0))
CLIENTS = tiny_dataset().clients
RULES = {
    f"{encoder}{' class-wise' if wise else ''}": DescriptorRule(encoder=encoder, steps=5, class_wise=wise)
    for encoder in ("warmup", "frozen")
    for wise in (False, True)
}


@pytest.mark.parametrize("name", RULES)
def test_it_is_deterministic_and_of_its_declared_size(name: str) -> None:
    rule, data = RULES[name], CLIENTS["client-00"]
    first = rule.compute(NETWORK, INITIAL, data, Streams(1))
    assert first.shape == (rule.size(NETWORK),)
    assert torch.equal(first, rule.compute(NETWORK, INITIAL, data, Streams(1)))


@pytest.mark.parametrize("name", RULES)
def test_it_reads_training_records_only(name: str) -> None:
    data = CLIENTS["client-00"]
    x = data.x.clone()
    x[data.test] += 100
    x[data.validation] -= 100
    rule = RULES[name]
    assert torch.equal(
        rule.compute(NETWORK, INITIAL, data, Streams(1)), rule.compute(NETWORK, INITIAL, replace(data, x=x), Streams(1))
    )


@pytest.mark.parametrize("name", RULES)
def test_clients_with_other_classes_have_other_descriptors(name: str) -> None:
    rule = RULES[name]
    same = rule.compute(NETWORK, INITIAL, CLIENTS["client-04"], Streams(1))
    first, other = (rule.compute(NETWORK, INITIAL, CLIENTS[c], Streams(1)) for c in ("client-00", "client-01"))
    assert float((first - same).norm()) < float((first - other).norm())


def test_a_frozen_descriptor_is_the_mean_feature_of_the_initialisation() -> None:
    data = CLIENTS["client-00"]
    with torch.no_grad():
        features = NETWORK.as_module(INITIAL)[:-1](data.x[data.train])
    torch.testing.assert_close(RULES["frozen"].compute(NETWORK, INITIAL, data, Streams(1)), features.mean(0))
    wise = RULES["frozen class-wise"].compute(NETWORK, INITIAL, data, Streams(1)).reshape(3, -1)
    for label in (0, 1):
        torch.testing.assert_close(wise[label], features[data.y[data.train] == label].mean(0))
    assert not wise[2].any()
