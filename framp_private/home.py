"""The `local` baseline: every client trains its own submodel at home, and nothing leaves it."""

from __future__ import annotations

from torch import Tensor

from framp_private.data.base import ClientData, FederatedDataset
from framp_private.evaluation import Model
from framp_private.federated.federation import Federation
from framp_private.federated.server import sample_cohort


class HomeTraining:
    """All clients' own weights; a step trains each for one round's worth of local steps."""

    def __init__(self, federation: Federation, dataset: FederatedDataset) -> None:
        self._federation, self._dataset = federation, dataset
        self._masks = {
            budget: federation.mask(federation.theta_0, budget, None) for budget in set(federation.budgets.values())
        }
        self.weights = {name: federation.theta_0 * self._mask(name) for name in dataset.clients}

    def step(self, round_index: int) -> None:
        """One round for the clients that a federation would ask in it, so that all methods take equal steps."""
        federation = self._federation
        for name in sample_cohort(federation, round_index):
            data = self._dataset.clients[name]
            streams = federation.streams.child("local", name, round_index)
            self.weights[name] = federation.trainer.train(
                federation.network,
                self.weights[name],
                self._mask(name),
                data,
                None,
                streams,
                federation.progress(round_index),
            )

    def __call__(self, name: str, data: ClientData, budget: float) -> Model:
        """The client's own model."""
        del data, budget
        return Model(self.weights[name], self._mask(name))

    def _mask(self, name: str) -> Tensor:
        return self._masks[self._federation.budgets[name]]
