"""Trials of gradient inversion: a real upload, and a ladder of noise on one record's gradient (A6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from framp_private import TargetNetwork
from threat_models import metrics
from threat_models.attacks import inversion, updates
from threat_models.errors import NotInView, NotResolvable
from threat_models.metrics import Estimate
from threat_models.results import Result, judged
from threat_models.trials.subject import Subject
from threat_models.view import Update

NOISES = (0.0, 1e-3, 1e-2, 0.1, 1.0)
STEPS = 200


def uploads(subject: Subject) -> Iterator[Result]:
    """A6: the first upload of the client that holds most of the network, inverted; PSNR to its nearest record."""
    update, (x, y) = _target(subject), _records(subject)
    guess, label = _inverted(subject, update), _label(subject, update)
    own = x[y == label] if bool((y == label).any()) else x
    nearest = max(metrics.psnr(guess.numpy(), record.numpy()) for record in own)
    chance = max(metrics.psnr(_mean_picture(subject), record.numpy()) for record in own)
    words = f"client {update.client}, round {update.round_index + 1}, class {label}; the mean picture is chance"
    estimate = Estimate(nearest, nearest, nearest)
    yield judged("A6", "honest server", "record", "PSNR, dB", estimate, baseline=chance, ceiling=None, words=words)


def pictures(subject: Subject) -> list[dict[str, Any]]:
    """For reports on public records: the ladder, and what the upload gave beside the record it is nearest to.

    Raises:
        NotInView, NotResolvable: no update is seen singly, or records are no pictures.
    """
    update, (x, y) = _target(subject), _records(subject)
    guess, label = _inverted(subject, update), _label(subject, update)
    own = x[y == label] if bool((y == label).any()) else x
    place = int(np.argmax([metrics.psnr(guess.numpy(), record.numpy()) for record in own]))
    upload = {
        "words": f"upload, class {label}",
        "original": _grey(own[place]),
        "reconstruction": _grey(guess),
        "psnr": _finite(metrics.psnr(guess.numpy(), own[place].numpy())),
    }
    steps, pairs = [], [upload]
    weights = update.given if update.given is not None else subject.facts.theta_0
    for noise in NOISES:
        found = one_record(subject.facts.network, weights, x[:1], y[:1], noise)
        steps.append({"noise": noise, "psnr": _finite(metrics.psnr(found.numpy(), x[0].numpy()))})
        pairs.append(
            {
                "words": f"noise {noise:g}",
                "original": _grey(x[0]),
                "reconstruction": _grey(found),
                "psnr": steps[-1]["psnr"],
            }
        )
    baseline = _finite(metrics.psnr(_mean_picture(subject), x[0].numpy()))
    return [{"kind": "ladder", "steps": steps, "baseline": baseline}, {"kind": "reconstruction", "pairs": pairs}]


def one_record(network: TargetNetwork, weights: Tensor, x: Tensor, y: Tensor, noise: float) -> Tensor:
    """One record from its gradient, clipped to norm 1 and with noise of so many clips on each coordinate."""
    module = network.as_module(weights).train()
    found = torch.autograd.grad(nn.functional.cross_entropy(module(x), y), list(module.parameters()))
    norm = torch.cat([part.flatten() for part in found]).norm()
    generator = torch.Generator().manual_seed(0)
    noised = [part / norm + noise * torch.randn(part.shape, generator=generator) for part in found]
    return _invert(module, noised, tuple(x.shape[1:]), y)


def _invert(module: nn.Module, gradient: list[Tensor], shape: tuple[int, ...], label: Tensor) -> Tensor:
    """The analytic form where the first layer is linear, else cosine inversion; (*shape) in [0, 1]."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if layers and isinstance(layers[0], nn.Linear) and layers[0].bias is not None:
        return inversion.analytic_linear(gradient[0], gradient[1]).view(shape).clamp(0, 1)
    return inversion.cosine_inversion(module, gradient, shape, label, steps=STEPS)[0]


def _target(subject: Subject) -> Update:
    if subject.dataset.schema.kind != "image":
        raise NotResolvable("records are no pictures: a reconstruction has no PSNR")
    found = subject.updates
    if not found:
        raise NotInView("no update was seen")
    if found[0].given is None:
        raise NotInView("clients generate their own weights: the gradient's model is not known")
    first, budgets = min(update.round_index for update in found), subject.facts.budgets
    return max((each for each in found if each.round_index == first), key=lambda each: budgets[each.client])


def _records(subject: Subject) -> tuple[Tensor, Tensor]:
    data = subject.dataset.clients[_target(subject).client]
    return data.x[data.train], data.y[data.train]


def _label(subject: Subject, update: Update) -> int:
    """The class whose bias the upload moves up most: the most frequent one of the batch."""
    head = subject.facts.network.classifier
    if head is None:
        raise NotResolvable("the classifier has no bias: labels cannot be read off the upload")
    return int(update.delta[head.bias].argmin())


def _inverted(subject: Subject, update: Update) -> Tensor:
    assert update.given is not None
    module = subject.facts.network.as_module(update.given).train()
    fiarse = bool(getattr(subject.facts.trainer, "fiarse", False))
    flat = updates.unweighted(subject.facts.network, update) if fiarse else update.delta
    label = torch.tensor([_label(subject, update)])
    return _invert(module, inversion.split(flat, module), subject.dataset.schema.input_shape, label)


def _mean_picture(subject: Subject) -> np.ndarray:
    means = [data.x[data.test].double().mean(0).numpy() for data in subject.dataset.clients.values()]
    return np.asarray(np.mean(means, 0))


def _grey(picture: Tensor) -> list[list[float]]:
    """Rows of grey values in [0, 1], two decimals."""
    flat = picture.double().mean(0)
    low, high = float(flat.min()), float(flat.max())
    return [[round((value - low) / max(high - low, 1e-9), 2) for value in row] for row in flat.tolist()]


def _finite(value: float) -> float:
    return round(min(value, 200.0), 3)
