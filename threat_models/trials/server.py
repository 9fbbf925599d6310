"""Trials of an honest server: what uploads say of records, labels and clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from threat_models import metrics
from threat_models.attacks import hypernetwork, labels, linkage, prototypes, updates
from threat_models.attacks.models import logits_and_features
from threat_models.errors import NotInView, NotResolvable
from threat_models.metrics import Estimate
from threat_models.results import Result, judged, unseen
from threat_models.trials.subject import FIRST, LAST, Subject, pooled, shares
from threat_models.view import Update

LEAST_REFERENCE = 20
"""Records of other clients' test sets from which representations of a class are whitened."""


TRACED = 4
"""Whitened directions that tracing uses: of small references more cannot be estimated."""


def membership_from_updates(subject: Subject) -> Iterator[Result]:
    """A1, twice: cosine with each record's gradient, and FedMIA's z-scores over other clients."""
    ceiling = subject.ceiling(["update", "prototypes"] if subject.facts.aligns else ["update"], server=True)
    cosines: dict[str, np.ndarray] = {}
    members: dict[str, np.ndarray] = {}
    labels_of: dict[str, np.ndarray] = {}
    for name, data in subject.dataset.clients.items():
        x, y, members[name] = subject.candidates(data)
        labels_of[name] = y.numpy()
        own = [update for update in subject.updates if update.client == name]
        if not own:
            continue
        cosines[name] = np.sum([updates.alignment(subject.facts.network, each, x, y) for each in _few(own)], 0)
    if not cosines:
        raise NotInView("no client's update was seen")
    view, asset = subject.server, "record membership"
    yield pooled("A1", view, asset, cosines, members, ceiling.auc, "gradient cosine, summed", labels_of)
    fed = {}
    for name, data in subject.dataset.clients.items():
        x, y, _ = subject.candidates(data)
        fed[name] = updates.fed_mia(_signals(subject, x, y), name)
    yield pooled("A1", view, asset, fed, members, ceiling.auc, "FedMIA over rounds", labels_of)


def _few(rounds: Sequence[Update], most: int = FIRST) -> Sequence[Update]:
    """Some rounds out of many: the first ones, in which a record's gradient is largest."""
    return rounds[:most]


def _signals(subject: Subject, x: Tensor, y: Tensor, most: int = LAST) -> list[dict[str, np.ndarray]]:
    """Confidences in some records under every client's trained model, for the last rounds."""
    rounds = sorted({update.round_index for update in subject.updates})[-most:]
    return [
        {u.client: updates.confidences(subject.facts.network, u, x, y) for u in subject.updates if u.round_index == t}
        for t in rounds
    ]


def tracing(subject: Subject) -> Iterator[Result]:
    """A2: first uploads, whitened on other clients' test records of the class, under the client's own weights.

    The first ones, because alignment draws the representations of a class together and hides its members from this
    attack. The AUC is the mean over clients and classes, each with the weight of its pairs: what the formula is for.
    """
    found, formula, counted, clients, worth = [], [], [], [], []
    for name, (sums, update) in subject.uploads(first=True).items():
        x, y, member = subject.candidates(subject.dataset.clients[name])
        h, other = (_representations(subject, update, rows) for rows in (x, subject.others_test(name)[0]))
        other_y = subject.others_test(name)[1].numpy()
        for label in np.unique(y.numpy()):
            reference, own = other[other_y == label], y.numpy() == label
            inside, outside = int(member[own].sum()), int((~member[own]).sum())
            if len(reference) < LEAST_REFERENCE or sums.counts[label] < 1 or not inside or not outside:
                continue
            whitening = prototypes.Whitening.of(reference, TRACED)
            found.append(metrics.auc(prototypes.trace(sums.means[label], h[own], whitening), member[own]))
            formula.append(prototypes.tracing_auc(len(whitening.matrix), inside))
            counted.append(inside * outside)
            worth.append(min(inside, outside))
            clients.append(name)
    if not found:
        raise NotResolvable("no class has members, non-members and enough reference records")
    share = np.array(counted) / sum(counted)
    mean = float(share @ [each.value for each in found])
    trials = float(1 / np.sum(share**2 / np.array(worth)))  # independent comparisons that the mean is worth

    def limits(alpha: float) -> tuple[float, float]:
        return metrics.exact_limits(mean, trials, alpha)

    by_client = {
        name: float(
            np.average(
                [f.value for f, c in zip(found, clients, strict=True) if c == name],
                weights=[w for w, c in zip(counted, clients, strict=True) if c == name],
            )
        )
        for name in dict.fromkeys(clients)
    }
    worst = max(by_client, key=lambda name: by_client[name])
    yield judged(
        "A2",
        subject.server.adversary.name,
        "record membership",
        "AUC",
        Estimate(mean, *limits(0.05), limits),
        baseline=0.5,
        ceiling=subject.ceiling(["prototypes", "update"], server=True).auc,
        worst={"client": worst, "auc": by_client[worst]},
        words=f"formula without noise {share @ formula:.3f}",
    )


def _representations(subject: Subject, update: Update, x: Tensor) -> np.ndarray:
    return np.asarray(logits_and_features(subject.facts.network, update.trained, x)[1].double().numpy())


def single_record_classes(subject: Subject) -> Iterator[Result]:
    """A3: classes of one record upload its representation; cosine with the truth, and top-1 among records of the class.

    The adversary is told which classes have one record, and the gallery is of one class and drawn alike: chance is one
    of its size, whatever the upload's selection of classes would have said.
    """
    view, cosines, sizes = subject.server.adversary.name, list[float](), list[int]()
    hits: list[bool] = []
    for name, (sums, update) in subject.uploads(first=False).items():
        data = subject.dataset.clients[name]
        truth = data.class_counts(subject.facts.network.n_classes).numpy()
        other, other_y = subject.others_test(name)
        for label in np.flatnonzero(truth == 1):
            found = prototypes.single_records(sums).get(int(label), sums.sums[label])
            record = next(int(row) for row in data.train if data.y[row] == label)
            rows = torch.cat([other[other_y == label][: GALLERY - 1], data.x[record][None]])
            if len(rows) < 2:
                continue
            gallery = _representations(subject, update, rows)
            sizes.append(len(rows))
            scores = -np.asarray(prototypes.nearest(found, gallery), float)
            hits.append(int(metrics.least(scores[:, None], seed=len(hits))[0]) == len(rows) - 1)
            own = gallery[-1]
            cosines.append(float(found @ own / max(np.linalg.norm(found) * np.linalg.norm(own), 1e-30)))
    if not hits:
        yield unseen("A3", view, "single record", "top-1", "no class has one record, or others have none of it")
        return
    prior = float(np.mean(1 / np.array(sizes)))
    found_share = metrics.exact_match(np.array(hits), np.ones(len(hits), bool))
    words = f"{len(hits)} classes of one; least cosine with the record {min(cosines):.6f}"
    ceiling = subject.identification(["prototypes", "update"], prior)
    yield judged("A3", view, "single record", "top-1", found_share, baseline=prior, ceiling=ceiling, words=words)


GALLERY = 50
"""Candidates for a single record, at most."""


def label_counts(subject: Subject) -> Iterator[Result]:
    """A5: one minus the total variation between guessed and true class shares, mean over clients."""
    last = {each.client: each for each in subject.class_sums}
    truth = {name: shares(subject, name) for name in last}
    overall = np.mean(list(truth.values()), 0)
    found = np.array([1 - metrics.total_variation(labels.from_counts(last[name]), truth[name]) for name in last])
    blind = float(np.mean([1 - metrics.total_variation(overall, truth[name]) for name in last]))
    estimate = metrics.share(found)
    worst = list(last)[int(found.argmax())]
    yield judged(
        "A5",
        subject.server.adversary.name,
        "label distribution",
        "1 - TV",
        estimate,
        baseline=blind,
        ceiling=None,
        worst={"client": worst, "1 - TV": float(found.max())},
        words="from counts; 1 is exact. A claim on records bounds no mix of them",
    )


def hypernetwork_leak(subject: Subject) -> Iterator[Result]:
    """A7: whether a contribution that was pulled back through the generator still shows the client's update.

    It does wherever it is seen singly, because theta_0 has the identity for a derivative; that the difference is zero
    to the last bit is held against the other pullback in the tests, since the truth never left the client here.
    """
    view = subject.server
    if subject.facts.pullback.value != "client":
        raise NotInView("the server pulls back itself: it has the update, and no need to look for it")
    norms = np.array([float(hypernetwork.from_bias(update.delta).norm()) for update in subject.updates])
    found = metrics.exact_match(norms > 0, np.ones(len(norms), bool))
    noised = subject.facts.randomised  # then it is the release that the claim is about, and no more than that
    words = f"updates read off {len(norms)} contributions{', as noised at home' if noised else ''}"
    ceiling = 1.0 if noised else None
    yield judged("A7", view.adversary.name, "update", "share shown", found, baseline=0.0, ceiling=ceiling, words=words)


def sources(subject: Subject) -> Iterator[Result]:
    """A9: at which client a record lies, by the least loss of trained models.

    Who holds most of a class is the best guess without looking; so often it is right is what chance means here.
    """
    rounds = max(update.round_index for update in subject.updates)
    last = [update for update in subject.updates if update.round_index == rounds]
    right, names, asked = [], [update.client for update in last], []
    for name in names:
        data = subject.dataset.clients[name]
        rows = data.train[:30]
        asked.append(np.bincount(data.y[rows].numpy(), minlength=subject.facts.network.n_classes))
        guesses = updates.source_by_loss(subject.facts.network, last, data.x[rows], data.y[rows])
        right += [guess == name for guess in guesses]
    prior = float(np.max(asked, 0).sum() / np.sum(asked))
    yield judged(
        "A9",
        subject.server.adversary.name,
        "source of a record",
        "accuracy",
        metrics.exact_match(np.array(right), np.ones(len(right), bool)),
        baseline=prior,
        ceiling=subject.identification(["update", "prototypes"], prior),
        words=f"least loss, {len(names)} clients; chance is to guess who holds most of the class",
    )


def reidentified(subject: Subject) -> Iterator[Result]:
    """A10: the last round's uploads matched with those of the round before."""
    view = subject.server.adversary.name
    by_round: dict[int, dict[str, np.ndarray]] = {}
    for update in subject.updates:
        by_round.setdefault(update.round_index, {})[update.client] = update.delta.double().numpy()
    if len(by_round) < 2:
        raise NotResolvable("one round alone was seen")
    before, after = (by_round[t] for t in sorted(by_round)[-2:])
    both = [name for name in before if name in after]
    if len(both) < 2:
        raise NotResolvable(
            f"the last two rounds have {len(both)} clients in common: nobody can be mistaken for another"
        )
    guesses = linkage.rematch(np.array([before[n] for n in both]), np.array([after[n] for n in both]))
    estimate = metrics.exact_match(guesses, np.arange(len(both)))
    words = f"anonymity set of {len(both)}; pseudonyms would hide nobody if this is near 1"
    yield judged("A10", view, "client identity", "top-1", estimate, baseline=1 / len(both), ceiling=None, words=words)


def side_channels(subject: Subject) -> Iterator[Result]:
    """A12: sizes of replies against what a client holds; and which rows of class sums are empty."""
    view, sizes = subject.server.adversary.name, subject.server.sizes()
    clients = [name for name in subject.dataset.clients if name in sizes]
    budgets = np.array([subject.facts.budgets[name] for name in clients])  # a size may follow the public budget
    total = np.array([sum(sizes[name]) for name in clients])
    held = {
        "classes held, by size": np.array([(shares(subject, name) > 0).sum() for name in clients]),
        "records held, by size": np.array([subject.dataset.clients[name].n_train for name in clients]),
    }
    for asset, hidden in held.items():
        try:
            correlation, p = linkage.size_leak(total, hidden, budgets)
        except NotResolvable as error:
            yield unseen("A12", view, asset, "rank corr.", str(error))
            continue
        shown = correlation if p < 0.01 else 0.0
        words = f"bytes of all replies among equal budgets: {correlation:.3f}, p {p:.3f}"
        estimate = Estimate(shown, shown, shown)
        yield judged("A12", view, asset, "rank corr.", estimate, baseline=0.0, ceiling=None, words=words)
    try:
        last = {each.client: each for each in subject.class_sums}
    except NotInView as error:
        yield unseen("A12", view, "classes held, by rows", "accuracy", str(error))
        return
    right = np.concatenate([labels.held_classes(last[name]) == (shares(subject, name) > 0) for name in last])
    everywhere = np.concatenate([shares(subject, name) > 0 for name in last])
    chance = float(max(everywhere.mean(), 1 - everywhere.mean()))
    found = metrics.exact_match(right, np.ones(len(right), bool))
    yield judged(
        "A12",
        view,
        "classes held, by rows",
        "accuracy",
        found,
        baseline=chance,
        ceiling=None,
        words="rows that are not zero",
    )
