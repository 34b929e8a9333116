"""Prefect's temporary server comes up beside its owner, hears no Ctrl-C, says why it failed, and never stays behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emtta_core.errors import EmttaError
from flows.prefect_server import TemporaryServer

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
    """The log of a server with a database of its own."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return tmp_path / "server.log"


@pytest.fixture
def server(log: Path) -> Iterator[TemporaryServer]:
    server = TemporaryServer(log)
    yield server
    server.end()


def is_there(pid: int) -> bool:
    """Whether a process of another parent is there, and no mere zombie."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip()[:1] not in ("", "Z")


def test_a_server_does_not_outlive_an_owner_that_was_killed(log: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(log)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert is_there(pid)
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while is_there(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_there(pid)


def test_a_server_is_in_a_group_of_its_own_and_so_does_not_hear_ctrl_c(server: TemporaryServer) -> None:
    assert os.getpgid(server._process.pid) != os.getpgrp()


def test_a_server_that_takes_too_long_is_told_with_how_to_give_it_more(server: TemporaryServer) -> None:
    with pytest.raises(EmttaError, match=r"did not start in 0 s; .*STARTUP_TIMEOUT_SECONDS=600; .* ends with: nothing"):
        server.wait(0.01)


def test_a_server_that_cannot_start_says_why_in_the_log(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "nowhere" / "prefect.db"
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{nowhere}")
    server = TemporaryServer(log)
    with pytest.raises(EmttaError, match=r"ended with code \d+; its log .* ends with: .*unable to open database file"):
        server.wait(60)
    assert "unable to open database file" in log.read_text()


def test_a_server_answers_and_is_gone_when_it_was_ended(server: TemporaryServer) -> None:
    server.wait(120)
    server.end()
    with pytest.raises(EmttaError, match="ended with code"):
        server.wait(1)
