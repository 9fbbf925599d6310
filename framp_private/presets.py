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


def digits_private(method: str) -> Settings:
    """Digits under record-level (8, 1e-5) for each of 20 clients of 56 records at four budgets, by DP-SGD at each.

    Few parameters, whole batches and small clips keep the noise down; docs/reproducing.md has the search and the
    frontier.
    """
    settings: Settings = {
        "dataset": "digits",
        "network": "linear",
        "clients": 20,
        "test_fraction": 0.27,
        "rounds": 40,
        "local_steps": 1,
        "batch_size": None,
        "momentum": 0.0,
        "submodel": {"importance": "magnitude"},
        "home_steps": 300,
        "home_learning_rate": 2.7,
        "home_decay": "cosine",
        "home_batch_size": None,
        **_record_level(method, clip_norm=1 / 3, split={"update": 0.85, "descriptor": 0.15}),
        **_alignment(method, {"weight": 0.0}),
    }
    if method == "local":
        return {**settings, "local_steps": 9, "learning_rate": 9.0, "decay": "cosine"}
    if not _hypernetwork(method, 4):
        return {**settings, "learning_rate": 19.35, "decay": "linear", "server": {"average": 0.5}}
    prior = {"strength": 0.8, "floor": 2 / 56, "absent": 0.6}
    return {
        **settings,
        "learning_rate": 34.5,
        "decay": "linear",
        "hypernetwork": {"prior": prior, "hidden": 4},
        "server": {"start": 1.0, "average": 0.5},
    }


def digits_secure(method: str) -> Settings:
    """Digits under record-level (8, 1e-5) with one noise for all 20 clients, under secure sums; the default.

    Gradients and class sums by one secure aggregation. docs/reproducing.md has the frontier.
    """
    settings = digits_private(method)
    if method == "local":
        return settings
    privacy = {**settings["privacy"], "prototype_clip_norm": 4.0}
    settings = {
        **settings,
        "rounds": 30,
        "learning_rate": 36.0,
        "home_steps": 200,
        "home_learning_rate": 1.0,
        **_shared_noise(method, privacy, {"prior": {"strength": 0.8, "floor": 2 / 56, "absent": 0.6}, "hidden": 4}),
    }
    return {**settings, "server": {**settings["server"], "average": 0.5}}


def digits_encrypted(method: str) -> Settings:
    """`digits-secure` with class sums that each client noises and then encrypts; a party of its own holds the key."""
    settings = digits_secure(method)
    if method == "local":
        return settings
    return {**settings, "protections": {**settings["protections"], "prototypes": "bfv"}}


def cifar10_secure(method: str) -> Settings:
    """CIFAR-10 with LeNet under record-level (8, 1e-5) with one noise for all 20 clients, under secure sums."""
    settings = cifar10_private(method)
    if method == "local":
        return settings
    privacy = {**settings["privacy"], "sampling_probability": 1.0}
    shape = {"prior": {"strength": 1.0}, "hidden": 16}
    return {**settings, "local_steps": 1, "learning_rate": 4.0, **_shared_noise(method, privacy, shape)}


def _shared_noise(method: str, privacy: Settings, shape: Settings) -> Settings:
    """One noised sum of gradients and class rows a round for all clients; a hypernetwork hardly larger than its target.

    `shape` is of the hypernetwork, for methods that have one.
    """
    settings: Settings = {
        "decay": "constant",
        "pullback": "client",
        "privacy": {**privacy, "split": {"update": 0.88, "prototypes": 0.02, "descriptor": 0.1}},
        "protections": {"update": "distributed-gaussian"},
        "secagg": {"survivors": 0.8, "dropout": 0.1},
        "server": {"start": 1.0, "backbone": "cohort_mean", "backbone_rate": 1.0},
        **_alignment(method, {"weight": 0.05, "records": None}),
    }
    if _hypernetwork(method, 4):
        settings["hypernetwork"] = {**shape, "head": "low_rank", "standardise": "own"}
    return settings


def digits_client_private(method: str) -> Settings:
    """Digits under client-level (8, 1e-5) with a trusted server: 100 clients of 12 records."""
    settings: Settings = {
        "dataset": "digits",
        "network": "perceptron",
        "clients": 100,
        "alpha": 1.0,
        "test_fraction": 0.3,
        "validation_fraction": 0.0,
        "budgets": [1.0],
        "rounds": 30,
        "local_steps": 10,
        "learning_rate": 0.5,
        "momentum": 0.0,
        "decay": "constant",
        "pullback": "client",
        "submodel": {"importance": "magnitude"},
        "home_steps": 200,
        "home_learning_rate": 0.1,
        "privacy": {"unit": "client", "epsilon": 8.0, "delta": 1e-5, "clip_norm": 0.5},
        "server": {"start": 1.0, "backbone": "cohort_mean", "backbone_rate": 2.0},
        **_alignment(method, {"weight": 0.0}),
    }
    if _hypernetwork(method, 4):
        settings |= {
            "descriptor": {"encoder": "labels"},
            "hypernetwork": {"prior": {"strength": 1.0}, "hidden": 4, "standardise": "own"},
        }
    return settings if method != "local" else {**settings, "local_steps": 20, "learning_rate": 0.2}


def digits_distributed(method: str) -> Settings:
    """`digits-client-private` without a trusted server: clients add the noise in shares, under one secure sum."""
    settings = digits_client_private(method)
    return {
        **settings,
        "privacy": {**settings["privacy"], "split": {"update": 0.97, "prototypes": 0.03}},
        "protections": {"update": "distributed-gaussian"},
        "secagg": {"survivors": 0.8, "dropout": 0.1},
        **_alignment(method, {"weight": 0.05, "records": None}),
    }


def adult_private(method: str) -> Settings:
    """The census table under record-level (8, 1e-5) for each of 20 clients."""
    settings: Settings = {
        **adult(method),
        "unseen_clients": 0,
        "budgets": [1.0],
        "rounds": 30,
        "local_steps": 2,
        "learning_rate": 2.0,
        "momentum": 0.0,
        "decay": "cosine",
        "submodel": {"importance": "magnitude"},
        "home_learning_rate": 0.1,
        **_record_level(method, sampling_probability=0.25, clip_norm=1.0),
    }
    return settings if method != "local" else {**settings, "local_steps": 20, "learning_rate": 0.1}


def cifar10_private(method: str) -> Settings:
    """CIFAR-10 with LeNet under record-level (8, 1e-5) for each of 20 clients of 3,000 records."""
    return {
        **cifar10(method),
        "budgets": [1.0],
        "rounds": 60,
        "local_steps": 2,
        "learning_rate": 1.0,
        "submodel": {"importance": "magnitude"},
        **_record_level(method, sampling_probability=0.2, clip_norm=1.0),
    }


def facebook_node_private(method: str) -> Settings:
    """Facebook page-page under node-level (8, 1e-5): one noised aggregation, then each node is a record."""
    settings: Settings = {
        **facebook(method),
        "network": "auto",
        "budgets": [1.0],
        "rounds": 30,
        "local_steps": 2,
        "learning_rate": 8.0,
        "momentum": 0.0,
        "submodel": {"importance": "magnitude"},
        "home_steps": 400,
        "home_learning_rate": 0.5,
        **_record_level(method, clip_norm=1.0, sampling_probability=0.25),
    }
    return settings if method != "local" else {**settings, "local_steps": 10, "learning_rate": 0.1}


def _record_level(
    method: str, *, clip_norm: float, sampling_probability: float = 1.0, split: Settings | None = None
) -> Settings:
    """(8, 1e-5) over all channels: class shares as descriptor and as prior, psi at rest under noise."""
    settings: Settings = {
        "privacy": {
            "epsilon": 8.0,
            "delta": 1e-5,
            "sampling_probability": sampling_probability,
            "clip_norm": clip_norm,
            "prototype_clip_norm": 2.0,
            "split": split or {"update": 0.92, "prototypes": 0.03, "descriptor": 0.05},
        },
        **_alignment(method, {"weight": 0.05, "records": None}),
    }
    if _hypernetwork(method, 16):
        settings |= {
            "descriptor": {"encoder": "labels"},
            "hypernetwork": {"prior": {"strength": 1.0}, "hidden": 16},
            "server": {"start": 1.0},
        }
    return settings


DEFAULT = "digits-secure"
"""The preset of a run for which neither a preset nor a file nor a data set is named."""

PRESETS: tuple[Preset, ...] = (
    digits_private,
    digits_secure,
    digits_encrypted,
    digits_client_private,
    digits_distributed,
    digits,
    cifar10,
    cifar10_private,
    cifar10_secure,
    facebook,
    facebook_node_private,
    cora,
    twitch,
    adult,
    adult_private,
)


def name_of(preset: Preset) -> str:
    """The name a preset has on the command line."""
    return preset.__name__.replace("_", "-")
