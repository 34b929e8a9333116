"""The log of a run in its store, `logs/<run>.log`: what Prefect, the flow and the libraries say while it goes on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging.formatters import PrefectFormatter

from emtta_core.sanitize import SanitizingFormatter
from emtta_core.store import Store


class Formatter(SanitizingFormatter, PrefectFormatter):
    """The layout of a line, which of a flow or a task run has its name, without the passwords of URLs."""

    def __init__(self) -> None:
        head = "%(asctime)s %(levelname)-7s %(name)s"
        super().__init__(
            f"{head} %(message)s",
            flow_run_fmt=f"{head} %(flow_run_name)s: %(message)s",
            task_run_fmt=f"{head} %(task_run_name)s: %(message)s",
        )


@contextmanager
def also_logging_to(store: Store, run_id: str) -> Iterator[None]:
    """Send the log records of this process to the log of a run as well, inside the `with` block."""
    root, own = logging.getLogger(), logging.getLogger("emtta")
    with store.run_log(run_id) as path:
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(Formatter())
        root.addHandler(handler)
        level = own.level
        own.setLevel(logging.INFO)
        try:
            yield
        finally:
            own.setLevel(level)
            root.removeHandler(handler)
            handler.close()
