"""Prefect's temporary server, in a process that ends with the one that began it.

The process serves on a listening socket that it is given, until standard input ends.

Prefect can start such a server by itself, but not before a client asks for one, for which it first imports the whole
server; then it waits. Begun here, the server comes up while the process that needs it imports and plans, on a port that
is taken already. Ctrl-C does not reach it, and it does not stay behind when its owner is killed.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from emtta_core.errors import EmttaError

GRACE = 5.0
"""Seconds in which a server that is told to end does so by itself."""

START = "from emtta_core.entry import settle_process; settle_process(); from flows.temporary_server import main; main()"
"""The program of the server's process, whose argument is the number of its socket."""

_ENVIRONMENT = {
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",  # a second of a new database's start, for blocks that no flow has
}


class TemporaryServer:
    """A server of this process's own, which ends at this process's exit.

    Attributes:
        url: the address of its API.
    """

    def __init__(self, log: Path):
        """Begin it; `log` takes what it says."""
        with socket.create_server(("127.0.0.1", 0)) as listener, log.open("ab") as said:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            self._log = log
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, str(listener.fileno())],
                env={**_ENVIRONMENT, **os.environ},
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                pass_fds=[listener.fileno()],
                process_group=0,  # a terminal sends Ctrl-C to the group of its command
            )
        # Prefect sends what it has not yet sent at exit, by handlers that come in later and so are called before.
        atexit.register(self.end)

    def wait(self, timeout: float) -> None:
        """Wait until it answers, `timeout` seconds at most.

        Raises:
            EmttaError: it does not.
        """
        try:
            httpx.get(f"{self.url}/health", timeout=timeout).raise_for_status()
        except httpx.TimeoutException as error:
            raise EmttaError(
                f"Prefect's temporary server did not start in {timeout:.0f} s; give it more by "
                f"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS; its log ends with: {self._last_words()}"
            ) from error
        except httpx.HTTPError as error:
            ended = f"ended with code {self._process.returncode}" if self._gone(GRACE) else f"does not answer: {error}"
            raise EmttaError(f"Prefect's temporary server {ended}; its log ends with: {self._last_words()}") from error

    def end(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.terminate()
        if not self._gone(GRACE):
            self._process.kill()
            self._process.wait()

    def _last_words(self) -> str:
        """Return the last line of the log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")

    def _gone(self, patience: float) -> bool:
        """Return whether its process ends in so many seconds."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        return True


def main() -> None:
    """Serve on the listening socket whose number is the first argument."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    config = uvicorn.Config(create_app(ephemeral=True, final=True), log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


def _end_with_owner() -> None:
    """End this process once its standard input has ended, gracefully if that goes."""
    sys.stdin.read()
    threading.Timer(GRACE, os._exit, [1]).start()
    os.kill(os.getpid(), signal.SIGTERM)
