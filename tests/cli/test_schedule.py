"""A real server schedules the runs of a served suite until Ctrl-C."""

import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Command, Speech, SuiteFile
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from store_factory import one_run

from emtta_core.store import Store

pytestmark = pytest.mark.slow

WAIT = 180
"""Seconds that a start may take on a busy machine."""


def until(look: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + WAIT
    while not look():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server with a scheduler, which the temporary server lacks; yields the environment that points to it."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/api"
    with SyncPrefectClient(url) as client:
        until(lambda: client.api_healthcheck() is None)
    yield environment | {"PREFECT_API_URL": url}
    process.terminate()
    process.wait(WAIT)


def test_served_suite_pauses_on_ctrl_c(
    server: dict[str, str], suite_file: SuiteFile, speech: Speech, tmp_path: Path
) -> None:
    one_run(Store.open(tmp_path / "store", create=True), "best")
    words = ["schedule", str(suite_file()), "--cron", "0 2 * * *", "--timezone", "Asia/Tokyo", "--store", "store"]
    words += ["--baseline", "best"]
    command = [sys.executable, "-c", "from flows.cli.main import main; main()", *words]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=server, cwd=tmp_path, stdout=log, stderr=log)
    scheduled = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    with SyncPrefectClient(server["PREFECT_API_URL"]) as client:
        try:
            until(lambda: process.poll() is not None or len(client.read_flow_runs(flow_run_filter=scheduled)) > 1)
            assert process.poll() is None, (tmp_path / "log").read_text()
            runs = client.read_flow_runs(flow_run_filter=scheduled)
            assert {f"{run.expected_start_time:%H:%M}" for run in runs if run.expected_start_time} == {"17:00"}  # UTC
            deployment = client.read_deployment_by_name(f"nightly/tiny-{platform.node()}")
            assert deployment.parameters["store"] == str(tmp_path / "store")
            assert deployment.parameters["timezone"] == "Asia/Tokyo"
            assert deployment.parameters["baseline"] == "best"
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT) == 0, (tmp_path / "log").read_text()
            assert client.read_deployment_by_name(f"nightly/tiny-{platform.node()}").paused
        finally:
            process.kill()


def test_missing_server_says_how_to_start(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        refused = emtta("schedule", suite_file(), "--store", tmp_path / "store")
    assert refused.code == 2
    assert "no Prefect server is configured; start one with: emtta server --background" in refused.err
    assert "export PREFECT_API_URL=http://127.0.0.1:4200/api" in refused.err
