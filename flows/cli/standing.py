"""How a run stands, summed up from its events."""

import time
from dataclasses import dataclass, field

from emtta_core.pipeline.progress import CellFinished, DomainPrepared, Event, Started, UtterancesDone


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
        """Add a shard to its method."""
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
