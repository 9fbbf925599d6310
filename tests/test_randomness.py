"""Seeded streams and operating system randomness stay apart, and global generators stay put."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn

from framp_private import TargetNetwork, framp_without_alignment, train
from framp_private.randomness import Entropy, Streams
from tests.tiny import tiny_dataset, tiny_federation


def test_equal_paths_draw_equal_values_and_others_do_not() -> None:
    a, b = Streams(3).child("x", 1), Streams(3).child("x").child("1")
    assert a.integer() == b.integer()
    assert torch.equal(torch.rand(4, generator=a.torch()), torch.rand(4, generator=b.torch()))
    others = [
        Streams(4).child("x", 1),
        Streams(3).child("x1"),
        Streams(3).child("x"),
        Streams(3).child("1", "x"),
        Streams(3).child("x", "1", ""),
    ]
    assert len({stream.integer() for stream in (a, *others)}) == 1 + len(others)


def test_paths_cannot_be_confused_by_their_punctuation() -> None:
    assert Streams(0).child("a,b").integer() != Streams(0).child("a", "b").integer()
    assert Streams(0).child('a", "b').integer() != Streams(0).child("a", "b").integer()


def test_entropy_is_never_stored_and_never_repeats() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Entropy())
    assert len({Entropy().bytes(16) for _ in range(64)}) == 64
    assert not hasattr(Entropy(), "seed")


def global_state() -> tuple[object, ...]:
    return random.getstate(), pickle.dumps(np.random.get_state()), torch.random.get_rng_state().numpy().tobytes()  # noqa: NPY002


def test_a_run_leaves_global_generators_alone() -> None:
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    before = global_state()
    dataset = tiny_dataset()
    train(tiny_federation(dataset), dataset)
    assert global_state() == before


def test_dropout_and_initialisation_draw_from_the_given_stream_only() -> None:
    network = TargetNetwork(lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)))
    dataset = tiny_dataset()
    federation = tiny_federation(dataset)
    mask = torch.ones(network.n_parameters, dtype=torch.bool)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed + 50)
        before = global_state()
        weights = network.initial_weights(Streams(seed).child("init"))
        data = dataset.clients["client-00"]
        results.append(federation.trainer.train(network, weights, mask, data, None, Streams(seed).child("local"), 0.0))
        assert global_state() == before
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_run_does_not_depend_on_global_state() -> None:
    dataset = tiny_dataset()
    federation = tiny_federation(dataset, framp_without_alignment())
    first = train(federation, dataset)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    second = train(tiny_federation(dataset, framp_without_alignment()), dataset)
    assert torch.equal(first.simulation.state.phi, second.simulation.state.phi)
