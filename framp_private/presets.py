"""Named settings. A preset is a function from the method's name to settings, because every method may have its own.

docs/reproducing.md says how the schedules of digits were searched; the other presets' were not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Settings = dict[str, Any]
Preset = Callable[[str], Settings]


def _hypernetwork(method: str, hidden: int) -> Settings:
    """A narrower hypernetwork for a wide target; a method that has none keeps none."""
    has_one = method.startswith("framp") and method != "framp-without-hypernetwork"
    return {"hypernetwork": {"hidden": hidden}} if has_one else {}


def _alignment(method: str, settings: Settings) -> Settings:
    """Another alignment for a method that aligns."""
    aligns = method.startswith("framp") and method != "framp-without-alignment"
    return {"alignment": settings} if aligns else {}


def digits(method: str) -> Settings:
    """scikit-learn's digits, 20 clients of 74 records and 4 unseen ones, 100 rounds; needs no download."""
    del method
    return {"dataset": "digits", "clients": 20, "unseen_clients": 4, "test_fraction": 0.27, "rounds": 100}


def cifar10(method: str) -> Settings:
    """CIFAR-10 with LeNet, 20 clients, full federation."""
    return {
        "dataset": "cifar10",
        "network": "lenet",
        "clients": 20,
        "unseen_clients": 0,
        "rounds": 100,
        "batch_size": 64,
        "learning_rate": 0.3,
        "momentum": 0.0,
        "decay": "cosine",
        **_hypernetwork(method, 32),
        **_alignment(method, {"weight": 1.0, "records": 512}),
        "evaluate_every": 10,
        "threads": 2,
    }


def facebook(method: str) -> Settings:
    """Facebook page-page with GraphSAGE, 10 METIS communities."""
    return {
        "dataset": "facebook",
        "network": "sage",
        "clients": 10,
        "unseen_clients": 0,
        "partition": "metis",
        "rounds": 60,
        "batch_size": None,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "decay": "cosine",
        "test_fraction": 0.3,
        "validation_fraction": 0.3,
        **_hypernetwork(method, 32),
        **_alignment(method, {"weight": 1.0}),
        "threads": 2,
    }


def cora(method: str) -> Settings:
    """Cora with a GCN, 10 METIS communities."""
    return {**facebook(method), "dataset": "cora", "network": "gcn"}


def twitch(method: str) -> Settings:
    """Six Twitch countries as six natural sites with GraphSAGE, one of them unseen."""
    return {**facebook(method), "dataset": "twitch", "clients": 5, "unseen_clients": 1, "partition": "sites"}


def adult(method: str) -> Settings:
    """The census table with a two-layer network, 20 clients of unequal income mix."""
    del method
    return {"dataset": "adult", "network": "mlp", "clients": 20, "unseen_clients": 4, "rounds": 50, "batch_size": 64}


PRESETS: tuple[Preset, ...] = (digits, cifar10, facebook, cora, twitch, adult)
