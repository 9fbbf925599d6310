"""Trials of clients and of users of released models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from threat_models import metrics
from threat_models.attacks import membership, prototypes
from threat_models.attacks.models import confidence, logits_and_features
from threat_models.ceilings import record_ceiling
from threat_models.errors import NotResolvable
from threat_models.results import Result, judged, unseen
from threat_models.trials.subject import Subject, pooled


def global_prototypes(subject: Subject) -> Iterator[Result]:
    """C3, C4: membership in the global means, and which classes anybody has, by a client."""
    view = subject.curious
    found = view.global_prototypes()
    last = max(found)
    own = view.adversary.clients[0]
    present = prototypes.present_classes(found, last)
    total = np.sum([d.class_counts(len(present)).numpy() for d in subject.dataset.clients.values()], 0)
    right = metrics.exact_match(present, total > 0)
    bounded = record_ceiling(subject.facts, ["prototypes"]).bounded
    yield judged(
        "C4",
        view.adversary.name,
        "class present anywhere",
        "accuracy",
        right,
        baseline=float(max((total > 0).mean(), 0.5)),
        ceiling=1.0 if bounded else None,
        words="rows of the global prototypes",
    )
    weights, _ = view.generated()[own]
    scores, members = {}, {}
    means = found[last][0]
    for name, data in subject.dataset.clients.items():
        if name == own:
            continue
        x, y, members[name] = subject.candidates(data)
        h = logits_and_features(subject.facts.network, weights, x)[1].double().numpy()
        scores[name] = -np.linalg.norm(h - means[y.numpy()], axis=1)
    ceiling = record_ceiling(subject.facts, ["prototypes", "update"]).auc
    yield pooled("C3", view, "record membership", scores, members, ceiling, "distance to the global prototype")


def served_models(subject: Subject) -> Iterator[Result]:
    """E1: LOSS, calibration by other clients' models, LiRA offline on the same, QMIA and label-only."""
    view, names = subject.external, list(subject.external.released)
    ceiling = record_ceiling(subject.facts, ["update", "prototypes", "descriptor"]).auc
    scores: dict[str, dict[str, np.ndarray]] = {}
    members, labels = {}, {}
    for name in names:
        x, y, members[name] = subject.candidates(subject.dataset.clients[name])
        labels[name] = y.numpy()
        phi = _confidence(subject, name, x, y)
        rest = np.array([_confidence(subject, other, x, y) for other in names if other != name])
        found = {"LOSS": membership.loss(phi)}
        if len(rest) >= 2:
            found["difficulty calibration"] = membership.calibrated(phi, rest)
            found["LiRA offline"] = membership.lira_offline(phi, rest)
            found["RMIA"] = _rmia(subject, name, phi, rest)
        found["quantile regression"] = _quantile(subject, name, phi, x, y)
        found["label-only"] = _label_only(subject, name, x, y)
        for words, values in found.items():
            scores.setdefault(words, {})[name] = values
    for words, by_client in scores.items():
        try:
            yield pooled("E1", view, "record membership", by_client, members, ceiling, words, labels)
        except NotResolvable as error:
            yield unseen("E1", view.adversary.name, "record membership", "AUC", f"{words}: {error}")


def _weights(subject: Subject, name: str) -> Tensor:
    return torch.from_numpy(subject.external.released[name].copy())


def _confidence(subject: Subject, name: str, x: Tensor, y: Tensor) -> np.ndarray:
    return confidence(logits_and_features(subject.facts.network, _weights(subject, name), x)[0], y)


def _rmia(subject: Subject, name: str, phi: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The population are other clients' test records; a probability is the logistic of its log odds."""
    x, y = subject.others_test(name)
    own = _confidence(subject, name, x, y)
    others = np.array([_confidence(subject, other, x, y) for other in subject.external.released if other != name])
    return membership.rmia(expit(phi), expit(rest), expit(own), expit(others))


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
