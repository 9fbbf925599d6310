"""Whether a network keeps anything from one pass to the next: weights that it writes, buffers, attributes, its draws.

What it kept of one record would move what it says of others, in this batch or twenty batches later.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from framp_private.errors import ModelError
from framp_private.models.target import TargetNetwork

AGAIN = 24
"""Batches between two passes of the same records, before a network is believed to keep no state."""


def check_state(network: TargetNetwork, x: Tensor) -> None:
    """Refuses a network whose passes leave traces, or that says another thing of the same records later.

    x: (n, *shape) made-up records, at least ten. The weights are what they were afterwards.

    Raises:
        ModelError: with the layer's name.
    """
    start, few = network.weights.clone(), x[:3]
    for training, scale in ((True, 1.0), (False, 1.0), (True, 30.0)):
        network.load(start * scale)  # large weights, for layers that only hold some back
        before = _kept(network.module)
        network.module.train(training)
        first, after = _pass(network, few), _attributes(network.module)
        for turn in range(AGAIN):
            _pass(network, x[turn % 5 + 1 :][: turn % 7 + 1])
        again = _pass(network, few)
        changed = sorted(key for key, value in _kept(network.module).items() if not _same(value, before.get(key)))
        # an attribute may say of the last batch what it says: not of those before it
        now = _attributes(network.module)
        changed += sorted(key for key in {*after, *now} if not _same(after.get(key), now.get(key)))
        if changed:
            raise ModelError(
                f"layer {changed[0]!r} writes weights, buffers or attributes when it is called (running statistics, "
                "max_norm, spectral norm), so records move each other's gradients: use a layer that keeps nothing"
            )
        if not all(torch.equal(a, b) for a, b in zip(first, again, strict=True)):
            raise ModelError(
                "the network says another thing of the same records later (a random source of its own, or state that "
                "it keeps): what it says must follow from weights and records alone"
            )
    network.load(start)
    network.module.train()
    network.gradient.zero_()


def _pass(network: TargetNetwork, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and representations, with a backward pass; refuses random numbers, and records that are written into."""
    given, state = x.clone(), torch.random.get_rng_state()
    logits, features = network.forward(x)
    if logits.requires_grad:
        (logits.sum() + features.sum()).backward()  # type: ignore[no-untyped-call]
    if not torch.equal(state, torch.random.get_rng_state()):
        raise ModelError(
            f"layer {_random_layer(network.module)!r} draws random numbers (dropout) for a whole batch, so records "
            "move each other's gradients: leave it out under a record-level guarantee"
        )
    if not torch.equal(x, given):
        raise ModelError("the network writes into the records that it is given: let it copy them first")
    return logits.detach().clone(), features.detach().clone()


def _kept(module: nn.Module) -> dict[str, Any]:
    """Weights and buffers, by name."""
    found: dict[str, Any] = {}
    for name, part in module.named_modules():
        values = {**part._parameters, **part._buffers}
        found |= {_named(name, part, key): value.detach().clone() for key, value in values.items() if value is not None}
    return found


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What else a module holds that a pass could change, by name."""
    return {
        _named(name, part, key): _plain(value)
        for name, part in module.named_modules()
        for key, value in part.__dict__.items()
        if not key.startswith("_") and key != "training"
    }


def _named(name: str, part: nn.Module, key: str) -> str:
    return f"{name or type(part).__name__}.{key}"


def _plain(value: Any) -> Any:
    """A copy of what can be compared; of anything else its type."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, int | float | str | bytes | bool | None):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return type(value).__name__


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        alike = isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape == other.shape
        return alike and bool(torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _random_layer(module: nn.Module) -> str:
    for name, part in module.named_modules():
        if "Dropout" in type(part).__name__ or isinstance(getattr(part, "dropout", None), float):
            return name or type(part).__name__
    return type(module).__name__
