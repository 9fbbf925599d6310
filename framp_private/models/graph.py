"""Target networks for graphs: two message-passing layers and a linear classifier on each node.

Inputs are node features, dense (nodes, inputs) or sparse, and `edge_index` (2, edges). Sparse features pass
through a linear embedding first, so that thousands of binary columns never become a dense matrix.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
from torch import Tensor, nn

with warnings.catch_warnings():  # the import itself calls what newer torch deprecates
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric.nn import GCNConv, SAGEConv


class SparseEmbedding(nn.Module):
    """A linear map whose input may be a sparse matrix: x (n, inputs) -> (n, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        nn.init.uniform_(self.weight, -1 / math.sqrt(outputs), 1 / math.sqrt(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(x, self.weight) if x.is_sparse else x @ self.weight


class NodeClassifier(nn.Module):
    """[embedding ->] convolution -> ReLU -> convolution -> ReLU -> linear classifier."""

    def __init__(
        self, kind: Literal["gcn", "sage"], inputs: int, n_classes: int, hidden: int, sparse_input: bool
    ) -> None:
        super().__init__()
        layer = GCNConv if kind == "gcn" else SAGEConv
        self.embedding = SparseEmbedding(inputs, hidden) if sparse_input else None
        self.first = layer(hidden if sparse_input else inputs, hidden)
        self.second = layer(hidden, hidden)
        self.classifier = nn.Linear(hidden, n_classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        hidden = x if self.embedding is None else self.embedding(x)
        hidden = torch.relu(self.first(hidden, edge_index))
        hidden = torch.relu(self.second(hidden, edge_index))
        logits: Tensor = self.classifier(hidden)
        return logits


def gcn(inputs: int, n_classes: int, hidden: int = 128, sparse_input: bool = False) -> nn.Module:
    """Two graph convolutions (Kipf and Welling, arXiv 1609.02907) and a linear classifier."""
    return NodeClassifier("gcn", inputs, n_classes, hidden, sparse_input)


def graph_sage(inputs: int, n_classes: int, hidden: int = 128, sparse_input: bool = False) -> nn.Module:
    """Two mean-aggregating SAGE layers (Hamilton et al., arXiv 1706.02216) and a linear classifier."""
    return NodeClassifier("sage", inputs, n_classes, hidden, sparse_input)
