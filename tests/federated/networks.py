"""A hundred small networks of users' own: what each does with a batch, and what must become of it.

`APART` take each record for itself: their clipped sums must be right. `MEETING` do not, or keep state, or draw random
numbers: they must be refused before anything is spent. Records are pictures (3, 8, 8), tables (6,), words (5,) or
sequences (12,), which are four steps of three numbers; all have four classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from opacus.layers import DPGRU, DPLSTM, DPRNN, DPMultiheadAttention
from torch import Tensor, nn
from torch.nn import functional as f
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

Build = Callable[[], nn.Module]
L, S, P = nn.Linear, nn.Sequential, nn.Parameter


class Of(nn.Module):
    """A network from layers and a function of them and a batch."""

    def __init__(self, run: Callable[[Of, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def of(run: Callable[[Of, Tensor], Tensor], **parts: Callable[[], nn.Module | nn.Parameter]) -> Build:
    return lambda: Of(run, **{name: make() for name, make in parts.items()})


def frozen(layer: nn.Module, *names: str) -> nn.Module:
    for name, value in layer.named_parameters():
        value.requires_grad_(name not in names and bool(names))
    return layer


def steps(x: Tensor) -> Tensor:
    return x.view(len(x), 4, 3)


# -- tables


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 2).tanh()


class Rank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.u, self.v = P(torch.randn(8, 2)), P(torch.randn(2, 6))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.u @ self.v


def low_rank() -> nn.Module:
    layer = L(6, 8)
    parametrize.register_parametrization(layer, "weight", Rank())
    return S(layer, nn.ReLU(), L(8, 4))


def tied() -> nn.Module:
    made = S(L(6, 6), nn.ReLU(), L(6, 6), nn.ReLU(), L(6, 4))
    made[2].weight = made[0].weight
    return made


def mlp() -> nn.Module:
    return S(L(6, 8), nn.ReLU(), L(8, 4))


TABLES: dict[str, Build] = {
    "linear": lambda: S(L(6, 4)),
    "mlp": mlp,
    "without bias": lambda: S(L(6, 8, bias=False), nn.ReLU(), L(8, 4, bias=False)),
    "in place": lambda: S(L(6, 8), nn.ReLU(inplace=True), L(8, 4)),
    "tied": tied,
    "tied and transposed": of(lambda m, x: m.b(f.relu(m.a(x)) @ m.a.weight), a=lambda: L(6, 8), b=lambda: L(6, 4)),
    "reused": of(lambda m, x: m.b(m.a(m.a(x).tanh()).tanh()), a=lambda: L(6, 6), b=lambda: L(6, 4)),
    "called twice at the head": of(lambda m, x: m.b(m.a(x)) + m.b(m.a(-x)), a=lambda: L(6, 8), b=lambda: L(8, 4)),
    "frozen first": lambda: S(frozen(L(6, 8)), nn.ReLU(), L(8, 4)),
    "frozen middle": lambda: S(L(6, 8), nn.ReLU(), frozen(L(8, 8)), nn.ReLU(), L(8, 4)),
    "frozen bias": lambda: S(frozen(L(6, 8), "bias"), nn.ReLU(), L(8, 4)),
    "frozen weight": lambda: S(frozen(L(6, 8), "weight"), nn.ReLU(), L(8, 4)),
    "frozen head": lambda: S(L(6, 8), nn.ReLU(), frozen(L(8, 4))),
    "subclass": lambda: S(Scaled(6, 8), L(8, 4)),
    "weight norm": lambda: S(parametrizations.weight_norm(L(6, 8)), nn.ReLU(), L(8, 4)),
    "low rank": low_rank,
    "orthogonal": lambda: S(parametrizations.orthogonal(L(6, 6)), nn.ReLU(), L(6, 4)),
    "raw parameter": of(lambda m, x: m.b(f.relu(f.linear(x, m.w))), w=lambda: P(torch.randn(8, 6)), b=lambda: L(8, 4)),
    "scale without dimension": of(lambda m, x: m.b(m.a(x) * m.s), a=lambda: L(6, 8), s=lambda: P(torch.ones(())), b=lambda: L(8, 4)),
    "parameter list": of(lambda m, x: m.b(x * m.p[0] + m.p[1]), p=lambda: nn.ParameterList([P(torch.ones(6)), P(torch.zeros(6))]), b=lambda: L(6, 4)),
    "unused layer": of(lambda m, x: m.b(m.a(x).relu()), u=lambda: L(6, 3), a=lambda: L(6, 8), b=lambda: L(8, 4)),
    "functional beside the layer": of(lambda m, x: m.b(m.a(x).relu() + f.linear(x, m.a.weight)), a=lambda: L(6, 8), b=lambda: L(8, 4)),
    "called by keyword": of(lambda m, x: m.b(m.a(input=x).relu()), a=lambda: L(6, 8), b=lambda: L(8, 4)),
    "detached branch": of(lambda m, x: m.b(m.a(x).relu() + m.c(x).detach()), a=lambda: L(6, 8), c=lambda: L(6, 8), b=lambda: L(8, 4)),
    "residual": of(lambda m, x: m.b(x + m.a(x).relu()), a=lambda: L(6, 6), b=lambda: L(6, 4)),
    "layer norm": lambda: S(L(6, 8), nn.LayerNorm(8), nn.ReLU(), L(8, 4)),
    "layer norm without weights": lambda: S(L(6, 8), nn.LayerNorm(8, elementwise_affine=False), L(8, 4)),
    "group norm on a table": lambda: S(L(6, 8), nn.GroupNorm(2, 8), L(8, 4)),
    "root mean square norm": lambda: S(L(6, 8), nn.RMSNorm(8), nn.ReLU(), L(8, 4)),
    "prelu": lambda: S(L(6, 8), nn.PReLU(), L(8, 4)),
    "bilinear": of(lambda m, x: m.b(m.a(x[:, :3], x[:, 3:]).relu()), a=lambda: nn.Bilinear(3, 3, 8), b=lambda: L(8, 4)),
    "checkpointed": of(lambda m, x: m.b(checkpoint(m.a, x, use_reentrant=False).relu()), a=lambda: L(6, 8), b=lambda: L(8, 4)),
    "experts": of(
        lambda m, x: m.b(torch.where((x[:, :1] > 0), m.a(x), m.c(x)).tanh()), a=lambda: L(6, 8), c=lambda: L(6, 8), b=lambda: L(8, 4)
    ),
    "experts by index": of(
        lambda m, x: m.b(
            torch.zeros(len(x), 8)
            .index_add(0, (x[:, 0] > 0).nonzero()[:, 0], m.a(x[x[:, 0] > 0]))
            .index_add(0, (x[:, 0] <= 0).nonzero()[:, 0], m.c(x[x[:, 0] <= 0]))
        ),
        a=lambda: L(6, 8),
        c=lambda: L(6, 8),
        b=lambda: L(8, 4),
    ),
    "flipped and back": of(lambda m, x: m.b(m.a(x.flip(0)).relu().flip(0)), a=lambda: L(6, 8), b=lambda: L(8, 4)),
    "sorted and back": of(
        lambda m, x: m.b(m.a(x[x[:, 0].argsort()]).relu()[x[:, 0].argsort().argsort()]), a=lambda: L(6, 8), b=lambda: L(8, 4)
    ),
    "one by one": of(lambda m, x: m.b(torch.stack([m.a(row) for row in x]).relu()), a=lambda: L(6, 8), b=lambda: L(8, 4)),
    "no dropout": lambda: S(L(6, 8), nn.Dropout(0.0), nn.ReLU(), L(8, 4)),
    "logarithm of amounts": of(lambda m, x: m.b(torch.log(1 + x)), b=lambda: L(6, 4)),
    "square root of amounts": of(lambda m, x: m.b(torch.sqrt(x + 0.01)), b=lambda: L(6, 4)),
}  # fmt: skip

# -- pictures


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return self._conv_forward(x, w, self.bias)


class PreActivated(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.relu())


def seen(*layers: nn.Module) -> Build:
    """Convolutions, pooled to 2 x 2 and classified."""

    def build() -> nn.Module:
        made = copy.deepcopy(S(*layers))
        for value in made.parameters():
            value.data = torch.randn(value.shape) * 0.3
        with torch.no_grad():
            width = made(torch.zeros(1, 3, 8, 8)).shape[1]
        return S(made, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), L(4 * width, 4))

    return build


def convolution(**how: object) -> Build:
    return seen(nn.Conv2d(3, 6, 3, **how))  # type: ignore[arg-type]


PICTURES: dict[str, Build] = {
    "convolution": convolution(padding=1),
    "grouped": convolution(groups=3),
    "depthwise": seen(nn.Conv2d(3, 3, 3, groups=3)),
    "dilated": convolution(dilation=2),
    "strided": convolution(stride=2, bias=False),
    "padding same": convolution(padding="same"),
    "padding valid": convolution(padding="valid"),
    **{f"padding {mode}": convolution(padding=1, padding_mode=mode) for mode in ("reflect", "replicate", "circular")},
    "kernel not square": seen(nn.Conv2d(3, 5, (1, 3), padding=(0, 1))),
    "transposed": seen(nn.ConvTranspose2d(3, 5, 2)),
    "two convolutions": seen(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.GroupNorm(4, 8), nn.Conv2d(8, 6, 2)),
    "weight standardised": seen(Standardised(3, 6, 3)),
    "preactivated": seen(PreActivated(3, 6, 3)),
    "frozen convolution": seen(frozen(nn.Conv2d(3, 6, 3)), nn.Conv2d(6, 4, 2)),
    "convolution norm": seen(parametrizations.weight_norm(nn.Conv2d(3, 6, 3))),
    "instance norm": seen(nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6, affine=True)),
    "local response": seen(nn.Conv2d(3, 6, 3), nn.LocalResponseNorm(2)),
    "layer norm over pictures": seen(nn.LayerNorm((8, 8)), nn.Conv2d(3, 6, 3)),
    "convolution of one dimension": lambda: S(nn.Flatten(2), nn.Conv1d(3, 4, 5, padding=2, padding_mode="circular"), nn.ReLU(), nn.Flatten(), L(256, 4)),
    "convolution of three dimensions": lambda: S(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 3, 2), nn.ReLU(), nn.Flatten(), L(3 * 2 * 49, 4)),
    "functional convolution": of(lambda m, x: m.b(f.conv2d(x, m.w).flatten(1)), w=lambda: P(torch.randn(2, 3, 3, 3)), b=lambda: L(72, 4)),
    "patches in the batch": of(
        lambda m, x: m.b(m.a(x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 48)).view(len(x), -1)),
        a=lambda: L(48, 3),
        b=lambda: L(12, 4),
    ),
}  # fmt: skip

# -- words


def tokens(x: Tensor) -> Tensor:
    return x.long()


WORDS: dict[str, Build] = {
    "embedding": of(lambda m, x: m.b(m.e(tokens(x)).mean(1)), e=lambda: nn.Embedding(11, 6), b=lambda: L(6, 4)),
    "padding word": of(lambda m, x: m.b(m.e(tokens(x)).mean(1)), e=lambda: nn.Embedding(11, 6, padding_idx=0), b=lambda: L(6, 4)),
    "frozen embedding": of(lambda m, x: m.b(m.e(tokens(x)).mean(1)), e=lambda: frozen(nn.Embedding(11, 6)), b=lambda: L(6, 4)),
    "bag of words": of(lambda m, x: m.b(m.e(tokens(x))), e=lambda: nn.EmbeddingBag(11, 6, mode="mean"), b=lambda: L(6, 4)),
    "sum of words": of(lambda m, x: m.b(m.e(tokens(x))), e=lambda: nn.EmbeddingBag(11, 6, mode="sum"), b=lambda: L(6, 4)),
    "places": of(
        lambda m, x: m.b((m.e(tokens(x)) + m.p(torch.arange(5)[None])).tanh().mean(1)),
        e=lambda: nn.Embedding(11, 6),
        p=lambda: nn.Embedding(5, 6),
        b=lambda: L(6, 4),
    ),
    "codes": of(lambda m, x: m.b(f.one_hot(tokens(x), 11).float().flatten(1)), b=lambda: L(55, 4)),
    "words to gated units": of(lambda m, x: m.b(m.g(m.e(tokens(x)))[0][:, -1]), e=lambda: nn.Embedding(11, 6), g=lambda: nn.GRU(6, 8, batch_first=True), b=lambda: L(8, 4)),
}  # fmt: skip

# -- sequences


def recurrent(kind: Callable[..., nn.Module], width: int = 8, **how: object) -> Build:
    return of(
        lambda m, x: m.b(m.r(steps(x))[0][:, -1]), r=lambda: kind(3, 8, batch_first=True, **how), b=lambda: L(width, 4)
    )


def time_first(kind: Callable[..., nn.Module]) -> Build:
    return of(lambda m, x: m.b(m.r(steps(x).transpose(0, 1))[0][-1]), r=lambda: kind(3, 8), b=lambda: L(8, 4))


def cells(m: Of, x: Tensor) -> Tensor:
    state = torch.zeros(len(x), 8)
    for step in steps(x).unbind(1):
        state = m.r(step, state)
    out: Tensor = m.b(state)
    return out


def packed(m: Of, x: Tensor) -> Tensor:
    """As many steps as the first number says, the longest first inside."""
    lengths = (x[:, 0].abs() * 10).long() % 4 + 1
    rows = nn.utils.rnn.pack_padded_sequence(steps(x), lengths, batch_first=True, enforce_sorted=False)
    out: Tensor = m.b(m.r(rows)[1][0][-1])
    return out


def attended(m: Of, x: Tensor) -> Tensor:
    z = m.p(steps(x))
    out: Tensor = m.b(m.a(z, z, z)[0].mean(1))
    return out


def by_hand(m: Of, x: Tensor) -> Tensor:
    z = m.p(steps(x))
    out: Tensor = m.b(((z @ z.transpose(1, 2) / 3).softmax(2) @ z).mean(1))
    return out


def transformer(**how: object) -> Build:
    return of(
        lambda m, x: m.b(m.t(m.p(steps(x))).mean(1)),
        p=lambda: L(3, 8),
        t=lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, **how),  # type: ignore[arg-type]
        b=lambda: L(8, 4),
    )


SEQUENCES: dict[str, Build] = {
    **{kind.__name__: recurrent(kind) for kind in (nn.RNN, nn.GRU, nn.LSTM, DPRNN, DPGRU, DPLSTM)},
    **{f"{kind.__name__}, time first": time_first(kind) for kind in (nn.GRU, nn.LSTM)},
    "two layers": recurrent(nn.GRU, num_layers=2),
    "both ways": recurrent(nn.LSTM, 16, bidirectional=True),
    "private, both ways": recurrent(DPLSTM, 16, bidirectional=True),
    "cells": of(cells, r=lambda: nn.RNNCell(3, 8), b=lambda: L(8, 4)),
    "gated cells": of(cells, r=lambda: nn.GRUCell(3, 8), b=lambda: L(8, 4)),
    "packed": of(packed, r=lambda: DPLSTM(3, 8, batch_first=True), b=lambda: L(8, 4)),
    "attention": of(attended, p=lambda: L(3, 8), a=lambda: nn.MultiheadAttention(8, 2, batch_first=True), b=lambda: L(8, 4)),
    "private attention": of(attended, p=lambda: L(3, 8), a=lambda: DPMultiheadAttention(8, 2, batch_first=True), b=lambda: L(8, 4)),
    "attention by hand": of(by_hand, p=lambda: L(3, 8), b=lambda: L(8, 4)),
    "transformer": transformer(),
    "transformer, norm first": transformer(norm_first=True),
    "folded into the batch": of(lambda m, x: m.b(m.a(x.reshape(-1, 3)).relu().view(len(x), 4, 8).mean(1)), a=lambda: L(3, 8), b=lambda: L(8, 4)),
    "time first": of(lambda m, x: m.b(m.a(steps(x).transpose(0, 1)).relu().mean(0)), a=lambda: L(3, 8), b=lambda: L(8, 4)),
    "places of the batch": of(
        lambda m, x: m.b((m.a(steps(x)) + m.p(torch.arange(4)[None])).relu().mean(1)), a=lambda: L(3, 8), p=lambda: nn.Embedding(4, 8), b=lambda: L(8, 4)
    ),
    "on each step": lambda: S(nn.Unflatten(1, (4, 3)), L(3, 4), nn.ReLU(), nn.Flatten(), L(16, 4)),
}  # fmt: skip

APART: dict[str, tuple[Build, tuple[int, ...]]] = {
    **{f"table: {name}": (build, (6,)) for name, build in TABLES.items()},
    **{f"picture: {name}": (build, (3, 8, 8)) for name, build in PICTURES.items()},
    **{f"words: {name}": (build, (5,)) for name, build in WORDS.items()},
    **{f"sequence: {name}": (build, (12,)) for name, build in SEQUENCES.items()},
}

# -- what must be refused


class Sums(nn.Module):
    """Keeps sums of what it saw, as a buffer or as an attribute, and uses them later."""

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.a, self.b, self.turn = L(6, 8), L(8, 4), 0
        if buffer:
            self.register_buffer("total", torch.zeros(6))
        else:
            self.total = torch.zeros(6)

    def forward(self, x: Tensor) -> Tensor:
        self.turn += 1
        self.total = self.total + x.detach().mean(0)
        out: Tensor = self.b(self.a(x + (self.total if self.turn > 20 else 0)))
        return out


class Own(nn.Module):
    """A source of random numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self._source = L(6, 4), torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.a(x + 0.1 * torch.randn(x.shape, generator=self._source))
        return out


def writes(m: Of, x: Tensor) -> Tensor:
    x += 1
    out: Tensor = m.b(x)
    return out


def table_of(run: Callable[[Of, Tensor], Tensor]) -> Build:
    return of(run, a=lambda: L(6, 8), b=lambda: L(8, 4))


MEETING: dict[str, tuple[Build, tuple[int, ...], str]] = {
    "batch mean": (table_of(lambda m, x: m.b(m.a(x - x.mean(0)).relu())), (6,), "meet"),
    "batch maximum": (table_of(lambda m, x: m.b(m.a(x / x.abs().max()).relu())), (6,), "meet"),
    "batch deviation inside": (table_of(lambda m, x: m.b(f.normalize(m.a(x), dim=0))), (6,), "meet"),
    "attention over records": (table_of(lambda m, x: m.b((m.a(x) @ m.a(x).T).softmax(1) @ m.a(x))), (6,), "meet"),
    "the last record added": (table_of(lambda m, x: m.b(m.a(x) + m.a(x)[-1:])), (6,), "meet"),
    "divided by how many": (table_of(lambda m, x: m.b(m.a(x) / len(x))), (6,), "meet"),
    "another way from four on": (table_of(lambda m, x: m.b(m.a(x) if len(x) < 4 else m.a(x).relu())), (6,), "meet"),
    "rows in another order": (table_of(lambda m, x: m.b(m.a(x).relu()).flip(0)), (6,), "meet"),
    "packed in order of length": (
        of(lambda m, x: m.b(m.r(steps(x[x[:, 0].argsort()]))[0][:, -1]), r=lambda: nn.GRU(3, 8, batch_first=True), b=lambda: L(8, 4)),
        (12,),
        "meet",
    ),
    "gated units that take records for steps": (
        of(lambda m, x: m.b(m.r(steps(x))[0][:, -1]), r=lambda: nn.GRU(3, 8), b=lambda: L(8, 4)),
        (12,),
        "meet",
    ),
    "dropout": (lambda: S(L(6, 8), nn.Dropout(0.5), L(8, 4)), (6,), "random numbers"),
    "functional dropout": (table_of(lambda m, x: m.b(f.dropout(m.a(x), 0.5, m.training))), (6,), "random numbers"),
    "dropout between steps": (recurrent(nn.GRU, num_layers=2, dropout=0.3), (12,), "random numbers"),
    "a source of its own": (Own, (6,), "another thing"),
    "spectral norm": (lambda: S(parametrizations.spectral_norm(L(6, 8)), L(8, 4)), (6,), "writes"),
    "words held back": (of(lambda m, x: m.b(m.e(tokens(x)).mean(1)), e=lambda: nn.Embedding(11, 6, max_norm=1.0), b=lambda: L(6, 4)), (5,), "writes"),
    "sums used later": (lambda: Sums(True), (6,), "writes"),
    "sums used later, as an attribute": (lambda: Sums(False), (6,), "writes"),
    "a counter": (table_of(lambda m, x: setattr(m, "n", getattr(m, "n", 0) + 1) or m.b(m.a(x))), (6,), "writes"),  # type: ignore[func-returns-value]
    "writes its records": (of(writes, b=lambda: L(6, 4)), (6,), "copy them"),
}  # fmt: skip
