"""`emtta schedule`: evaluate a suite every night; `emtta server`: start the Prefect server that this needs."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import _log
from flows.cli._options import (
    DEFAULT_STORE,
    DevicesOption,
    IsolationOption,
    MinEffectOption,
    RayAddressOption,
    RunnerOption,
    StoreOption,
    SuiteArgument,
)
from flows.cli._output import echo, put

SHOWN = 5
"""The number of upcoming runs that `--dry-run` shows."""


def schedule(
    suite: SuiteArgument,
    cron: Annotated[
        str, typer.Option("--cron", metavar="'M H D M W'", help="Minute, hour, day, month, day of the week.")
    ] = "0 4 * * *",
    timezone: Annotated[
        str, typer.Option("--timezone", metavar="NAME", help="Time zone of the hour, such as Europe/Berlin.")
    ] = "UTC",
    store: StoreOption = DEFAULT_STORE,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="RUN", help="Compare each night with this run.", show_default=False),
    ] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="As of emtta compare.")] = 0.05,
    min_effect: MinEffectOption = "0.2",
    trend_nights: Annotated[
        int, typer.Option("--trend-nights", help="The most nights for a trend; see docs/statistics.md.")
    ] = 30,
    trend_threshold: Annotated[
        float, typer.Option("--trend-threshold", metavar="Z", help="The least z of a trend.")
    ] = 3.8,
    deployment: Annotated[
        str | None,
        typer.Option("--name", help="The deployment's name in Prefect. Default: SUITE-HOST.", show_default=False),
    ] = None,
    devices: DevicesOption = None,
    isolation: IsolationOption = None,
    runner: RunnerOption = "threads",
    ray_address: RayAddressOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show when the next runs are due, and exit.")] = False,
) -> None:
    """Evaluate a suite every night and compare it with the last run, as long as this command runs.

    The last run is the last complete one with the same speech, or --baseline. The command needs a Prefect server (emtta
    server starts one), whose address PREFECT_API_URL names. Ctrl-C ends it and pauses the schedule. For a work pool,
    see prefect.yaml and docs/operations.md.

    Examples:
        emtta schedule demo --cron "0 4 * * *" --timezone Europe/Berlin

        emtta schedule suites/mine.toml --cron "30 1 * * 1-5" --dry-run
    """
    _log.configure_environment()
    from emtta_core.scoring.significance import check_thresholds
    from emtta_core.store import Store
    from emtta_core.store.backend import open_backend
    from emtta_core.suite import load_suite
    from emtta_core.trend import check_trend
    from flows.nightly import next_runs
    from flows.runner import check_runner

    check_runner(runner, ray_address, devices, isolation)
    threshold = check_thresholds(alpha, min_effect)
    check_trend(trend_nights, trend_threshold, min_effect)
    if baseline is not None:
        Store.open(store).run(baseline)
    name = load_suite(suite).name
    location = open_backend(store).location
    due = next_runs(cron, timezone, SHOWN)
    for date in due if dry_run else due[:1]:
        line = f"{name}: {date:%a %Y-%m-%d %H:%M %Z} ({date:%z})"
        if dry_run:
            put(f"{line}\n")
        else:
            echo(f"next run of {line}, into {location}")
    if dry_run:
        return
    from flows.nightly import serve

    what = {"suite": suite, "store": location, "timezone": timezone}
    comparison = {"baseline": baseline, "alpha": alpha, "min_effect": threshold.value}
    trend = {"trend_nights": trend_nights, "trend_threshold": trend_threshold}
    how = {"devices": devices, "isolation": isolation, "runner": runner, "ray_address": ray_address}
    serve(deployment or f"{name}-{platform.node()}", cron, timezone, what | comparison | trend | how)


PATIENCE = 120.0
"""Seconds in which a server must answer."""


def server(
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; it must be one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port to listen on.")] = 4200,
    background: Annotated[
        bool, typer.Option("--background", help="Return once it answers; prefect server stop ends it.")
    ] = False,
) -> None:
    """Start a Prefect server, which nightly runs need, and which shows runs in the browser.

    It is Prefect's own server, with telemetry off and its output in a file; the one that prefect server start
    --background starts ends by itself on a machine without internet. Without --background it runs until Ctrl-C.

    Examples:
        emtta server --background

        export PREFECT_API_URL=http://127.0.0.1:4200/api
    """
    _log.configure_environment()
    from emtta_core.errors import UsageError
    from flows.prefect_server import make_database, writable_home

    pid_file = writable_home() / "server.pid"  # where `prefect server stop` looks
    running = _running(pid_file)
    if running is not None and background:
        raise UsageError(
            f"a Prefect server already runs in the background (process {running}); end it with: prefect server stop"
        )
    if not _is_free(host, port):
        other = next(one for one in (*range(port + 1, 65536), *range(1024, port)) if _is_free(host, one))
        raise UsageError(f"the port {port} of {host} is taken; choose another, for example: --port {other}")
    make_database()
    command = [sys.executable, "-P", "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    for line in (f"its page: {url}", f"to use it: export PREFECT_API_URL={url}/api"):
        echo(line)
    if background:
        _start(command, f"{url}/api/health", pid_file)
    else:
        os.execv(command[0], command)


def _start(command: list[str], health: str, pid_file: Path) -> None:
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
            echo(f"it runs in the background (process {process.pid}, log {log}); end it with: prefect server stop")
            return
    process.terminate()
    pid_file.unlink(missing_ok=True)
    raise EmttaError(f"the Prefect server did not start; its log is {log}")


def _running(pid_file: Path) -> int | None:
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def _is_free(host: str, port: int) -> bool:
    import socket

    from emtta_core.errors import UsageError

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"--host {host!r} is not an address of this machine: {error.strerror}") from error
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError:
            return False
    return True
