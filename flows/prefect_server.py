"""The Prefect server that flows report to: the configured one, or a temporary one that ends with its owner.

A temporary server's process serves on a listening socket that it inherits, until its standard input ends.

Prefect can start a temporary server itself, but only when a client requests one, and then it imports the whole server
and waits. Started here, the server comes up while the process that needs it imports and plans, on a port that is
already reserved. Ctrl-C does not reach it, it does not outlive a killed owner, and it answers only its owner: it has a
password, and allows no other origin or host name.
"""

import asyncio
import atexit
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx

from emtta_core.errors import EmttaError, UsageError
from emtta_core.network import LOCAL, proxy_of

GRACE = 5.0
"""Seconds in which a server that was asked to end should do so."""

HOST = "127.0.0.1"

START = (
    "from emtta_core.entry import configure_process; configure_process(); from flows.prefect_server import main; main()"
)
"""The program of a temporary server's process; its argument is the number of the socket."""

_CAUSE = re.compile(r"^[\w.]+(Error|Exception|Warning)\b.*:")
"""A log line that gives the cause, such as the last line of a traceback."""


@contextmanager
def serving(log: Path) -> Iterator[Callable[[], None]]:
    """Make Prefect use the configured server inside the `with` block or, if there is none, a temporary one.

    Yields a function that waits until the server answers, or raises an `EmttaError`. A temporary server starts while
    the block does work that does not need it. It runs until this process exits, when Prefect sends what it has not sent
    yet. Its output goes to `log`.

    Raises:
        EmttaError: Prefect's home, where a temporary server keeps its records, cannot be written.
    """
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
        PREFECT_UI_URL,
        temporary_settings,
    )

    if PREFECT_API_URL.value() or not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        yield reach
        return
    writable_home()
    server = TemporaryServer(log)
    settings = {
        PREFECT_API_URL: server.url,
        PREFECT_API_AUTH_STRING: server.auth,
        PREFECT_UI_URL: "",  # it has no UI; otherwise Prefect would log links to it
        # No automation waits for heartbeats there, and the thread that sends them may delay a flow's end by a second.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(settings):
        yield partial(server.wait, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())


def writable_home() -> Path:
    """Prefect's home, created if missing.

    Raises:
        EmttaError: it cannot be written.
    """
    from prefect.settings import PREFECT_HOME

    prefect_home = Path(PREFECT_HOME.value())
    try:
        prefect_home.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=prefect_home).close()
    except OSError as error:
        instead = Path(tempfile.gettempdir()) / f"prefect-{os.getuid()}"
        raise EmttaError(
            f"Prefect's home {prefect_home} is not writable ({error.strerror}); name a folder that is: "
            f"export PREFECT_HOME={shlex.quote(str(instead))}"
        ) from error
    return prefect_home


def configured_url() -> str:
    """The address of the configured server.

    Raises:
        UsageError: none is configured, or the configured value is not an address.
    """
    from prefect.settings import PREFECT_API_URL

    url: str | None = PREFECT_API_URL.value()
    if not url:
        raise UsageError(
            "no Prefect server is configured; start one with: emtta server --background, and configure it with: "
            f"export PREFECT_API_URL=http://{HOST}:4200/api"
        )
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(
            f"PREFECT_API_URL={url} is not a Prefect server's address; write it as http://HOST:PORT/api, for example: "
            f"export PREFECT_API_URL=http://{HOST}:4200/api"
        )
    return url


def reach() -> None:
    """Check that the configured server can be reached.

    Raises:
        UsageError: none is configured, or its address is wrong.
        EmttaError: it does not answer, or rejects this client.
    """
    from prefect import get_client
    from prefect.client.base import ServerType

    url = configured_url()
    with get_client(sync_client=True) as client:
        try:
            cloud = client.server_type is ServerType.CLOUD  # which does not report a version
            response = client._client.get("/health" if cloud else "/admin/version")
            if not cloud and not isinstance(response.json(), str):
                raise ValueError("the answer is not Prefect's")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> EmttaError:
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
    if status in (401, 403):
        return EmttaError(
            f"Prefect's server {url} rejects this client ({status}); set the server's password with: "
            "export PREFECT_API_AUTH_STRING=USER:PASSWORD (for Prefect Cloud: export PREFECT_API_KEY=KEY)"
        )
    api = urlunsplit(urlsplit(url)._replace(path="/api", query="", fragment=""))
    if not isinstance(error, httpx.TransportError) and api != url.rstrip("/") and _is_prefect(api):
        return UsageError(f"PREFECT_API_URL={url} lacks the server's path /api; write: export PREFECT_API_URL={api}")
    proxy = proxy_of(url)
    if proxy is not None:
        host = urlsplit(url).hostname
        return EmttaError(
            f"Prefect's server {url} cannot be reached through the proxy {proxy}: {error}; to reach it without the "
            f"proxy: export NO_PROXY={host}"
        )
    if not isinstance(error, httpx.TransportError):
        return UsageError(
            f"the server at PREFECT_API_URL={url} is not a Prefect server ({str(error).splitlines()[0]}); set the "
            f"right address, for example: export PREFECT_API_URL=http://{HOST}:4200/api"
        )
    parts = urlsplit(url)
    local = parts.hostname in LOCAL
    start = f"start it with: emtta server --background --port {parts.port or 80}" if local else "start it"
    return EmttaError(
        f"Prefect's server {url} does not answer: {error}; {start}, or use a temporary one: unset PREFECT_API_URL "
        "(`prefect config unset PREFECT_API_URL` if a profile sets it)"
    )


def _is_prefect(api: str) -> bool:
    with suppress(httpx.HTTPError, ValueError):
        return httpx.get(f"{api}/health", timeout=10).json() is True
    return False


class TemporaryServer:
    """A server that belongs to this process and ends when it exits."""

    def __init__(self, log: Path):
        """Start the server; `log` takes its output."""
        self.auth = f"emtta:{secrets.token_urlsafe(24)}"  # the user name and password that it requires
        with socket.create_server((HOST, 0)) as listener, log.open("ab") as output:
            origin = f"http://{HOST}:{listener.getsockname()[1]}"
            self.url = f"{origin}/api"  # the URL of its API
            self._log = log
            proxies = {"http_proxy", "https_proxy", "all_proxy"}
            inherited = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, str(listener.fileno())],
                env={
                    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",  # unused, and delays the first start by a second
                    **inherited,
                    "PREFECT_SERVER_API_AUTH_STRING": self.auth,
                    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin,
                },
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[listener.fileno()],
                process_group=0,  # a terminal sends Ctrl-C to the group of its command
            )
        # At exit, Prefect sends what is left through handlers registered later, which therefore run earlier.
        atexit.register(self.end)

    def wait(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until it answers.

        Raises:
            EmttaError: it does not.
        """
        try:
            httpx.get(f"{self.url}/health", timeout=timeout, trust_env=False).raise_for_status()
        except httpx.TimeoutException as error:
            raise EmttaError(
                f"Prefect's temporary server did not start in {timeout:.0f} s; allow more time, for example: "
                f"export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=600; its log ends with: {self._cause()}"
            ) from error
        except httpx.HTTPError as error:
            outcome = (
                f"ended with code {self._process.returncode}"
                if self._has_exited(GRACE)
                else f"does not answer: {error}"
            )
            raise EmttaError(
                f"Prefect's temporary server {outcome}; its log {self._log} ends with: {self._cause()}"
            ) from error

    def end(self) -> None:
        """End the server."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.terminate()
        if not self._has_exited(GRACE):
            self._process.kill()
            self._process.wait()

    def _cause(self) -> str:
        lines = [line.strip() for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines()]
        lines = [line for line in lines if line]
        return next((line for line in reversed(lines) if _CAUSE.match(line)), lines[-1] if lines else "nothing")

    def _has_exited(self, patience: float) -> bool:
        # Whether its process ends within this many seconds.
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        return True


def make_database() -> None:
    """Create or migrate the database in Prefect's home; one process does it at a time, and the others wait.

    Prefect itself takes no lock: two servers that start with the same new home interfere with each other.
    """
    from filelock import FileLock
    from prefect.server.database import provide_database_interface

    with FileLock(writable_home() / "emtta-database.lock"):
        asyncio.run(provide_database_interface().create_db())


def main() -> None:
    """Serve on the listening socket whose number is the first argument."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import PREFECT_API_DATABASE_MIGRATE_ON_START, temporary_settings
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    make_database()
    with temporary_settings({PREFECT_API_DATABASE_MIGRATE_ON_START: False}):
        app = create_app(ephemeral=True, final=True)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST])
        config = uvicorn.Config(app, log_level="error", lifespan="on")
        uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


def _end_with_owner() -> None:
    # End this process once its standard input has ended, gracefully if possible.
    sys.stdin.read()
    threading.Timer(GRACE, os._exit, [1]).start()
    os.kill(os.getpid(), signal.SIGTERM)
