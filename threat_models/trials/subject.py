"""What is audited, and how scores of many clients become one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from framp_private import ClientData, FederatedDataset, Federation
from threat_models import metrics
from threat_models.adversaries import CuriousClient, ExternalUser, HonestServer
from threat_models.errors import NotInView
from threat_models.results import Result, judged
from threat_models.view import ClassSums, Log, Update, View


@dataclass(frozen=True, eq=False)
class Subject:
    """What is audited: public facts, the truth, the log, and the models that were released."""

    facts: Federation
    dataset: FederatedDataset
    log: Log
    released: Mapping[str, np.ndarray]

    @cached_property
    def server(self) -> View:
        """What an honest server saw."""
        return View.of(HonestServer(), self.facts, self.log, self.released)

    @cached_property
    def external(self) -> View:
        """What an external user got."""
        return View.of(ExternalUser(), self.facts, self.log, self.released)

    @cached_property
    def curious(self) -> View:
        """What the first client saw."""
        return View.of(CuriousClient(next(iter(self.dataset.clients))), self.facts, self.log, self.released)

    @cached_property
    def updates(self) -> list[Update]:
        """Seen by the server."""
        return list(self.server.updates())

    @cached_property
    def class_sums(self) -> list[ClassSums]:
        """Seen by the server."""
        found = list(self.server.class_sums())
        if not found:
            raise NotInView("no prototypes are exchanged")
        return found

    @property
    def graph(self) -> bool:
        """Whether records are nodes: attacks on single records do not know the graph."""
        return next(iter(self.dataset.clients.values())).edge_index is not None

    def candidates(self, data: ClientData) -> tuple[Tensor, Tensor, np.ndarray]:
        """(x, y, member) of a client's training and test records."""
        rows = torch.cat([data.train, data.test])
        return data.x[rows], data.y[rows], np.arange(len(rows)) < len(data.train)

    def others_test(self, client: str) -> tuple[Tensor, Tensor]:
        """Test records of everybody else: auxiliary data that is nobody's member."""
        rest = [data for name, data in self.dataset.clients.items() if name != client]
        return torch.cat([data.x[data.test] for data in rest]), torch.cat([data.y[data.test] for data in rest])


Trial = Callable[[Subject], Iterator[Result]]


def pooled(
    id: str,
    view: View,
    asset: str,
    scores: Mapping[str, np.ndarray],
    members: Mapping[str, np.ndarray],
    ceiling: float | None,
    words: str = "",
) -> Result:
    """AUC over all clients, scores made comparable by each client's own rank, and the worst client beside it."""
    scores_of_all = np.concatenate([standardised(scores[name]) for name in scores])
    truth = np.concatenate([members[name] for name in scores])
    groups = np.repeat(list(scores), [len(scores[name]) for name in scores])
    worst = dict(metrics.worst_group(scores_of_all, truth, groups))
    found = metrics.auc(scores_of_all, truth)
    return judged(
        id,
        view.adversary.name,
        asset,
        "AUC",
        found,
        baseline=0.5,
        ceiling=ceiling,
        worst={"client": worst["group"], "auc": worst["auc"]},
        words=words,
        curve=_thinned(*metrics.roc(scores_of_all, truth)),
        members=int(truth.sum()),
    )


def _thinned(fpr: np.ndarray, tpr: np.ndarray, most: int = 120) -> tuple[tuple[float, float], ...]:
    """At most so many points, dense where the false positive rate is low."""
    wanted = np.r_[0.0, np.geomspace(max(1e-4, 1 / max(2, len(fpr))), 1, most)]
    places = np.unique(np.searchsorted(fpr, wanted, side="right") - 1)
    return tuple((round(float(fpr[i]), 6), round(float(tpr[i]), 6)) for i in places)


def standardised(scores: np.ndarray) -> np.ndarray:
    """Scores of one client in units of their spread, so that clients can be put together."""
    spread = scores.std()
    return np.asarray((scores - scores.mean()) / spread if spread > 0 else scores * 0.0)


def shares(subject: Subject, client: str) -> np.ndarray:
    """(n_classes,) the truth: a client's class shares."""
    counts = subject.dataset.clients[client].class_counts(subject.facts.network.n_classes).numpy()
    return np.asarray(counts / counts.sum())
