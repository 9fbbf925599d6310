"""One sentence on an audit, from every state that a claim can be in and every leak that an attack can show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from threat_models.report import render
from threat_models.summing_up import LEGEND, sentence
from threat_models.terminal import audit_table


def claim(state: str, epsilon: float | None = 8.0, **more: Any) -> dict[str, Any]:
    row = {"epsilon": epsilon, "delta": 1e-5, "unit": "record", "adjacency": "add/remove", "scope": "this run"}
    return {**row, "state": state, "words": f"refuted by {more.pop('by', 'one-run')}", "bounds": [], **more}


def attack(leak: str, value: float | None = 0.7, **more: Any) -> dict[str, Any]:
    row = {"id": "A1", "adversary": "honest server", "asset": "record membership", "statistic": "AUC", "words": ""}
    figures = {"value": value, "low": value, "high": value, "baseline": 0.5, "ceiling": None}
    return {**row, **figures, "leak": leak, "worst": {}, "curve": [], "members": None, **more}


MIX = {"id": "A5", "asset": "label distribution", "statistic": "1 - TV"}
BOUND = {"value": 4.31, "sound": True}

CASES = [
    ([claim("not_claimed", None)], [], "This run claims nothing; no attack that nothing bounds did surely better"),
    ([claim("not_claimed", None)], [attack("open", 1.0, **MIX)], "learns exactly each client's mix of classes (A5)."),
    ([claim("consistent")], [attack("bounded")], "Nothing was found against the claim of epsilon 8 for one record; no"),
    ([claim("consistent"), claim("consistent", bounds=[BOUND])], [], "of which canaries showed 4.31; no attack"),
    ([claim("refuted", by="masks")], [], "The claim of epsilon 8 for one record is refuted (masks)"),
    ([claim("consistent"), claim("refuted", channel="update")], [], "is refuted (update: one-run)"),
    ([claim("cannot_refute")], [], "so few canaries could not have refuted it"),
    ([claim("estimate_only")], [], "was not tested: no bound"),
    ([claim("consistent")], [attack("open")], "better than chance at telling whether a record was trained on (A1)."),
    ([claim("consistent")], [attack("unclear"), attack("none"), attack("open", None)], "no attack that nothing bounds"),
    (
        [claim("not_claimed", None)],
        [attack("open", 1.0, **MIX), attack("open"), attack("open", adversary="external user", id="E1")],
        "without any bound the server learns exactly each client's mix of classes (A5), and does better than chance at "
        "telling whether a record was trained on (A1), and the user does better than chance at telling whether a "
        "record was trained on (E1).",
    ),
    ([claim("not_claimed", None)], [attack("open", 62.0, statistic="PSNR, dB", asset="record")], "a record's features"),
]


@pytest.mark.parametrize(("claims", "attacks", "words"), CASES)
def test_a_sentence_says_what_became_of_the_claim_and_what_is_open(claims, attacks, words) -> None:
    found = sentence({"claims": claims, "attacks": attacks})
    assert words in found and found.count(".\n") == 0 and found.endswith(".")


def test_terminal_and_page_begin_with_it_and_explain_every_leak() -> None:
    claims, attacks = [claim("consistent")], [attack("open", 1.0, **MIX), attack("bounded", ceiling=0.9)]
    rows = {
        "summary": sentence({"claims": claims, "attacks": attacks}),
        "claims": claims,
        "attacks": attacks,
        "findings": [],
        "notes": [],
        "source": "transcript",
        "version": "0",
        "plan": {},
        "facts": {"dataset": "digits", "rounds": 1, "clients": 2, "messages": 3},
        "pictures": [],
    }
    screen = io.StringIO()
    Console(file=screen, width=80).print(audit_table(rows, Path("run")))
    shown = " ".join(screen.getvalue().split())
    assert all(len(line) <= 80 for line in screen.getvalue().splitlines())
    page = " ".join(render(rows).split())
    for text in (shown, page):
        assert "Nothing was found against the claim of epsilon 8" in text
        for leak, words in LEGEND.items():
            assert words in text and leak in text
