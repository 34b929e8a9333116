"""Prefect's temporary server, which serves where no server is configured."""

import signal


def start() -> None:
    """Start the temporary server, unless one is configured, so that it does not hear Ctrl-C.

    A terminal sends Ctrl-C to every process in its group. The server would end at once, and the flow, which lets its
    cells finish their shards, would wait minutes for it. A process inherits the signals that are blocked where it is
    begun, so that blocking one here blocks it there.
    """
    from prefect import get_client

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True):
            pass
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
