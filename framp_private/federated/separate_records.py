"""Whether a network takes each record for itself, and how its per-record gradients are made right: found by trying.

A guarantee for single records leans on it, and no list of layers tells: a user's network may do anything in its forward
pass. So before anything is spent, made-up records go through the network one by one, and then in batches:

- *state*: weights, buffers and attributes are what they were, the same records give the same again, and no random
  number is drawn;
- *apart*: what is said of a record in any batch is what is said of it alone;
- *gradients*: of the ways to make the clipped sum, the fastest that agrees with one backward pass a record, and with
  itself to the last bit wherever a record stands in its micro-batch and whatever stands beside it. The last way is one
  record after the other, which is right for every network that passes the first two.

No record of a client is read, so that a refusal tells nothing of any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from framp_private.errors import ModelError
from framp_private.federated.kept_state import check_state
from framp_private.models.target import TargetNetwork
from framp_private.privacy.clipping import clip_factors
from framp_private.randomness import Streams

RIGHT = 1e-4
"""Largest relative L2 error of a clipped sum against one backward pass a record."""
PROBLEMS = (
    RuntimeError,
    IndexError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    NotImplementedError,
    AssertionError,
)

Summed = Callable[[str, Callable[[Tensor, nn.Module], Tensor], Tensor, Callable[[Tensor], Tensor]], Tensor]
"""mode, losses of rows, rows, factors -> (n_parameters,) the clipped sum over the rows as training would make it."""


@dataclass(frozen=True)
class Ways:
    """How gradients are made. modes: to be tried, fastest first. size: of a mode's micro-batches.

    summed: over any rows, as training makes it. part: over the rows of one micro-batch.
    """

    modes: Sequence[str]
    summed: Summed
    part: Summed
    size: Callable[[str], int]


def found(network: TargetNetwork, shape: tuple[int, ...], ways: Ways) -> str:
    """The first of the modes that is right for records of this shape.

    The loaded weights are what they were afterwards.

    Raises:
        ModelError: with the layer's name and the cure: the network keeps state, draws random numbers, lets records
            meet, or takes none of the records that could be made up; or none of the modes is right.
    """
    with _undisturbed(network):
        x = made_up(network, shape, max(ways.size(mode) for mode in ways.modes) + 3)
        check_state(network, x)
        _check_apart(network, x, ways.size(ways.modes[0]))
        problem = ""
        for mode in ways.modes:
            try:
                problem = _wrong(network, x, mode, ways)
            except PROBLEMS as error:
                problem = f"{type(error).__name__}: {error}"
            network.module.zero_grad(set_to_none=False)
            if not problem:
                return mode
    raise ModelError(
        f"per-record gradients of this network are not right in mode {ways.modes[-1]!r} ({problem}): use mode='auto', "
        "or layers that take each record for itself"
    )


def block_of(network: TargetNetwork, shape: tuple[int, ...], size: int) -> int:
    """How many records may be represented together: `size` where their places in a batch round alike, else one.

    Found once, on made-up records, in evaluation mode.
    """
    key = (f"features {size}", tuple(shape))
    if key not in network.gradients:
        with _undisturbed(network), torch.no_grad():
            network.module.eval()
            x = made_up(network, shape, size + 3)
            start, steady = network.weights.clone(), True
            for scale in (1.0, 3.0):
                network.load(start * scale)
                steady &= all(_same_everywhere(network, x, row, size) for row in _WATCHED if row < len(x))
        network.gradients[key] = str(size if steady else 1)
    return int(network.gradients[key])


def made_up(network: TargetNetwork, shape: tuple[int, ...], n: int) -> Tensor:
    """(n, *shape) float32 records that the network takes: its public examples, else the first of a few kinds.

    Numbers of both signs, numbers in [0, 1], small whole numbers: what raises an error, or gives something that is not
    finite, is left out. Raises `ModelError` if none is left.
    """
    reasons = []
    for x in _candidates(network, shape, n):
        try:
            with torch.no_grad():
                outputs = [network.forward(x[i : i + 1]) for i in range(n)]
        except PROBLEMS as error:
            reasons.append(f"{type(error).__name__}: {error}")
            continue
        if all(bool(torch.isfinite(value).all()) for pair in outputs for value in pair):
            return x
        reasons.append("values that are not finite")
    raise ModelError(
        f"the network takes no made-up records of shape {shape} ({reasons[-1]}): pass "
        "TargetNetwork(..., examples=...), a few public records that it takes"
    )


def _candidates(network: TargetNetwork, shape: tuple[int, ...], n: int) -> Iterator[Tensor]:
    generator = Streams(0).child("made-up records").torch()
    if network.examples is not None:
        yield network.examples[torch.arange(n) % len(network.examples)].float()
        return
    scale = torch.linspace(0.2, 2.0, n).view(-1, *[1] * len(shape))
    yield torch.randn(n, *shape, generator=generator) * scale
    yield torch.rand(n, *shape, generator=generator)
    for most in (8, 2):
        yield torch.randint(0, most, (n, *shape), generator=generator).float()
    yield torch.ones(n, *shape)


@contextmanager
def _undisturbed(network: TargetNetwork) -> Iterator[None]:
    """Weights inside that are not all zero, and those from before afterwards, with gradients and mode."""
    weights, training = network.weights.clone(), network.module.training
    network.load(network.initial_weights(Streams(0).child("made-up weights")))
    network.module.train()
    try:
        yield
    finally:
        network.load(weights)
        network.gradient.zero_()
        network.module.train(training)


def _check_apart(network: TargetNetwork, x: Tensor, size: int) -> None:
    """Refuses a network that says in a batch what it would not say of a record alone."""
    for training in (True, False):
        network.module.train(training)
        with torch.no_grad():
            alone = [network.forward(x[i : i + 1]) for i in range(len(x))]
            for n in sorted({2, 3, 4, 5, 7, 8, size, len(x)}):
                for order in (torch.arange(n), torch.arange(n).flip(0) + (len(x) - n)):
                    try:
                        together = network.forward(x[order])
                    except PROBLEMS as error:
                        raise ModelError(
                            f"the network takes single records and no batch of {n} ({type(error).__name__}: {error}): "
                            "it must take any number"
                        ) from error
                    for place, row in enumerate(order.tolist()):
                        _compare(network, [value[0] for value in alone[row]], together, place, x, order)
    network.module.train()


def _compare(
    network: TargetNetwork,
    alone: Sequence[Tensor],
    together: Sequence[Tensor],
    place: int,
    x: Tensor,
    order: Tensor,
) -> None:
    for one, whole in zip(alone, together, strict=True):
        if len(whole) != len(order) or not _close(whole[place], one):
            raise ModelError(
                f"layer {_meeting_layer(network, x, order)!r} lets records of a batch meet (a batch mean, attention "
                "over records, another order of rows): one record would move all others' gradients; use layers that "
                "take each record for itself, and give the classifier one row a record, in order"
            )


def _close(one: Tensor, other: Tensor) -> bool:
    scale = float(other.abs().max()) if other.numel() else 0.0
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * max(1.0, scale), equal_nan=True)


def _meeting_layer(network: TargetNetwork, x: Tensor, order: Tensor) -> str:
    """The first layer whose rows in a batch are not those of single records."""
    batch, single = _outputs(network, x[order]), [_outputs(network, x[i : i + 1]) for i in order.tolist()]
    for name, value in batch.items():
        rows = [one.get(name) for one in single]
        if len(value) != len(order) or not all(
            row is not None and len(row) == 1 and _close(value[at], row[0]) for at, row in enumerate(rows)
        ):
            return name
    return type(network.module).__name__


def _outputs(network: TargetNetwork, x: Tensor) -> dict[str, Tensor]:
    """What each layer gives, in the order in which they are called; a layer that is called twice counts once."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim():
                seen.setdefault(name, output.detach().clone())

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in network.module.named_modules() if name]
    try:
        with torch.no_grad():
            network.forward(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _wrong(network: TargetNetwork, x: Tensor, mode: str, ways: Ways) -> str:
    """What is wrong with a mode, empty if nothing is."""
    size, labels = ways.size(mode), torch.arange(len(x)) % network.n_classes

    def losses(rows: Tensor, module: nn.Module) -> Tensor:
        logits, features = network.forward(x[rows], module=module)
        each = functional.cross_entropy(logits, labels[rows], reduction="none")
        return each + 0.1 * (features - 1).square().mean(1)

    start = network.weights.clone()
    for scale in (1.0, 3.0):
        network.load(start * scale)
        alone = torch.stack([_alone(network, losses, row) for row in range(len(x))])
        norms = alone.norm(dim=1)
        clip = float(norms[torch.isfinite(norms)].median()) or 1.0
        for rows in _orders(len(x), size):
            if (error := _error(network, losses, rows, alone, clip, mode, ways)) > RIGHT:
                return f"relative error {error:.1e} for {len(rows)} records"
        if size > 1 and not _steady(network, losses, x, mode, size, clip, ways):
            return "a record's gradient depends on where it stands in its batch, or on what stands beside it"
    network.load(start)
    return ""


def _orders(n: int, size: int) -> list[Tensor]:
    """A few batches: one record, fewer than a micro-batch, one and a half of them, and another order."""
    if n <= 8:
        return [torch.arange(n), torch.arange(n).flip(0)]
    few = torch.arange(7)
    return [few[:1], few[:2], few, few.flip(0), torch.arange(min(size, n)), torch.arange(n).flip(0)]


def _alone(network: TargetNetwork, losses: Callable[[Tensor, nn.Module], Tensor], row: int) -> Tensor:
    """(n_parameters,) float64 the gradient of one record, from a pass of its own."""
    parameters = list(network.module.parameters())
    moving = [value for value in parameters if value.requires_grad]
    loss = losses(torch.tensor([row]), network.module).sum()
    found = torch.autograd.grad(loss, moving, allow_unused=True) if loss.requires_grad else [None] * len(moving)
    made = dict(zip(map(id, moving), found, strict=True))
    parts = ((value, made.get(id(value))) for value in parameters)
    return torch.cat([torch.zeros(v.numel()) if g is None else g.flatten() for v, g in parts]).double()


def _error(
    network: TargetNetwork,
    losses: Callable[[Tensor, nn.Module], Tensor],
    rows: Tensor,
    alone: Tensor,
    clip: float,
    mode: str,
    ways: Ways,
) -> float:
    """Relative L2 error of a mode's clipped sum."""
    wanted = (alone[rows] * clip_factors(alone[rows].square().sum(1), clip)[:, None]).sum(0)
    made = ways.summed(mode, losses, rows, lambda squared: clip_factors(squared, clip)).double()
    reach = float((alone[rows].norm(dim=1).clamp(max=clip)).sum())  # what cancels in the sum is no error of it
    return float((made - wanted).norm()) / max(float(wanted.norm()), 0.1 * reach, 1e-30)


def _steady(
    network: TargetNetwork,
    losses: Callable[[Tensor, nn.Module], Tensor],
    x: Tensor,
    mode: str,
    size: int,
    clip: float,
    ways: Ways,
) -> bool:
    """Whether one record's part is the same to the last bit at any place of a micro-batch, beside any others."""
    first: Tensor | None = None
    for row in (row for row in _WATCHED if row < len(x)):
        first = None
        for turn, place in enumerate(_places(size)):
            rows = _beside(len(x), size, row, place, turn)

            def alone(squared: Tensor, place: int = place) -> Tensor:
                factors = torch.zeros_like(squared)
                factors[place] = clip_factors(squared[place : place + 1], clip)[0]
                return factors

            made = ways.part(mode, losses, rows, alone).clone()
            first = made if first is None else first
            if not torch.equal(made, first):
                return False
    return True


_WATCHED = (0, 5, 11)
"""Made-up records that are put at many places."""


def _same_everywhere(network: TargetNetwork, x: Tensor, row: int, size: int) -> bool:
    """Whether each layer says the same of a record to the last bit, at any place of a batch and beside any others."""
    first: dict[str, Tensor] = {}
    for turn, place in enumerate(_places(size)):
        found = _outputs(network, x[_beside(len(x), size, row, place, turn)])
        mine = {name: value[place] for name, value in found.items() if len(value) == size}
        first = first or mine
        if not all(torch.equal(value, first[name]) for name, value in mine.items()):
            return False
    return True


def _places(size: int) -> list[int]:
    """Places of a batch that are looked at."""
    return sorted({0, 1, 2, 3, size // 2, size // 2 + 1, size - 2, size - 1} & set(range(size)))


def _beside(n: int, size: int, row: int, place: int, turn: int) -> Tensor:
    """(size,) rows of `n`: a certain one at a place, and others beside it."""
    rows = (torch.arange(size) + turn) % (n - 1) + 1
    rows = (rows + row) % n
    rows[place] = row
    return rows
