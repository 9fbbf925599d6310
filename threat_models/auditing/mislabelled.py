"""Black-box canaries (F4): records with false labels, in or out by a fair coin, that only membership explains.

They are appended to the training records of clients, after the split into training, validation and test: no test set
holds one. What the released model says of their false labels is the score.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch

from framp_private import FederatedDataset, TargetNetwork
from threat_models.attacks.models import confidence, logits_and_features
from threat_models.errors import AuditError


@dataclass(frozen=True, eq=False)
class Mislabelled:
    """dataset: with the canaries that are in. x, y: all canaries. owners: (m,) client of each. coins: (m,) bool."""

    dataset: FederatedDataset
    x: torch.Tensor
    y: torch.Tensor
    owners: tuple[str, ...]
    coins: np.ndarray

    @property
    def digest(self) -> str:
        """SHA-256 over the canaries, not over their coins."""
        found = hashlib.sha256(repr(self.owners).encode())
        for part in (self.x, self.y):
            found.update(part.contiguous().numpy().tobytes())
        return found.hexdigest()

    def scores(self, network: TargetNetwork, released: dict[str, np.ndarray]) -> np.ndarray:
        """(m,) confidence of each owner's released model in the false label."""
        found = np.zeros(len(self.owners))
        for name in set(self.owners):
            rows = [place for place, owner in enumerate(self.owners) if owner == name]
            weights = torch.from_numpy(released[name].copy())
            found[rows] = confidence(logits_and_features(network, weights, self.x[rows])[0], self.y[rows])
        return found


def mislabel(dataset: FederatedDataset, count: int, *, seed: int) -> Mislabelled:
    """`count` canaries, spread over the clients: copies of test records with another class's label and a little noise.

    Raises:
        AuditError: graphs, whose records are not alone; or fewer canaries than clients can share.
    """
    if next(iter(dataset.clients.values())).edge_index is not None:
        raise AuditError("a node cannot be appended to a graph: canaries are for records without edges")
    rng = np.random.default_rng(seed)
    coins = rng.random(count) < 0.5
    clients, xs, ys, owners, at = {}, [], [], [], 0
    for place, (name, data) in enumerate(dataset.clients.items()):
        share = count // len(dataset.clients) + (place < count % len(dataset.clients))
        picked = data.test[torch.from_numpy(rng.integers(0, len(data.test), share))]
        x = data.x[picked] + 0.05 * torch.from_numpy(rng.standard_normal(data.x[picked].shape)).float()
        shift = torch.from_numpy(rng.integers(1, dataset.schema.n_classes, share))
        y = (data.y[picked] + shift) % dataset.schema.n_classes
        inside = torch.from_numpy(coins[at : at + share].copy())
        new = torch.arange(int(inside.sum())) + len(data.y)
        clients[name] = replace(
            data, x=torch.cat([data.x, x[inside]]), y=torch.cat([data.y, y[inside]]), train=torch.cat([data.train, new])
        )
        xs.append(x)
        ys.append(y)
        owners += [name] * share
        at += share
    made = FederatedDataset(dataset.name, dataset.schema, clients, dataset.unseen)
    return Mislabelled(made, torch.cat(xs), torch.cat(ys), tuple(owners), coins)
