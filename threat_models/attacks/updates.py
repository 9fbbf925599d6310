"""Attacks on what clients upload in rounds: whose record trained there (A1), and at whom it lies (A9).

Scores of one round add up over rounds: each round trains on the same records anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from framp_private import TargetNetwork
from threat_models.attacks.models import confidence, cosine, gradients, logits_and_features, losses
from threat_models.errors import NotResolvable
from threat_models.metrics import least
from threat_models.view import Update


def alignment(network: TargetNetwork, update: Update, x: Tensor, y: Tensor) -> np.ndarray:
    """A1: (m,) cosine of the update with each record's gradient at the weights the client was given, or near them.

    delta = given - trained is a sum of the members' gradients, so a member's has a larger part in it (Nasr et al.,
    arXiv 1812.00910; Li et al., arXiv 2202.00580). Cost: one backward pass a record. AUC goes to 1 for small batches;
    under DP it is at most Phi(mu / sqrt 2) of all rounds seen; of a sum over N clients the signal falls as 1/sqrt N.
    """
    return cosine(gradients(network, update.near, update.mask.float(), x, y), update.delta)


def unweighted(network: TargetNetwork, update: Update) -> Tensor:
    """(n,) the delta without FIARSE's factor on each coordinate, which is public: 1 + 2 |w| t / (|w| + t)^2.

    w are the given weights and t the least magnitude kept (arXiv 2407.19389, section 3.2); exact for one step.
    """
    if update.given is None:
        return update.delta
    size, free = update.given.abs(), update.mask & network.maskable
    least = size[free].min() if bool(free.any()) else torch.zeros(())
    factor = 1 + 2 * size * least / (size + least).square().clamp(min=1e-24)
    return torch.where(free, update.delta / factor, update.delta)


def confidences(network: TargetNetwork, update: Update, x: Tensor, y: Tensor) -> np.ndarray:
    """(m,) logit-scaled confidence of the trained model in each record. Raises `NotInView` as `Update.trained`."""
    return confidence(logits_and_features(network, update.trained, x)[0], y)


def fed_mia(signals: Sequence[dict[str, np.ndarray]], client: str) -> np.ndarray:
    """A1: (m,) membership scores of one client's records, all other clients' signals being the OUT distribution.

    sum_t -log SF((s_{k,t} - mean_{-k,t}) / sd_{-k,t}) over rounds (FedMIA, Zhu et al., arXiv 2402.06289): no shadow
    model is needed, because the other clients of a round did not train on the record. Cost: that of the signals.

    Args:
        signals: a round each: client -> (m,) signal of every record under that client's model or update.

    Raises:
        NotResolvable: fewer than three other clients in every round.
    """
    total, used = 0.0, 0
    for round_signals in signals:
        rest = np.array([value for name, value in round_signals.items() if name != client])
        if client not in round_signals or len(rest) < 3:
            continue
        spread = rest.std(0, ddof=1)
        z = (round_signals[client] - rest.mean(0)) / np.maximum(spread, 1e-9)
        total, used = total - norm.logsf(z), used + 1
    if not used:
        raise NotResolvable("no round has the client and three others: there is no OUT distribution")
    return np.asarray(total)


def source_by_loss(network: TargetNetwork, updates: Iterable[Update], x: Tensor, y: Tensor) -> list[str]:
    """A9: for each record the client whose trained model has the least loss on it (SIA, Hu et al., arXiv 2109.05659).

    67 % against 10 % by chance were published; behind a secure sum nobody's model is seen. Cost: one forward pass a
    client and record.
    """
    last = {update.client: update for update in updates}
    names = list(last)
    table = np.array([losses(network, last[name].trained, x, y) for name in names])
    return [names[place] for place in least(table)]


def source_by_prototype(
    prototypes: dict[str, np.ndarray], representations: np.ndarray, labels: np.ndarray
) -> list[str]:
    """A9: for each record the client whose prototype of its class lies nearest.

    Args:
        prototypes: client -> (n_classes, d), NaN where it has none. representations: (m, d).
    """
    names = list(prototypes)
    table = np.array([np.linalg.norm(representations - prototypes[name][labels], axis=1) for name in names])
    return [names[place] for place in least(table)]
