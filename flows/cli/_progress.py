"""Showing how a run goes: a live table on a terminal, a line per finished cell anywhere else."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from emtta_core.pipeline.events import CellFinished, DomainPrepared, Event, Started, Stopping, UtterancesDone, channel
from emtta_core.sanitize import escaped


@dataclass(slots=True)
class MethodStanding:
    """What is known so far of one method: word errors of all its utterances, seconds of those done now."""

    planned: int = 0
    done: int = 0
    errors: int = 0
    word_errors: int = 0
    words: int = 0
    timed: int = 0
    seconds: float = 0.0

    @property
    def wer(self) -> float | None:
        """Word error rate so far, in percent."""
        return 100 * self.word_errors / self.words if self.words else None

    @property
    def seconds_each(self) -> float | None:
        """Mean seconds an utterance."""
        return self.seconds / self.timed if self.timed else None


@dataclass(slots=True)
class Standing:
    """Counts what has happened; `hear` takes the events."""

    started: float = field(default_factory=time.monotonic)
    run_id: str = ""
    domains: int = 0
    prepared: int = 0
    cells: int = 0
    workers: int = 1
    finished: set[tuple[str, str]] = field(default_factory=set)
    failed: set[tuple[str, str]] = field(default_factory=set)
    methods: dict[str, MethodStanding] = field(default_factory=dict)

    def hear(self, event: Event) -> None:
        """Take an event into account."""
        match event:
            case Started():
                self.started = time.monotonic()  # Prefect is up
                self.run_id, self.domains, self.cells = event.run_id, event.domains, event.cells
                self.workers = event.workers
                self.methods = {name: MethodStanding(planned=count) for name, count in event.utterances.items()}
            case DomainPrepared():
                self.prepared += 1
            case UtterancesDone():
                self._utterances(event)
            case CellFinished():
                cell = (event.domain, event.method)
                self.failed.discard(cell)
                self.finished.discard(cell)
                (self.finished if event.error is None else self.failed).add(cell)

    def _utterances(self, event: UtterancesDone) -> None:
        standing = self.methods.setdefault(event.method, MethodStanding())
        standing.word_errors += event.word_errors
        standing.words += event.words
        standing.errors += event.errors
        if not event.resumed:
            standing.done += event.utterances
            standing.timed += event.utterances
            standing.seconds += event.seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.started

    @property
    def planned_utterances(self) -> int:
        """Utterances that this run is to do."""
        return sum(standing.planned for standing in self.methods.values())

    @property
    def done_utterances(self) -> int:
        """Utterances that it has done."""
        return sum(standing.done for standing in self.methods.values())

    @property
    def utterances_a_second(self) -> float:
        """Over all methods, since the beginning."""
        return self.done_utterances / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate: each method's utterances at its own pace, one not seen yet at the slowest."""
        paces = [pace for pace in (standing.seconds_each for standing in self.methods.values()) if pace is not None]
        if not paces:
            return None
        left = 0.0
        for standing in self.methods.values():
            pace = standing.seconds_each if standing.seconds_each is not None else max(paces)
            left += pace * max(0, standing.planned - standing.done)
        return left / self.workers


@contextmanager
def watching(console: Console) -> Iterator[None]:
    """Show the events of this process's channel on `console` inside the `with` block."""
    with _live(console) if console.is_terminal else _lines(console):
        yield


@contextmanager
def _lines(console: Console) -> Iterator[None]:
    standing = Standing()

    def hear(event: Event) -> None:
        standing.hear(event)
        text = line(event, standing)
        if text is not None:
            console.print(escaped(text), markup=False, soft_wrap=True)

    with channel.listening(hear):
        yield


@contextmanager
def _live(console: Console) -> Iterator[None]:
    # Keep a picture of the run up to date; failures stay on the screen above it.
    standing = Standing()

    def hear(event: Event) -> None:
        standing.hear(event)
        worth_keeping = isinstance(event, Stopping) or getattr(event, "error", None) is not None
        if worth_keeping:
            console.print(escaped(line(event, standing) or ""), markup=False, soft_wrap=True)

    with (
        Live(get_renderable=lambda: picture(standing), console=console, refresh_per_second=4, transient=True),
        channel.listening(hear),
    ):
        yield


def line(event: Event, standing: Standing) -> str | None:
    """Return an event in one line, none for one that is not worth it."""
    match event:
        case Started():
            return f"run {event.run_id}: {event.cells} cells to do, {standing.planned_utterances} utterances"
        case Stopping():
            again = "Ctrl-C" if event.by is signal.SIGINT else event.by.name
            return f"stopping when the batches in hand are done; {again} again to end at once"
        case DomainPrepared(error=str(error)):
            return f"{event.domain}: not prepared: {error}"
        case CellFinished():
            at = f"[{len(standing.finished) + len(standing.failed):>3}/{standing.cells}] {event.domain}/{event.method}"
            if event.error is not None:
                return f"{at}: failed: {event.error}"
            wer = "no WER" if event.wer is None else f"WER {event.wer:.1f} %"
            errors = f", {event.errors} in error" if event.errors else ""
            return f"{at}: {wer}, {event.utterances} utterances{errors}, {event.seconds:.1f} s"
        case _:
            return None


def picture(standing: Standing) -> RenderableType:
    """Return the picture of a run: a bar, its pace, and the methods' word error rates so far."""
    if not standing.cells:
        return Text(f"starting Prefect … {standing.elapsed:.0f} s", style="dim")
    done, planned, left = standing.done_utterances, standing.planned_utterances, standing.seconds_left
    head = Table.grid(padding=(0, 2))
    head.add_row(
        ProgressBar(total=max(planned, 1), completed=done, width=30),
        f"{len(standing.finished)}/{standing.cells} cells",
        f"{standing.prepared}/{standing.domains} domains prepared",
        f"{standing.utterances_a_second:.1f} utterances/s",
        "" if left is None else f"about {clock(left)} left",
        Text(f"{len(standing.failed)} failed", style="red") if standing.failed else "",
    )
    table = Table("method", box=None, padding=(0, 2))
    for title in ("utterances", "in error", "WER so far %"):
        table.add_column(title, justify="right")
    for name, method in standing.methods.items():
        wer = "-" if method.wer is None else f"{method.wer:.1f}"
        table.add_row(name, f"{method.done}/{method.planned}", str(method.errors), wer)
    return Group(Text(f"run {standing.run_id}", style="bold"), head, table)


def clock(seconds: float) -> str:
    """Return a duration as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
