"""The browser finds each fault that it is there to find, and the databases are real ones that end with their block."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import pytest

from tests import services
from tests.services import accessibility, chromium, mariadb, needed, needs_network, open_page, postgres

if TYPE_CHECKING:
    import playwright.sync_api as pw

PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
GOOD = f"<h1>A page</h1><p>Text.</p><img src='{PIXEL}' alt='a dot'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[pw.Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as url:
        yield url


def written(folder: Path, body: str, head: str = "") -> Path:
    path = folder / "a page.html"
    shell = "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>A page</title>{}</head>{}"
    path.write_text(shell.format(head, f"<body><main>{body}</main></body></html>"), encoding="utf-8")
    return path


def plain(url: str) -> str:
    """The URL as psycopg itself reads it."""
    assert url.startswith("postgresql+psycopg://framp:")
    return url.replace("+psycopg", "", 1)


def test_a_good_page_passes_in_the_window_that_was_asked_for(tmp_path: Path) -> None:
    with open_page(written(tmp_path, GOOD), 640, 480) as seen:
        assert (seen.problems, seen.requests, accessibility(seen)) == ([], [], [])
        assert seen.page.evaluate("[innerWidth, innerHeight]") == [640, 480]


def test_a_page_that_forbids_itself_everything_can_still_be_examined(browser: pw.Browser, tmp_path: Path) -> None:
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:\">"
    with open_page(written(tmp_path, GOOD, policy), 640, browser=browser) as seen:
        assert (seen.problems, seen.requests, accessibility(seen)) == ([], [], [])
    with open_page(written(tmp_path, "<h1>A page</h1><script>1</script>", policy), 640, browser=browser) as seen:
        assert any("Content Security Policy" in problem for problem in seen.problems)


FAULTS = {
    "error: first fault": "<script>console.error('first fault')</script>",
    "warning: a doubt": "<script>console.warn('a doubt')</script>",
    "exception: at once": "<script>throw new Error('at once')</script>",
    "exception: late": "<script>setTimeout(() => { throw new Error('late') }, 50)</script>",
    "exception: unheard": "<script>Promise.reject(new Error('unheard'))</script>",
    "exception: inner is not defined": "<iframe title='inner' srcdoc='<script>inner.fault</script>'></iframe>",
    "error: Failed to load resource: net::ERR_FILE_NOT_FOUND": "<img src='missing.png' alt=''>",
}


def test_each_fault_of_a_page_is_a_problem(browser: pw.Browser, tmp_path: Path) -> None:
    with open_page(written(tmp_path, "".join(FAULTS.values())), 800, browser=browser) as seen:
        assert sorted(problem.split(" (")[0] for problem in seen.problems) == sorted(FAULTS)
        assert any("missing.png" in problem for problem in seen.problems)
        assert seen.requests == []


def test_a_fault_after_a_click_is_a_problem_and_talk_is_none(browser: pw.Browser, tmp_path: Path) -> None:
    body = "<button onclick='absent()'>Go</button><script>console.log('talk'); console.info('more')</script>"
    with open_page(written(tmp_path, body), 800, browser=browser) as seen:
        assert seen.problems == []
        seen.page.get_by_role("button").click()
        assert seen.problems == ["exception: absent is not defined"]


WAYS_OUT = {
    "http://192.0.2.1/dot.png": "<img src='http://192.0.2.1/dot.png' alt=''>",
    "https://host.invalid/dot.png": "<img src='https://host.invalid/dot.png' alt=''>",
    "file://host.invalid/sheet.css": "<link rel='stylesheet' href='//host.invalid/sheet.css'>",
    "http://host.invalid/b.png": "<style>p { background: url(http://host.invalid/b.png) }</style><p>Text</p>",
    "http://host.invalid/data": "<script>fetch('http://host.invalid/data').catch(() => 0)</script>",
    "ws://host.invalid/live": "<script>new WebSocket('ws://host.invalid/live')</script>",
    "http://host.invalid/inner": "<iframe title='inner' src='http://host.invalid/inner'></iframe>",
    "https://near.invalid/": "<link rel='preconnect' href='https://near.invalid'>",
    "http://host.invalid/work": (
        "<script>new Worker(URL.createObjectURL(new Blob([\"fetch('http://host.invalid/work')\"])))</script>"
    ),
}


def test_each_way_to_the_network_is_a_request(browser: pw.Browser, tmp_path: Path) -> None:
    with open_page(written(tmp_path, "".join(WAYS_OUT.values())), 800, browser=browser) as seen:
        assert sorted(seen.requests) == sorted(WAYS_OUT)


@contextmanager
def served(body: bytes) -> Iterator[str]:
    """A server on loopback that answers every path but /endless, which it never finishes."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/endless":
                over.wait(timeout=30)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            over.set()
            server.shutdown()
            thread.join(timeout=30)


def test_a_served_page_opens_even_if_it_never_falls_silent(browser: pw.Browser, tmp_path: Path) -> None:
    page = written(tmp_path, GOOD + "<script>fetch('endless')</script>").read_bytes()
    with served(page) as url, open_page(url, 800, browser=browser) as seen:
        assert (seen.problems, seen.requests, accessibility(seen)) == ([], [url, url + "endless"], [])


@pytest.mark.parametrize(
    ("url", "outside"),
    [
        ("file:///a/b.html", False),
        (PIXEL, False),
        ("blob:null/0f", False),
        ("file://host/a", True),
        ("http://127.0.0.1/", True),
        ("ftp://host/a", True),
    ],
)
def test_what_needs_a_network(url: str, outside: bool) -> None:
    assert needs_network(url) is outside


def test_a_page_that_is_not_there_raises(browser: pw.Browser, tmp_path: Path) -> None:
    error = needed("playwright.sync_api").Error
    with pytest.raises(error, match="ERR_FILE_NOT_FOUND"), open_page(tmp_path / "absent.html", 800, browser=browser):
        pass


BARRIERS = {
    "image-alt (critical): img": f"<img src='{PIXEL}'>",
    "color-contrast (serious): p": "<p style='color: #bbb'>Text.</p>",
    "label (critical): input": "<input>",
    "page-has-heading-one (moderate): html": "<h4>A page</h4>",
}


def test_each_barrier_is_a_line(browser: pw.Browser, tmp_path: Path) -> None:
    with open_page(written(tmp_path, "".join(BARRIERS.values())), 800, browser=browser) as seen:
        assert sorted(accessibility(seen)) == sorted(BARRIERS)
        assert (seen.problems, seen.requests) == ([], [])


def test_a_barrier_in_a_frame_is_found(browser: pw.Browser, tmp_path: Path) -> None:
    frame = f"<iframe title='inner' srcdoc='<html lang=en><p><img src={PIXEL}></p>'></iframe>"
    with open_page(written(tmp_path, GOOD + frame), 800, browser=browser) as seen:
        assert "image-alt (critical): iframe" in accessibility(seen)
        assert (seen.problems, seen.requests) == ([], [])


def test_two_connections_share_one_database(database: str) -> None:
    psycopg = needed("psycopg")
    with psycopg.connect(plain(database)) as one, psycopg.connect(plain(database)) as two:
        one.execute("CREATE TABLE shared (n integer)")
        one.execute("INSERT INTO shared VALUES (7)")
        one.commit()
        assert two.execute("SELECT n FROM shared").fetchall() == [(7,)]
        one.execute("INSERT INTO shared VALUES (8)")
        assert two.execute("SELECT n FROM shared").fetchall() == [(7,)]


def test_the_server_listens_on_loopback_alone_and_trusts_nobody(database: str) -> None:
    psycopg = needed("psycopg")
    with psycopg.connect(plain(database)) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()[0] for name in ("listen_addresses", "server_encoding")
        }
        assert shown == {"listen_addresses": "127.0.0.1", "server_encoding": "UTF8"}
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(plain(database), password="guess")


@pytest.mark.parametrize("fault", [None, ZeroDivisionError])
def test_the_server_is_gone_after_its_block(fault: type[Exception] | None) -> None:
    psycopg = needed("psycopg")
    seen: dict[str, Any] = {}

    def use() -> None:
        with postgres() as url:
            seen["url"], seen["held"] = plain(url), psycopg.connect(plain(url))
            seen["process"] = seen["held"].info.backend_pid
            seen["folder"] = Path(f"/proc/{seen['process']}/cwd").readlink()
            assert seen["folder"].is_dir()
            if fault:
                raise fault

    with pytest.raises(fault) if fault else nullcontext():
        use()
    with pytest.raises(psycopg.OperationalError):
        seen["held"].execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(seen["url"])
    with pytest.raises(ProcessLookupError):
        os.kill(seen["process"], 0)
    assert not seen["folder"].parent.exists()


def told(url: str) -> dict[str, Any]:
    """The URL as pymysql wants it."""
    parts = urlsplit(url)
    assert parts.scheme == "mysql+pymysql" and parts.username == "framp"
    return {
        "host": parts.hostname,
        "port": parts.port,
        "user": "framp",
        "password": parts.password,
        "database": "framp",
    }


def test_mariadb_listens_on_loopback_alone_and_trusts_nobody() -> None:
    pymysql = needed("pymysql")
    with mariadb() as url:
        address = told(url)
        one, two = pymysql.connect(**address), pymysql.connect(**address, autocommit=True)
        with one.cursor() as first, two.cursor() as second:
            first.execute("CREATE TABLE shared (n integer)")
            first.execute("INSERT INTO shared VALUES (7)")
            assert second.execute("SELECT n FROM shared") == 0
            one.commit()
            assert second.execute("SELECT n FROM shared") == 1
            second.execute("SELECT @@bind_address")
            assert second.fetchone() == ("127.0.0.1",)
            with pytest.raises(pymysql.MySQLError, match="denied"):
                second.execute("SELECT * FROM mysql.user")
        one.close(), two.close()
        for wrong in ({"password": "guess"}, {"user": "root", "password": ""}, {"user": "", "password": ""}):
            with pytest.raises(pymysql.MySQLError, match=r"denied|not allowed"):
                pymysql.connect(**{**address, "database": None, **wrong})


@pytest.mark.parametrize("fault", [None, ZeroDivisionError])
def test_mariadb_is_gone_after_its_block(fault: type[Exception] | None) -> None:
    pymysql = needed("pymysql")
    seen: dict[str, Any] = {}

    def use() -> None:
        with mariadb() as url:
            seen["address"] = told(url)
            seen["held"] = pymysql.connect(**seen["address"])
            with seen["held"].cursor() as cursor:
                cursor.execute("SELECT @@pid_file")
                path = Path(cursor.fetchone()[0])
            seen["process"], seen["folder"] = int(path.read_text()), path.parent
            if fault:
                raise fault

    with pytest.raises(fault) if fault else nullcontext():
        use()
    with pytest.raises(pymysql.MySQLError):
        seen["held"].ping(reconnect=False)
    with pytest.raises(pymysql.MySQLError, match="refused"):
        pymysql.connect(**seen["address"])
    with pytest.raises(ProcessLookupError):
        os.kill(seen["process"], 0)
    assert not seen["folder"].exists()


@pytest.mark.parametrize(
    ("part", "missing", "command"),
    [
        (chromium, "programs", "apt-get install chromium"),
        (chromium, "playwright.sync_api", "pip install 'framp-private[dev]'"),
        (postgres, "programs", "apt-get install postgresql"),
        (postgres, "psycopg", "pip install 'framp-private[dev]'"),
        (mariadb, "programs", "apt-get install mariadb-server"),
        (mariadb, "pymysql", "pip install 'framp-private[dev]'"),
    ],
)
def test_a_missing_part_skips_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    part: Callable[[], AbstractContextManager[object]],
    missing: str,
    command: str,
) -> None:
    needed("playwright.sync_api"), needed("psycopg"), needed("pymysql")
    if missing == "programs":
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(services, "DEBIAN_POSTGRES", tmp_path)
        monkeypatch.setattr(services, "DEBIAN_MARIADB", tmp_path)
    else:
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(pytest.skip.Exception) as skipped, part():
        pass
    assert command in str(skipped.value)


def test_missing_axe_skips_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    needed("axe_playwright_python")
    monkeypatch.setitem(sys.modules, "axe_playwright_python", None)
    with pytest.raises(pytest.skip.Exception, match="pip install 'framp-private"):
        accessibility(cast(services.Page, None))
