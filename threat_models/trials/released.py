"""Trials of clients and of users of released models."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from threat_models import metrics
from threat_models.attacks import membership, prototypes
from threat_models.attacks.models import confidence, logits_and_features
from threat_models.attacks.shadows import fitted, train_shadows
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
    """E1: LOSS, calibration by other clients' models, LiRA offline on the same, QMIA and label-only.

    With references of the auditor's own also LiRA online, BaVarIA and Attack-R, for as many clients as time allows.
    """
    view, names = subject.external, list(subject.external.released)
    ceiling = subject.ceiling(["update", "prototypes", "descriptor"]).auc
    scores: dict[str, dict[str, np.ndarray]] = {}
    failed: dict[str, str] = {}
    members, labels = {}, {}
    for name in names:
        x, y, members[name] = subject.candidates(subject.dataset.clients[name])
        labels[name] = y.numpy()
        own = _shadowed(subject, name, x, y) if name in names[: _most(subject)] else {}
        for words, attack in {**_attacks(subject, name, x, y), **own}.items():
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


def _attacks(subject: Subject, name: str, x: Tensor, y: Tensor) -> dict[str, Callable[[], np.ndarray]]:
    """Scores of a client's candidates under its released model, by attack."""
    phi, others = _confidence(subject, name, x, y), _others(subject, name)
    rest = np.array([_confidence(subject, other, x, y) for other in others])
    made: dict[str, Callable[[], np.ndarray]] = {"LOSS": lambda: membership.loss(phi)}
    if len(rest) >= 2:
        made["difficulty calibration"] = lambda: membership.calibrated(phi, rest)
        made["LiRA offline"] = lambda: membership.lira_offline(phi, rest)
        made["RMIA"] = lambda: _rmia(subject, name, phi, rest)
    made["quantile regression"] = lambda: _quantile(subject, name, phi, x, y)
    made["label-only"] = lambda: _label_only(subject, name, x, y)
    return made


MANY = 50_000
"""Parameters from which on references are trained for `FEW` clients alone."""

FEW = 4


def _most(subject: Subject) -> int:
    return len(subject.external.released) if subject.facts.network.n_parameters <= MANY else FEW


def _shadowed(subject: Subject, name: str, x: Tensor, y: Tensor) -> dict[str, Callable[[], np.ndarray]]:
    """Attacks with references that the auditor trains on halves of the candidates, from the mean of others' models."""
    wanted, released = subject.references, subject.external.released
    others = _others(subject, name)
    if wanted.count < LEAST or not others:
        return {}
    network, own = subject.facts.network, _weights(subject, name)
    start = network.as_module(torch.stack([_weights(subject, other) for other in others]).mean(0))
    trainer = fitted(start, x, y, kept=own != 0)
    place = list(released).index(name)
    key = hashlib.sha256(own.numpy().tobytes() + x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
    made = train_shadows(
        trainer,
        len(y),
        wanted.count,
        seed=1000 * place,
        cache=wanted.cache,
        key=key,
        on_done=lambda done, total: wanted.on_done(place * total + done, _most(subject) * total),
    )
    phi = _confidence(subject, name, x, y)
    return {
        "LiRA online": lambda: membership.lira_online(phi, made.signals, made.inside),
        "BaVarIA": lambda: membership.bavaria(phi, made.signals, made.inside),
        "Attack-R": lambda: membership.attack_r(phi, made.without),
    }


LEAST = 4
"""References with which a variance can be fitted on both sides."""


def _weights(subject: Subject, name: str) -> Tensor:
    return torch.from_numpy(subject.external.released[name].copy())


def _confidence(subject: Subject, name: str, x: Tensor, y: Tensor) -> np.ndarray:
    return confidence(logits_and_features(subject.facts.network, _weights(subject, name), x)[0], y)


def _rmia(subject: Subject, name: str, phi: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The population are other clients' test records; a probability is the logistic of its log odds."""
    x, y = subject.others_test(name)
    own = _confidence(subject, name, x, y)
    others = np.array([_confidence(subject, other, x, y) for other in _others(subject, name)])
    return membership.rmia(expit(phi), expit(rest), expit(own), expit(others))


def _others(subject: Subject, name: str) -> list[str]:
    """Clients whose released model is another one: where all get the same, there are no references."""
    released = subject.external.released
    return [other for other in released if not np.array_equal(released[other], released[name])]


def _quantile(subject: Subject, name: str, phi: np.ndarray, x: Tensor, y: Tensor) -> np.ndarray:
    other_x, other_y = subject.others_test(name)
    outside = _confidence(subject, name, other_x, other_y)

    def features(rows: Tensor, own: Tensor) -> np.ndarray:
        return np.asarray(np.c_[rows.flatten(1).numpy(), own.numpy()])

    return membership.quantile_regression(phi, features(x, y), outside, features(other_x, other_y))


def _label_only(subject: Subject, name: str, x: Tensor, y: Tensor) -> np.ndarray:
    def predict(rows: np.ndarray) -> np.ndarray:
        logits, _ = logits_and_features(subject.facts.network, _weights(subject, name), torch.from_numpy(rows))
        return np.asarray(logits.argmax(1).numpy())

    return membership.label_only(predict, x.numpy(), y.numpy(), scale=float(x.std()), copies=16)
