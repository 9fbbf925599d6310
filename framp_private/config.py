"""Config files: YAML and `--set` -> a validated `Config` -> a data set and a federation.

This is the edge: nothing below it sees a config object. Unknown keys are refused with the nearest known one, and every
message names the field, the value, the rule and the cure. The layers, later ones winning: defaults, the preset with the
method's own schedule, the file, `--set`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

from framp_private.errors import ConfigError

MethodName = Literal[
    "framp",
    "fiarse",
    "fedavg",
    "local",
    "framp-without-hypernetwork",
    "framp-without-alignment",
    "framp-layerwise",
    "framp-static-mask",
]
NetworkName = Literal["auto", "cnn", "lenet", "linear", "perceptron", "resnet18", "gcn", "sage", "mlp"]
PartitionName = Literal["dirichlet", "class-dirichlet", "classes", "metis", "sites"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ServerConfig(_Section):
    """The step on phi."""

    optimizer: Literal["adam", "sgd"] = "sgd"
    learning_rate: float = Field(1e-3, ge=0)
    decay: Literal["constant", "linear", "cosine"] = "linear"
    momentum: float = Field(0.9, ge=0, lt=1)
    start: float = Field(0.0, ge=0, le=1)
    backbone_rate: float = Field(1.0, ge=0)
    backbone: Literal["coordinate_mean", "cohort_mean"] = "coordinate_mean"
    average: float = Field(0.0, ge=0, le=1)


class PriorConfig(_Section):
    """What class shares alone say of the classifier."""

    strength: float = Field(1.0, ge=0)
    floor: float = Field(0.02, gt=0, lt=1)
    absent: float = Field(1.0, gt=0, le=1)


class HypernetworkConfig(_Section):
    """The hypernetwork's form."""

    trunk: Literal["mlp", "random", "attention"] = "mlp"
    standardise: Literal["enrolled", "own"] = "enrolled"
    head: Literal["full", "chunked", "low_rank"] = "full"
    hidden: int = Field(128, ge=4)
    chunk: int = Field(512, ge=1)
    rank: int = Field(64, ge=1)
    budget_input: bool = True
    combine: Literal["additive", "multiplicative"] = "additive"
    prior: PriorConfig | None = None


class DescriptorConfig(_Section):
    """How a client describes its data."""

    encoder: Literal["warmup", "frozen", "labels"] = "warmup"
    steps: int = Field(50, ge=0)
    learning_rate: float = Field(0.1, gt=0)
    class_wise: bool = False


class SubmodelConfig(_Section):
    """How a budget becomes a mask."""

    scope: Literal["global", "layerwise"] = "global"
    importance: Literal["magnitude", "fiarse", "taylor", "fisher"] = "magnitude"
    static: bool = False


class AlignmentConfig(_Section):
    """The prototype term; weight is lambda."""

    weight: float = Field(1.0, ge=0)
    distance: Literal["mse", "l2", "cosine"] = "mse"
    prototypes: Literal["counts", "unweighted"] = "counts"
    records: int | None = Field(None, ge=1)


class SplitConfig(_Section):
    """Shares of the privacy budget, in mu^2; channels that are not in use drop out."""

    update: float = Field(0.7, gt=0)
    prototypes: float = Field(0.25, gt=0)
    descriptor: float = Field(0.05, gt=0)
    aggregation: float = Field(0.4, gt=0)


class AdaptiveClipConfig(_Section):
    """How the clip of clients' contributions follows their norms; without `deviation` a twentieth of the cohort."""

    quantile: float = Field(0.5, gt=0, lt=1)
    rate: float = Field(0.2, gt=0)
    deviation: float | None = Field(None, gt=0)


class PrivacyConfig(_Section):
    """What is guaranteed, and the bounds that the noise is sized for; the noise itself is calibrated, never set."""

    unit: Literal["record", "client"] = "record"
    epsilon: float = Field(8.0, gt=0)
    delta: float = Field(1e-5, gt=0, lt=1)
    large_delta: bool = False
    split: SplitConfig = SplitConfig()
    budget: float | None = Field(None, gt=0)
    sampling_probability: float = Field(0.25, gt=0, le=1)
    clip_norm: float = Field(1.0, gt=0)
    prototype_clip_norm: float = Field(1.0, gt=0)
    count_share: float = Field(0.2, gt=0, lt=1)
    descriptor_clip_norm: float = Field(1.0, gt=0)
    adaptive_clip: AdaptiveClipConfig | None = None
    protects: Literal["nodes", "edges", "nothing"] = "nodes"
    hops: int = Field(1, ge=1)
    degree: int = Field(16, ge=1)


class ProtectionsConfig(_Section):
    """A protection for each channel: `auto` follows `privacy`, `plain` sends in the clear, `none` forbids it.

    `secagg`, `bfv` and `ckks` are sums that the server sees alone; under a guarantee for records, `bfv` and `ckks`
    encrypt what each client has noised.
    """

    update: Literal[
        "auto", "plain", "none", "secagg", "dp-sgd", "central-gaussian", "distributed-gaussian", "distributed-skellam"
    ] = "auto"
    prototypes: Literal[
        "auto",
        "plain",
        "none",
        "secagg",
        "bfv",
        "ckks",
        "local-gaussian",
        "central-gaussian",
        "distributed-gaussian",
        "distributed-skellam",
    ] = "auto"
    descriptor: Literal["auto", "plain", "none", "local-gaussian"] = "auto"
    metrics: Literal["none"] = "none"


class SecAggConfig(_Section):
    """How secure sums share keys: see `SecAgg`; `colluding` clients give their share of distributed noise away."""

    threshold: float | None = Field(None, ge=0.5, lt=1)
    neighbours: int | None = Field(None, ge=2)
    survivors: float = Field(0.7, ge=0, lt=1)
    minimum: int = Field(3, ge=3)
    corrupt: float = Field(0.1, ge=0, lt=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    colluding: int = Field(1, ge=1)
    bound: float = Field(1.0, gt=0)
    step: float = Field(1e-4, gt=0)


class EncryptionConfig(_Section):
    """Encrypted sums: who holds the key, and without a guarantee the bound on a value; see `BFVSum` and `CKKSSum`."""

    key_holder: Literal["party", "clients"] = "party"
    survivors: float = Field(0.6, ge=0, le=1)
    bound: float = Field(1.0, gt=0)


class DeclaredConfig(_Section):
    """How many training records each client names in public, a divisor: `records`, or its own rounded up.

    `multiple_of: 1` declares the truth, and has to be asked for.
    """

    records: int | None = Field(None, ge=1)
    multiple_of: int = Field(10, ge=1)

    def of(self, n_train: int) -> int:
        """What a client with so many training records declares."""
        return self.records or max(1, -(-n_train // self.multiple_of)) * self.multiple_of


class Config(_Section):
    """Every setting of a run, as it stands in `config.yaml`.

    `data_seed` is that of who holds and tests on which records; it follows `seed` unless it is given.
    """

    method: MethodName = "framp"
    dataset: str = "digits"
    network: NetworkName = "auto"
    clients: int = Field(20, ge=1)
    clients_per_round: int | None = Field(None, ge=1)
    cohorts: Literal["fixed", "poisson"] = "fixed"
    unseen_clients: int = Field(0, ge=0)
    partition: PartitionName = "dirichlet"
    alpha: float = Field(0.3, gt=0)
    classes_per_client: int = Field(2, ge=1)
    tests: Literal["matched", "independent"] = "matched"
    test_fraction: float = Field(0.25, gt=0, lt=0.9)
    validation_fraction: float = Field(0.1, ge=0, lt=0.5)
    features: Literal["projection", "svd", "sparse"] = "projection"
    budgets: tuple[float, ...] = (1.0, 1 / 4, 1 / 16, 1 / 64)
    rounds: int = Field(100, ge=1)
    local_steps: int = Field(10, ge=1)
    batch_size: int | None = Field(16, ge=1)
    learning_rate: float = Field(0.1, gt=0)
    decay: Literal["constant", "linear", "cosine"] = "constant"
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    rethreshold: bool = False
    seed: int = Field(0, ge=0)
    data_seed: int | None = Field(None, ge=0)
    pullback: Literal["server", "client"] = "server"
    privacy: PrivacyConfig | None = None
    declared: DeclaredConfig = DeclaredConfig()
    server: ServerConfig = ServerConfig()
    hypernetwork: HypernetworkConfig | None = HypernetworkConfig()
    descriptor: DescriptorConfig = DescriptorConfig()
    submodel: SubmodelConfig = SubmodelConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    protections: ProtectionsConfig = ProtectionsConfig()
    secagg: SecAggConfig = SecAggConfig()
    encryption: EncryptionConfig = EncryptionConfig()
    dropout: float = Field(0.0, ge=0, lt=1)
    evaluate_every: int = Field(5, ge=1)
    checkpoint_every: int = Field(1, ge=1)
    home_steps: int = Field(50, ge=1)
    home_learning_rate: float = Field(0.05, gt=0)
    home_decay: Literal["constant", "linear", "cosine"] = "constant"
    home_batch_size: int | None = Field(16, ge=1)
    threads: int = Field(1, ge=1)

    @field_validator("privacy", mode="before")
    @classmethod
    def _no_privacy(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_serializer("privacy")
    def _privacy_row(self, value: PrivacyConfig | None) -> Any:
        return "none" if value is None else value.model_dump(mode="json")

    @field_validator("budgets")
    @classmethod
    def _budgets(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or not all(0 < value <= 1 for value in values):
            raise ValueError(
                "every budget must lie in (0, 1] and there must be at least one: it is the share of the target "
                "network that a client can hold"
            )
        return values


def parse(layers: Sequence[Mapping[str, Any]]) -> Config:
    """Merges nested mappings, later ones winning key by key, and validates the result.

    Raises:
        ConfigError: an unknown key, or a value that breaks its field's rule.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merge(merged, layer)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def read_file(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping; raises `ConfigError`."""
    try:
        loaded = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"config file {path} cannot be read: {error}") from error
    if loaded is not None and not isinstance(loaded, dict):
        raise ConfigError(f"config file {path} holds a {type(loaded).__name__}: write one `key: value` per line")
    return dict(loaded or {})


def read_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`["a.b=0.01"]` -> `{"a": {"b": 0.01}}`; values are YAML, `1/64` a number. Raises `ConfigError`."""
    merged: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text!r} is no assignment: write key=value, dotted for nested keys")
        try:
            nested: Any = fraction(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text!r} has a value that is not YAML: {error}") from error
        for part in reversed(key.strip().split(".")):
            nested = {part: nested}
        merge(merged, nested)
    return merged


def read_split(text: str, known: Collection[str]) -> dict[str, float]:
    """`"update=0.7,descriptor=0.3"` -> shares by channel. Raises `ConfigError` for an unknown channel or no number."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in known:
            raise ConfigError(f"--split names {name!r}: channels are {', '.join(known)}")
        try:
            shares[name] = float(value)
        except ValueError:
            raise ConfigError(f"--split gives {name} the share {value!r}: write a number") from None
    return shares


def fraction(value: Any) -> Any:
    """`1/64` reads as a number, in lists too."""
    if isinstance(value, list):
        return [fraction(item) for item in value]
    if isinstance(value, str) and value.count("/") == 1:
        top, _, bottom = value.partition("/")
        if top.strip().isdigit() and bottom.strip().isdigit() and int(bottom):
            return int(top) / int(bottom)
    return value


def merge(target: dict[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Puts nested settings over others, key by key, and returns those; what is taken over is copied, never shared."""
    for key, value in layer.items():
        if isinstance(value, Mapping):
            below = target.get(key)
            target[key] = merge(below if isinstance(below, dict) else {}, value)
        else:
            target[key] = fraction(value)
    return target


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _keys(Config, problem["loc"][:-1])
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, 1, 0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"
            lines.append(f"{path} is not a setting: {hint}")
        else:
            rule = problem["msg"].removeprefix("Value error, ")
            lines.append(
                f"{path}={problem['input']!r} is refused: {rule[0].lower()}{rule[1:]}; "
                f"change {path} in the file or with --set {path}=..."
            )
    return "\n".join(lines)


@cache
def known_settings() -> tuple[str, ...]:
    """Every setting's dotted name, sections included."""

    def names(model: type[BaseModel], prefix: str) -> list[str]:
        found = []
        for key, field in model.model_fields.items():
            found.append(f"{prefix}{key}")
            inner = _section(field.annotation)
            found += names(inner, f"{prefix}{key}.") if inner is not None else []
        return found

    return tuple(names(Config, ""))


def _keys(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    for part in path:
        model = _section(model.model_fields[str(part)].annotation) or model
    return list(model.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)
