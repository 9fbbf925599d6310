"""Checkpoints: whole or an error, never a silent step back."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from framp_private import Options, train
from framp_private.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_atomically
from framp_private.errors import CheckpointError
from framp_private.privacy.events import Budget
from framp_private.run_folder import RunFolder
from tests import private

TENSORS = {
    "phi": torch.arange(5.0),
    "mask": torch.tensor([True, False]),
    "empty": torch.zeros(0),
    "bytes": torch.tensor([1, 2], dtype=torch.uint8),
}


def test_what_was_saved_comes_back_and_older_ones_go(tmp_path: Path) -> None:
    for index in (1, 2, 10):
        save_checkpoint(tmp_path, Checkpoint(index, TENSORS, {"note": index}))
        assert {item.name for item in tmp_path.iterdir()} == {
            f"state-{index:06d}.json", f"state-{index:06d}.safetensors", "committed"
        }  # fmt: skip
    found = load_checkpoint(tmp_path)
    assert found.round_index == 10 and found.facts == {"note": 10}
    assert found.tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert torch.equal(found.tensors[name], value) and found.tensors[name].dtype == value.dtype


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "absent") is None


def test_remains_of_an_interrupted_write_do_not_count(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint(3, TENSORS, {}))
    (tmp_path / "state-000004.safetensors").write_bytes(b"half")
    (tmp_path / "state-000004.json.partial").write_bytes(b"{")
    assert load_checkpoint(tmp_path).round_index == 3
    save_checkpoint(tmp_path, Checkpoint(4, TENSORS, {}))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_checkpoint_is_an_error(tmp_path: Path, suffix: str, damage: str) -> None:
    save_checkpoint(tmp_path, Checkpoint(3, TENSORS, {"note": 1}))
    path = tmp_path / f"state-000003{suffix}"
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes({"cut": data[:-3], "flip": data, "empty": b""}[damage])
    with pytest.raises(CheckpointError, match=r"state-000003|was committed"):
        load_checkpoint(tmp_path)


def test_edited_facts_are_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint(3, TENSORS, {"note": 1}))
    path = tmp_path / "state-000003.json"
    row = json.loads(path.read_text())
    row["facts"]["note"] = 2
    path.write_text(json.dumps(row))
    with pytest.raises(CheckpointError, match="altered"):
        load_checkpoint(tmp_path)


def test_an_atomic_write_replaces_the_whole_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "x", b"long content")
    write_atomically(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new" and len(list(tmp_path.iterdir())) == 1


def test_what_clients_keep_is_their_owners_alone_and_no_hash_of_the_data_is_stored(tmp_path: Path) -> None:
    """Folders 0700 and files 0600 of all that is private; the fingerprint only under a key."""
    out, dataset = tmp_path / "run", private.DATASET
    options = Options(home_steps=1, budget=Budget(50.0, 1e-5), record_transcript=True)
    before = os.umask(0)  # modes must not be left to it
    try:
        train(private.federation(rounds=2), dataset, out=out, options=options)
    finally:
        os.umask(before)
    assert {path.name for path in (out / "private").iterdir()} >= {"checkpoint", "clients", "keys", "transcript"}
    for path in [out / "private", *(out / "private").rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert {path.name for path in out.iterdir() if path.name != "private"} == {
        "config.yaml",
        "metrics.jsonl",
        "ledger.jsonl",
        "ledgers",
        "summary.json",
        "report.html",
        "run_id",
    }


def test_what_may_be_passed_on_holds_no_count_of_records(tmp_path: Path) -> None:
    """Neither a client's true number of training records nor its classes: what it declared stands there instead."""
    out, dataset = tmp_path / "run", private.DATASET
    sizes = {name: data.n_train for name, data in dataset.clients.items()}
    made = train(
        private.federation(rounds=1), dataset, out=out, options=Options(home_steps=1, budget=Budget(50.0, 1e-5))
    )
    rows = json.loads((out / "private" / "clients.json").read_text())
    assert {name: row["records"] for name, row in rows.items() if name in sizes} == sizes
    assert all(sum(row["classes"]) == row["records"] for row in rows.values())
    summary = json.loads((out / "summary.json").read_text())
    for name, row in summary["by_client"].items():
        assert not {"records", "classes"} & set(row)
        assert row["declared"] == made.simulation.federation.declared[name]
    page = (out / "report.html").read_text()
    assert "Class mix" not in page and "Class mix" in (out / "private" / "clients.html").read_text()
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert dataset.fingerprint.encode() not in everything and bytes.fromhex(dataset.fingerprint) not in everything


def test_two_processes_do_not_run_in_one_folder(tmp_path: Path) -> None:
    files = RunFolder(tmp_path / "run")
    files.start({"a": 1}, False)
    with files.locked():
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from pathlib import Path; from framp_private.run_folder import RunFolder\n"
                "with RunFolder(Path(sys.argv[1])).locked(): pass",
                str(files.path),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "in use by another process" in done.stderr
    with files.locked():
        pass
