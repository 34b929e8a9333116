"""Show the progress of a run: a live table on a terminal, a line per finished cell elsewhere."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from emtta_core.names import counted
from emtta_core.pipeline.events import CellFinished, DomainPrepared, Event, Started, Stopping, UtterancesDone, channel
from emtta_core.sanitize import escaped


@dataclass(slots=True)
class MethodProgress:
    """Progress of one method: word errors of all its utterances, seconds of those done in this run."""

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
        """Mean seconds per utterance."""
        return self.seconds / self.timed if self.timed else None


@dataclass(slots=True)
class Progress:
    """Accumulates progress from events; `update` takes them."""

    started: float = field(default_factory=time.monotonic)
    run_id: str = ""
    domains: int = 0
    prepared: int = 0
    cells: int = 0
    workers: int = 1
    finished: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    methods: dict[str, MethodProgress] = field(default_factory=dict)

    def update(self, event: Event) -> None:
        """Take an event into account."""
        match event:
            case Started():
                self.started = time.monotonic()  # Prefect has started
                self.run_id, self.domains, self.cells = event.run_id, event.domains, event.cells
                self.workers = event.workers
                self.methods = {name: MethodProgress(planned=count) for name, count in event.utterances.items()}
            case DomainPrepared():
                self.prepared += 1
            case UtterancesDone():
                self._utterances(event)
            case CellFinished():
                self.failed.discard(event.cell)
                self.finished.discard(event.cell)
                (self.finished if event.error is None else self.failed).add(event.cell)

    def _utterances(self, event: UtterancesDone) -> None:
        method = self.methods.setdefault(event.method, MethodProgress())
        method.word_errors += event.word_errors
        method.words += event.words
        method.errors += event.errors
        if not event.resumed:
            method.done += event.utterances
            method.planned = max(method.planned, method.done)  # a stream may redo utterances
            method.timed += event.utterances
            method.seconds += event.seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.started

    @property
    def planned_utterances(self) -> int:
        """Utterances that this run has to do."""
        return sum(method.planned for method in self.methods.values())

    @property
    def done_utterances(self) -> int:
        """Utterances that it has done."""
        return sum(method.done for method in self.methods.values())

    @property
    def utterances_a_second(self) -> float:
        """Utterances per second over all methods, since the beginning."""
        return self.done_utterances / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimate the time left: each method at its own pace, or at the slowest if it has none yet."""
        paces = [pace for pace in (method.seconds_each for method in self.methods.values()) if pace is not None]
        if not paces:
            return None
        total = 0.0
        for method in self.methods.values():
            pace = method.seconds_each if method.seconds_each is not None else max(paces)
            total += pace * max(0, method.planned - method.done)
        return total / self.workers


@contextmanager
def watching(console: Console) -> Iterator[None]:
    """Show the events of this process's channel on `console` inside the `with` block.

    A terminal shows a live display, with failures above it; anything else gets a line per cell.
    """
    progress = Progress()

    def listen(event: Event) -> None:
        progress.update(event)
        text = line(event, progress)
        worth_keeping = isinstance(event, Stopping) or getattr(event, "error", None) is not None
        if text is not None and (worth_keeping or not console.is_terminal):
            console.print(escaped(text), markup=False, soft_wrap=True)

    live = Live(get_renderable=lambda: picture(progress), console=console, refresh_per_second=4, transient=True)
    with live if console.is_terminal else nullcontext(), channel.listening(listen):
        yield


def line(event: Event, progress: Progress) -> str | None:
    """An event in one line; None if it is not worth a line."""
    match event:
        case Started():
            utterances = counted(progress.planned_utterances, "utterance")
            return f"run {event.run_id}: {counted(event.cells, 'cell')} to do, {utterances}"
        case Stopping():
            again = "Ctrl-C" if event.by is signal.SIGINT else event.by.name
            return f"stopping after the current shards; {again} again to stop immediately"
        case DomainPrepared(error=str(error)):
            return f"{event.domain}: not prepared: {error}"
        case CellFinished():
            at = f"[{len(progress.finished) + len(progress.failed):>3}/{progress.cells}] {event.cell}"
            if event.error is not None:
                return f"{at}: failed: {event.error}"
            wer = "no WER" if event.wer is None else f"WER {event.wer:.1f} %"
            errors = f", {event.errors} in error" if event.errors else ""
            return f"{at}: {wer}, {counted(event.utterances, 'utterance')}{errors}, {event.seconds:.1f} s"
        case _:
            return None


def picture(progress: Progress) -> RenderableType:
    """The live display of a run: a bar, its pace, and the methods' word error rates so far."""
    if not progress.cells:
        return Text(f"starting Prefect … {progress.elapsed:.0f} s", style="dim")
    done, planned, left = progress.done_utterances, progress.planned_utterances, progress.seconds_left
    head = Table.grid(padding=(0, 2))
    head.add_row(
        ProgressBar(total=max(planned, 1), completed=done, width=30),
        f"{len(progress.finished)}/{progress.cells} cells",
        f"{progress.prepared}/{progress.domains} domains prepared",
        f"{progress.utterances_a_second:.1f} utterances/s",
        "" if left is None else f"about {clock(left)} left",
        Text(f"{len(progress.failed)} failed", style="red") if progress.failed else "",
    )
    table = Table("method", box=None, padding=(0, 2))
    for title in ("utterances", "in error", "WER so far %"):
        table.add_column(title, justify="right")
    for name, method in progress.methods.items():
        wer = "-" if method.wer is None else f"{method.wer:.1f}"
        table.add_row(name, f"{method.done}/{method.planned}", str(method.errors), wer)
    return Group(Text(f"run {progress.run_id}", style="bold"), head, table)


def clock(seconds: float) -> str:
    """A duration as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
