"""The log of a run: a file in the store for the messages of Prefect and the libraries, instead of the screen."""

import atexit
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # a first start takes some 20 s of CPU time, or waits
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_CLI_PROMPT": "false",
}

_files: list[Path] = []


def configure_environment() -> None:
    """Set the variables that Prefect reads on import, unless the user has set them."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Send all log records of this process to the file `path` instead of the screen, inside the `with` block."""
    from huggingface_hub.utils import disable_progress_bars

    from flows.artifacts import Formatter

    configure_environment()
    root = logging.getLogger()
    importlib.import_module("prefect.main")  # installs its own handlers
    disable_progress_bars()  # those of downloads would disrupt the live display
    before, level = root.handlers, root.level
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(Formatter())
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    internal = logging.getLogger("prefect._internal")  # has its own handler, which writes to the screen
    internal_handlers, internal.handlers = internal.handlers, [handler]
    complain, logging.raiseExceptions = logging.raiseExceptions, False  # for records that a lost server does not take
    logging.captureWarnings(True)
    for name in ("httpx", "httpcore", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    _files.append(path)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.raiseExceptions = complain
        internal.handlers = internal_handlers
        root.handlers = before
        root.setLevel(level)
        handler.close()
        atexit.register(internal.setLevel, logging.CRITICAL)  # otherwise it reports what a lost server did not take


def current() -> Path | None:
    """The current log file, if there is one and it is still on this machine."""
    return _files[-1] if _files and _files[-1].exists() else None
