"""Real parts for tests: a headless Chromium that reports what a page does, PostgreSQL and MariaDB servers on loopback.

Each lives as long as a `with` block and leaves nothing behind. Where a part is missing, the test skips and names the
command that installs it:

    with open_page(path, 1280) as seen:
        assert seen.requests == [] and seen.problems == [] and accessibility(seen) == []

    with postgres() as url:  # postgresql+psycopg://user:password@127.0.0.1:port/database
        ...

    with mariadb() as url:  # mysql+pymysql://user:password@127.0.0.1:port/database
        ...
"""

from __future__ import annotations

import importlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    import playwright.sync_api as pw

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
DEBIAN_MARIADB = Path("/usr/sbin")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
# Names and addresses other than loopback resolve to nothing, so that a faulty page is caught without reaching anyone.
STAY_HOME = ["--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"]
# Links that look up or connect to a host without a request that a page would report.
HINTS = "link[rel~=preconnect i], link[rel~=dns-prefetch i]"


def needed(module: str) -> ModuleType:
    """The imported module, or a skip."""
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        pytest.skip(f"{module} is missing ({missing}): pip install 'framp-private[dev]'")


@dataclass(frozen=True, kw_only=True)
class Page:
    """An open page and what it did. Both lists grow while the page is open, at each call on `page`.

    problems: console errors and warnings, and exceptions that no script caught, one line each.
    requests: the address of every request that needs a network, web sockets and connection hints included; an empty
        list means that the page works offline. A page opened by http has at least its own address here.
    """

    page: pw.Page
    problems: list[str]
    requests: list[str]


def needs_network(url: str) -> bool:
    """True unless the URL is a local file, data or a blob. `//host/x` in a local file turns into file://host/x: True."""
    parts = urlsplit(url)
    return parts.scheme not in ("file", "data", "blob") or (parts.scheme == "file" and bool(parts.netloc))


def chromium_program() -> str:
    """The path of the system's Chromium, or a skip. A name on PATH that cannot even tell its version does not count."""
    for path in filter(None, map(shutil.which, CHROMIUMS)):
        if subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False).returncode == 0:
            return path
    pytest.skip(f"none of {', '.join(CHROMIUMS)} is on PATH: apt-get install chromium")


@contextmanager
def chromium() -> Iterator[pw.Browser]:
    """A headless browser that reaches loopback alone.

    While it is open, neither `asyncio.run` nor a second browser works in the same thread: keep it to one test, or to a
    fixture of one file.
    """
    driver = needed("playwright.sync_api")
    program = chromium_program()
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *STAY_HOME])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(
    target: str | Path, width: int, height: int = 900, *, browser: pw.Browser | None = None
) -> Iterator[Page]:
    """Opens a file or a URL in a window of width x height CSS pixels, with no cookies or cache of earlier pages.

    The page is loaded and was silent on the network for half a second, or is two seconds past its load, when the
    block begins. Without a browser one is started for this page (about a second).

    Raises:
        playwright.sync_api.Error: the file or the server is not there.
    """
    url = target if isinstance(target, str) and "://" in target else Path(target).resolve().as_uri()
    with ExitStack() as stack:
        browser = browser or stack.enter_context(chromium())
        context = browser.new_context(viewport={"width": width, "height": height})
        stack.callback(context.close)
        seen = Page(page=context.new_page(), problems=[], requests=[])
        watch(context, seen)
        seen.page.goto(url)
        settle(seen.page)
        seen.requests.extend(seen.page.eval_on_selector_all(HINTS, "links => links.map(link => link.href)"))
        yield seen


def watch(context: pw.BrowserContext, seen: Page) -> None:
    """Listens before the first byte is loaded; the context hears workers and pop-ups, too."""
    noted = ("error", "warning")
    context.on("request", lambda r: seen.requests.append(r.url) if needs_network(r.url) else None)
    seen.page.on("websocket", lambda socket: seen.requests.append(socket.url))
    context.on("console", lambda m: seen.problems.append(f"{m.type}: {m.text} {where(m)}") if m.type in noted else None)
    context.on("weberror", lambda failure: seen.problems.append(f"exception: {failure.error}"))


def where(message: pw.ConsoleMessage) -> str:
    """The file and line that a console message names; for a failed load, the address that failed."""
    return f"({message.location['url']}:{message.location['lineNumber']})"


def settle(page: pw.Page) -> None:
    """Waits for a quiet network; a page that polls or streams never gets there, hence the bound."""
    try:
        page.wait_for_load_state("networkidle", timeout=2_000)
    except needed("playwright.sync_api").TimeoutError:
        return


def accessibility(seen: Page) -> list[str]:
    """What axe-core finds in the page as it stands, frames included: one line per broken rule, its impact, first place.

    The rules are those of WCAG 2.0 and 2.1, A and AA, and axe-core's best practice; none needs a network.
    """
    package = needed("axe_playwright_python")
    source = (Path(str(package.__file__)).parent / "axe.min.js").read_text(encoding="utf-8")
    # Frames of a local file have no origin that axe would answer; it runs inside a page under test, so any may ask.
    for frame in seen.page.frames:
        frame.evaluate(source + ";axe.configure({allowedOrigins: ['<unsafe_all_origins>']})")
    # Without preload: false, axe fetches the style sheets again, and its requests would count as the page's.
    found = seen.page.evaluate("rules => axe.run({runOnly: rules, preload: false})", RULES)
    return [f"{v['id']} ({v['impact']}): {v['nodes'][0]['target'][0]}" for v in found["violations"]]


def postgres_programs() -> Path:
    """The folder of initdb and postgres: on PATH, else the newest of Debian's packages; or a skip."""
    on_path = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    debian = sorted(DEBIAN_POSTGRES.glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    for folder in on_path + debian:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.skip(f"no initdb and postgres on PATH or below {DEBIAN_POSTGRES}: apt-get install postgresql")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unprivileged(folder: Path, name: str) -> dict[str, Any]:
    """How to start a program that refuses root: as it is, or as root with the folder given to the user of that name."""
    try:
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        pytest.skip(f"user id {os.geteuid()} has no name, and servers need one: run as a user with a name")
    if user.pw_uid != 0:
        return {}
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server of its own: loopback alone, no socket file, scram passwords; ended and deleted at the end.

    Yields `postgresql+psycopg://framp:password@127.0.0.1:port/framp`: the user owns the database and may create more,
    and is no superuser.

    Raises:
        RuntimeError: the server does not start; the message is the end of its log.
    """
    psycopg, programs, password = needed("psycopg"), postgres_programs(), secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="framp-postgres-") as name:
        folder = Path(name)
        how = {"cwd": folder, "env": os.environ | {"LC_ALL": "C"}, **unprivileged(folder, "postgres")}
        initialise(programs, folder, password, how)
        # The free port may be taken before the server has it; then the server exits at once and the next one is tried.
        for _ in range(3):
            port = free_port()
            server = start(programs, folder, port, how)
            try:
                if await_ready(psycopg, server, port, password):
                    yield f"postgresql+psycopg://framp:{password}@127.0.0.1:{port}/framp"
                    return
            finally:
                stop(server)
        raise RuntimeError(f"{programs / 'postgres'} does not start: {(folder / 'log').read_text()[-2000:]}")


def initialise(programs: Path, folder: Path, password: str, how: dict[str, Any]) -> None:
    secret = kept_secret(folder / "password", password, how)
    options = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--no-sync"]
    command = [programs / "initdb", f"--pgdata={folder / 'data'}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **how)
    secret.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")


def kept_secret(path: Path, text: str, how: dict[str, Any]) -> Path:
    """A file that the server's user alone can read."""
    path.touch(mode=0o600)
    path.write_text(text)
    if "user" in how:
        os.chown(path, how["user"], how["group"])
    return path


def start(programs: Path, folder: Path, port: int, how: dict[str, Any]) -> subprocess.Popen[bytes]:
    """The server's own process, whose id is the one to signal."""
    settings = ["listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "fsync=off"]
    command = [programs / "postgres", "-D", folder / "data", *(f"--{setting}" for setting in settings)]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **how)


def await_ready(psycopg: ModuleType, server: subprocess.Popen[bytes], port: int, password: str) -> bool:
    """True once the server answers and has the user and the database; False if it exits or takes over a minute."""
    address = f"host=127.0.0.1 port={port} user=postgres password={password} dbname=postgres connect_timeout=5"
    end = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < end:
        try:
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute(f"CREATE ROLE framp LOGIN CREATEDB PASSWORD '{password}'")
                connection.execute("CREATE DATABASE framp OWNER framp")
                return True
        except psycopg.OperationalError:
            time.sleep(0.05)
    return False


def mariadb_programs() -> tuple[Path, Path]:
    """mariadb-install-db and mariadbd, the latter on PATH or where Debian puts it; or a skip."""
    installer, server = shutil.which("mariadb-install-db"), shutil.which("mariadbd")
    program = Path(server) if server else DEBIAN_MARIADB / "mariadbd"
    if installer is None or not program.exists():
        pytest.skip(
            f"no mariadb-install-db and mariadbd on PATH or in {DEBIAN_MARIADB}: apt-get install mariadb-server"
        )
    return Path(installer), program


@contextmanager
def mariadb() -> Iterator[str]:
    """A MariaDB server of its own: loopback alone; ended and deleted at the end.

    Yields `mysql+pymysql://framp:password@127.0.0.1:port/framp`: the user may do anything to this database and to
    nothing else. Nobody else can log in over the network.

    Raises:
        RuntimeError: the server does not start; the message is the end of its log.
    """
    pymysql, (installer, program), password = needed("pymysql"), mariadb_programs(), secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="framp-mariadb-") as name:
        folder = Path(name)
        how = {"cwd": folder, "env": os.environ | {"LC_ALL": "C"}, **unprivileged(folder, "mysql")}
        setup = mariadb_folder(installer, folder, password, how)
        for _ in range(3):  # as in `postgres`
            port = free_port()
            server = mariadb_server(program, folder, port, setup, how)
            try:
                if mariadb_ready(pymysql, server, port, password):
                    setup.unlink()
                    yield f"mysql+pymysql://framp:{password}@127.0.0.1:{port}/framp"
                    return
            finally:
                stop(server, (signal.SIGTERM, signal.SIGKILL))
        raise RuntimeError(f"{program} does not start: {(folder / 'log').read_text()[-2000:]}")


def mariadb_folder(installer: Path, folder: Path, password: str, how: dict[str, Any]) -> Path:
    """Makes the data folder, whose root can log in through a socket file alone; the file that makes the other user."""
    options = ["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=socket", "--skip-name-resolve"]
    command = [installer, *options, f"--datadir={folder / 'data'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **how)
    if done.returncode != 0:
        raise RuntimeError(f"{installer} failed: {(done.stdout + done.stderr)[-2000:]}")
    statements = [
        "CREATE DATABASE framp;",
        f"CREATE USER framp@'127.0.0.1' IDENTIFIED BY '{password}';",
        "GRANT ALL ON framp.* TO framp@'127.0.0.1' WITH GRANT OPTION;",
    ]
    return kept_secret(folder / "setup.sql", "\n".join(statements) + "\n", how)


def mariadb_server(program: Path, folder: Path, port: int, setup: Path, how: dict[str, Any]) -> subprocess.Popen[bytes]:
    """The server's own process, whose id is the one to signal."""
    settings = {
        "datadir": folder / "data",
        "bind-address": "127.0.0.1",
        "port": port,
        "socket": folder / "socket",
        "pid-file": folder / "pid",
        "init-file": setup,
        "innodb-flush-log-at-trx-commit": 0,
        "innodb-buffer-pool-size": "32M",
    }
    command = [program, "--no-defaults", "--skip-name-resolve", *(f"--{name}={it}" for name, it in settings.items())]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **how)


def mariadb_ready(pymysql: ModuleType, server: subprocess.Popen[bytes], port: int, password: str) -> bool:
    """True once the server lets the user in; False if it exits or takes over a minute."""
    address = {"host": "127.0.0.1", "port": port, "user": "framp", "password": password, "database": "framp"}
    end = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < end:
        try:
            pymysql.connect(**address, connect_timeout=5).close()
        except pymysql.MySQLError:
            time.sleep(0.05)
        else:
            return True
    return False


def stop(
    server: subprocess.Popen[bytes], signs: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)
) -> None:
    """Asks for a shutdown that drops the connections, then for one without clean-up, then ends the process."""
    for sign, seconds in zip(signs, (30, 10, 10), strict=False):
        if server.poll() is not None:
            return
        server.send_signal(sign)
        try:
            server.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            continue
