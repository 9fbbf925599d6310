"""A page on paper: the report's own HTML, printed by a browser that is installed on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from framp_private.checkpoint import write_atomically
from framp_private.errors import RunError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "apt-get install chromium"
SECONDS = 120.0


def write_pdf(html: str, path: Path, *, seconds: float = SECONDS) -> None:
    """Prints a page that needs nothing else into a file; render it with `opened=True`.

    The browser gets a profile of its own and no network; as root it runs without its sandbox, which refuses root.

    Raises:
        RunError: no browser is found, it fails, or it takes longer than `seconds`. Nothing is written then.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise RunError(f"none of {', '.join(BROWSERS)} is on PATH, and one prints the PDF: {INSTALL}")
    with TemporaryDirectory(prefix="framp-pdf-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        page, made = folder / "report.html", folder / "report.pdf"
        page.write_text(html, encoding="utf-8")
        _print(browser, page, made, folder / "profile", seconds)
        write_atomically(path, made.read_bytes())


def _print(browser: str, page: Path, made: Path, profile: Path, seconds: float) -> None:
    command = [
        browser,
        "--headless",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-extensions",
        "--no-first-run",
        "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
        "--no-pdf-header-footer",
        f"--print-to-pdf={made}",
        page.as_uri(),
    ]
    said = profile.with_name("said")
    status = _status(command, said, seconds)
    if status is None:
        raise RunError(f"{browser} printed no PDF in {seconds:g} s: update it with {INSTALL}")
    if status != 0 or not made.is_file():
        last = said.read_text(errors="replace").strip()[-500:]
        raise RunError(f"{browser} printed no PDF (status {status}): {last}; update it with {INSTALL}")


def _status(command: list[str], said: Path, seconds: float) -> int | None:
    """The exit status; None where it took too long, and it was ended with all that it had started."""
    try:
        with said.open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
    except OSError as error:
        raise RunError(f"{command[0]} does not start: {error}; update it with {INSTALL}") from error
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its session is its own: helpers that outlive it, nobody else
        process.wait()
