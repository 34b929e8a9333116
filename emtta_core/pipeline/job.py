"""A job holds all that evaluating a cell requires; an attempt holds its progress and outcome."""

import io
import logging
import platform
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from emtta_core.adaptation.options import Options
from emtta_core.errors import EmttaError, StoreError
from emtta_core.names import counted
from emtta_core.pipeline.events import AttemptBegun, CellFinished, Listener, ignore
from emtta_core.pipeline.plan import Cell
from emtta_core.pipeline.rows import Tally, tally_done
from emtta_core.pipeline.run import Run
from emtta_core.pipeline.selection import Redo
from emtta_core.plugins import fingerprint
from emtta_core.sanitize import escaped, without_passwords
from emtta_core.scoring import DEFAULT
from emtta_core.store import COMPLETE, FAILED, INTERRUPTED, CellKey, CellRow, Store
from emtta_core.store.lease import Lease
from emtta_core.suite import ModelChoice, Runtime
from emtta_core.suite.composed_methods import MethodChoice
from emtta_core.suite.stream import Stream

if TYPE_CHECKING:
    from emtta_core.adaptation import Adapter


class Job(BaseModel):
    """One cell to evaluate, or the several cells of one stream."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str  # location of its audio and results
    run_id: str  # the run it belongs to
    cell: Cell  # the cell; its domain must be prepared
    further: tuple[Cell, ...] = ()  # the cells that follow it in its stream
    stream: Stream | None = None  # the method's stream; None: each utterance is an episode
    model: ModelChoice  # the model and its device
    model_digest: str  # digest of the model with which the run was planned
    method: MethodChoice  # the cell's method
    adaptation: Options  # the method's options
    plugins: dict[str, str] = {}  # by plug-in of the method, the source digest with which the cell was planned
    scorer: str = DEFAULT  # scores its hypotheses as they are made
    runtime: Runtime  # how to execute it
    redo: Redo = "missing"  # which utterances to evaluate
    lease: int | None = None  # number of the run's lease; None: no lease was taken
    device: str | None = None  # the device's name in the store; None: torch's name

    @classmethod
    def of(
        cls,
        run: Run,
        cell: Cell,
        store: str,
        redo: Redo = "missing",
        lease: int | None = None,
        further: Sequence[Cell] = (),
    ) -> "Job":
        """The job for a run's cell, or for a stream's cells: the first, and the `further` ones."""
        suite = run.suite
        choice = suite.method(cell.method)
        return cls(
            store=store,
            run_id=run.run_id,
            cell=cell,
            further=tuple(further),
            stream=suite.stream_of(choice),
            model=suite.model,
            model_digest=run.plan.model_digest,
            method=choice,
            adaptation=suite.options_of(choice, cell.seed),
            plugins={path: fingerprint(path)["source"] for path in choice.method().plugins.values()},
            scorer=suite.scorers[0],
            runtime=suite.runtime,
            redo=redo,
            lease=lease,
        )

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Its cells, in order."""
        return (self.cell, *self.further)

    @property
    def name(self) -> str:
        """Its name in messages: its cell, or its method and the number of domains in its stream."""
        if not self.further:
            return self.cell.name
        seed = f", seed {self.cell.seed}" if self.cell.seeds > 1 else ""
        return f"{self.cell.method}{seed}: stream through {counted(len(self.cells), 'domain')}"

    @property
    def timeout(self) -> float | None:
        """Its time limit in seconds: `runtime.timeout` for each of its cells; None: no limit."""
        return None if self.runtime.timeout is None else self.runtime.timeout * len(self.cells)

    @property
    def key(self) -> CellKey:
        """The key of its cell's rows in the store."""
        return self.cell.key(self.run_id)

    def check_lease(self, store: Store) -> None:
        """Check that no other process has taken over the run.

        Raises:
            LeaseLostError: another process has; the message names it.
        """
        if self.lease is not None:
            Lease(self.run_id, self.lease).check(store)

    def on(self, device: str, called: str) -> "Job":
        """The same job on another device, given by its torch name and its name in the store."""
        model = self.model.model_copy(update={"device": device})
        return self.model_copy(update={"model": model, "device": called})


log = logging.getLogger("emtta.pipeline")


class InterruptedRunError(EmttaError):
    """The run was asked to stop; finished utterances are in the store."""


@dataclass(frozen=True, slots=True)
class CellReport:
    """The outcome of an attempt at a cell."""

    cell: Cell  # the cell
    attempt: int  # the attempt's number
    done: int  # utterances this attempt finished
    reused: int  # utterances an earlier attempt finished
    errors: int  # how many of both are in error
    wer: float | None  # word error rate of both in percent; None if nothing was scored
    seconds: float  # wall-clock seconds


@dataclass(slots=True)
class Attempt:
    """An attempt in progress at a cell."""

    cell: Cell
    key: CellKey
    number: int
    device: str
    adapter: "Adapter | None" = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.perf_counter)
    reused: Tally = field(default_factory=Tally)
    done: Tally = field(default_factory=Tally)

    def row(self, error: BaseException | None = None, *, peak_memory: int | None = None) -> CellRow:
        """The record of the attempt if it ends now; `peak_memory` in bytes."""
        return CellRow(
            cell_id=self.cell.cell_id,
            attempt=self.number,
            group=self.cell.group,
            state=_final_state(error),
            planned=self.cell.utterances,
            done=self.done.utterances,
            reused=self.reused.utterances,
            errors=self.done.errors + self.reused.errors,
            error=None if error is None else describe(error),
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
            seconds=time.perf_counter() - self.started,
            audio_seconds=self.done.audio_seconds,
            device=self.device,
            peak_memory_bytes=peak_memory,
            host=platform.node(),
            batch_size=self.adapter.batch_size if self.adapter is not None else 0,
        )


def fail_cell(
    cell: Cell,
    store: Store,
    run_id: str,
    error: BaseException,
    progress: Listener = ignore,
    *,
    attempt: int | None = None,
    device: str = "none",
) -> None:
    """Record a failed attempt on behalf of a worker that cannot, if the store still accepts it, and publish its end.

    If the attempt has no number yet, it is begun here first.
    """
    key = cell.key(run_id)
    try:
        number = store.begin_attempt(key) if attempt is None else attempt
        reused = tally_done(list(store.done(key, cell.cell_id).values()))
    except StoreError as refusal:
        _log_unrecorded(cell, refusal)
        progress(CellFinished(cell.name, 0, 0, None, 0.0, describe(error)))
    else:
        if attempt is None:
            progress(AttemptBegun(cell.name, number))
        unrecorded = Attempt(cell, key, number, device, reused=reused)
        record_failure(store, unrecorded, unrecorded.row(error), progress)


def record_failure(store: Store, attempt: Attempt, row: CellRow, progress: Listener) -> None:
    """Write the record of a failed attempt, if the store still accepts it, and publish its end."""
    cell = attempt.cell
    try:
        store.write_cell(attempt.key, row)
    except StoreError as error:
        _log_unrecorded(cell, error)
    progress(CellFinished(cell.name, row.done + row.reused, row.errors, None, row.seconds, row.error))


class AttemptTracker:
    """Tracks, from a job's events, which attempts at its cells have begun and which cells have ended."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._attempts: dict[str, int] = {}
        self._finished: set[str] = set()

    def observe(self, event: object) -> None:
        """Take an event."""
        if isinstance(event, AttemptBegun):
            self._attempts[event.cell] = event.attempt
        elif isinstance(event, CellFinished):
            self._finished.add(event.cell)

    @property
    def unreported(self) -> list[Cell]:
        """The cells whose end has not been reported."""
        return [cell for cell in self._job.cells if cell.name not in self._finished]

    def fail(self, store: Store, error: BaseException, progress: Listener, device: str) -> None:
        """Record the unfinished attempts as failed; if none has begun, one at the first unfinished cell."""
        unfinished = [cell for cell in self.unreported if cell.name in self._attempts] or self.unreported[:1]
        for cell in unfinished:
            number = self._attempts.get(cell.name)
            fail_cell(cell, store, self._job.run_id, error, progress, attempt=number, device=device)

    @contextmanager
    def log_kept(self) -> Iterator[None]:
        """Keep what this thread logs meanwhile, and the traceback of a failure, as the log of the attempts."""
        text, root, thread = io.StringIO(), logging.getLogger(), threading.get_ident()
        handler = logging.StreamHandler(text)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handler.addFilter(lambda record: record.thread == thread)
        root.addHandler(handler)
        try:
            yield
        except Exception:
            traceback.print_exc(file=text)
            raise
        finally:
            root.removeHandler(handler)
            if logged := text.getvalue():
                self.keep_log(escaped(logged).encode())

    def keep_log(self, text: bytes) -> None:
        """Store the log of the attempts, if the store still accepts it."""
        for cell in self._job.cells:
            attempt = self._attempts.get(cell.name)
            try:
                if attempt is not None:
                    Store.open(self._job.store).write_log(cell.key(self._job.run_id), attempt, text)
            except StoreError as error:
                log.warning("the log of %s, attempt %d, could not be stored: %s", cell.name, attempt, error)


def _log_unrecorded(cell: Cell, error: StoreError) -> None:
    log.error("the failed attempt at %s could not be recorded: %s", cell.name, error)


def _final_state(error: BaseException | None) -> str:
    # The final state of an attempt that ended with this exception, or with none.
    if error is None:
        return COMPLETE
    return INTERRUPTED if isinstance(error, InterruptedRunError) else FAILED


def describe(error: BaseException) -> str:
    """Describe an exception in one line: the message, after the type unless it is an `EmttaError`."""
    text = without_passwords(" ".join(str(error).split()))
    return text if isinstance(error, EmttaError) else f"{type(error).__name__}: {text}".removesuffix(": ")
