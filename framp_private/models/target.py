"""A target network: a module whose weights arrive from outside as one flat vector.

The federation speaks of weights as a vector of `n_parameters` float32 values, in the order of the module's
`named_parameters`. `TargetNetwork` owns one working copy of the module whose parameters and gradients are views of
two flat buffers, so that loading weights and taking a masked step are single vector operations.

    >>> layers = [torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)]
    >>> network = TargetNetwork(lambda: torch.nn.Sequential(*layers))
    >>> network.n_parameters, network.feature_dim, network.n_classes
    (23, 3, 2)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from framp_private.errors import ModelError
from framp_private.models.flat import bind, describe, flatten
from framp_private.models.prior import Places
from framp_private.randomness import Streams


class TargetNetwork:
    """A module without BatchNorm, run with weights that are supplied at each use.

    `maskable` (n_parameters,) bool marks the `n_maskable` coordinates that a budget counts: all but those of
    normalisation layers. `weights` and `gradient` are the flat buffers of the working module. Every thread has a
    working module of its own, so that clients can train side by side; `classifier` is where
    the classifier lies, None if it has no bias. `stochastic` says that the module draws random
    numbers when it trains (dropout), which ties it to one thread. `gradients` keeps which way of making per-record
    gradients was found right, by the way that was asked for and the shape of a record.

    Args:
        build: makes the module; called inside a seeded scope that leaves global generators alone.
        classifier: dotted name of the last linear layer; its input is the representation that prototypes are
            made of. Default: the last module with `in_features` and `out_features`.
        examples: (n, *shape) public records that the network takes, for what is tried before a run with a guarantee
            for records; needed where it takes none of those that could be made up. Never a client's.

    Raises:
        ModelError: the module has BatchNorm or running statistics, no linear classifier, no parameters, or
            parameters that are not float32.
    """

    def __init__(
        self, build: Callable[[], nn.Module], classifier: str | None = None, examples: Tensor | None = None
    ) -> None:
        with Streams(0).child("structure").as_torch_default():
            module = build()
        _refuse(module)
        self._build = build
        self.classifier_name = classifier or _last_linear(module)
        head = module.get_submodule(self.classifier_name)
        self.feature_dim, self.n_classes = int(head.in_features), int(head.out_features)  # type: ignore[arg-type]
        self.tensors = describe(module)
        self.n_parameters = self.tensors.total
        self.maskable = self.tensors.maskable_coordinates()
        self.n_maskable = int(self.maskable.sum())
        places = dict(zip(self.tensors.names, self.tensors.slices(), strict=True))
        weight, bias = (places.get(f"{self.classifier_name}.{name}") for name in ("weight", "bias"))
        self.classifier = Places(weight, bias) if weight is not None and bias is not None else None
        self.stochastic = any("Dropout" in type(part).__name__ for part in module.modules())
        self.examples = examples
        self.gradients: dict[tuple[str, tuple[int, ...]], str] = {}
        self._own = threading.local()
        self._own.working = _Working(module, self.classifier_name)

    def __reduce__(self) -> tuple[type[TargetNetwork], tuple[Any, ...], dict[str, bool]]:
        """A copy, or what is unpickled, is built anew: no loaded weights travel with it."""
        return TargetNetwork, (self._build, self.classifier_name, self.examples), {"stochastic": self.stochastic}

    @property
    def module(self) -> nn.Module:
        """This thread's working module."""
        return self._working.module

    @property
    def weights(self) -> Tensor:
        """(n_parameters,) float32, the working module's parameters."""
        return self._working.weights

    @property
    def gradient(self) -> Tensor:
        """(n_parameters,) float32, the working module's gradients."""
        return self._working.gradient

    @property
    def _working(self) -> _Working:
        working: _Working | None = getattr(self._own, "working", None)
        if working is None:
            with Streams(0).child("structure").as_torch_default():
                working = self._own.working = _Working(self._build(), self.classifier_name)
        return working

    def initial_weights(self, streams: Streams) -> Tensor:
        """(n_parameters,) float32: the module's own initialisation, drawn from the given stream."""
        with streams.as_torch_default():
            module = self._build()
        return flatten(module)

    def load(self, weights: Tensor) -> None:
        """Copies (n_parameters,) float32 into the working module."""
        self.weights.copy_(weights)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor | None = None,
        nodes: Tensor | None = None,
        module: nn.Module | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits (n, n_classes) and representations (n, feature_dim) under the loaded weights.

        With `edge_index` (2, edges) the module is called as `module(x, edge_index)` on the whole graph;
        `nodes` then picks the rows that are returned. `module` is the working module in a wrapper that calls it.
        """
        working = self._working
        called = working.module if module is None else module
        logits: Tensor = called(x) if edge_index is None else called(x, edge_index)
        features, working.features = working.features, None
        if features is None:
            raise ModelError(
                f"classifier={self.classifier_name!r} was not called in the forward pass: "
                "name the layer that makes the logits"
            )
        features = features.flatten(1)
        return (logits, features) if nodes is None else (logits[nodes], features[nodes])

    def probe(self, x: Tensor, edge_index: Tensor | None = None) -> None:
        """One forward pass in training mode, to see that records fit and whether random numbers are drawn.

        Raises:
            ModelError: the network cannot take such records.
        """
        with Streams(0).child("probe").as_torch_default(), torch.no_grad():
            before = torch.random.get_rng_state()
            try:
                self.forward(x, edge_index)
            except (RuntimeError, IndexError, TypeError, ValueError) as error:
                raise ModelError(
                    f"the network cannot take records of shape {tuple(x.shape[1:])} ({error}): "
                    "build it for the data set's schema"
                ) from error
            self.stochastic = self.stochastic or not torch.equal(before, torch.random.get_rng_state())

    def as_module(self, weights: Tensor) -> nn.Module:
        """An independent module with these weights, in evaluation mode, for prediction outside the federation."""
        with Streams(0).child("structure").as_torch_default():
            module = self._build()
        with torch.no_grad():
            for value, part in zip(module.parameters(), self.tensors.slices(), strict=True):
                value.copy_(weights[part].view_as(value))
        return module.eval()


class _Working:
    """One module, its flat buffers, and what its classifier was given last."""

    def __init__(self, module: nn.Module, classifier: str) -> None:
        self.module = module
        self.weights, self.gradient = bind(module)
        self.features: Tensor | None = None
        module.get_submodule(classifier).register_forward_pre_hook(self._keep)

    def _keep(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.features = inputs[0]


def _refuse(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if "BatchNorm" in type(part).__name__ or isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise ModelError(
                f"layer {name!r} is {type(part).__name__}: batch statistics mix records, which breaks per-record "
                "privacy and class prototypes; use GroupNorm or LayerNorm instead"
            )
        if getattr(part, "track_running_stats", False):
            raise ModelError(
                f"layer {name!r} keeps running statistics that would leave the client in no channel: "
                "build it with track_running_stats=False"
            )
    parameters = list(module.named_parameters())
    if not parameters:
        raise ModelError("the module has no parameters: nothing can be trained")
    for name, value in parameters:
        if value.dtype != torch.float32:
            raise ModelError(
                f"parameter {name!r} has dtype {value.dtype}, must be torch.float32: call .float() in build"
            )


def _last_linear(module: nn.Module) -> str:
    names: list[str] = [
        name for name, part in module.named_modules() if hasattr(part, "in_features") and hasattr(part, "out_features")
    ]
    if not names:
        raise ModelError(
            "the module has no linear classifier: pass classifier=, the name of the layer that makes the logits"
        )
    return names[-1]
