"""Trials of clients and of users of released models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from threat_models import metrics
from threat_models.attacks import membership, prototypes
from threat_models.attacks.models import confidence, logits_and_features
from threat_models.attacks.on_model import Attack, Model, Records, attacks_on
from threat_models.attacks.shadows import Shadows, fitted, key_of, train_shadows
from threat_models.errors import NotResolvable
from threat_models.results import Result, judged, unseen
from threat_models.trials.subject import Subject, pooled


def present_anywhere(subject: Subject) -> Iterator[Result]:
    """C4: which classes anybody has, from the global prototypes that a client is sent."""
    view = subject.curious
    found = view.global_prototypes()
    present = prototypes.present_classes(found, max(found))
    total = np.sum([d.class_counts(len(present)).numpy() for d in subject.dataset.clients.values()], 0)
    right, chance = metrics.exact_match(present, total > 0), float(max((total > 0).mean(), 0.5))
    name, words = view.adversary.name, "rows of the global prototypes"
    yield judged("C4", name, "class present anywhere", "accuracy", right, baseline=chance, ceiling=None, words=words)


def global_prototypes(subject: Subject) -> Iterator[Result]:
    """C3: membership in the global means, by a client, with the last model that it was given."""
    view = subject.curious
    found = view.global_prototypes()
    last, own = max(found), view.adversary.clients[0]
    weights, _ = view.generated()[own]
    scores, members = {}, {}
    means = found[last][0]
    for name, data in subject.dataset.clients.items():
        if name == own:
            continue
        x, y, members[name] = subject.candidates(data)
        h = logits_and_features(subject.facts.network, weights, x)[1].double().numpy()
        scores[name] = -np.linalg.norm(h - means[y.numpy()], axis=1)
    ceiling = subject.ceiling(["prototypes", "update"]).auc
    yield pooled("C3", view, "record membership", scores, members, ceiling, "distance to the global prototype")


OWN = 8
"""Reference models that a client trains on halves of its own records."""


def generated_model(subject: Subject) -> Iterator[Result]:
    """C5: membership of others' records in the model that a client was sent, by references from its own records."""
    view = subject.curious
    own = view.adversary.clients[0]
    weights, mask = view.generated()[own]
    network, mine = subject.facts.network, subject.dataset.clients[own]
    victims = [name for name in subject.dataset.clients if name != own][:MOST_VICTIMS]
    if not victims:
        raise NotResolvable("there is one client: nobody else has records")
    asked = [subject.candidates(subject.dataset.clients[victim]) for victim in victims]
    x, y = torch.cat([rows for rows, _, _ in asked]), torch.cat([rows for _, rows, _ in asked])
    start, rng = network.as_module(subject.server.facts.theta_0 * mask), np.random.default_rng(0)
    trained = fitted(start, torch.cat([mine.x[mine.train], x]), torch.cat([mine.y[mine.train], y]), kept=mask)
    halves = [np.r_[rng.random(mine.n_train) < 0.5, np.zeros(len(y), bool)] for _ in range(OWN)]
    outside = np.array([trained(half, seed)[mine.n_train :] for seed, half in enumerate(halves)])
    phi = confidence(logits_and_features(network, weights, x)[0], y)
    ends = np.cumsum([len(member) for *_, member in asked])[:-1]
    ceiling = subject.ceiling(["update", "prototypes", "descriptor"]).auc
    for words, scores in (
        ("LiRA offline", membership.lira_offline(phi, outside)),
        ("difficulty calibration", membership.calibrated(phi, outside)),
    ):
        by_client = dict(zip(victims, np.split(scores, ends), strict=True))
        members = {victim: member for victim, (*_, member) in zip(victims, asked, strict=True)}
        yield pooled("C5", view, "record membership", by_client, members, ceiling, f"{words}, own references")


MOST_VICTIMS = 6
"""Clients whose records a curious one asks about."""


def served_models(subject: Subject) -> Iterator[Result]:
    """E1: every attack on the model that each client is served, other clients' models being references.

    With models of the auditor's own also LiRA online, BaVarIA and Attack-R, for as many clients as time allows.
    """
    view, names = subject.external, list(subject.external.released)
    # at client level a client's own descriptor stays home without noise, and its own model is made of it
    whole = subject.facts.unit == "client"
    ceiling = None if whole else subject.ceiling(["update", "prototypes", "descriptor"]).auc
    scores: dict[str, dict[str, np.ndarray]] = {}
    failed: dict[str, str] = {}
    members, labels = {}, {}
    for name in names:
        x, y, members[name] = subject.candidates(subject.dataset.clients[name])
        labels[name] = y.numpy()
        for words, attack in _attacks(subject, name, Records(x, y)).items():
            try:
                scores.setdefault(words, {})[name] = attack()
            except NotResolvable as error:
                failed[words] = str(error)
    for words, by_client in scores.items():
        try:
            if words in failed:
                raise NotResolvable(failed[words])
            yield pooled("E1", view, "record membership", by_client, members, ceiling, words, labels)
        except NotResolvable as error:
            yield unseen("E1", view.adversary.name, "record membership", "AUC", f"{words}: {error}")


def _attacks(subject: Subject, name: str, asked: Records) -> Mapping[str, Attack]:
    """On a client's released model; where all get the same one, others' are no references."""
    released = subject.external.released
    others = [other for other in released if not np.array_equal(released[other], released[name])]
    return attacks_on(
        _model(subject, name),
        asked,
        Records(*subject.others_test(name)),
        [_model(subject, other) for other in others] if len(others) > 1 else [],
        _shadowed(subject, name, others, asked),
        scale=float(asked.x.std()),
        copies=16,
    )


def _weights(subject: Subject, name: str) -> Tensor:
    return torch.from_numpy(subject.external.released[name].copy())


def _model(subject: Subject, name: str) -> Model:
    return lambda rows: logits_and_features(subject.facts.network, _weights(subject, name), rows)[0]


MANY, FEW, LEAST = 50_000, 4, 4
"""Parameters from which on models are trained for few clients alone; how many; and the least number of models, with
which a variance can be fitted on both sides."""


def _shadowed(subject: Subject, name: str, others: Sequence[str], asked: Records) -> Shadows | None:
    """Models that the auditor trains on halves of what is asked, from the mean of others' released ones."""
    wanted, network, names = subject.references, subject.facts.network, list(subject.external.released)
    most = len(names) if network.n_parameters <= MANY else FEW
    place = names.index(name)
    if wanted.count < LEAST or not others or place >= most:
        return None
    own = _weights(subject, name)
    start = network.as_module(torch.stack([_weights(subject, other) for other in others]).mean(0))
    return train_shadows(
        fitted(start, asked.x, asked.y, kept=own != 0),
        len(asked.y),
        wanted.count,
        seed=1000 * place,
        cache=wanted.cache,
        key=key_of(start, asked.x, asked.y, own != 0),
        on_done=lambda done, total: wanted.on_done(place * total + done, most * total),
    )
