"""A temporary Prefect server ends with its owner and serves only it; a server that fails reports why."""

import contextvars
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from conftest import Command, Speech, SuiteFile
from filelock import FileLock
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_HOME, temporary_settings

from emtta_core.errors import EmttaError, UsageError
from flows.prefect_server import TemporaryServer, make_database, reach, writable_home

OWNER = """
import sys, time
from pathlib import Path
from flows.prefect_server import TemporaryServer
server = TemporaryServer(Path(sys.argv[1]))
print(server._process.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log file of a server with its own database."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return tmp_path / "server.log"


@pytest.fixture
def server(log: Path) -> Iterator[TemporaryServer]:
    server = TemporaryServer(log)
    yield server
    server.end()


def is_there(pid: int) -> bool:
    """Return whether a process that another process started exists and is not a zombie."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip()[:1] not in ("", "Z")


def test_server_dies_with_killed_owner(log: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(log)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert is_there(pid)
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while is_there(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_there(pid)


def test_ctrl_c_does_not_reach_server(server: TemporaryServer) -> None:
    assert os.getpgid(server._process.pid) != os.getpgrp()


def test_slow_start_suggests_timeout(server: TemporaryServer) -> None:
    with pytest.raises(EmttaError, match=r"did not start in 0 s; .*STARTUP_TIMEOUT_SECONDS=600; .* ends with: nothing"):
        server.wait(0.01)


@pytest.mark.slow
def test_failed_start_quotes_log(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = tmp_path / "nowhere" / "prefect.db"
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{nowhere}")
    server = TemporaryServer(log)
    with pytest.raises(EmttaError, match=r"ended with code \d+; its log .* ends with: .*unable to open database file"):
        server.wait(60)
    assert "unable to open database file" in log.read_text()


@pytest.mark.slow
def test_only_owner_is_answered(server: TemporaryServer) -> None:
    server.wait(120)
    assert httpx.post(f"{server.url}/flow_runs/filter", json={}).status_code == 401
    with SyncPrefectClient(server.url, auth_string=server.auth) as client:
        assert client.read_flow_runs() == []
    with temporary_settings({PREFECT_API_URL: server.url}):
        with pytest.raises(EmttaError, match=r"rejects this client \(401\); .*export PREFECT_API_AUTH_STRING=USER:"):
            reach()
        with temporary_settings({PREFECT_API_AUTH_STRING: server.auth}):
            reach()
    foreign = httpx.get(f"{server.url}/health", headers={"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in foreign.headers
    assert httpx.get(f"{server.url}/health", headers={"Host": "elsewhere.example"}).status_code == 400
    server.end()
    with pytest.raises(EmttaError, match="ended with code"):
        server.wait(1)


class Answers(BaseHTTPRequestHandler):
    """A server with fixed responses, defined by its class."""

    paths: ClassVar[dict[str, tuple[int, str]]] = {}

    def do_GET(self) -> None:
        status, text = self.paths.get(self.path, (404, "nothing here"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def answering(paths: dict[str, tuple[int, str]]) -> Iterator[str]:
    """Serve fixed responses, and yield the server's address."""
    handler = type("Handler", (Answers,), {"paths": paths})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


PREFECT = {"/api/health": (200, "true"), "/api/admin/version": (200, '"3.9.1"')}
PAGE = (200, "<html>")


@pytest.mark.parametrize(
    ("paths", "below", "message"),
    [
        (PREFECT, "", r"PREFECT_API_URL=URL lacks the server's path /api; write: export PREFECT_API_URL=URL/api"),
        (PREFECT, "/dashboard", r"lacks the server's path /api; write: export PREFECT_API_URL=URL/api"),
        (PREFECT | {"/admin/version": PAGE}, "/", r"lacks the server's path /api"),
        (
            {"/api/admin/version": (401, "{}")},
            "/api",
            r"rejects this client \(401\); .*PREFECT_API_AUTH_STRING=",
        ),
        ({"/api/admin/version": PAGE}, "/api", r"the server at PREFECT_API_URL=URL/api is not a Prefect server"),
        ({}, "/api", r"the server at PREFECT_API_URL=URL/api is not a Prefect server .*404"),
    ],
)
def test_wrong_address_suggests_fix(paths: dict[str, tuple[int, str]], below: str, message: str) -> None:
    with answering(paths) as url:
        expected = message.replace("URL/", f"{url}/").replace("=URL ", f"={url} ")
        with temporary_settings({PREFECT_API_URL: url + below}), pytest.raises(EmttaError, match=expected):
            reach()


def test_suggested_address_works() -> None:
    with answering(PREFECT) as url, temporary_settings({PREFECT_API_URL: url}):
        with pytest.raises(UsageError) as refused:
            reach()
        with temporary_settings({PREFECT_API_URL: str(refused.value).rpartition("=")[2]}):
            reach()


@pytest.mark.parametrize("url", ["127.0.0.1:4200/api", "localhost", "ftp://host/api", "http:///api"])
def test_invalid_address_shows_valid_one(url: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: url}),
        pytest.raises(UsageError, match="export PREFECT_API_URL=http://127"),
    ):
        reach()


def test_server_is_not_blamed_for_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with temporary_settings({PREFECT_API_URL: "http://prefect.example:4200/api"}), pytest.raises(EmttaError) as refused:
        reach()
    assert "cannot be reached through the proxy http://***@127.0.0.1:9" in str(refused.value)
    assert str(refused.value).endswith("export NO_PROXY=prefect.example")


def test_unwritable_home_suggests_other() -> None:
    with temporary_settings({PREFECT_HOME: Path("/proc/nohome")}), pytest.raises(EmttaError) as refused:
        writable_home()
    assert str(refused.value).startswith("Prefect's home /proc/nohome is not writable")
    with temporary_settings({PREFECT_HOME: Path(str(refused.value).rpartition("export PREFECT_HOME=")[2])}):
        writable_home()


def test_one_process_creates_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Database:
        async def create_db(self) -> None:
            made.append(True)

    monkeypatch.setattr("prefect.server.database.provide_database_interface", Database)
    with temporary_settings({PREFECT_HOME: tmp_path}):
        settings = contextvars.copy_context()  # a thread does not inherit the settings
        waiting = threading.Thread(target=settings.run, args=[make_database], daemon=True)
        with FileLock(tmp_path / "emtta-database.lock"):
            waiting.start()
            waiting.join(0.5)
            assert (waiting.is_alive(), made) == (True, [])
        waiting.join(60)
        assert made == [True]


@pytest.mark.slow
def test_many_servers_share_new_home(log: Path) -> None:
    servers = [TemporaryServer(log.with_name(f"{number}.log")) for number in range(6)]
    try:
        for server in servers:
            server.wait(300)
    finally:
        for server in servers:
            server.end()


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "socks4://127.0.0.1:9"])
def test_own_server_needs_no_proxy(suite_file: SuiteFile, speech: Speech, log: Path, proxy: str) -> None:
    command = [sys.executable, "-c", "from flows.cli.main import command; command()", "run"]
    words = [str(suite_file(methods=("source",))), "--store", str(log.with_name("store"))]
    proxies = {"ALL_PROXY": proxy, "http_proxy": proxy}
    done = subprocess.run([*command, *words], env=os.environ | proxies, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("is ignored" in done.stderr) == proxy.startswith("socks4")


def test_busy_port_suggests_free_one(emtta: Command, log: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = emtta("server", "--port", taken.getsockname()[1])
        (suggested,) = re.findall(r"for example: --port (\d+)", refused.err)
        socket.create_server(("127.0.0.1", int(suggested))).close()


@pytest.mark.slow
def test_background_server_starts_and_stops(log: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    url = f"http://127.0.0.1:{port}/api"
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(EmttaError) as refused:
        reach()
    (suggested,) = re.findall("start it with: emtta (.*?),", str(refused.value))
    command = [sys.executable, "-m", "emtta_core", *shlex.split(suggested)]
    started = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"export PREFECT_API_URL={url}" in started.stderr
    (page,) = re.findall("its page: (.*)", started.stderr)
    assert httpx.get(page, follow_redirects=True).status_code == 200
    with temporary_settings({PREFECT_API_URL: url}):
        reach()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "end it with: prefect server stop" in again.stderr
    subprocess.run([sys.executable, "-m", "prefect", "server", "stop"], capture_output=True, check=True)
    with temporary_settings({PREFECT_API_URL: url}):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                reach()
            except EmttaError:
                return
            time.sleep(0.2)
    raise AssertionError("the server is still there")
