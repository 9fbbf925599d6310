"""`framp-private ledger show` and `ledger verify` on a sweep's folder, and on the folder of one of its runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dp_accounting import GaussianDpEvent

from framp_private import Ledger, Options, make_config, run_config
from framp_private.cli import main
from framp_private.crypto.keys import Identity
from framp_private.errors import LedgerError, RunError
from framp_private.federated.row_signer import RowSigner
from framp_private.inspect_ledgers import verify_ledgers
from framp_private.privacy.chain import Head
from framp_private.randomness import Entropy
from framp_private.sweep import run_sweep, sweep_of
from framp_private.sweep.trial import Row, Spend, Task
from tests.sweep import trials
from tests.sweep.harness import grid

RECORD, CLIENT = Path("ledgers", "record-add-remove.jsonl"), Path("ledgers", "client-add-remove.jsonl")
SMALL = {"clients": 4, "rounds": 2, "local_steps": 2, "home_steps": 2, "network": "linear", "evaluate_every": 2}
Change = Callable[[Path], None]


def leaving_a_summary(task: Task, spend: Spend) -> Row:
    """Spends at client level at the second point, and leaves a summary whose digest its row has."""
    unit = "client" if task.config.learning_rate > 0.015 else "record"
    spend({**trials.plan(task), "unit": unit, "trust_model": f"who counts {unit}s"})
    task.folder.mkdir(parents=True, exist_ok=True)
    (task.folder / "config.yaml").write_text("")
    text = json.dumps({"number": task.number})
    (task.folder / "summary.json").write_text(text)
    return {**trials.result(task), "summary_sha256": hashlib.sha256(text.encode()).hexdigest()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two points at two seeds: trials 0 and 2 spend on records, 1 and 3 on clients."""
    out = tmp_path_factory.mktemp("swept") / "sweep"
    summary = run_sweep(sweep_of(grid(2, seeds=2)), out, run=leaving_a_summary)
    assert summary["trials"]["done"] == 4 and len(summary["choosing"]["accounts"]) == 2
    return out


@pytest.fixture
def swept(whole: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(whole, tmp_path / "sweep"))


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def signed_anew(path: Path, identity: Identity) -> None:
    """The same rows with the same hashes, under another key."""
    signer, rows = RowSigner(identity), rows_of(path)
    rows[0]["signer"] = signer.key.hex()
    for number, row in enumerate(rows, 1):
        row["signature"] = signer.sign(Head(number, row["hash"]).signed_part).hex()
    write_rows(path, rows)


def test_a_whole_sweep_verifies_and_nothing_is_written(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = Identity.of_file(swept / "private" / "keys" / "sweep.key", Entropy()).public.key.hex()[:16]
    before = files_of(swept)
    assert main(["ledger", "verify", str(swept)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"sweep tried, unit client, add/remove: 3 rows, whole, signed by {key}; tail as in summary.json",
        f"sweep tried, unit record, add/remove: 3 rows, whole, signed by {key}; tail as in summary.json",
        "trials: 4 of 4 summaries are here, each as in summary.json",
    ]
    assert main(["ledger", "show", str(swept)]) == 0
    assert files_of(swept) == before


def test_what_a_sweep_has_spent_is_shown_by_account(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    oracle = Ledger.open(None, unit="record")
    oracle.spend(GaussianDpEvent(1.0), "one")
    oracle.spend(GaussianDpEvent(1.0), "two")
    for delta in (1e-5, 1e-7):
        assert main(["ledger", "show", str(swept), "--json", "--delta", str(delta)]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [(row["owner"], row["unit"], row["releases"]) for row in rows] == [
            ("sweep tried", "client", 2),
            ("sweep tried", "record", 2),
        ]
        assert [row["trust_model"] for row in rows] == ["who counts clients", "who counts records"]
        assert all(row["epsilon"] == pytest.approx(oracle.epsilon(delta), rel=1e-9) for row in rows)
    assert main(["ledger", "show", str(swept)]) == 0
    printed = capsys.readouterr().out
    assert f"{oracle.epsilon(1e-5):.4f}" in printed and max(map(len, printed.splitlines())) <= 80


def test_a_flipped_bit_anywhere_in_a_row_is_refused(swept: Path) -> None:
    path = swept / RECORD
    data = path.read_bytes()
    places = [place for place in range(0, len(data), 23) if data[place] != ord("\n")]
    assert len(places) > 60
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(LedgerError, match=r"record-add-remove\.jsonl"):
            verify_ledgers(swept)
    path.write_bytes(data)
    assert len(verify_ledgers(swept)) == 3


def edit_a_row(folder: Path) -> None:
    text = (folder / RECORD).read_text()
    (folder / RECORD).write_text(text.replace("trial 0002", "trial 0003"))


def cut_the_tail(folder: Path) -> None:
    write_rows(folder / CLIENT, rows_of(folder / CLIENT)[:-1])


def take_the_signatures_off(folder: Path) -> None:
    for path in (folder / RECORD, folder / CLIENT):
        rows = rows_of(path)
        rows[0]["signer"] = ""
        write_rows(path, [{key: row[key] for key in row if key != "signature"} for row in rows])


def take_signatures_and_key_off(folder: Path) -> None:
    shutil.rmtree(folder / "private" / "keys")
    take_the_signatures_off(folder)


def replace_the_key(folder: Path) -> None:
    (folder / "private" / "keys" / "sweep.key").unlink()
    Identity.of_file(folder / "private" / "keys" / "sweep.key", Entropy())


def sign_one_anew(folder: Path) -> None:
    signed_anew(folder / RECORD, Identity.new(Entropy()))


def sign_one_anew_without_the_key(folder: Path) -> None:
    shutil.rmtree(folder / "private" / "keys")
    sign_one_anew(folder)


def swap_the_ledgers(folder: Path) -> None:
    shutil.copy(folder / RECORD, folder / CLIENT)


def remove_a_ledger(folder: Path) -> None:
    (folder / RECORD).unlink()


def forget_an_account(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    summary["choosing"]["accounts"].pop()
    (folder / "summary.json").write_text(json.dumps(summary))


def break_the_summary(folder: Path) -> None:
    (folder / "summary.json").write_text('{"choosing": {"accounts": [{}]}}')


def alter_a_trial(folder: Path) -> None:
    path = folder / "trials" / "0002" / "summary.json"
    path.write_text(path.read_text().replace("2", "3"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edit_a_row, "row 3 was edited"),
        (cut_the_tail, "rows were cut off"),
        (take_the_signatures_off, "signed by nobody"),
        (take_signatures_and_key_off, "signed by nobody"),
        (replace_the_key, "the sweep's key is another"),
        (sign_one_anew, "the sweep's key is another"),
        (sign_one_anew_without_the_key, "the sweep's key is another"),
        (swap_the_ledgers, "the known head"),
        (remove_a_ledger, "no ledgers/record-add-remove.jsonl, which summary.json knows"),
        (forget_an_account, "summary.json knows no such account"),
        (break_the_summary, "no summary of a sweep"),
        (alter_a_trial, "trial 2:"),
    ],
)
def test_what_does_not_fit_is_refused(
    swept: Path, change: Change, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(swept)
    assert main(["ledger", "verify", str(swept)]) == 1
    printed = capsys.readouterr()
    assert says in printed.err and printed.out == ""
    with pytest.raises(LedgerError):
        verify_ledgers(swept)


def test_without_a_summary_the_chains_are_checked_and_what_is_not_is_said(
    swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (swept / "summary.json").unlink()
    assert main(["ledger", "verify", str(swept)]) == 0
    *ledgers, last = capsys.readouterr().out.splitlines()
    assert len(ledgers) == 2 and all("3 rows, whole" in line and "tail unverified" in line for line in ledgers)
    assert last == "trials: unverified, there is no summary.json"
    assert main(["ledger", "show", str(swept), "--json"]) == 0
    assert {row["trust_model"] for row in json.loads(capsys.readouterr().out)} == {"as each trial's summary says"}
    edit_a_row(swept)
    assert main(["ledger", "verify", str(swept)]) == 1


def test_a_summary_that_was_written_before_the_end_holds_up_to_its_row(swept: Path) -> None:
    rows = rows_of(swept / CLIENT)
    path = swept / "summary.json"
    summary = json.loads(path.read_text())
    account = next(each for each in summary["choosing"]["accounts"] if each["unit"] == "client")
    account["ledger"] |= {"rows": 2, "hash": rows[1]["hash"]}
    path.write_text(json.dumps(summary))
    with pytest.raises(LedgerError, match="the known head is row 2"):
        verify_ledgers(swept)  # all trials had ended: nothing can have come after
    last = summary["rows"][3]
    summary["rows"][3] = {key: last[key] for key in ("number", "place", "seed", "screening")} | {"state": "waiting"}
    path.write_text(json.dumps(summary))
    client, record, last_line = verify_ledgers(swept)
    assert client.endswith("as in summary.json up to row 2, tail unverified: trials were left to run")
    assert record.endswith("tail as in summary.json") and last_line.startswith("trials: 3 of 3 ")
    write_rows(swept / CLIENT, rows[:1])
    with pytest.raises(LedgerError, match="the known head is row 2"):
        verify_ledgers(swept)
    write_rows(swept / CLIENT, rows)
    account["ledger"]["hash"] = rows[2]["hash"]
    path.write_text(json.dumps(summary))
    with pytest.raises(LedgerError, match="the known head is row 2"):
        verify_ledgers(swept)


def test_without_the_key_the_ledgers_name_their_signer_and_no_key_is_made(swept: Path) -> None:
    shutil.rmtree(swept / "private" / "keys")
    stranger = Identity.new(Entropy())
    known = verify_ledgers(swept)
    for path in (RECORD, CLIENT):
        signed_anew(swept / path, stranger)
    found = verify_ledgers(swept)
    assert all(f"signed by {stranger.public.key.hex()[:16]};" in line for line in found[:2]) and found[:2] != known[:2]
    assert not (swept / "private" / "keys").exists()


def test_trials_that_ran_elsewhere_are_counted_and_not_missed(swept: Path) -> None:
    shutil.rmtree(swept / "trials" / "0001")
    assert verify_ledgers(swept)[-1].startswith("trials: 3 of 4 summaries")


@pytest.mark.parametrize("command", ["verify", "show"])
def test_where_there_is_no_ledger_status_is_1(
    command: str, swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        assert main(["ledger", command, str(tmp_path / name)]) == 1
        assert "no ledger.jsonl and no sweep.yaml" in capsys.readouterr().err
    shutil.rmtree(swept / "ledgers")
    (swept / "summary.json").unlink()
    assert main(["ledger", command, str(swept)]) == 1
    assert "have spent nothing yet, or they were removed" in capsys.readouterr().err


def test_a_sweep_that_has_spent_nothing_verifies_as_such(tmp_path: Path) -> None:
    run_sweep(sweep_of(grid(1)), tmp_path / "sweep", run=trials.trivial)
    assert verify_ledgers(tmp_path / "sweep") == ["trials: 0 of 0 summaries are here, each as in summary.json"]


def test_a_real_sweep_and_the_folder_of_its_run_verify_each_by_its_own(tmp_path: Path) -> None:
    written = {"name": "real", "preset": "digits-private", "set": SMALL, "axes": {"privacy.epsilon": [8]}}
    out = tmp_path / "sweep"
    run_sweep(sweep_of(written), out)
    ledger, last = verify_ledgers(out)
    assert ledger.startswith("sweep real, unit record, add/remove: 2 rows") and last.startswith("trials: 1 of 1 ")
    run = out / "trials" / "0000"
    lines = verify_ledgers(run)
    assert lines[0].startswith("federation: ") and len(lines) == 5
    assert all("tail as in summary.json" in line for line in lines)
    summary = json.loads((run / "summary.json").read_text())
    summary["ledgers"]["federation"]["rows"] += 1
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(LedgerError, match="the known head is row"):
        verify_ledgers(run)
    with pytest.raises(LedgerError, match="trial 0:"):
        verify_ledgers(out)


def test_a_shared_ledger_is_about_one_partition(tmp_path: Path) -> None:
    """Another seed deals the records to other clients: a record would have spent at two, and the largest says less."""
    small = {"rounds": 1, "clients": 4, "home_steps": 1, "unseen_clients": 0, "privacy": {"budget": 50.0}}

    def once(name: str, **more: object) -> None:
        config = make_config(preset="digits-private", assignments={**small, **more})
        run_config(config, out=tmp_path / name, options=Options(ledger=tmp_path / "ledgers"))

    once("first", seed=0)
    once("second", seed=1, data_seed=0)
    for more in ({"seed": 1}, {"seed": 0, "clients": 5}, {"seed": 0, "alpha": 5.0}):
        with pytest.raises(RunError, match="other records"):
            once("third", **more)
    kept = tmp_path / "ledgers" / "private" / "keys" / "partition"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and len(kept.read_text()) == 64
