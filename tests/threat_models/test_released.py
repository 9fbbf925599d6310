"""Attacks on what is published, black-box canaries, and scripts that need no federation."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from tests.threat_models.test_membership import POOL, X, Y, train
from tests.tiny import tiny_dataset
from threat_models import metrics
from threat_models.attacks import released
from threat_models.auditing.mislabelled import mislabel
from threat_models.cli import main
from threat_models.errors import AuditError
from threat_models.scripts import load_model, load_records
from threat_models.sources import is_public


def linear_digits():
    digits = load_digits()
    x, y = torch.tensor(digits.images / 16, dtype=torch.float32).flatten(1), torch.tensor(digits.target)
    model = nn.Linear(64, 10)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, x, y


def test_a_class_representative_looks_like_its_class() -> None:
    model, x, y = linear_digits()
    means = torch.stack([x[y == label].mean(0) for label in range(10)])
    hits, weak = 0, 0
    for label in range(10):
        found = released.representative(model, (64,), label)
        hits += int((means - means.mean(0)) @ (found[0] - 0.5) @ torch.eye(10)[label] >= 0) and int(
            ((means - means.mean(0)) @ (found[0] - 0.5)).argmax() == label
        )
        flat = released.representative(model, (64,), label, steps=0)
        weak += int(((means - means.mean(0)) @ (flat[0] - 0.5)).argmax() == label)
    assert hits >= 9 > weak


def test_a_removed_record_is_seen_between_two_releases() -> None:
    members = np.random.default_rng(7).random(POOL) < 0.5
    gone = np.flatnonzero(members)[:100]
    after = members.copy()
    after[gone] = False
    scores = released.forgotten(train(members, 1), train(after, 1))
    assert metrics.auc(scores[members], np.isin(np.flatnonzero(members), gone)).value > 0.85
    assert metrics.auc(-scores[members], np.isin(np.flatnonzero(members), gone)).value < 0.5


def test_a_report_with_a_record_or_a_name_in_it_is_found() -> None:
    records = np.random.default_rng(0).normal(size=(5, 8))
    clean = {"attacks": [{"value": 0.512, "low": 0.25}], "pictures": [records.tolist()]}
    assert released.artefacts(clean, ["alice"], records) == []
    assert released.artefacts({**clean, "rows": records[3].tolist()}, [], records) == ["features of record 3"]
    assert released.artefacts({**clean, "worst": "alice"}, ["alice"], records) == ["the name 'alice'"]
    digits = load_digits().images.reshape(-1, 64)[:100] / 16
    missed = [
        place for place in range(100) if not released.artefacts({"x": digits[place].tolist()}, [], digits[[place]])
    ]
    assert missed == [] and released.artefacts(clean, [], digits) == []


def test_mislabelled_canaries_keep_out_of_tests_and_are_independent_coins() -> None:
    dataset = tiny_dataset(6, 0)
    made = mislabel(dataset, 200, seed=3)
    for name, data in made.dataset.clients.items():
        before = dataset.clients[name]
        assert torch.equal(data.test, before.test) and torch.equal(data.validation, before.validation)
        assert int(data.test.max()) < len(before.y)
    inside = sum(data.n_train - dataset.clients[name].n_train for name, data in made.dataset.clients.items())
    assert inside == made.coins.sum() and 60 < inside < 140
    counts = {mislabel(dataset, 200, seed=seed).coins.sum() for seed in range(20)}
    assert len(counts) > 5  # Bernoulli coins and no balanced half
    runs = np.mean([_runs(mislabel(dataset, 200, seed=seed).coins) for seed in range(20)])
    assert abs(runs - 100.5) < 8
    with pytest.raises(AuditError, match="graph"):
        mislabel(_graph(dataset), 10, seed=0)


def _runs(coins: np.ndarray) -> int:
    return 1 + int((coins[1:] != coins[:-1]).sum())


def _graph(dataset):
    from dataclasses import replace

    edges = torch.zeros(2, 0, dtype=torch.long)
    return replace(dataset, clients={name: replace(data, edge_index=edges) for name, data in dataset.clients.items()})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model that was trained on half of the toy, and two that were not, as TorchScript; records as NPZ."""
    folder = tmp_path_factory.mktemp("models")
    members = np.arange(POOL) < 500
    rest = (np.arange(POOL) >= 500) & (np.arange(POOL) < 1000)
    for name, rows in (("target", members), ("first", rest), ("second", (np.arange(POOL) >= 1500))):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(200, 64), nn.ReLU(), nn.Linear(64, 20))
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X[torch.from_numpy(rows)]), Y[torch.from_numpy(rows)]).backward()
            optimizer.step()
        torch.jit.trace(model, X[:1]).save(str(folder / f"{name}.pt"))
    np.savez(folder / "in.npz", x=X[:500].numpy(), y=Y[:500].numpy())
    np.savez(folder / "out.npz", x=X[1000:1500].numpy(), y=Y[1000:1500].numpy())
    return folder


def test_membership_runs_on_any_model(saved, capsys) -> None:
    arguments = ["membership", "--model", str(saved / "target.pt"), "--members", str(saved / "in.npz")]
    arguments += ["--non-members", str(saved / "out.npz")]
    for name in ("first", "second"):
        arguments += ["--reference", str(saved / f"{name}.pt")]
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["attacks"]["LOSS"]["auc"] > 0.7
    assert rows["attacks"]["difficulty calibration"]["auc"] > 0.75
    assert "not resolvable" in rows["attacks"]["LOSS"]["tpr_at_0.01"]
    assert main(arguments) == 0
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())


def untrained() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(200, 64), nn.ReLU(), nn.Linear(64, 20))


def test_shadow_models_are_trained_kept_and_used(saved, capsys, tmp_path) -> None:
    arguments = ["membership", "--model", str(saved / "target.pt"), "--members", str(saved / "in.npz"), "--json"]
    arguments += ["--non-members", str(saved / "out.npz"), "--shadows", "8", "--cache", str(tmp_path)]
    named = f"{__name__}:untrained"
    assert main([*arguments, "--shadow-network", named]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["shadows"] == 8 and len(list(tmp_path.glob("*.npy"))) == 8
    best = max(first["attacks"][name]["auc"] for name in ("LiRA online", "BaVarIA"))
    assert best > first["attacks"]["LOSS"]["auc"] + 0.05
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    assert main([*arguments, "--shadow-network", named]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")} == kept
    for bad in (["--shadow-network", "math:cos"], ["--shadow-network", named, "--shadows", "2"]):
        assert main([*arguments, *bad]) == 2


@pytest.mark.parametrize("bad", ["nothing.pt", "no.such.module:f", "math:nothing"])
def test_a_model_that_is_not_there_is_said_to_be(bad: str) -> None:
    with pytest.raises(AuditError, match="cannot be loaded"):
        load_model(bad)


def test_records_that_are_no_records(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)))
    np.savez(tmp_path / "b.npz", x=np.zeros((3, 2)), y=np.zeros(2))
    (tmp_path / "c.npz").write_text("no zip")
    for name in ("a", "b", "c", "missing"):
        with pytest.raises(AuditError, match="records="):
            load_records(tmp_path / f"{name}.npz")


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.zeros((6, 200)), np.full(6, 99), "labels in 0"),
        (np.zeros((6, 200)), np.full(6, -1), "labels in 0"),
        (np.zeros((6, 7)), np.zeros(6, int), "have shape"),
        (np.array(["a"] * 6), np.zeros(6, int), "one label a record"),
    ],
)
def test_records_that_do_not_fit_the_model(saved, tmp_path, capsys, x, y, words) -> None:
    np.savez(tmp_path / "bad.npz", x=x, y=y)
    arguments = ["membership", "--model", str(saved / "target.pt"), "--members", str(saved / "in.npz")]
    assert main([*arguments, "--non-members", str(tmp_path / "bad.npz")]) == 2
    assert words in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("text", ['{"schema": 99}', "[]", "no json"])
def test_a_report_of_another_schema_is_refused(tmp_path, capsys, text: str) -> None:
    (tmp_path / "audit.json").write_text(text)
    assert main(["report", str(tmp_path)]) == 2
    assert "audit" in capsys.readouterr().err


def test_a_site_s_folder_that_is_called_like_a_public_set_is_not_one() -> None:
    assert is_public("digits") and is_public("cifar10")
    assert not any(is_public(name) for name in ("/data/digits", "sites/cifar10", "./digits", "adult"))
