"""Target networks: flat weights, features, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from framp_private import TargetNetwork
from framp_private.errors import ModelError
from framp_private.models.graph import gcn, graph_sage
from framp_private.models.tabular import mlp
from framp_private.models.vision import lenet, resnet18, small_cnn
from framp_private.randomness import Streams

EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 0], [1, 0, 2, 1, 3, 2, 0]])
FAMILY = {
    "small_cnn": (small_cnn, torch.rand(4, 1, 8, 8), None, 23_946, 64),
    "lenet": (lenet, torch.rand(4, 3, 32, 32), None, 121_182, 84),
    "resnet18": (resnet18, torch.rand(2, 3, 32, 32), None, 11_173_962, 512),
    "mlp": (lambda: mlp(9, 2), torch.rand(4, 9), None, None, 64),
    "gcn": (lambda: gcn(9, 3), torch.rand(4, 9), EDGES, None, 128),
    "sage": (lambda: graph_sage(9, 3), torch.rand(4, 9), EDGES, None, 128),
    "sage sparse": (lambda: graph_sage(9, 3, sparse_input=True), torch.rand(4, 9).to_sparse(), EDGES, None, 128),
}


@pytest.mark.parametrize("name", FAMILY)
def test_every_network_runs_under_supplied_weights(name: str) -> None:
    build, x, edges, n_parameters, feature_dim = FAMILY[name]
    network = TargetNetwork(build)
    assert network.feature_dim == feature_dim
    assert n_parameters is None or network.n_parameters == n_parameters
    weights = network.initial_weights(Streams(1))
    network.load(weights)
    logits, features = network.forward(x, edges)
    module = network.as_module(weights)
    with torch.no_grad():
        expected = module(x) if edges is None else module(x, edges)
        head = module.get_submodule(network.classifier_name)
        torch.testing.assert_close(head(features), logits)
    torch.testing.assert_close(logits, expected)
    assert features.shape == (len(x), feature_dim) and logits.shape[1] == network.n_classes
    if edges is not None:
        picked = network.forward(x, edges, torch.tensor([2, 0]))
        torch.testing.assert_close(picked[0], logits[[2, 0]])


@pytest.mark.parametrize("name", FAMILY)
def test_gradients_land_in_the_flat_buffer(name: str) -> None:
    build, x, edges, _, _ = FAMILY[name]
    network = TargetNetwork(build)
    weights = network.initial_weights(Streams(1))
    network.load(weights)
    network.gradient.zero_()
    network.forward(x, edges)[0].square().sum().backward()
    module = network.as_module(weights).train()
    (module(x) if edges is None else module(x, edges)).square().sum().backward()
    expected = torch.cat([p.grad.reshape(-1) for p in module.parameters()])
    torch.testing.assert_close(network.gradient, expected)


def test_resnet_counts_what_fiarse_counts() -> None:
    network = TargetNetwork(resnet18)
    assert network.n_maskable == 11_164_362
    assert int(11_164_362 / 64) == 174_443


def test_sparse_and_dense_inputs_agree() -> None:
    network = TargetNetwork(lambda: graph_sage(9, 3, sparse_input=True))
    network.load(network.initial_weights(Streams(0)))
    x = torch.rand(4, 9) * (torch.rand(4, 9) > 0.5)
    torch.testing.assert_close(network.forward(x, EDGES)[0], network.forward(x.to_sparse(), EDGES)[0])


def test_normalisation_is_never_maskable() -> None:
    network = TargetNetwork(lambda: nn.Sequential(nn.Linear(2, 4), nn.GroupNorm(2, 4), nn.Linear(4, 2)))
    assert network.n_parameters - network.n_maskable == 8
    kept = [name for name, keep in zip(network.tensors.names, network.tensors.maskable, strict=True) if not keep]
    assert kept == ["1.weight", "1.bias"]


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), "batch statistics mix records"),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.SyncBatchNorm(2), nn.Flatten(), nn.Linear(2, 2)), "GroupNorm"),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2, track_running_stats=True), nn.Linear(2, 2)),
            "running statistics",
        ),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3)), "no linear classifier"),
        (nn.ReLU, "no parameters"),
        (lambda: nn.Linear(2, 2).double(), "float32"),
    ],
)
def test_networks_that_cannot_be_carried_are_refused(build, reason: str) -> None:  # noqa: ANN001
    with pytest.raises(ModelError, match=reason):
        TargetNetwork(build)


def test_a_classifier_that_is_not_called_is_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    with pytest.raises(ModelError, match="unused"):
        TargetNetwork(Odd).forward(torch.rand(3, 2))
    assert TargetNetwork(Odd, classifier="used").forward(torch.rand(3, 2))[0].shape == (3, 2)


def test_predicting_with_a_module_leaves_the_working_network_alone() -> None:
    network = TargetNetwork(small_cnn)
    weights = network.initial_weights(Streams(0))
    network.load(weights)
    module = network.as_module(weights + 1)
    assert torch.equal(network.weights, weights)
    assert not module.training


def test_pictures_too_small_for_lenet_are_refused() -> None:
    with pytest.raises(ModelError, match="side=8"):
        lenet(1, 8, 10)
    assert TargetNetwork(lambda: lenet(1, 16, 10)).forward(torch.rand(2, 1, 16, 16))[0].shape == (2, 10)
