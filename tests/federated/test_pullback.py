"""The hypernetwork step: on the server, on the client, and as autograd of the composed loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from framp_private import Alignment, HypernetworkShape, Pullback, ServerStep, SubmodelRule
from framp_private.federated.pullback import contribution_size, contributions
from framp_private.federated.round import enrol, run_round
from framp_private.federated.server import ServerState
from framp_private.models.hypernetwork import SharedBackbone
from tests.tiny import engine_of, tiny_dataset, tiny_federation, tiny_method

DATASET = tiny_dataset()
SHAPES = {
    "shared": None,
    "full": HypernetworkShape(hidden=8),
    "random trunk": HypernetworkShape(trunk="random", hidden=8),
    "chunked": HypernetworkShape(head="chunked", hidden=8, chunk=16),
    "low rank": HypernetworkShape(head="low_rank", hidden=8, rank=4),
    "attention": HypernetworkShape(trunk="attention", hidden=8, chunk=16),
    "multiplicative": HypernetworkShape(hidden=8, combine="multiplicative"),
}


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
@pytest.mark.parametrize("name", SHAPES)
def test_server_and_client_pullback_give_the_same_run(name: str, importance: str) -> None:
    states = {}
    for side in Pullback:
        shape = SHAPES[name] and replace(SHAPES[name], standardise="own")
        step = ServerStep(learning_rate=0.05, momentum=0.0, optimizer="sgd", start=0.25)
        method = tiny_method(hypernetwork=shape, pullback=side, submodel=SubmodelRule(importance=importance), step=step)
        federation = tiny_federation(DATASET, method)
        engine = engine_of(federation, DATASET)
        state = enrol(federation, ServerState.initial(federation), engine.exchange)
        for index in range(3):
            engine.begin(index)
            state, _ = run_round(federation, state, engine.exchange)
        states[side] = state
        assert engine.traffic.totals["up"]["descriptor"] == 0 or side is Pullback.SERVER
    torch.testing.assert_close(states[Pullback.SERVER].phi, states[Pullback.CLIENT].phi, rtol=2e-3, atol=2e-4)
    torch.testing.assert_close(
        states[Pullback.SERVER].prototypes.values, states[Pullback.CLIENT].prototypes.values, rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "shared"])
def test_one_full_batch_step_is_a_gradient_step_on_phi(name: str) -> None:
    """With one full-batch step delta = lr * mask * dL/dtheta, so J^T delta / lr must be dL/dphi of the composed loss."""
    method = tiny_method(hypernetwork=SHAPES[name])
    trainer = replace(method.trainer, steps=1, batch_size=None, alignment=Alignment(0.0), fiarse=False)
    method = replace(method, trainer=trainer)
    federation = tiny_federation(DATASET, method)
    network, generator, data = federation.network, federation.generator, DATASET.clients["client-01"]
    phi = federation.phi_0() + 0.05 * torch.randn(generator.n_phi, generator=torch.Generator().manual_seed(0)).clamp(
        -1, 1
    )
    z, budget = torch.randn(federation.descriptor.size(network), generator=torch.Generator().manual_seed(1)), 0.5
    weights = federation.weights(phi, z, budget)
    mask = federation.mask(weights, budget, None)
    delta = weights * mask - federation.trainer.train(network, weights, mask, data, None, federation.streams, 0.0)
    pulled = (
        contributions(generator, phi, z[None], torch.tensor([budget]), delta[None], mask[None])
        / method.trainer.learning_rate
    )

    leaf = phi.clone().double().requires_grad_()
    theta = compose(generator, leaf, z, budget) * mask
    names = [name for name, _ in network.module.named_parameters()]
    parts = {
        n: theta[s].view(shape).float()
        for n, s, shape in zip(names, network.tensors.slices(), network.tensors.shapes, strict=True)
    }
    logits = torch.func.functional_call(network.module, parts, (data.x[data.train],))
    (expected,) = torch.autograd.grad(functional.cross_entropy(logits, data.y[data.train]), leaf)
    np.testing.assert_allclose(pulled[: generator.n_phi], expected.float().numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(pulled[generator.n_phi :] * method.trainer.learning_rate > 0, mask.numpy())


def compose(generator, phi, z, budget):  # noqa: ANN001, ANN201
    """theta as one differentiable expression of phi, written apart from the generator's own pullback."""
    from framp_private.models.flat import describe

    module, n = generator._working.psi, generator.n_target
    layout = describe(module)
    psi = phi[n:].float()
    parts = {
        name: psi[s].view(shape) for name, s, shape in zip(layout.names, layout.slices(), layout.shapes, strict=True)
    }
    generated = torch.func.functional_call(module, parts, (z[None], torch.tensor([budget])))[0]
    theta_0 = phi[:n].float()
    return theta_0 + generated if generator.shape.combine == "additive" else theta_0 * (1 + generated)


def test_theta_0_moves_by_the_mean_over_those_who_trained_a_coordinate() -> None:
    generator = SharedBackbone(4)
    deltas = torch.tensor([[1.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0], [5.0, 4.0, 6.0, 0.0]])
    masks = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]).bool()
    total = contributions(generator, torch.zeros(4), torch.zeros(3, 0), torch.ones(3), deltas, masks)
    assert len(total) == contribution_size(generator) == 8
    step = ServerStep(backbone_rate=0.5)
    phi, _ = step.apply(generator, torch.zeros(4), step.initial(generator), total, 3, 0.0)
    assert phi.tolist() == [-1.5, -1.5, -3.0, 0.0]
    cohort = ServerStep(backbone="cohort_mean")
    phi, _ = cohort.apply(generator, torch.zeros(4), cohort.initial(generator), total, 4, 0.0)
    assert phi.tolist() == [-2.25, -1.5, -1.5, 0.0]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_step_on_psi_is_torchs_optimiser(optimizer: str) -> None:
    federation = tiny_federation(DATASET)
    generator = federation.generator
    step = ServerStep(optimizer=optimizer, learning_rate=0.01, momentum=0.9, decay="linear")
    phi, state = federation.phi_0(), step.initial(generator)
    n = generator.n_target
    leaf = phi[n:].clone().requires_grad_()
    oracle = torch.optim.Adam([leaf], 0.01) if optimizer == "adam" else torch.optim.SGD([leaf], 0.01, momentum=0.9)
    rng = np.random.default_rng(0)
    for index in range(5):
        total = rng.normal(size=contribution_size(generator))
        phi, state = step.apply(generator, phi, state, total, 4, index / 5)
        oracle.param_groups[0]["lr"] = 0.01 * (1 - index / 5)
        leaf.grad = torch.from_numpy(total[n : generator.n_phi] / 4).float()
        oracle.step()
    torch.testing.assert_close(phi[n:], leaf.detach(), rtol=1e-4, atol=1e-6)


STEPS = {
    "theta_0 alone": ServerStep(learning_rate=0.0),
    "psi alone, sgd": ServerStep(optimizer="sgd", learning_rate=5.0, momentum=0.0, backbone_rate=0.0, decay="constant"),
    "psi alone, adam": ServerStep(optimizer="adam", learning_rate=0.03, backbone_rate=0.0, decay="constant"),
}


@pytest.mark.parametrize("combine", ["additive", "multiplicative"])
@pytest.mark.parametrize("name", STEPS)
def test_rounds_lower_the_loss_they_descend(name: str, combine: str) -> None:
    """The sign test: each part alone makes the served models fit the training records better."""
    method = tiny_method(step=STEPS[name], hypernetwork=HypernetworkShape(hidden=8, combine=combine))
    federation = tiny_federation(DATASET, method, rounds=12)
    engine = engine_of(federation, DATASET)
    state = enrol(federation, ServerState.initial(federation), engine.exchange)

    def loss() -> float:
        total = 0.0
        for name, data in DATASET.clients.items():
            budget = federation.budgets[name]
            weights = federation.weights(state.phi, state.descriptors[name], budget)
            federation.network.load(weights * federation.mask(weights, budget, None))
            with torch.no_grad():
                logits = federation.network.forward(data.x[data.train])[0]
            total += float(functional.cross_entropy(logits, data.y[data.train]))
        return total / len(DATASET.clients)

    before = loss()
    for index in range(12):
        engine.begin(index)
        state, _ = run_round(federation, state, engine.exchange)
    assert loss() < 0.95 * before
