"""The README tells the truth: its program runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from framp_private.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_quickstart_runs_and_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    exec(compile(program, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "mean" in printed and "torch.Size([1, 3])" in printed


def test_every_command_line_in_the_documents_is_valid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = set()
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for block in re.findall(r"```[a-z]*\n(.*?)```", path.read_text(), re.DOTALL):
            lines |= {
                line.split("#")[0].strip(" $")
                for line in block.splitlines()
                if line.strip(" $").startswith("framp-private train")
            }
    assert len(lines) >= 6
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "NAME").mkdir(parents=True)
    (tmp_path / "runs" / "NAME" / "config.yaml").write_text("dataset: digits\n")
    for line in sorted(lines):
        arguments = [word for word in line.split()[1:] if word not in ("--resume", "--dry-run")]
        assert main([*arguments, "--dry-run", "--json"]) == 0, line


def test_local_links_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_two_commands_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in ("run", "test", "test-all", "lint", "bench"):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE)
