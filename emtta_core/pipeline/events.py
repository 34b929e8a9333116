"""What a run tells those who watch it: small events on a channel inside the process."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Started:
    """The run begins: what it is about to do."""

    run_id: str  # which
    domains: int  # how many of its domains have something to do
    cells: int  # how many of its cells
    utterances: Mapping[str, int]  # those still to be done, by method
    workers: int  # cells at once


@dataclass(frozen=True, slots=True)
class DomainPrepared:
    """A domain's audio lies in the store; `error` says why not, where it does not."""

    domain: str
    utterances: int
    reused: bool
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptBegun:
    """An attempt at a cell has begun, and has this number."""

    cell: str  # its name, as `Cell.name`
    attempt: int


@dataclass(frozen=True, slots=True)
class UtterancesDone:
    """A shard of a cell lies in the store."""

    method: str  # the cell's
    utterances: int  # how many, those in error included
    errors: int
    word_errors: int  # of those that could be scored
    words: int  # in their references
    seconds: float  # wall seconds spent on them
    resumed: bool = False  # whether an earlier attempt had done them


@dataclass(frozen=True, slots=True)
class CellFinished:
    """A cell ended; `error` says why it failed, where it did. `wer` is in percent, none where nothing was scored."""

    cell: str  # its name, as `Cell.name`
    utterances: int
    errors: int
    wer: float | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Stopping:
    """Somebody asked to stop, by a signal: the cells at work finish the batch in hand, and no other is begun."""

    by: signal.Signals


Event = Started | DomainPrepared | AttemptBegun | UtterancesDone | CellFinished | Stopping
Listener = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Listen to nothing."""


def never() -> bool:
    """Never ask to stop."""
    return False


class Channel:
    """Carries events to those who watch, one at a time, whichever thread publishes it; and their wish to stop, back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        # The signal that asked to stop, since somebody last began to listen; None: none did.
        self.stopped_by: signal.Signals | None = None

    def publish(self, event: Event) -> None:
        """Hand `event` to the listeners, in the publishing thread."""
        with self._lock:
            for listener in self._listeners:
                listener(event)

    def ask_to_stop(self, by: signal.Signals) -> None:
        """Ask the cells that are at work to end after their shard."""
        self.stopped_by = by
        self.publish(Stopping(by))

    def stopping(self) -> bool:
        """Whether somebody has asked to stop."""
        return self.stopped_by is not None

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Hand events to `listener` inside the `with` block."""
        with self._lock:
            self._listeners.append(listener)
            self.stopped_by = None
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)


channel = Channel()
"""The process's own channel: flows publish on it, the command listens."""
