"""Printing: a browser that is not there, one that fails, and a real one."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from framp_private.errors import RunError
from framp_private.report.comparison import comparison_document
from framp_private.report.document import Details, Document, Section, text
from framp_private.report.html import render_html
from framp_private.report.pdf import BROWSERS, write_pdf
from framp_private.report.sweep import sweep_document
from framp_private.version import __version__
from tests.report.sweeps import shown_summary
from tests.services import chromium_program
from tests.test_comparison import made

PAGE = render_html(
    Document("A report", "of nothing", (Section("One", (Details("More", (text("folded"),)),), "one"),)), opened=True
)


def browser(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch, name: str = "chromium") -> None:
    """A program in place of the browser."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_without_a_browser_the_error_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match=r"none of chromium, chromium-browser, google-chrome.*apt-get install chromium"):
        write_pdf(PAGE, tmp_path / "out.pdf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", ["echo broken >&2; exit 3", "exit 0", "echo broken >&2; kill -9 $$"])
def test_a_browser_that_fails_leaves_nothing(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser(tmp_path, script, monkeypatch)
    with pytest.raises(RunError, match="printed no PDF"):
        write_pdf(PAGE, tmp_path / "out.pdf")
    assert not (tmp_path / "out.pdf").exists()


def test_a_browser_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser(tmp_path, f"sleep 60 & echo $! > {tmp_path}/helper; wait", monkeypatch)
    with pytest.raises(RunError, match=r"in 2 s"):
        write_pdf(PAGE, tmp_path / "out.pdf", seconds=2)
    assert not (tmp_path / "out.pdf").exists()
    helper = int((tmp_path / "helper").read_text())
    for _ in range(50):
        if ended(helper):
            return
        time.sleep(0.1)
    raise AssertionError("what the browser had started outlived it")


def ended(process: int) -> bool:
    """Gone, or dead and not yet collected by whoever adopted it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("name", BROWSERS)
def test_the_browser_is_told_where_to_print_and_gets_no_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'printf "%s\\n" "$@" > {tmp_path}/said; for a in "$@"; do case $a in --print-to-pdf=*) echo made > "${{a#*=}}";; esac; done'
    browser(tmp_path, script, monkeypatch, name)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{empty(tmp_path)}")
    write_pdf(PAGE, tmp_path / "out.pdf")
    said = (tmp_path / "said").read_text().splitlines()
    assert (tmp_path / "out.pdf").read_text() == "made\n"
    assert {"--headless", "--no-pdf-header-footer", "--host-resolver-rules=MAP * ~NOTFOUND"} <= set(said)
    assert ("--no-sandbox" in said) == (os.geteuid() == 0)
    assert said[-1].startswith("file:///")


def empty(folder: Path) -> Path:
    (folder / "bin").mkdir(exist_ok=True)
    return folder / "bin"


def test_only_root_goes_without_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/said; exit 1', monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RunError):
        write_pdf(PAGE, tmp_path / "out.pdf")
    assert "--no-sandbox" not in (tmp_path / "said").read_text().splitlines()


@pytest.mark.parametrize("what", ["page", "sweep", "comparison"])
def test_a_real_browser_makes_a_pdf(tmp_path: Path, what: str) -> None:
    program = chromium_program()
    assert shutil.which(Path(program).name) is not None
    page = PAGE
    if what == "sweep":
        page = render_html(sweep_document(shown_summary(), __version__), opened=True)
    if what == "comparison":
        page = render_html(comparison_document(made(tmp_path / "compared"), __version__), opened=True)
    write_pdf(page, tmp_path / "out.pdf")
    printed = (tmp_path / "out.pdf").read_bytes()
    assert printed.startswith(b"%PDF-") and printed.rstrip().endswith(b"%%EOF") and len(printed) > 2000
