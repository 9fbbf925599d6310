"""The page of the threat model: every promise of its table names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTHING = ("nothing", "–", "every value", "**every value**")


def tables() -> list[list[list[str]]]:
    """Both tables under the heading, as rows of cells."""
    text = (ROOT / "docs" / "threat_model.md").read_text().split("## What holds against whom")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.M)
    return [[[cell.strip() for cell in row.strip("| \n").split(" | ")] for row in b.splitlines()] for b in blocks]


def test_each_cell_names_a_test_that_exists() -> None:
    promised, held = tables()
    assert [row[0] for row in promised] == [row[0] for row in held] and len(promised) == 9
    for promise, test in zip(promised[2:], held[2:], strict=True):
        assert len(promise) == len(test) == 6
        for said, name in zip(promise[1:], test[1:], strict=True):
            if said in NOTHING:
                continue
            path, _, function = name.strip("`").partition("::")
            assert f"def {function}(" in (ROOT / path).read_text(), (promise[0], said, name)
