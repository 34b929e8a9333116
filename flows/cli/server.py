"""Prefect's server: the one that is configured, or its temporary one."""

import signal

from emtta_core.errors import EmttaError


def reach() -> None:
    """Reach the configured server, or start the temporary one, so that it does not hear Ctrl-C.

    A terminal sends Ctrl-C to every process in its group. The server would end at once, and the flow, which lets its
    cells finish their shards, would wait minutes for it. A process inherits the signals that are blocked where it is
    begun, so that blocking one here blocks it there.

    Raises:
        EmttaError: the server does not answer, or does not start.
    """
    from prefect import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True) as client:
            failure = client.api_healthcheck()
    except RuntimeError as error:  # of the temporary server's start
        failure = error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if failure is not None:
        remedy = "start it, or unset PREFECT_API_URL to have a temporary one" if url else "try again"
        raise EmttaError(f"Prefect's server {url or '(a temporary one)'} does not answer: {failure}; {remedy}")
