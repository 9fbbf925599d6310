"""Config files and assignments: layers, unknown keys, refused values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from framp_private import Config, make_config
from framp_private.assemble import method_of, settings_of
from framp_private.config import parse, read_assignments, read_file
from framp_private.errors import ConfigError
from framp_private.methods import RECIPES
from framp_private.presets import PRESETS, name_of


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_a_recipe_survives_the_way_through_a_config(recipe) -> None:  # noqa: ANN001
    method = recipe()
    config = parse([settings_of(method)])
    batch = replace(method.descriptor, batch_size=method.trainer.batch_size)
    assert method_of(config) == replace(method, descriptor=batch)


@pytest.mark.parametrize("preset", PRESETS, ids=name_of)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_every_preset_works_with_every_method(preset, recipe) -> None:  # noqa: ANN001
    config = make_config(preset=name_of(preset), assignments={"method": recipe().name})
    assert config.method == recipe().name
    again = Config.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config


def test_later_layers_win_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("rounds: 7\nserver: {learning_rate: 0.5, optimizer: sgd}\n")
    config = make_config(
        file=path, preset="digits", assignments=read_assignments(["server.learning_rate=0.25", "seed=3"])
    )
    assert (config.rounds, config.server.learning_rate, config.server.optimizer, config.seed) == (7, 0.25, "sgd", 3)
    assert config.unseen_clients == 4  # from the preset


def test_no_preset_and_no_file_means_private_digits_and_a_named_data_set_means_none() -> None:
    assert make_config() == make_config(preset="digits-secure")
    assert make_config().privacy is not None and make_config().privacy.epsilon == 8
    assert make_config(assignments={"dataset": "adult"}).privacy is None


def test_fractions_are_numbers() -> None:
    assert read_assignments(["budgets=[1, 1/4, 1/64]"]) == {"budgets": [1, 0.25, 1 / 64]}
    assert parse([{"budgets": ["1/4"]}]).budgets == (0.25,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ruonds": 3}, ("ruonds", "did you mean 'rounds'")),
        ({"server": {"learning_rat": 1}}, ("server.learning_rat", "did you mean 'learning_rate'")),
        ({"hypernetwork": {"hiden": 1}}, ("hypernetwork.hiden", "'hidden'")),
        ({"qqqqqq": 3}, ("known keys are",)),
        ({"budgets": []}, ("budgets", "at least one")),
        ({"budgets": [0]}, ("budgets", "(0, 1]")),
        ({"budgets": [1.2]}, ("budgets", "(0, 1]")),
        ({"rounds": 0}, ("rounds=0", "--set rounds=")),
        ({"rounds": "many"}, ("rounds='many'",)),
        ({"method": "fedprox"}, ("method='fedprox'", "framp")),
        ({"alpha": float("nan")}, ("alpha",)),
        ({"alpha": float("inf")}, ("alpha",)),
        ({"learning_rate": -1}, ("learning_rate=-1",)),
        ({"privacy": "strong"}, ("privacy='strong'",)),
        ({"protections": {"update": "wishful"}}, ("protections.update",)),
        ({"clients": 2.5}, ("clients=2.5",)),
        ({"seed": -1}, ("seed=-1",)),
        ({"server": 3}, ("server",)),
    ],
)
def test_refusals_name_the_field_the_value_the_rule_and_the_cure(settings: dict, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse([settings])
    for word in words:
        assert word in str(caught.value)


def test_a_channel_without_protection_is_refused_when_it_is_used() -> None:
    from framp_private import load_dataset
    from framp_private.assemble import federation_of, network_of
    from framp_private.errors import PlanError

    config = make_config(assignments={"dataset": "digits", "protections": {"prototypes": "none"}})
    dataset = load_dataset(config)
    with pytest.raises(PlanError, match="prototypes"):
        federation_of(config, network_of(config, dataset.schema), list(dataset.clients))
    quiet = make_config(
        assignments={"dataset": "digits", "protections": {"prototypes": "none"}, "alignment": {"weight": 0}}
    )
    federation_of(quiet, network_of(quiet, dataset.schema), list(dataset.clients))


@pytest.mark.parametrize("text", ["rounds", "=3", "a=[1,"])
def test_assignments_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        read_assignments([text])


@pytest.mark.parametrize("content", ["- 1\n- 2\n", "a: [1\n", "just text"])
def test_files_that_are_no_settings_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError, match="config file"):
        read_file(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("dataset", "network"), [("digits", "mlp"), ("adult", "cnn"), ("cora", "lenet"), ("digits", "gcn")]
)
def test_a_network_for_other_records_is_refused(dataset: str, network: str) -> None:
    from framp_private.assemble import network_of
    from framp_private.datasets import schema_of

    config = make_config(assignments={"dataset": dataset, "network": network})
    with pytest.raises(ConfigError, match="network="):
        network_of(config, schema_of(config))


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="digits"):
        make_config(preset="nope")
