"""Scores of attacks in a process that has the bytes of a view, the public facts and auxiliary records, and no more.

    python -m tests.threat_models.isolated < payload > scores

The payload is a pickle of (view's bytes, adversary, facts, auxiliary data); what comes back is one of name -> bytes of
the scores. Nothing of a run, a data set or a client is imported or passed.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import torch

from threat_models.attacks import labels, linkage, membership, prototypes, updates
from threat_models.attacks.models import confidence, logits_and_features
from threat_models.view import View


def server(view: View, asked: dict[str, Any]) -> dict[str, np.ndarray]:
    """A1, A2, A3, A5, A9, A10 and A12 on one client."""
    network, name, x, y = view.facts.network, asked["client"], asked["x"], asked["y"]
    every = list(view.updates())
    own = [update for update in every if update.client == name]
    sums = [each for each in view.class_sums() if each.client == name]
    h = logits_and_features(network, own[-1].trained, x)[1].double().numpy()
    last = [update for update in every if update.round_index == own[-1].round_index]
    rounds = [{u.client: updates.confidences(network, u, x, y) for u in last}]
    white = prototypes.Whitening.of(h, 2)
    before = [u.delta.double().numpy() for u in every if u.round_index == own[-1].round_index - 1]
    return {
        "A1": np.sum([updates.alignment(network, update, x, y) for update in own], 0),
        "FedMIA": updates.fed_mia(rounds, name),
        "A2": prototypes.trace(sums[-1].means[int(y[0])], h, white),
        "A3": prototypes.nearest(sums[-1].means[int(y[0])], h),
        "A5": labels.from_counts(sums[-1]),
        "A9": np.array([guess == name for guess in updates.source_by_loss(network, last, x, y)]),
        "A10": linkage.rematch(np.array(before), np.array([u.delta.double().numpy() for u in last])),
        "A12": np.array(view.sizes()[name]),
    }


def external(view: View, asked: dict[str, Any]) -> dict[str, np.ndarray]:
    """E1: LOSS and calibration by the other released models."""
    network, x, y = view.facts.network, asked["x"], asked["y"]
    phi = {
        name: confidence(logits_and_features(network, torch.from_numpy(weights.copy()), x)[0], y)
        for name, weights in view.released.items()
    }
    rest = np.array([value for name, value in phi.items() if name != asked["client"]])
    return {
        "LOSS": membership.loss(phi[asked["client"]]),
        "calibration": membership.calibrated(phi[asked["client"]], rest),
    }


def curious(view: View, asked: dict[str, Any]) -> dict[str, np.ndarray]:
    """C3: distance to the global prototypes."""
    found = view.global_prototypes()
    weights, _ = view.generated()[view.adversary.clients[0]]
    h = logits_and_features(view.facts.network, weights, asked["x"])[1].double().numpy()
    return {"C3": -np.linalg.norm(h - found[max(found)][0][asked["y"].numpy()], axis=1)}


ATTACKS = {"honest server": server, "external user": external, "curious client": curious}


def main() -> None:
    data, adversary, facts, asked = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(1)
    found = ATTACKS[adversary.name](View.from_bytes(data, adversary, facts), asked)
    sys.stdout.buffer.write(pickle.dumps({name: np.asarray(value).tobytes() for name, value in found.items()}))


if __name__ == "__main__":
    main()
