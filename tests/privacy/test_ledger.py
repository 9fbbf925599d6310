"""The ledger: chained, write-ahead, idempotent by label, and honest about what it cannot see."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    NonPrivateDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)

from framp_private import Ledger
from framp_private.errors import LedgerError, PrivacyBudgetExhausted, PrivacyParameterError
from framp_private.privacy import accounting
from framp_private.privacy.accounting import filter_epsilon, rdp_vector
from framp_private.privacy.chain import Head
from framp_private.privacy.claims import Claim, no_guarantee, nothing_released, statement
from framp_private.privacy.events import Budget, Event, leaves
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


STEP = PoissonSampledDpEvent(0.1, GaussianDpEvent(1.0))


def test_an_event_of_another_unit_or_relation_is_refused(path: Path) -> None:
    ledger = Ledger.open(path, unit="record")
    before = path.read_bytes()
    for event in (
        Event(GaussianDpEvent(1.0), "client"),
        Event(GaussianDpEvent(1.0), "record", "replace-one"),
    ):
        with pytest.raises(LedgerError, match="never added"):
            ledger.spend(event, "x")
        with pytest.raises(LedgerError, match="never added"):
            ledger.would_exceed(event, Budget(1.0, 1e-5))
    with pytest.raises(LedgerError, match="not known"):
        ledger.spend("GaussianDpEvent", "x")  # type: ignore[arg-type]
    assert path.read_bytes() == before


def test_a_budget_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger.open(path, unit="record", budget=Budget(1.0, 1e-5))
    done = 0
    with pytest.raises(PrivacyBudgetExhausted, match="nothing was released"):
        while done < 1000:
            ledger.spend(GaussianDpEvent(20.0), f"round {done}")
            done += 1
    assert 0 < done < 1000 and ledger.epsilon(1e-5) <= 1.0
    assert verify(path).rows == done + 1
    again = Ledger.open(path, unit="record", budget=Budget(1.0, 1e-5))
    assert again.would_exceed(GaussianDpEvent(20.0), Budget(1.0, 1e-5))
    assert not again.would_exceed(GaussianDpEvent(20.0), Budget(2.0, 1e-5))
    assert again.epsilon(1e-5) == ledger.epsilon(1e-5)


def test_a_plan_that_was_declared_first_passes_as_a_whole_where_rdp_alone_would_refuse() -> None:
    plan = [(Event(STEP, "record"), 200)]
    whole = Ledger.open(None, unit="record")
    whole.declare(plan, "this run")
    whole.spend(plan[0][0].times(200), "all")
    exact = whole.epsilon(1e-5)
    by_rdp = filter_epsilon(rdp_vector(leaves(STEP, 200), "add/remove"), 1e-5)
    assert exact < by_rdp
    budget = Budget(exact * 1.0001, 1e-5)
    ledger = Ledger.open(None, unit="record", budget=budget)
    ledger.declare(plan, "this run")
    for index in range(200):
        ledger.spend(STEP, f"step {index}")
    with pytest.raises(PrivacyBudgetExhausted):
        ledger.spend(STEP, "one more")
    with pytest.raises(LedgerError, match="other events"):
        ledger.declare([(Event(STEP, "record"), 100)], "this run")
    ledger.declare(plan, "this run")


def test_what_was_not_planned_passes_by_the_filter_alone() -> None:
    """8.706 by RDP and 7.998 by PLD: a budget of 8 takes the first only as a plan, and reports no less without one."""
    event, count = PoissonSampledDpEvent(0.25, GaussianDpEvent(1.0)), 12
    planned = Ledger.open(None, unit="record")
    planned.declare([(Event(event, "record"), count)], "run")
    planned.spend(Event(event, "record").times(count), "all")
    by_pld, by_rdp = planned.epsilon(1e-5), filter_epsilon(rdp_vector(leaves(event, count), "add/remove"), 1e-5)
    assert by_pld < by_rdp
    budget = Budget((by_pld + by_rdp) / 2, 1e-5)
    adaptive = Ledger.open(None, unit="record", budget=budget)
    with pytest.raises(PrivacyBudgetExhausted):
        for index in range(count):
            adaptive.spend(event, f"step {index}")
    free = Ledger.open(None, unit="record")
    for index in range(count):
        free.spend(event, f"step {index}")
    assert free.epsilon(1e-5) == pytest.approx(by_rdp)
    more = Ledger.open(None, unit="record")  # a plan, and then more than it
    more.declare([(Event(event, "record"), count - 1)], "run")
    for index in range(count):
        more.spend(event, f"step {index}")
    assert more.epsilon(1e-5) == pytest.approx(by_rdp)


def test_several_plans_are_composed_by_the_filter() -> None:
    ledger = Ledger.open(None, unit="record")
    for run in ("first", "second"):
        ledger.declare([(Event(STEP, "record"), 50)], run)
        for index in range(50):
            ledger.spend(STEP, f"{run}/{index}")
    vector = rdp_vector(leaves(STEP, 100), "add/remove")
    assert ledger.epsilon(1e-5) == pytest.approx(filter_epsilon(vector, 1e-5))


def test_the_last_check_costs_as_much_as_the_first() -> None:
    """Counted in calls of the accountants, not in seconds: none after the first."""
    ledger, budget = Ledger.open(None, unit="record"), Budget(80.0, 1e-5)
    assert not ledger.would_exceed(STEP, budget)
    before = accounting._rdp.cache_info().misses, accounting._pld.cache_info().misses
    for index in range(300):
        ledger.spend(STEP, f"step {index}")
        assert not ledger.would_exceed(STEP, budget)
    assert (accounting._rdp.cache_info().misses, accounting._pld.cache_info().misses) == before


def test_something_without_a_guarantee_is_infinite_for_good(path: Path) -> None:
    ledger = Ledger.open(path, unit="record")
    assert ledger.epsilon(1e-5) == math.inf
    assert ledger.would_exceed(GaussianDpEvent(1e6), Budget(1e6, 1e-5))
    for delta in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(PrivacyParameterError):
            ledger.epsilon(delta)


def test_two_writers_on_one_file_are_found_and_the_second_spends_nothing(path: Path) -> None:
    first, second = Ledger.open(path, unit="record"), Ledger.open(path, unit="record")
    first.spend(GaussianDpEvent(1.0), "mine")
    with pytest.raises(LedgerError, match="another process"):
        second.spend(GaussianDpEvent(1.0), "theirs")
    assert not second.has("theirs") and verify(path) == first.head


def test_a_second_process_is_found_too(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dp_accounting import GaussianDpEvent; from framp_private import Ledger\n"
        "ledger = Ledger.open(Path(sys.argv[1]), unit='record'); print('open', flush=True); sys.stdin.readline()\n"
        "ledger.spend(GaussianDpEvent(1.0), 'theirs')\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "open\n"
    Ledger.open(path, unit="record").spend(GaussianDpEvent(1.0), "mine")
    _, errors = child.communicate("go\n", timeout=60)
    assert child.returncode == 1 and "LedgerError" in errors
    assert "theirs" not in path.read_text() and verify(path).rows == 6


@pytest.mark.parametrize("fails", ["write", "fsync", "short write"])
def test_a_full_disk_spends_nothing_and_leaves_the_file_as_it_was(
    path: Path, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(path, unit="record")
    before, head, real = path.read_bytes(), ledger.head, os.write

    def full(file: int, *data: bytes) -> int:
        if fails == "short write" and len(data[0]) > 10:
            return real(file, data[0][:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync" if fails == "fsync" else "write", full)
    with pytest.raises(LedgerError, match="nothing was spent"):
        ledger.spend(GaussianDpEvent(1.0), "x")
    monkeypatch.undo()
    assert path.read_bytes() == before and ledger.head == head and not ledger.has("x")
    assert ledger.spend(GaussianDpEvent(1.0), "x") and verify(path).rows == 6


def test_a_ledger_goes_on_from_heads_it_had_and_from_no_others(path: Path) -> None:
    early = Head(3, json.loads(path.read_text().splitlines()[2])["hash"])
    ledger = Ledger.open(path, unit="record")
    assert ledger.verify(early) == ledger.head and ledger.verify() == ledger.head
    for other in (Head(3, "0" * 64), Head(99, early.hash)):
        with pytest.raises(LedgerError, match="never had the known head"):
            ledger.verify(other)


def test_a_ledger_without_a_path_lives_in_memory() -> None:
    ledger = Ledger.open(None, unit="client")
    assert ledger.spend(GaussianDpEvent(2.0), "a") and not ledger.spend(GaussianDpEvent(2.0), "a")
    assert ledger.head.rows == 2 and ledger.releases == 1


def test_rows_are_readable_by_their_owner_alone(path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "event",
    [
        GaussianDpEvent(-1.0),
        GaussianDpEvent(math.nan),
        PoissonSampledDpEvent(1.5, GaussianDpEvent(1.0)),
        PoissonSampledDpEvent(0.5, GaussianDpEvent(-1.0)),
        SelfComposedDpEvent(GaussianDpEvent(1.0), -1),
        SelfComposedDpEvent(GaussianDpEvent(1.0), 0),
        ComposedDpEvent([GaussianDpEvent(1.0), SelfComposedDpEvent(GaussianDpEvent(1.0), -5)]),
    ],
)
def test_events_that_would_give_budget_back_or_cannot_be_priced_are_refused_before_they_are_written(
    path: Path, event: DpEvent
) -> None:
    ledger = Ledger.open(path, unit="record")
    before, spent = path.read_bytes(), ledger.epsilon(1e-5)
    for call in (lambda: ledger.spend(event, "x"), lambda: ledger.would_exceed(event, Budget(1.0, 1e-5))):
        with pytest.raises(PrivacyParameterError):
            call()
    assert path.read_bytes() == before and Ledger.open(path, unit="record").epsilon(1e-5) == spent
    with pytest.raises(PrivacyParameterError):
        Event(GaussianDpEvent(1.0), "record", noise_values=-1)


def test_a_plan_that_comes_after_the_first_release_does_not_make_it_planned() -> None:
    ledger = Ledger.open(None, unit="record")
    ledger.spend(STEP, "early")
    ledger.declare([(Event(STEP, "record"), 200)], "late")
    for index in range(199):
        ledger.spend(STEP, f"step {index}")
    assert ledger.epsilon(1e-5) == pytest.approx(filter_epsilon(rdp_vector(leaves(STEP, 200), "add/remove"), 1e-5))


def test_a_reader_leaves_a_torn_line_alone_and_a_whole_one_without_its_newline_counts(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert Ledger.open(path, unit="record", repair=False).head.rows == 5 and path.read_bytes() == whole[:-1]
    assert Ledger.open(path, unit="record").head.rows == 5 and path.read_bytes() == whole
    path.write_bytes(whole[:-9])
    assert Ledger.open(path, unit="record").head.rows == 4
