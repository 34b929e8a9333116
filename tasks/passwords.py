"""No password in a URL reaches Prefect, neither in what it logs nor in the message of a state."""

import logging
from contextlib import ContextDecorator
from types import TracebackType

from prefect.logging.handlers import APILogHandler, PrefectConsoleHandler

from emtta_core.errors import EmttaError
from emtta_core.sanitize import without_passwords


class hide_passwords(ContextDecorator):  # noqa: N801 - used like `suppress`
    """Keep passwords from Prefect inside the `with` block, or the flow or task that this decorates.

    Raises:
        EmttaError: in place of an error whose message holds a password, which it comes from.
    """

    # A class, as Ray sends flows and tasks to its machines, and the generator of a `contextmanager` cannot be sent.

    def __enter__(self) -> None:
        _settle_handlers()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        message = without_passwords(str(error))
        if isinstance(error, Exception) and message != str(error):
            raise EmttaError(f"{type(error).__name__}: {message}") from error


class _HandlerFormatter(logging.Formatter):
    """Formats as another formatter does, without the passwords of URLs."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return without_passwords(self._inner.format(record))


def _settle_handlers() -> None:
    # Have Prefect's handlers, to its server and to the screen, hide passwords.
    loggers = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    for handler in [handler for logger in (logging.root, *loggers) for handler in logger.handlers]:
        if isinstance(handler, APILogHandler | PrefectConsoleHandler) and not isinstance(
            handler.formatter, _HandlerFormatter
        ):
            handler.setFormatter(_HandlerFormatter(handler.formatter or logging.Formatter()))
