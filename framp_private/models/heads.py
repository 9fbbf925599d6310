"""How a hypernetwork's trunk becomes a vector as long as the target network; every head starts at exactly zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from framp_private.randomness import Streams


class FullHead(nn.Linear):
    """One linear map (n, hidden) -> (n, n_target): hidden x n_target parameters, the most expressive."""

    def __init__(self, hidden: int, n_target: int) -> None:
        super().__init__(hidden, n_target, bias=False)
        nn.init.zeros_(self.weight)


class ChunkedHead(nn.Module):
    """One small generator for all chunks of the target, told apart by learned embeddings (Ha et al., arXiv 1609.09106).

    About hidden x (chunk + hidden) + n_target / chunk x hidden parameters.
    """

    def __init__(self, hidden: int, n_target: int, chunk: int) -> None:
        super().__init__()
        self._n_target = n_target
        self.embedding = nn.Parameter(torch.randn(-(-n_target // chunk), hidden))
        self.mix = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, chunk, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, trunk: Tensor) -> Tensor:
        hidden = torch.relu(self.mix(trunk)[:, None, :] + self.embedding)
        generated: Tensor = self.out(hidden).flatten(1)[:, : self._n_target]
        return generated


class LowRankHead(nn.Module):
    """Coefficients of `rank` fixed directions, drawn once from a seed and never sent; hidden x rank parameters."""

    directions: Tensor

    def __init__(self, hidden: int, n_target: int, rank: int) -> None:
        super().__init__()
        self.coefficients = nn.Linear(hidden, rank, bias=False)
        nn.init.zeros_(self.coefficients.weight)
        fixed = torch.randn(rank, n_target, generator=Streams(0).child("directions").torch()) / rank**0.5
        self.register_buffer("directions", fixed, persistent=False)

    def forward(self, trunk: Tensor) -> Tensor:
        generated: Tensor = self.coefficients(trunk) @ self.directions
        return generated


class AttentionHead(nn.Module):
    """Chunk tokens and the client's token attend to each other (arXiv 1706.03762): one layer, four heads."""

    def __init__(self, inputs: int, width: int, n_target: int, chunk: int) -> None:
        super().__init__()
        self._n_target = n_target
        self.client = nn.Linear(inputs, width)
        self.embedding = nn.Parameter(torch.randn(-(-n_target // chunk), width))
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.out = nn.Linear(width, chunk, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, conditions: Tensor) -> Tensor:
        client = self.client(conditions)[:, None, :]
        tokens = torch.cat([client, self.embedding.expand(len(conditions), -1, -1)], 1)
        generated: Tensor = self.out(self.layer(tokens)[:, 1:]).flatten(1)[:, : self._n_target]
        return generated
