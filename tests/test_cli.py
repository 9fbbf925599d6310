"""The command line: what it prints, what it returns, and that nothing half-written is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from framp_private.cli import main

SHORT = [
    "--preset",
    "digits",
    "--set",
    "rounds=2",
    "--set",
    "local_steps=2",
    "--set",
    "clients=4",
    "--set",
    "home_steps=2",
    "--set",
    "unseen_clients=1",
]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def test_train_prints_a_table_within_80_columns_and_leaves_a_run_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SHORT]) == 0
    printed = capsys.readouterr()
    assert all(len(line) <= 80 for line in printed.out.splitlines())
    for word in (
        "accuracy by budget",
        "1/64",
        "union",
        "unseen",
        "after local training",
        "traffic",
        "seconds",
        "privacy: none, epsilon = infinite",
    ):
        assert word in printed.out
    assert "parameters" in printed.err and "round" in printed.err
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("digits-")
    expected = {"config.yaml", "metrics.jsonl", "ledger.jsonl", "ledgers", "checkpoint", "summary.json", "report.html"}
    assert {item.name for item in folder.iterdir()} == expected


def test_json_is_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SHORT, "--out", "run", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["accuracy"] == json.loads(Path("run/summary.json").read_text())["accuracy"]
    assert main(["train", "--out", "run", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == "run"


def test_dry_run_touches_no_data_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framp_private.data.vision.load_digits", lambda: pytest.fail("data was read"))
    assert main(["train", "--dry-run"]) == 0
    assert "estimate" in capsys.readouterr().out
    assert main(["train", "--dry-run", "--json", "--preset", "cifar10"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"]["target"] == 121_182 and plan["seconds"] > 0
    assert plan["channels"] == {"descriptor": "PlainSum", "update": "PlainSum", "prototypes": "PlainSum"}
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--set", "ruonds=3"], "did you mean 'rounds'"),
        (["train", "--set", "budgets=[2]"], "(0, 1]"),
        (["train", "--preset", "nope"], "preset='nope'"),
        (["train", "missing.yaml"], "missing.yaml"),
        (["train", "--dataset", "no-such-thing"], "neither a known data set"),
        (["train", "--preset", "cifar10", "--data-root", "nowhere"], "--download"),
        (["train", "--set", "protections.update=none"], "channel 'update'"),
        (["train", "--preset", "digits", "--set", "protections.update=none"], "channel 'update'"),
        (["train", "--set", "protections.update=plain"], "does not keep the guarantee"),
        (["train", "--preset", "digits", "--set", "protections.update=dp-sgd"], "privacy.epsilon"),
        (["train", "--set", "privacy.epsilon=0"], "privacy.epsilon"),
        (["train", "--preset", "cora", "--set", "privacy.epsilon=8", "--dry-run"], "epsilon = none"),
        (["train", "--set", "privacy.epsilon=.nan"], "privacy.epsilon"),
        (["train", "--set", "privacy.delta=1"], "privacy.delta"),
        (["train", "--set", "privacy.clip_norm=-1"], "privacy.clip_norm"),
        (["train", "--set", "privacy.clip_norm=.inf"], "privacy.clip_norm"),
        (["train", "--set", "privacy.epsilom=1"], "did you mean 'epsilon'"),
        (["train", "--set", "descriptor.encoder=warmup", "--set", "hypernetwork.prior=null"], "frozen"),
        (["calibrate", "--epsilon", "-1", "--rounds", "3"], "epsilon=-1"),
        (["calibrate", "--epsilon", "1", "--rounds", "3", "--delta", "0"], "delta=0"),
        (["calibrate", "--epsilon", "1", "--rounds", "3", "--split", "uptade=1"], "uptade"),
        (["train", "--set", "budgets=[1/1000000]"], "keeps none"),
        (["train", "--preset", "digits", "--set", "clients=1000"], "clients=1004"),
        (["train", "--set", "clients_per_round=21"], "clients_per_round=21"),
        (["train", "--nonsense"], "--nonsense"),
        (["train", "--resume"], "--out"),
        (["data", "check", "nope"], "nope"),
    ],
)
def test_bad_input_returns_2_says_why_and_writes_nothing(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_a_finished_folder_is_refused_and_an_interrupted_run_can_be_resumed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from framp_private import simulation

    real, calls = simulation.Simulation.step, []

    def interrupted(self):  # noqa: ANN001, ANN202
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(simulation.Simulation, "step", interrupted)
    assert main(["train", *SHORT, "--out", "run"]) == 130
    assert "--resume" in capsys.readouterr().err
    assert main(["train", *SHORT, "--out", "run"]) == 2
    assert main(["train", "--out", "run", "--resume"]) == 0
    assert main(["train", *SHORT, "--out", "run"]) == 2
    assert "finished" in capsys.readouterr().err


def test_presets_and_data_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0 and main(["data", "list"]) == 0
    printed = capsys.readouterr().out
    for word in ("digits", "cifar10", "facebook", "planetoid/Cora/raw", "musae.zip"):
        assert word in printed
    assert main(["presets", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digits"]["clients"] == 20


def test_data_check_reads_and_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "digits"]) == 0
    assert "ready: 1,797 records" in capsys.readouterr().out
    assert main(["data", "check", "cora", "--data-root", "nowhere"]) == 1
    assert "missing" in capsys.readouterr().out
    assert main(["data", "check", "--data-root", "nowhere"]) == 0


def test_the_partition_is_a_table_and_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "partition", "--preset", "digits", "--picture", "mix.svg"]) == 0
    printed = capsys.readouterr().out
    assert "client-19" in printed and "unseen-03" in printed
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert Path("mix.svg").read_text().startswith("<svg")


def test_a_failure_inside_returns_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SHORT, "--set", "learning_rate=1e30", "--out", "run"]) == 1
    assert "lower" in capsys.readouterr().err
    assert not Path("run/summary.json").exists()


def test_a_folder_of_the_users_own_sites(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    from tests.tiny import blobs

    Path("sites").mkdir()
    for index, name in enumerate(("north", "south", "west")):
        x, y = blobs(40, index)
        np.savez(f"sites/{name}.npz", x=x, y=y)
    assert (
        main(
            ["train", "--dataset", "sites", "--set", "rounds=2", "--set", "budgets=[1, 1/4]", "--out", "run", "--json"]
        )
        == 0
    )
    summary = json.loads(capsys.readouterr().out)
    assert list(summary["by_client"]) == ["north", "south", "west"] and summary["table"]["auroc"] > 0
    assert main(["train", "--dataset", "sites", "--dry-run"]) == 0
