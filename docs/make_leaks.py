"""Writes the leak matrix of docs/threat_model.md from audits of real runs.

    framp-private train --preset digits --record-transcript --out runs/open
    framp-private train --preset digits-private --record-transcript --out runs/private
    framp-private train --preset digits-secure --record-transcript --out runs/secure
    framp-audit run runs/open
    framp-audit run runs/private
    framp-audit run runs/secure
    python docs/make_leaks.py runs/open runs/private runs/secure

Each column is a run, by its preset's name in config; each row an asset and who attacked it, with the worst leak.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from threat_models.catalogue import CATALOGUE
from threat_models.trials import TRIALS

PAGE = Path(__file__).parent / "threat_model.md"
BEGIN, END = "<!-- leaks: begin -->", "<!-- leaks: end -->"
ORDER = ("not in view", "none", "bounded", "unclear", "open", "violation")


def cells(rows: dict) -> dict[tuple[str, str], tuple[str, str]]:
    """(adversary, asset) -> (worst leak, its figure)."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for row in sorted(rows["attacks"], key=lambda row: (ORDER.index(_leak(row)), row["value"] or 0.0)):
        figure = "" if row["value"] is None else f"{row['id']} {row['statistic']} {row['value']:.3f}"
        if row["ceiling"] is not None and row["value"] is not None:
            figure += f" of {row['ceiling']:.3f}"
        found[row["adversary"], row["asset"].split(",")[0]] = (_leak(row), figure)
    return found


def _leak(row: dict) -> str:
    return row["leak"] if row["value"] is not None else "not in view"


def table(folders: list[Path]) -> str:
    """The matrix, in Markdown."""
    audits = [json.loads((folder / "audit.json").read_text()) for folder in folders]
    names = [folder.name for folder in folders]
    columns = [cells(rows) for rows in audits]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    claims = []
    for rows in audits:
        claim = rows["claims"][0]
        claims.append("NOT DP" if claim["epsilon"] is None else f"epsilon {claim['epsilon']:.2f}: {claim['state']}")
    lines = ["| adversary, asset | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    lines.append("| *claim and verdict* | " + " | ".join(claims) + " |")
    for key in keys:
        shown = [column.get(key, ("–", "")) for column in columns]
        shown_words = [f"{leak} {f'({figure})' if figure else ''}".strip() for leak, figure in shown]
        lines.append(f"| {key[0]}, {key[1]} | " + " | ".join(shown_words) + " |")
    others = [each for each in CATALOGUE if each.where != "framp-audit run" and each.id not in TRIALS]
    lines += [
        "",
        "Attacks that need more than a run leaves (a query, a crafted message, a coalition) are functions with tests:",
        "",
    ]
    lines += ["| attack | by | without defence | with defence |", "|---|---|---|---|"]
    lines += [f"| {a.id} {a.name} | {a.adversary} | {a.without} | {a.with_defence} |" for a in others]
    return "\n".join(lines)


def main() -> None:
    """Replaces what stands between the marks."""
    folders = [Path(name) for name in sys.argv[1:]]
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{table(folders)}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
