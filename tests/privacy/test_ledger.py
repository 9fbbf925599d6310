"""The ledger: chained, write-ahead, idempotent by label, and honest about what it cannot see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dp_accounting import GaussianDpEvent, NonPrivateDpEvent

from framp_private import Ledger
from framp_private.errors import LedgerError
from framp_private.privacy.claims import Claim, no_guarantee, nothing_released, statement
from framp_private.privacy.ledger import verify


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ledger = Ledger.open(tmp_path / "ledger.jsonl", unit="record")
    for index in range(4):
        ledger.spend(NonPrivateDpEvent(), f"round {index}")
    return tmp_path / "ledger.jsonl"


def test_a_ledger_starts_with_its_unit_and_chains_every_row(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0]["kind"] == "genesis" and rows[0]["unit"] == "record"
    assert [row["previous"] for row in rows[1:]] == [row["hash"] for row in rows[:-1]]
    assert verify(path).rows == 5


def test_a_label_is_spent_once(path: Path) -> None:
    ledger = Ledger.open(path, unit="record")
    head = ledger.head
    ledger.spend(NonPrivateDpEvent(), "round 3")
    assert ledger.head == head
    with pytest.raises(LedgerError, match="round 3"):
        ledger.spend(GaussianDpEvent(1.0), "round 3")
    ledger.spend(NonPrivateDpEvent(), "round 4")
    assert ledger.head.rows == head.rows + 1


@pytest.mark.parametrize("change", ["edit", "drop", "swap", "forge"])
def test_a_changed_ledger_does_not_verify(path: Path, change: str) -> None:
    lines = path.read_text().splitlines()
    if change == "edit":
        lines[2] = lines[2].replace("round 1", "round 9")
    elif change == "drop":
        del lines[2]
    elif change == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        row = json.loads(lines[2])
        row["label"] = "forged"
        lines[2] = json.dumps(row)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(LedgerError, match="row 3"):
        verify(path)
    with pytest.raises(LedgerError):
        Ledger.open(path, unit="record")


def test_a_cut_tail_shows_against_a_known_head_only(path: Path) -> None:
    head = verify(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    assert verify(path).rows == 4
    with pytest.raises(LedgerError, match="cut off"):
        verify(path, head)


def test_a_line_that_a_crash_cut_short_never_counted(path: Path) -> None:
    head = Ledger.open(path, unit="record").head
    with path.open("a") as file:
        file.write('{"kind": "spend", "lab')
    assert Ledger.open(path, unit="record").head == head
    assert verify(path) == head


@pytest.mark.parametrize(
    "other", [{"unit": "client"}, {"unit": "record", "relation": "replace-one"}, {"unit": "record", "owner": "x"}]
)
def test_one_account_has_one_unit_relation_and_owner(path: Path, other: dict[str, str]) -> None:
    with pytest.raises(LedgerError, match="not of"):
        Ledger.open(path, **other)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "not json\n", "[]\n", "{}\n"])
def test_what_is_no_ledger_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(LedgerError):
        verify(tmp_path / "x.jsonl")


def test_a_claim_is_never_an_epsilon_alone() -> None:
    assert statement([no_guarantee("record"), no_guarantee("client")]) == "privacy: none, epsilon = infinite"
    text = statement(
        [Claim("record", 8.0, 1e-5, "add/remove", "trusted server", "this run alone"), no_guarantee("client")]
    )
    for part in ("8", "1e-05", "record", "add/remove", "trusted server", "this run alone"):
        assert part in text
    assert "epsilon = 0" in statement([nothing_released("record")])
