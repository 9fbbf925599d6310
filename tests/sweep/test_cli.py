"""`framp-private sweep`, `report` and `compare` as a user types them, on real runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from framp_private import Ledger, __version__
from framp_private.cli import main
from framp_private.privacy.chain import read_chain
from framp_private.privacy.events import event_of, from_row, leaves
from framp_private.sweep import read_sweep
from tests.report.pages import Page, stray_digits, wrong_numbers
from tests.sweep.harness import ROOT, stored

SMALL = {"clients": 4, "rounds": 2, "local_steps": 2, "home_steps": 2, "network": "linear", "evaluate_every": 2}
WRITTEN = {
    "preset": "digits-private",
    "set": SMALL,
    "axes": {"privacy.epsilon": [1, 8]},
    "references": {"open": {"privacy": "none"}},
    "seeds": [0, 1],
    "objectives": ["local", "validation", "epsilon", "bytes", "seconds"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli")
    (root / "small.yaml").write_text(yaml.safe_dump(WRITTEN, sort_keys=False))
    assert main(["sweep", str(root / "small.yaml"), "--out", str(root / "out"), "--workers", "2", "--json"]) == 0
    return root / "out"


def test_it_runs_real_trials_and_leaves_what_it_says(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["trials"]["done"] == 6 and [p["replicates"] for p in summary["points"]] == [2, 2, 2]
    assert [p["unit"] for p in summary["points"]] == ["none", "record", "record"]
    assert 0.9 < summary["points"][1]["epsilon"] <= 1.0 and 7.9 < summary["points"][2]["epsilon"] <= 8.0
    for row in summary["rows"]:
        folder = finished / "trials" / f"{row['number']:04d}"
        own = json.loads((folder / "summary.json").read_text())
        assert own["accuracy"] == row["result"]["accuracy"] and (folder / "report.html").is_file()
    assert {"sweep.yaml", "study.db", "storage", "ledgers", "report.html"} <= {path.name for path in finished.iterdir()}
    page = Page((finished / "report.html").read_text())
    assert wrong_numbers(page, {"summary": summary, "report": {"version": __version__}}) == []
    assert stray_digits(page) == []


def test_epsilons_are_those_of_the_ledgers(finished: Path) -> None:
    """The sweep's account is the composition of the runs' own ledgers, read from their files."""
    summary = json.loads((finished / "summary.json").read_text())
    (account,) = summary["choosing"]["accounts"]
    assert account["runs"] == 6 and account["without_guarantee"] == 2 and account["epsilon"] is None
    whole = Ledger.open(None, unit="record")
    for row in summary["rows"]:
        if row["result"]["epsilon"] is None:
            continue
        path = finished / "trials" / f"{row['number']:04d}" / "ledger.jsonl"
        for entry in read_chain(path):
            if entry["kind"] == "spend":
                for leaf, count in leaves(from_row(entry["mechanism"])).items():
                    for i in range(count):
                        whole.spend(event_of(leaf), f"{row['number']} {entry['label']} {leaf} {i}")
    stored = Ledger.open(finished / account["ledger"]["file"], unit="record", owner="sweep small", repair=False)
    private = Ledger.open(None, unit="record")
    for entry in read_chain(finished / account["ledger"]["file"]):
        if entry["kind"] == "spend" and "NonPrivate" not in json.dumps(entry["mechanism"]):
            private.spend(from_row(entry["mechanism"]), entry["label"])
    assert stored.releases == 6 and private.releases == 4
    assert private.epsilon(1e-5) == pytest.approx(whole.epsilon(1e-5), rel=1e-6)
    dearest = max(row["result"]["epsilon"] or 0 for row in summary["rows"])
    assert private.epsilon(1e-5) > dearest
    assert account["epsilon_with_guarantee"] == pytest.approx(private.epsilon(1e-5), rel=1e-9)


def test_a_finished_sweep_is_left_as_it_is(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "trials").rglob("*") if path.is_file()}
    spec = str(finished.parent / "small.yaml")
    assert main(["sweep", spec, "--out", str(finished), "--resume"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (finished / "trials").rglob("*") if path.is_file()}
    assert main(["sweep", "status", str(finished)]) == 0
    printed = capsys.readouterr().out
    assert "6 of 6 done" in printed and max(map(len, printed.splitlines())) <= 80
    assert main(["sweep", "status", str(finished), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"]["complete"] == 6
    assert read_sweep(finished / "sweep.yaml") == read_sweep(finished.parent / "small.yaml")


@pytest.mark.parametrize("form", ["html", "json", "md"])
def test_reports_of_sweeps_runs_and_comparisons(finished: Path, tmp_path: Path, form: str) -> None:
    compared = tmp_path / "compared"
    runs = [str(finished / "trials" / f"{number:04d}") for number in (1, 2, 4, 5)]
    assert main(["compare", *runs, "--out", str(compared)]) == 0
    for folder in (finished, finished / "trials" / "0001", compared):
        out = tmp_path / f"{folder.name}.{form}"
        assert main(["report", str(folder), "--format", form, "--out", str(out)]) == 0
        text = out.read_text()
        assert ("epsilon" in text and "record" in text) and (form != "json" or json.loads(text)["sections"])


def test_compare_tells_settings_apart_and_tests_over_seeds(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(finished / "trials" / f"{number:04d}") for number in (1, 4, 2, 5)]
    assert main(["compare", *runs, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [setting["differs"] for setting in found["settings"]] == [{"privacy.epsilon": 1.0}, {"privacy.epsilon": 8.0}]
    assert found["differences"][0]["measures"]["local/mean"]["n"] == 2
    assert main(["compare", *runs]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["sweep", "BAD"], 2, "did you mean 'privacy.epsilon'"),
        (["sweep", "missing.yaml"], 2, "cannot be read"),
        (["sweep", "GOOD", "--storage", "nonsense"], 2, "no database's address"),
        (["sweep", "GOOD", "--workers", "0"], 2, "workers=0"),
        (["sweep", "GOOD", "--data-root", "nowhere"], 2, "is no folder"),
        (["sweep", "GOOD", "--resume", "--out", "nothing"], 2, "no sweep to go on with"),
        (["sweep", "status", "nothing"], 2, "holds no sweep"),
        (["report", "nothing"], 2, "holds no finished run"),
        (["compare", "nothing"], 2, "at least two"),
    ],
)
def test_bad_input_ends_with_its_status(
    arguments: list[str],
    status: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(yaml.safe_dump(WRITTEN))
    Path("bad.yaml").write_text(yaml.safe_dump({**WRITTEN, "axes": {"privacy.epsilom": [1]}}))
    named = [{"GOOD": "good.yaml", "BAD": "bad.yaml"}.get(word, word) for word in arguments]
    assert main(named) == status
    assert says in capsys.readouterr().err


def test_an_interrupt_ends_with_130_and_the_sweep_goes_on(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(yaml.safe_dump({**WRITTEN, "set": {**SMALL, "rounds": 2000}}, sort_keys=False))
    command = [
        sys.executable,
        "-m",
        "framp_private.cli",
        "sweep",
        str(tmp_path / "long.yaml"),
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from framp_private.cli import script; script()",
            *command[3:],
        ],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 120
    while not list((tmp_path / "out" / "trials").glob("*/metrics.jsonl")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr is not None and b"--resume" in process.stderr.read()
    assert {trial.state for trial in stored(tmp_path / "out", read_sweep(tmp_path / "out" / "sweep.yaml"))} == {
        "waiting"
    }


def test_the_dry_run_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(WRITTEN))
    assert main(["sweep", "small.yaml", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "6 trials" in printed and "epsilon = 8" in printed and max(map(len, printed.splitlines())) <= 80
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]


@pytest.mark.parametrize("name", ["digits_epsilon", "cifar10_epsilon", "facebook_node"])
def test_the_example_sweeps_are_valid(name: str) -> None:
    sweep = read_sweep(ROOT / "examples" / "sweeps" / f"{name}.yaml")
    assert len(list(sweep.grid())) * len(sweep.seeds) + len(sweep.references) * len(sweep.seeds) <= 72
    assert len(sweep.seeds) == 3 and sweep.choosing.records == ("private" if name == "facebook_node" else "public")
