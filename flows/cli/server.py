"""Prefect's server: the one that is configured, or a temporary one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from emtta_core.errors import EmttaError


@contextmanager
def at_hand(log: Path) -> Iterator[Callable[[], None]]:
    """Have Prefect use the configured server inside the `with` block, or where there is none a temporary one.

    Yields what waits until it answers, or raises an `EmttaError`. Until then a temporary server comes up while the
    block does what needs none. It stays until this process exits: what Prefect has not sent yet it sends then.

    Args:
        log: takes what a temporary server says.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
        temporary_settings,
    )

    from flows.temporary_server import TemporaryServer

    if PREFECT_API_URL.value() or not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        yield reach
        return
    for name in ("NO_PROXY", "no_proxy"):  # it is on this machine, where no proxy is asked
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    server = TemporaryServer(log)
    with temporary_settings({PREFECT_API_URL: server.url}):
        yield partial(server.wait, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())


def reach() -> None:
    """Reach the configured server.

    Raises:
        EmttaError: there is none, or it does not answer.
    """
    from prefect import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise EmttaError(
            "PREFECT_API_URL names no server, and PREFECT_SERVER_ALLOW_EPHEMERAL_MODE allows no temporary one; "
            "name a server, or set the latter to true"
        )
    with get_client(sync_client=True) as client:
        failure = client.api_healthcheck()
    if failure is not None:
        raise EmttaError(
            f"Prefect's server {url} does not answer: {failure}; start it, or unset PREFECT_API_URL to have a "
            "temporary one (`prefect config unset PREFECT_API_URL` where a profile has it)"
        )
