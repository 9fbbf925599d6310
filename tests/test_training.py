"""Whole runs: determinism, resuming, run folders, and what the summary says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from framp_private import (
    FederatedDataset,
    HypernetworkShape,
    Options,
    Pullback,
    SubmodelRule,
    TargetNetwork,
    fedavg,
    federate,
    fiarse,
    load_run,
    local,
    make_config,
    read_transcript,
    run_config,
    train,
)
from framp_private.errors import CheckpointError, ModelError, RunError
from framp_private.federated.accounts import EVERYTHING
from framp_private.federated.messages import bytes_by_channel
from framp_private.privacy.ledger import Head, verify
from framp_private.transcript import TRAFFIC_KEYS
from tests.tiny import BUDGETS, blobs, build, tiny_dataset, tiny_federation, tiny_method

DATASET = tiny_dataset()
VARIANTS = {
    "framp": tiny_method(),
    "framp on clients": tiny_method(
        pullback=Pullback.CLIENT, hypernetwork=HypernetworkShape(head="low_rank", hidden=8, rank=4, standardise="own")
    ),
    "fisher": tiny_method(submodel=SubmodelRule(importance="fisher")),
    "fiarse": fiarse(),
    "fedavg": fedavg(),
    "local": local(),
}


class Stopped(Exception):
    """Raised by a callback to end a run in the middle."""


def stop_after(rounds: int) -> Callable[[int, object], None]:
    def on_round(done: int, row: object) -> None:
        if done == rounds:
            raise Stopped

    return on_round


def run(name: str, out: Path | None = None, *, resume: bool = False, **options: object):  # noqa: ANN201
    federation = tiny_federation(DATASET, VARIANTS[name], rounds=5)
    return train(
        federation,
        DATASET,
        exchanges=VARIANTS[name].exchanges,
        out=out,
        resume=resume,
        config={"method": name},
        options=Options(evaluate_every=2, home_steps=3, **options),
    )


def timeless(summary: dict) -> dict:
    """Without what equal runs differ in: times, and a commitment under a random key."""
    origin = {key: value for key, value in summary["provenance"].items() if key != "data_commitment"}
    return {key: value for key, value in summary.items() if key != "seconds"} | {"provenance": origin}


def snapshot(folder: Path) -> dict[str, object]:
    """Everything a run left behind that does not tell the time."""
    found: dict[str, object] = {"summary": timeless(json.loads((folder / "summary.json").read_text()))}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".jsonl":  # keys and signatures are each run's own
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{k: v for k, v in row.items() if k not in ("signer", "signature")} for row in rows]
        elif path.is_file() and path.suffix not in (".json", ".html", ".key", ".bin") and path.name != "run_id":
            found[name] = path.read_bytes()
    last = max((folder / "private" / "checkpoint").glob("*.json"), default=None)
    own = bytes.fromhex(json.loads(last.read_text())["facts"]["run"]) if last is not None else b"none"
    for name, delivery in read_transcript(folder / "private" / "transcript"):
        found[f"{name} {delivery.trip} {delivery.direction} {delivery.client}"] = delivery.message.replace(own, b"run")
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_equal_seeds_give_equal_runs_and_other_seeds_others(name: str) -> None:
    first, second = run(name), run(name)
    assert timeless(first.summary) == timeless(second.summary)
    assert torch.equal(first.weights("client-00").weights, second.weights("client-00").weights)
    other = train(
        tiny_federation(DATASET, VARIANTS[name], rounds=5, seed=1), DATASET, exchanges=VARIANTS[name].exchanges
    )
    assert not torch.equal(first.weights("client-00").weights, other.weights("client-00").weights)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, name: str, stop: int) -> None:
    run(name, tmp_path / "whole", record_transcript=True)
    with pytest.raises(Stopped):
        run(name, tmp_path / "cut", on_round=stop_after(stop), record_transcript=True)
    run(name, tmp_path / "cut", resume=True, record_transcript=True)
    assert snapshot(tmp_path / "cut") == snapshot(tmp_path / "whole")


def test_rare_checkpoints_repeat_rounds_to_the_same_end(tmp_path: Path) -> None:
    run("framp", tmp_path / "whole", checkpoint_every=2)
    with pytest.raises(Stopped):
        run("framp", tmp_path / "cut", on_round=stop_after(3), checkpoint_every=2)
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 3
    run("framp", tmp_path / "cut", resume=True, checkpoint_every=2)
    assert snapshot(tmp_path / "cut") == snapshot(tmp_path / "whole")


def test_folders_in_the_way_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        run("fedavg", out, on_round=stop_after(2))
    with pytest.raises(RunError, match="--resume"):
        run("fedavg", out)
    with pytest.raises(RunError, match="other values of method"):
        run("fiarse", out, resume=True)
    run("fedavg", out, resume=True)
    before = snapshot(out)
    with pytest.raises(RunError, match="finished"):
        run("fedavg", out)
    assert snapshot(out) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        run("fedavg", tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    for seed in (0, 1):
        with pytest.raises(Stopped):
            train(
                tiny_federation(DATASET, seed=seed),
                DATASET,
                out=tmp_path / str(seed),
                options=Options(on_round=stop_after(1)),
            )
    shutil.rmtree(tmp_path / "0" / "private" / "checkpoint")
    shutil.copytree(tmp_path / "1" / "private" / "checkpoint", tmp_path / "0" / "private" / "checkpoint")
    with pytest.raises(CheckpointError, match="another"):
        train(tiny_federation(DATASET), DATASET, out=tmp_path / "0", resume=True)


def test_a_damaged_checkpoint_stops_the_resume(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run("framp", tmp_path / "run", on_round=stop_after(2))
    (path,) = (tmp_path / "run" / "private" / "checkpoint").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError):
        run("framp", tmp_path / "run", resume=True)


def test_the_summary_has_the_keys_that_scripts_rely_on(tmp_path: Path) -> None:
    for name in ("framp", "local"):
        summary = run(name, tmp_path / name).summary
        assert summary == json.loads((tmp_path / name / "summary.json").read_text())
        for key in ("method", "dataset", "seed", "rounds", "clients"):
            assert key in summary
        for kind in ("local", "union", "after_local_training", "unseen"):
            assert list(summary["accuracy"][kind]) == ["1/4", "1/2", "1", "mean"]
        for unit in ("record", "client"):
            assert set(summary["privacy"][unit]) == {"epsilon", "delta", "relation", "trust_model", "scope"}
        for way in ("up", "down"):
            assert list(summary["traffic"][way]) == list(TRAFFIC_KEYS)
    assert summary["accuracy"]["unseen"]["mean"] is None and summary["accuracy"]["after_local_training"]["1"] is None
    assert summary["privacy"]["record"]["epsilon"] == 0.0
    assert sum(summary["traffic"]["up"].values()) == 0


def test_local_accuracy_is_the_unweighted_mean_over_clients() -> None:
    finished = run("framp")
    values = {}
    for client, data in DATASET.clients.items():
        with torch.no_grad():
            predicted = finished.model(client)(data.x[data.test]).argmax(1)
        values[client] = float((predicted == data.y[data.test]).double().mean())
    assert finished.summary["accuracy"]["local"]["mean"] == pytest.approx(sum(values.values()) / len(values))
    budgets = finished.simulation.federation.budgets
    full = [values[c] for c in values if budgets[c] == 1.0]
    assert finished.summary["accuracy"]["local"]["1"] == pytest.approx(sum(full) / len(full))
    union = [
        float((finished.model("client-00")(d.x[d.test]).argmax(1) == d.y[d.test]).sum())
        for d in DATASET.clients.values()
    ]
    assert finished.summary["by_client"]["client-00"]["union"] == pytest.approx(
        sum(union) / sum(len(d.test) for d in DATASET.clients.values())
    )


def test_models_are_cut_to_their_budget() -> None:
    finished = run("framp")
    federation = finished.simulation.federation
    for client in DATASET.clients:
        model = finished.weights(client)
        kept = int((model.mask & federation.network.maskable).sum())
        assert kept == int(federation.budgets[client] * federation.network.n_maskable)
        assert not model.weights[~model.mask].any()
    with pytest.raises(RunError, match="no model"):
        finished.weights("nobody")
    assert finished.model("unseen-00") is not None


def test_the_transcript_holds_exactly_the_bytes_that_were_counted(tmp_path: Path) -> None:
    summary = run("framp", tmp_path / "run", record_transcript=True).summary
    counted = {way: dict.fromkeys(TRAFFIC_KEYS, 0) for way in ("down", "up")}
    names = []
    for name, delivery in read_transcript(tmp_path / "run" / "private" / "transcript"):
        names.append(name)
        for channel, size in bytes_by_channel(delivery.data).items():
            counted[delivery.direction][channel] += size
    assert counted == summary["traffic"]
    assert sorted(set(names)) == ["enrolment", *(f"round-{i:06d}" for i in range(5)), "settlement"]


def test_ledgers_are_chained_and_their_heads_known(tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = run("framp", out).summary
    assert verify(out / "ledger.jsonl", Head(**summary["ledgers"]["federation"])).rows == 2
    for client in DATASET.clients:
        assert verify(out / "ledgers" / f"{client}.jsonl", Head(**summary["ledgers"][client])).rows == 2
    checkpoint = json.loads(next((out / "private" / "checkpoint").glob("*.json")).read_text())
    assert checkpoint["facts"]["ledgers"] == summary["ledgers"]
    run("local", tmp_path / "local")
    assert verify(tmp_path / "local" / "ledger.jsonl").rows == 1


def test_spending_comes_before_releasing(tmp_path: Path) -> None:
    """When the first request is made, the row of what will be released is already on disk."""
    out, seen = tmp_path / "run", []

    def drops(client: str, index: int) -> bool:
        seen.append((index, EVERYTHING in (out / "ledger.jsonl").read_text()))
        return False

    run("framp", out, drops=drops)
    assert seen and all(written for _, written in seen)


def test_a_finished_run_can_be_loaded_to_predict(tmp_path: Path) -> None:
    config = make_config(
        assignments={
            "rounds": 2,
            "local_steps": 2,
            "clients": 4,
            "unseen_clients": 1,
            "home_steps": 2,
            "dataset": "digits",
        }
    )
    finished = run_config(config, out=tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    for client in ("client-00", "unseen-00"):
        assert torch.equal(loaded.weights(client).weights, finished.weights(client).weights)
    assert loaded.model("client-01")(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(RunError, match="no finished run"):
        load_run(tmp_path)


@pytest.mark.parametrize("name", ["framp", "framp on clients", "local"])
def test_a_run_with_its_own_network_comes_back_with_its_federation(tmp_path: Path, name: str) -> None:
    made = run(name, tmp_path / "run")
    with pytest.raises(RunError, match="federation="):
        load_run(tmp_path / "run")
    back = load_run(tmp_path / "run", dataset=DATASET, federation=tiny_federation(DATASET, VARIANTS[name], rounds=5))
    for client in DATASET.clients:
        assert torch.equal(back.weights(client).weights, made.weights(client).weights)


@pytest.mark.parametrize(
    "build", [lambda: nn.Linear(4, 3), lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))]
)
def test_a_network_that_does_not_fit_the_records_writes_nothing(tmp_path: Path, build) -> None:  # noqa: ANN001
    federation = federate(tiny_method(), TargetNetwork(build), list(DATASET.clients), rounds=2, budgets=[1])
    with pytest.raises(ModelError, match=r"shape|classes"):
        train(federation, DATASET, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_round_below_the_threshold_fails_and_the_next_one_works() -> None:
    made = run("framp", drops=lambda client, index: index == 1)
    assert made.simulation.state.round_index == 5
    assert made.summary["accuracy"]["local"]["mean"] > 0.5


def test_dropout_draws_from_the_seed_alone_wherever_it_is_written() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.last(nn.functional.dropout(self.first(x).relu(), 0.5, self.training))
            return made

    weights = []
    for place in range(2):
        torch.manual_seed(place)
        before = torch.random.get_rng_state()
        federation = federate(tiny_method(), TargetNetwork(Hidden), list(DATASET.clients), rounds=3)
        weights.append(train(federation, DATASET, options=Options(threads=2)).weights("client-00").weights)
        assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(*weights)


def test_a_transcript_goes_on_when_its_run_does(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run("framp", tmp_path / "cut", on_round=stop_after(2), record_transcript=True)
    run("framp", tmp_path / "cut", resume=True)
    assert len({name for name, _ in read_transcript(tmp_path / "cut" / "private" / "transcript")}) == 7
    with pytest.raises(Stopped):
        run("framp", tmp_path / "other", on_round=stop_after(2))
    with pytest.raises(RunError, match="without a transcript"):
        run("framp", tmp_path / "other", resume=True, record_transcript=True)


def test_clients_of_federation_and_data_must_be_the_same() -> None:
    with pytest.raises(RunError, match="not the data set's"):
        train(tiny_federation(tiny_dataset(5)), DATASET)


def test_other_data_of_the_same_shape_is_another_run(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run("framp", tmp_path / "run", on_round=stop_after(2))
    other = FederatedDataset.from_arrays(
        {name: blobs(36, 50 + i) for i, name in enumerate(DATASET.clients)}, name="blobs", n_classes=3
    )
    federation = tiny_federation(other, VARIANTS["framp"], rounds=5)
    with pytest.raises(CheckpointError, match="another"):
        train(
            federation,
            other,
            out=tmp_path / "run",
            resume=True,
            config={"method": "framp"},
            options=Options(evaluate_every=2, home_steps=3),
        )


@pytest.mark.parametrize("name", ["framp", "framp on clients", "fisher", "fiarse", "local"])
def test_any_number_of_threads_gives_bit_identical_weights(name: str) -> None:
    one = run(name, threads=1)
    torch.set_num_threads(2)
    try:
        three = run(name, threads=3)
        assert torch.get_num_threads() == 2  # put back
    finally:
        torch.set_num_threads(1)
    assert three.summary["accuracy"] == one.summary["accuracy"]
    assert three.summary["traffic"] == one.summary["traffic"]
    for client, value in one.simulation.tensors().items():
        assert torch.equal(value, three.simulation.tensors()[client]), client


def test_networks_that_draw_random_numbers_train_one_client_at_a_time() -> None:
    def dropping() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 10))

    assert TargetNetwork(dropping).stochastic
    assert not TargetNetwork(build).stochastic


@pytest.mark.parametrize("rounds", [0, -1])
def test_a_run_needs_a_round(rounds: int) -> None:
    from framp_private.errors import ConfigError

    with pytest.raises(ConfigError, match="rounds="):
        federate(replace(tiny_method()), TargetNetwork(build), ["a"], rounds=rounds, budgets=BUDGETS)
