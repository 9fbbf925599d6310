"""What is audited, and how scores of many clients become one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from framp_private import ClientData, FederatedDataset, Federation
from threat_models import metrics
from threat_models.adversaries import CuriousClient, ExternalUser, HonestServer
from threat_models.ceilings import NO_CEILING, Ceiling, record_ceiling
from threat_models.errors import NotInView, NotResolvable
from threat_models.results import Result, judged
from threat_models.view import ClassSums, Log, Update, View


@dataclass(frozen=True)
class References:
    """count: reference models for each client, 0 for none. cache: a folder where they are kept. on_done: progress."""

    count: int = 0
    cache: Path | None = None
    on_done: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True, eq=False)
class Subject:
    """What is audited: public facts, the truth, the log, and the models that were released.

    natural: whether clients are sites of their own, whose records differ by more than their mix of classes.
    references: how many models the auditor trains itself, to hold released ones against. accuracy: the run's own, local
    mean, where it is known. folder: the run's, where it has one.
    """

    facts: Federation
    dataset: FederatedDataset
    log: Log
    released: Mapping[str, np.ndarray]
    natural: bool = False
    references: References = References()
    accuracy: float | None = None
    folder: Path | None = None

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

    def view_of(self, adversary: str) -> View:
        """The view of an adversary by its name."""
        views = (self.server, self.external, self.curious)
        return next(view for view in views if view.adversary.name == adversary)

    @cached_property
    def updates(self) -> list[Update]:
        """Seen by the server in the first and in the last rounds: a run of hundreds would not fit into memory."""
        return list(self.server.updates(self.rounds))

    @property
    def rounds(self) -> frozenset[int]:
        """The rounds that are looked at."""
        last = self.facts.rounds
        return frozenset({*range(FIRST), *range(last - LAST, last)})

    def uploads(self, first: bool) -> dict[str, tuple[ClassSums, Update]]:
        """client -> class sums and update of one round, its first or its last among those looked at."""
        trained = {(update.client, update.round_index): update for update in self.updates}
        found: dict[str, tuple[ClassSums, Update]] = {}
        for sums in reversed(self.class_sums) if first else self.class_sums:
            if (update := trained.get((sums.client, sums.round_index))) is not None:
                found[sums.client] = (sums, update)
        return found

    @cached_property
    def class_sums(self) -> list[ClassSums]:
        """Seen by the server, in order of rounds."""
        found = list(self.server.class_sums())
        if not found:
            raise NotInView("no prototypes are exchanged")
        return found

    @cached_property
    def mix(self) -> float:
        """Mean total variation between the class mixes of clients' training and test records."""
        n, gaps = self.dataset.schema.n_classes, []
        for data in self.dataset.clients.values():
            mixes = [torch.bincount(data.y[rows], minlength=n).double() for rows in (data.train, data.test)]
            gaps.append(float((mixes[0] / mixes[0].sum() - mixes[1] / mixes[1].sum()).abs().sum()) / 2)
        return float(np.mean(gaps))

    @property
    def exchangeable(self) -> bool:
        """Whether test records have the class mix of training records: else a test tells mixes apart, not members."""
        return self.mix <= MIX

    def _trusted(self, channels: Sequence[str]) -> bool:
        """Whether a server adds the noise of some channels itself, and so sees them without it."""
        used = set(channels) & set(self.facts.channels)
        return any(self.facts.plan.protection(channel).noises_total for channel in used)  # type: ignore[arg-type]

    def ceiling(self, channels: Sequence[str], *, server: bool = False) -> Ceiling:
        """What no test of one record's membership may beat; none where non-members differ from members anyhow.

        server: whether the attack is the server's own, from which noise that it adds itself hides nothing.
        """
        bounded = self.exchangeable and not (server and self._trusted(channels))
        found = record_ceiling(self.facts, channels) if bounded else NO_CEILING
        return replace(found, room=self.mix)

    def identification(self, channels: Sequence[str], prior: float) -> float | None:
        """What no guess of a server which record, or whose, may beat that is right so often by chance.

        None where sites differ, or the server adds the noise itself.
        """
        return (
            None
            if self.natural or self._trusted(channels)
            else record_ceiling(self.facts, channels).identification(prior)
        )

    @property
    def graph(self) -> bool:
        """Whether records are nodes: attacks on single records do not know the graph."""
        return next(iter(self.dataset.clients.values())).edge_index is not None

    def candidates(self, data: ClientData) -> tuple[Tensor, Tensor, np.ndarray]:
        """(x, y, member) of a client's training and test records, at most `MOST` of each."""
        inside, outside = _some(data.train, MOST), _some(data.test, MOST)
        rows = torch.cat([inside, outside])
        return data.x[rows], data.y[rows], np.arange(len(rows)) < len(inside)

    def others_test(self, client: str) -> tuple[Tensor, Tensor]:
        """Test records of everybody else, at most `MOST_OTHERS`: auxiliary data that is nobody's member."""
        rest = [data for name, data in self.dataset.clients.items() if name != client]
        if not rest:
            raise NotResolvable("there is one client: nobody else has test records")
        share = max(1, MOST_OTHERS // max(1, len(rest)))
        rows = [_some(data.test, share) for data in rest]
        x = torch.cat([data.x[chosen] for data, chosen in zip(rest, rows, strict=True)])
        return x, torch.cat([data.y[chosen] for data, chosen in zip(rest, rows, strict=True)])


MIX = 0.15
"""Mean total variation of class mixes up to which members and non-members count as drawn alike."""

FIRST, LAST = 5, 3
"""Rounds whose updates are looked at: a record's gradient is largest in the first ones, and a model is best last."""

MOST, MOST_OTHERS = 150, 3000
"""Candidates of a client on each side, and records of others: more would take long and change no figure much."""


def _some(rows: Tensor, most: int) -> Tensor:
    """The same ones each time, spread over all."""
    if len(rows) <= most:
        return rows
    return rows[torch.from_numpy(np.linspace(0, len(rows) - 1, most).astype(int))]


Trial = Callable[[Subject], Iterator[Result]]


def pooled(
    id: str,
    view: View,
    asset: str,
    scores: Mapping[str, np.ndarray],
    members: Mapping[str, np.ndarray],
    ceiling: float | None,
    words: str = "",
    labels: Mapping[str, np.ndarray] | None = None,
) -> Result:
    """AUC over all clients, scores in units of each client's own spread; the worst client and class beside it."""
    together = np.concatenate([standardised(scores[name]) for name in scores])
    truth = np.concatenate([members[name] for name in scores])
    groups = np.repeat(list(scores), [len(scores[name]) for name in scores])
    client = metrics.worst_group(together, truth, groups)
    worst = {"client": client["group"], "auc": client["auc"], **_certain(together, truth)}
    if labels is not None:
        label = metrics.worst_group(together, truth, np.concatenate([labels[name] for name in scores]))
        worst |= {"class": label["group"], "its auc": label["auc"]}
    return judged(
        id,
        view.adversary.name,
        asset,
        "AUC",
        metrics.auc(together, truth),
        baseline=0.5,
        ceiling=ceiling,
        worst=worst,
        words=words,
        curve=_thinned(*metrics.roc(together, truth)),
        members=int(truth.sum()),
    )


def _certain(scores: np.ndarray, members: np.ndarray) -> dict[str, float]:
    """How many members score over every non-member, and how often chance would give so many.

    They are the ones that are told without a mistake: of the person who is exposed most an average says nothing. The
    chance is that of the highest ranks all being members, prod (n1 - i) / (n - i).
    """
    count, inside, total = int((scores[members] > scores[~members].max()).sum()), int(members.sum()), len(members)
    places = np.arange(count)
    return {"told for certain": count, "by chance": round(float(np.prod((inside - places) / (total - places))), 4)}


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
