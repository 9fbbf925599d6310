"""A recipe and a wanted guarantee -> the same recipe with protections, and the noise that they take.

Presets and config files name epsilon; the noise multipliers come from here, by calibration over all channels together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from framp_private.config import PrivacyConfig
from framp_private.errors import ConfigError
from framp_private.federated.aggregation import Aggregation
from framp_private.federated.dp_sgd import DpSGD, GraphDpSGD
from framp_private.federated.gradient_sum import GradientSum
from framp_private.federated.local_training import LocalSGD
from framp_private.federated.prototypes import PrototypeBound
from framp_private.federated.pullback import Pullback
from framp_private.methods import Method
from framp_private.models.target import TargetNetwork
from framp_private.privacy.amplification import Cohorts
from framp_private.privacy.calibrate import Calibration, Releases, calibrate
from framp_private.privacy.events import Budget, Relation
from framp_private.protections import (
    AdaptiveClip,
    BFVSum,
    CentralGaussian,
    DistributedGaussian,
    LocalGaussian,
    PlainSum,
    Plan,
    PostProcessed,
    SecAgg,
)
from framp_private.protections.distributed import Distributed
from framp_private.protections.gaussian import Gaussian
from framp_private.protections.homomorphic import EncryptedSum


@dataclass(frozen=True)
class Privatised:
    """A method whose channels are protected, the plan that protects them, and how the noise was found.

    `preparation` turns graphs into records of single nodes, where the clients have graphs.
    """

    method: Method
    plan: Plan
    prototype_bound: PrototypeBound | None
    calibration: Calibration
    preparation: Aggregation | None = None


@dataclass(frozen=True)
class Asked:
    """How many clients of how many a round asks, and how they are chosen."""

    cohort: int
    clients: int
    cohorts: Cohorts = "fixed"


@dataclass(frozen=True)
class Secure:
    """A secure sum, and how many clients may give away their share of the noise in it.

    noise: what the shares are drawn from. class_sums: what carries class sums where each client noises its own, in the
    clear or encrypted; of an encrypted sum only its kind, its key and the share of the cohort that must sign are taken,
    as its bound and step follow from the noise. None puts them into the one secure sum, with noise in shares.
    """

    carrier: SecAgg
    colluding: int
    class_sums: PlainSum | EncryptedSum | None = None
    noise: type[Distributed] = DistributedGaussian


def privatise(
    method: Method,
    network: TargetNetwork,
    wanted: PrivacyConfig,
    rounds: int,
    declared: Mapping[str, int],
    asked: Asked,
    *,
    graph: bool,
    secure: Secure | None = None,
    served: bool = False,
) -> Privatised:
    """A method with noise on every channel, at the wanted (epsilon, delta) for each record or each client.

    `served`: for whole clients, noise the descriptor as well, so that the models that clients are served are covered.
    For records each round counts as if every client took part in it. Raises `ConfigError` for what has no such
    guarantee, and `PrivacyParameterError` where no noise in reach meets the budget.
    """
    budget = Budget(wanted.epsilon, wanted.delta)
    if wanted.protects != "nodes" and not graph:
        raise ConfigError(f"privacy.protects={wanted.protects!r} is for graphs, and these records have no edges")
    if graph and wanted.unit == "client":
        raise ConfigError("privacy.unit='client' is not available for graphs: use 'record', which protects nodes")
    if graph and secure is not None:
        raise ConfigError("noise that clients share is not available for graphs: leave protections.update at auto")
    channels = dict(releases(method, network, wanted, rounds, shared=secure is not None, served=served))
    if wanted.unit == "client":
        if secure is None:
            return _client_level(method, wanted, channels, budget, declared, asked)
        return _distributed(method, wanted, channels, budget, declared, asked, secure)
    if wanted.adaptive_clip is not None:
        raise ConfigError(
            "privacy.adaptive_clip follows the norms of whole clients' contributions: it needs privacy.unit=client"
        )
    if wanted.protects == "edges":
        return _edge_level(method, wanted, budget)
    if secure is not None:
        return _shared_noise(method, network, wanted, channels, budget, declared, asked, secure)
    if wanted.protects == "nothing":
        return _noise_alone(method, wanted, calibrate(budget, {"update": channels["update"]}))
    if graph:
        channels["aggregation"] = Releases(wanted.hops, wanted.split.aggregation)
    found = calibrate(budget, channels)
    made, noise = _record_level(method, wanted, found), found.multipliers.get("aggregation")
    return replace(made, preparation=Aggregation(wanted.hops, wanted.degree, noise)) if noise is not None else made


def _record_level(method: Method, wanted: PrivacyConfig, found: Calibration) -> Privatised:
    """DP-SGD at each client; noised class sums and descriptor."""
    _check_plain(method)
    assert isinstance(method.trainer, LocalSGD)
    noise = found.multipliers
    trainer = DpSGD(
        steps=method.trainer.steps,
        sampling_probability=wanted.sampling_probability,
        clip_norm=wanted.clip_norm,
        noise_multiplier=noise["update"],
        learning_rate=method.trainer.learning_rate,
        decay=method.trainer.decay,
        momentum=method.trainer.momentum,
        alignment=method.trainer.alignment,
        fiarse=method.trainer.fiarse,
    )
    plan = Plan(
        descriptor=LocalGaussian(wanted.descriptor_clip_norm, noise["descriptor"]) if "descriptor" in noise else None,
        update=PlainSum(),
        prototypes=LocalGaussian(wanted.prototype_clip_norm, noise["prototypes"]) if "prototypes" in noise else None,
        metrics=None,
    )
    bound = PrototypeBound(wanted.prototype_clip_norm, wanted.count_share) if "prototypes" in noise else None
    return Privatised(replace(method, trainer=trainer), plan, bound, found)


def _check_plain(method: Method) -> None:
    if not isinstance(method.trainer, LocalSGD) or method.trainer.rethreshold or method.trainer.weight_decay:
        raise ConfigError("under DP-SGD there is no rethreshold and no weight_decay: leave both at their defaults")


def _edge_level(method: Method, wanted: PrivacyConfig, budget: Budget) -> Privatised:
    """The whole budget on the noised sums over edges; training and uploads follow from them."""
    found = calibrate(budget, {"aggregation": Releases(wanted.hops, 1.0)}, "add/remove edge")
    made = Aggregation(wanted.hops, None, found.multipliers["aggregation"], "edges")
    derived = PostProcessed()
    return Privatised(method, Plan(derived, derived, derived, None), None, found, made)


def _noise_alone(method: Method, wanted: PrivacyConfig, found: Calibration) -> Privatised:
    """A graph network under DP-SGD, with the noise that records without edges would need; the rest in the clear."""
    made = _record_level(method, wanted, found)
    assert isinstance(made.method.trainer, DpSGD)
    settings = {field.name: getattr(made.method.trainer, field.name) for field in fields(DpSGD) if field.name != "mode"}
    plan = Plan(PlainSum(), PlainSum(), PlainSum(), None)
    return Privatised(replace(method, trainer=GraphDpSGD(**settings)), plan, None, found)


def _client_noise(channels: Mapping[str, Releases], budget: Budget, asked: Asked) -> Calibration:
    """Noise multipliers of client-level channels.

    One sample of clients feeds all channels of a round, so they are calibrated as one release of multiplier z, which is
    then shared out: z_c = z / sqrt(share_c). A descriptor is released once, by every client that takes part at all.
    """
    if asked.cohort >= asked.clients:
        return calibrate(budget, channels)
    rounds = {name: each for name, each in channels.items() if name != "descriptor"}
    once = {name: each for name, each in channels.items() if name == "descriptor"}
    first, total = next(iter(rounds.values())), sum(each.share for each in rounds.values())
    joint = Releases(
        first.count,
        total,
        asked.cohort / asked.clients,
        sum(each.noise_values for each in rounds.values()),
        (asked.cohort, asked.clients) if asked.cohorts == "fixed" else None,
    )
    relation: Relation = "replace-one" if asked.cohorts == "fixed" else "add/remove"
    found = calibrate(budget, {"all": joint, **once}, relation)
    shared = {name: found.multipliers["all"] * (total / each.share) ** 0.5 for name, each in rounds.items()}
    shared |= {name: found.multipliers[name] for name in once}
    return replace(found, multipliers=shared, channel_epsilons={})


def _client_level(
    method: Method,
    wanted: PrivacyConfig,
    channels: Mapping[str, Releases],
    budget: Budget,
    declared: Mapping[str, int],
    asked: Asked,
) -> Privatised:
    """Whole contributions clipped, noise on their sums by a trusted server; the descriptor stays home.

    Class sums are scaled so that a client with the largest declared number of records just fills the clip.
    """
    found, largest = _client_noise(channels, budget, asked), max(declared.values())
    noise = found.multipliers
    # with Poisson cohorts nobody at all may be asked, and the round must look like any other
    inner = PlainSum(minimum=0 if asked.cohorts == "poisson" else 1)
    given, adaptive = wanted.adaptive_clip, None
    if given is not None:
        adaptive = AdaptiveClip(given.quantile, given.rate, given.deviation or asked.cohort / 20)
    prototypes = None
    if "prototypes" in noise:
        prototypes = CentralGaussian(wanted.prototype_clip_norm, noise["prototypes"], inner)
    plan = Plan(
        descriptor=_of_whole_clients(wanted, noise),
        update=CentralGaussian(wanted.clip_norm, noise["update"], inner, adaptive),
        prototypes=prototypes,
        metrics=None,
    )
    bound = PrototypeBound(wanted.prototype_clip_norm / largest, wanted.count_share) if "prototypes" in noise else None
    return Privatised(method, plan, bound, found)


def _of_whole_clients(wanted: PrivacyConfig, noise: Mapping[str, float]) -> LocalGaussian | None:
    """What noises a descriptor for whole clients, where it was asked for."""
    if "descriptor" not in noise:
        return None
    return LocalGaussian(wanted.descriptor_clip_norm, noise["descriptor"], unit="client")


def _distributed(
    method: Method,
    wanted: PrivacyConfig,
    channels: Mapping[str, Releases],
    budget: Budget,
    declared: Mapping[str, int],
    asked: Asked,
    secure: Secure,
) -> Privatised:
    """Whole contributions clipped, noise in shares from the clients, one secure sum for all channels.

    The server sees who takes part, so that nothing is amplified; a round counts as if it asked every client.
    """
    if wanted.adaptive_clip is not None:
        raise ConfigError("privacy.adaptive_clip takes a server that adds the noise: leave it out under a secure sum")
    secure.carrier.check(asked.cohort, False)
    names = [str(place) for place in range(asked.cohort)]

    def made(clip_norm: float, multiplier: float) -> Distributed:
        return secure.noise(clip_norm, multiplier, secure.carrier, secure.colluding)

    def exact(each: Releases) -> Releases:
        return replace(each, noise_values=0, mechanism=lambda z: made(1.0, z).event(names, each.noise_values).mechanism)

    found = calibrate(budget, {name: exact(each) if name != "descriptor" else each for name, each in channels.items()})
    noise = found.multipliers
    aligned = "prototypes" in noise
    plan = Plan(
        descriptor=_of_whole_clients(wanted, noise),
        update=made(wanted.clip_norm, noise["update"]),
        prototypes=made(wanted.prototype_clip_norm, noise["prototypes"]) if aligned else None,
        metrics=None,
    )
    largest = max(declared.values())
    bound = PrototypeBound(wanted.prototype_clip_norm / largest, wanted.count_share) if aligned else None
    return Privatised(method, plan, bound, found)


def _shared_noise(
    method: Method,
    network: TargetNetwork,
    wanted: PrivacyConfig,
    channels: Mapping[str, Releases],
    budget: Budget,
    declared: Mapping[str, int],
    asked: Asked,
    secure: Secure,
) -> Privatised:
    """One summed gradient a round, with noise in shares from the clients, and class sums in the same secure sum.

    Where `secure.class_sums` says so each client noises its class sums by itself instead. The server sees who takes
    part, so that nothing is amplified; a round counts as if it asked every client.
    """
    _check_plain(method)
    if method.trainer.steps != 1 or wanted.sampling_probability != 1:
        raise ConfigError(
            "noise that clients share is on one gradient over all records a round: set local_steps=1, "
            "privacy.sampling_probability=1"
        )
    secure.carrier.check(asked.cohort, False)
    most = max(declared.values())
    trainer = GradientSum(
        wanted.clip_norm, method.trainer.learning_rate, most, method.trainer.alignment, method.trainer.fiarse
    )
    names, own = [str(place) for place in range(asked.cohort)], secure.class_sums

    def made(clip_norm: float, multiplier: float) -> Distributed:
        return secure.noise(clip_norm, multiplier, secure.carrier, secure.colluding, unit="record", records=most)

    def in_shares(each: Releases, size: int) -> Releases:
        return replace(each, noise_values=0, mechanism=lambda z: made(1.0, z).event(names, size).mechanism)

    used = {**channels, "update": in_shares(channels["update"], network.n_parameters)}
    if own is None and "prototypes" in used:
        used["prototypes"] = in_shares(used["prototypes"], used["prototypes"].noise_values)
    noise = calibrate(budget, used)
    prototypes: Gaussian | None = None
    if "prototypes" in used:
        clip, multiplier = wanted.prototype_clip_norm, noise.multipliers["prototypes"]
        prototypes = made(clip, multiplier) if own is None else _carried(own, LocalGaussian(clip, multiplier), most)
    bound = PrototypeBound(wanted.prototype_clip_norm, wanted.count_share) if prototypes is not None else None
    described = noise.multipliers.get("descriptor")
    plan = Plan(
        descriptor=LocalGaussian(wanted.descriptor_clip_norm, described) if described is not None else None,
        update=made(trainer.record_bound, noise.multipliers["update"]),
        prototypes=prototypes,
        metrics=None,
    )
    return Privatised(replace(method, trainer=trainer), plan, bound, noise)


def _carried(carrier: PlainSum | EncryptedSum, noised: LocalGaussian, records: int) -> LocalGaussian:
    """Noised sums over so many records in what carries them: with room for them, at a step small against the noise."""
    if isinstance(carrier, PlainSum):
        return noised
    inner = replace(carrier, bound=records * noised.clip_norm + 10 * noised.deviation, beyond="clip")
    if isinstance(inner, BFVSum):
        inner = replace(inner, step=noised.deviation / 64)
    return replace(noised, inner=inner)


def releases(
    method: Method,
    network: TargetNetwork,
    wanted: PrivacyConfig,
    rounds: int,
    *,
    shared: bool = False,
    served: bool = False,
) -> Mapping[str, Releases]:
    """What each channel in use will release in a run of so many rounds.

    shared: clients share noise. served: see `privatise`.
    """
    split = wanted.split
    if wanted.unit == "client" or shared:
        used: dict[str, Releases] = {"update": Releases(rounds, split.update, noise_values=network.n_parameters)}
    else:
        steps = method.trainer.steps * rounds
        used = {"update": Releases(steps, split.update, wanted.sampling_probability, network.n_parameters)}
    if method.trainer.alignment.weight:
        size = network.n_classes * (network.feature_dim + 1)
        used["prototypes"] = Releases(rounds, split.prototypes, noise_values=size)
    if method.hypernetwork is not None and (method.pullback is Pullback.SERVER or wanted.unit == "record" or served):
        used["descriptor"] = Releases(1, split.descriptor, noise_values=method.descriptor.size(network))
    return used
