"""`emtta server`: start Prefect's server, for nights and for its page."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import _log
from flows.cli._output import say

PATIENCE = 120.0
"""Seconds in which a server must answer."""


def server(
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; keep this machine's own.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port to listen on.")] = 4200,
    background: Annotated[
        bool, typer.Option("--background", help="Return once it answers; prefect server stop ends it.")
    ] = False,
) -> None:
    """Start a Prefect server, which nights need, and which shows runs in the browser.

    It is Prefect's own, with telemetry off and its output in a file: what prefect server start --background starts ends
    by itself on a machine without internet. Without --background it runs until Ctrl-C.

    Examples:
        emtta server --background

        export PREFECT_API_URL=http://127.0.0.1:4200/api
    """
    _log.settle_environment()
    from emtta_core.errors import UsageError
    from flows.prefect_server import make_database, writable_home

    pid_file = writable_home() / "server.pid"  # where `prefect server stop` looks
    running = _running(pid_file)
    if running is not None and background:
        raise UsageError(
            f"a Prefect server runs in the background already (process {running}); end it with: prefect server stop"
        )
    if not _is_free(host, port):
        other = next(one for one in (*range(port + 1, 65536), *range(1024, port)) if _is_free(host, one))
        raise UsageError(f"the port {port} of {host} is taken; choose another, for example: --port {other}")
    make_database()
    command = [sys.executable, "-P", "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    for line in (f"its page: {url}", f"where it is to be used: export PREFECT_API_URL={url}/api"):
        say(line)
    if background:
        _start(command, f"{url}/api/health", pid_file)
    else:
        os.execv(command[0], command)


def _start(command: list[str], health: str, pid_file: Path) -> None:
    """Start a server that outlives this process, and wait until it answers."""
    import httpx

    from emtta_core.errors import EmttaError

    log = pid_file.with_name("server.log")
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    pid_file.write_text(str(process.pid))
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(health, timeout=5, trust_env=False).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            say(f"it runs in the background (process {process.pid}, log {log}); end it with: prefect server stop")
            return
    process.terminate()
    pid_file.unlink(missing_ok=True)
    raise EmttaError(f"the Prefect server did not start; its log is {log}")


def _running(pid_file: Path) -> int | None:
    """The process of a server in the background that is still there."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def _is_free(host: str, port: int) -> bool:
    """Whether a server can listen there."""
    import socket

    from emtta_core.errors import UsageError

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"--host {host!r} is no address of this machine: {error.strerror}") from error
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError:
            return False
    return True
