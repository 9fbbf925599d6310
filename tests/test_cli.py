"""The command line: what it prints, what it returns, and that nothing half-written is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from framp_private import make_config, run_config
from framp_private.cli import main
from framp_private.estimate import describe_plan

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
    expected = {
        "config.yaml",
        "metrics.jsonl",
        "ledger.jsonl",
        "ledgers",
        "summary.json",
        "report.html",
        "run_id",
        "private",
    }
    assert {item.name for item in folder.iterdir()} == expected
    assert {item.name for item in (folder / "private").iterdir()} == {
        "checkpoint",
        "keys",
        "clients.json",
        "clients.html",
    }


def test_json_is_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SHORT, "--out", "run", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["accuracy"] == json.loads(Path("run/summary.json").read_text())["accuracy"]
    assert main(["train", "--out", "run", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == "run"


@pytest.mark.parametrize("preset", ["digits-secure", "digits-encrypted", "digits-distributed"])
def test_what_a_dry_run_says_of_bytes_is_what_a_run_moves(preset: str) -> None:
    """Values and the protocol to their headers; of ciphertexts, which are compressed, the largest is said."""
    small = {"rounds": 1, "clients": 12, "home_steps": 1, "evaluate_every": 1, "unseen_clients": 0}
    config = make_config(preset=preset, assignments=small)
    said = describe_plan(config, measure=False)["per_round"]
    traffic = run_config(config).summary["traffic"]
    cohort, row = 12, next(iter(said.values()))
    up = traffic["up"]["update"] + traffic["up"]["prototypes"]
    low = 0.5 if preset == "digits-encrypted" else 0.98  # a channel's own framing
    assert low * cohort * row["up"] <= up <= 1.1 * cohort * row["up"]  # a ring is wider for more records a client
    if preset != "digits-encrypted":  # there the server carries ciphertexts to the key holder too
        headers = 200  # of an envelope and of what is in it, for each of five messages either way
        for way in ("down", "up"):
            beside = traffic[way]["protocol"] / cohort - row[f"protocol_{way}"]
            assert 0 <= beside <= 6 * headers


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
        (["train", "--preset", "digits-private", "--set", "protections.update=none"], "channel 'update'"),
        (["train", "--set", "protections.update=none"], "channel 'update'"),
        (["train", "--preset", "digits-encrypted", "--set", "protections.update=none"], "set both"),
        (["train", "--preset", "digits", "--set", "protections.update=none"], "channel 'update'"),
        (["train", "--set", "protections.update=plain"], "does not keep the guarantee"),
        (["train", "--preset", "digits", "--set", "protections.update=dp-sgd"], "privacy.epsilon"),
        (["train", "--set", "privacy.epsilon=0"], "privacy.epsilon"),
        (
            ["train", "--preset", "cora", "--set", "privacy.epsilon=8", "--set", "network=gcn", "--dry-run"],
            "epsilon = none",
        ),
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


PRIVATE = ["--set", "rounds=2", "--set", "clients=4", "--set", "home_steps=2"]


def test_a_run_without_a_folder_is_named_after_its_preset_or_its_data() -> None:
    assert main(["train", *PRIVATE]) == 0
    assert main(["train", *PRIVATE, "--dataset", "digits", "--set", "network=linear"]) == 0
    assert [path.name.rsplit("-", 2)[0] for path in sorted(Path("runs").iterdir())] == ["digits", "digits-secure"]


def test_the_default_run_is_private_and_says_all_six_parts_of_its_claim(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *PRIVATE, "--out", "run"]) == 0
    printed = capsys.readouterr().out
    assert all(len(line) <= 80 for line in printed.splitlines())
    flat = " ".join(printed.split())
    for words in (
        "epsilon = 7.99",
        "delta = 1e-05",
        "unit record",
        "add/remove",
        "gives its noise away",
        "this run alone",
    ):
        assert words in flat
    for words in ("privacy by channel", "worst client", "descriptor", "update"):
        assert words in printed
    summary = json.loads(Path("run/summary.json").read_text())
    assert 7.9 < summary["privacy"]["record"]["epsilon"] <= 8
    assert summary["privacy"]["client"]["epsilon"] is None


def test_ledgers_are_shown_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *PRIVATE, "--out", "run"]) == 0
    assert main(["ledger", "show", "run", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.split("report.html\n")[-1])
    assert rows[0]["owner"] == "federation" and all(7.9 < row["epsilon"] <= 8 for row in rows)
    assert all("gives its noise away" in row["trust_model"] and row["scope"] for row in rows)
    assert main(["ledger", "show", "run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "client gives its noise away; scope: all releases" in shown
    assert main(["ledger", "verify", "run"]) == 0
    assert "tail as in summary.json" in capsys.readouterr().out
    path = Path("run/ledgers/client-01.jsonl")
    whole = path.read_text()
    path.write_text("\n".join(whole.splitlines()[:-1]) + "\n")
    assert main(["ledger", "verify", "run"]) == 1
    assert "cut off" in capsys.readouterr().err
    path.write_text(whole.replace('"noise_values": 0', '"noise_values": 1').replace("round 1", "round 7"))
    assert main(["ledger", "verify", "run"]) == 1
    assert "edited" in capsys.readouterr().err
    assert main(["ledger", "verify", "nowhere"]) == 1


def test_one_ledger_over_runs_ends_with_status_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *PRIVATE, "--out", "one", "--ledger", "shared"]) == 0
    capsys.readouterr()
    assert main(["train", *PRIVATE, "--out", "two", "--ledger", "shared"]) == 4
    assert "would exceed the budget" in capsys.readouterr().err
    assert main(["train", *PRIVATE, "--out", "three", "--ledger", "shared", "--set", "privacy.budget=40"]) == 0
    assert "all runs in shared" in " ".join(capsys.readouterr().out.split())
    assert main(["ledger", "verify", "shared"]) == 0
    assert "tail unverified" in capsys.readouterr().out


def test_calibrate_prints_multipliers_and_what_channels_spend(capsys: pytest.CaptureFixture[str]) -> None:
    call = [
        "calibrate",
        "--epsilon",
        "8",
        "--delta",
        "1e-5",
        "--rounds",
        "10",
        "--local-steps",
        "3",
        "--sampling",
        "0.3",
    ]
    assert main([*call, "--split", "update=0.7,prototypes=0.25,descriptor=0.05"]) == 0
    printed = capsys.readouterr().out
    for words in ("do not add up", "unit record", "add/remove", "any server", "scope: one run"):
        assert words in " ".join(printed.split())
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert main([*call, "--split", "update=1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["multipliers"]) == ["update"] and 7.98 < found["epsilon"] <= 8


def test_a_dry_run_prints_epsilon_by_channel(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert list(plan["epsilon_by_channel"]) == ["update", "prototypes", "descriptor"]
    assert all(0 < row["epsilon"] < 8 and row["noise_multiplier"] > 0 for row in plan["epsilon_by_channel"].values())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip"])
def test_a_damaged_site_file_is_bad_input(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("sites").mkdir()
    Path("sites/a.npz").write_bytes(content)
    assert main(["train", "--dataset", "sites", "--out", "run"]) == 2
    assert "a.npz cannot be read" in capsys.readouterr().err and not Path("run").exists()


def test_resuming_what_is_not_there_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", "--out", "typo"]) == 2
    assert "no run to go on with" in capsys.readouterr().err
