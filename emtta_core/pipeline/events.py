"""Progress events of a run, published on a channel inside the process."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Started:
    """The run begins: the work ahead."""

    run_id: str  # the run
    domains: int  # number of domains with work to do
    cells: int  # number of cells with work to do
    utterances: Mapping[str, int]  # unfinished utterances, by method
    workers: int  # cells evaluated at once


@dataclass(frozen=True, slots=True)
class DomainPrepared:
    """A domain's audio is in the store, or `error` says why it is not."""

    domain: str
    utterances: int
    reused: bool
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptBegun:
    """An attempt at a cell has begun under this number."""

    cell: str  # its name, as `Cell.name`
    attempt: int


@dataclass(frozen=True, slots=True)
class UtterancesDone:
    """A shard of a cell is in the store."""

    method: str  # the cell's
    utterances: int  # how many, including those in error
    errors: int
    word_errors: int  # of the utterances that could be scored
    words: int  # in their references
    seconds: float  # wall-clock seconds spent on them
    resumed: bool = False  # whether an earlier attempt finished them


@dataclass(frozen=True, slots=True)
class CellFinished:
    """A cell ended; if it failed, `error` says why. `wer` is in percent, None if nothing was scored."""

    cell: str  # its name, as `Cell.name`
    utterances: int
    errors: int
    wer: float | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Stopping:
    """A signal asked the run to stop: running cells finish their current shard, and no other cell is begun."""

    by: signal.Signals


Event = Started | DomainPrepared | AttemptBegun | UtterancesDone | CellFinished | Stopping
Listener = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Listen to nothing."""


def never() -> bool:
    """Never ask to stop."""
    return False


class Channel:
    """Passes events from any thread to the listeners, one at a time, and a request to stop back to the run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        # The stop signal received since a listener was last added, if any.
        self.stopped_by: signal.Signals | None = None

    def publish(self, event: Event) -> None:
        """Pass `event` to the listeners, in the publishing thread."""
        with self._lock:
            for listener in self._listeners:
                listener(event)

    def ask_to_stop(self, by: signal.Signals) -> None:
        """Ask the running cells to end after their current shard."""
        self.stopped_by = by
        self.publish(Stopping(by))

    def stopping(self) -> bool:
        """Whether a stop has been requested."""
        return self.stopped_by is not None

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Pass events to `listener` inside the `with` block."""
        with self._lock:
            self._listeners.append(listener)
            self.stopped_by = None
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)


channel = Channel()
"""The process's channel: flows publish on it, the command listens."""
