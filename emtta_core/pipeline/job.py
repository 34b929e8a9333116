"""The job, which is all that a cell's evaluation needs to know; and the attempt, how far one is and what it came to."""

import logging
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from emtta_core.adaptation.options import Options
from emtta_core.errors import EmttaError, StoreError
from emtta_core.pipeline.events import AttemptBegun, CellFinished, Listener, ignore
from emtta_core.pipeline.plan import Cell
from emtta_core.pipeline.rows import Tally, tally_done
from emtta_core.pipeline.run import Run
from emtta_core.pipeline.selection import Redo
from emtta_core.plugins import fingerprint
from emtta_core.sanitize import without_passwords
from emtta_core.scoring import DEFAULT
from emtta_core.store import COMPLETE, FAILED, INTERRUPTED, CellKey, CellRow, Store
from emtta_core.store.lease import Lease
from emtta_core.suite import ModelChoice, Runtime
from emtta_core.suite.composed_methods import MethodChoice
from emtta_core.suite.stream import Stream

if TYPE_CHECKING:
    from emtta_core.adaptation import Adapter


class Job(BaseModel):
    """One cell to be evaluated; or several, through which a stream goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str  # where its audio lies and its rows go
    run_id: str  # the run that it belongs to
    cell: Cell  # which; its domain must be prepared
    further: tuple[Cell, ...] = ()  # in a stream, the cells that come after it
    stream: Stream | None = None  # the method's; None: each utterance is an episode
    model: ModelChoice  # which model, and on which device
    model_digest: str  # of the model that the run was planned with
    method: MethodChoice  # the cell's
    adaptation: Options  # the method's options
    plugins: dict[str, str] = {}  # of the method's plug-ins, the digest of the source with which the cell was planned
    scorer: str = DEFAULT  # by which its hypotheses are scored as they are made
    runtime: Runtime  # how it is executed
    redo: Redo = "missing"  # what is done again though it is done
    lease: int | None = None  # the number of the lease of its run; None: nobody took one
    device: str | None = None  # what the device is called in the store; None: as torch calls it

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
        """The job of a run's cell, or of a stream's cells: the first, and the `further` ones."""
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
        """What it is called in messages: its cell, or its method and how many domains its stream goes through."""
        if not self.further:
            return self.cell.name
        seed = f", seed {self.cell.seed}" if self.cell.seeds > 1 else ""
        return f"{self.cell.method}{seed}: stream through {len(self.cells)} domains"

    @property
    def timeout(self) -> float | None:
        """Seconds that it may take: as many for each of its cells as `runtime.timeout` says; None: any number."""
        return None if self.runtime.timeout is None else self.runtime.timeout * len(self.cells)

    @property
    def key(self) -> CellKey:
        """Under which the rows of its cell lie in the store."""
        return self.cell.key(self.run_id)

    def check_lease(self, store: Store) -> None:
        """Check that nobody has taken the run over from whoever gave this job.

        Raises:
            LeaseLostError: another process has; names it.
        """
        if self.lease is not None:
            Lease(self.run_id, self.lease).check(store)

    def on(self, device: str, called: str) -> "Job":
        """The same job on another device, as torch is to be asked for it, and as the store calls it."""
        model = self.model.model_copy(update={"device": device})
        return self.model_copy(update={"model": model, "device": called})


log = logging.getLogger("emtta.pipeline")


class InterruptedRunError(EmttaError):
    """The run was asked to stop; what is finished is in the store."""


@dataclass(frozen=True, slots=True)
class CellReport:
    """What an attempt at a cell came to."""

    cell: Cell  # which
    attempt: int  # its number
    done: int  # utterances that this attempt did
    reused: int  # utterances that an earlier one had done
    errors: int  # of both, those in error
    wer: float | None  # word error rate of both in percent; none where nothing was scored
    seconds: float  # wall seconds


@dataclass(slots=True)
class Attempt:
    """An attempt at a cell while it goes on."""

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
        """The record of the attempt as it ends now; `peak_memory` in bytes."""
        return CellRow(
            cell_id=self.cell.cell_id,
            attempt=self.number,
            group=self.cell.group,
            state=_ending(error),
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
    """Record a failed attempt at a cell, made by somebody who cannot, if the store still takes it, and tell of it.

    An attempt of no number is begun here first.
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
        lost = Attempt(cell, key, number, device, reused=reused)
        record_failure(store, lost, lost.row(error), progress)


def record_failure(store: Store, attempt: Attempt, row: CellRow, progress: Listener) -> None:
    """Write the record of a failed attempt if the store still takes it, and tell of it."""
    cell = attempt.cell
    try:
        store.write_cell(attempt.key, row)
    except StoreError as error:
        _log_unrecorded(cell, error)
    progress(CellFinished(cell.name, row.done + row.reused, row.errors, None, row.seconds, row.error))


class Begun:
    """Keeps, from what is told of a job, which attempts were begun at its cells."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._attempts: dict[str, int] = {}
        self._ended: set[str] = set()

    def hear(self, event: object) -> None:
        """Take what is told."""
        if isinstance(event, AttemptBegun):
            self._attempts[event.cell] = event.attempt
        elif isinstance(event, CellFinished):
            self._ended.add(event.cell)

    @property
    def untold(self) -> list[Cell]:
        """The cells whose end was not told."""
        return [cell for cell in self._job.cells if cell.name not in self._ended]

    def fail(self, store: Store, error: BaseException, progress: Listener, device: str) -> None:
        """Record that the attempts begun and not ended failed; where none was begun, one at the first cell."""
        left = [cell for cell in self.untold if cell.name in self._attempts] or self.untold[:1]
        for cell in left:
            number = self._attempts.get(cell.name)
            fail_cell(cell, store, self._job.run_id, error, progress, attempt=number, device=device)

    def keep_log(self, text: bytes) -> None:
        """Keep the log of the attempts, if the store still takes it."""
        for cell in self._job.cells:
            attempt = self._attempts.get(cell.name)
            try:
                if attempt is not None:
                    Store.open(self._job.store).write_log(cell.key(self._job.run_id), attempt, text)
            except StoreError as error:
                log.warning("the log of %s, attempt %d, could not be kept: %s", cell.name, attempt, error)


def _log_unrecorded(cell: Cell, error: StoreError) -> None:
    log.error("the failed attempt at %s could not be recorded: %s", cell.name, error)


def _ending(error: BaseException | None) -> str:
    # The state of an attempt that ended with this exception, or without one.
    if error is None:
        return COMPLETE
    return INTERRUPTED if isinstance(error, InterruptedRunError) else FAILED


def describe(error: BaseException) -> str:
    """An exception in one line: the message of ours, the kind and the message of any other."""
    text = without_passwords(" ".join(str(error).split()))
    return text if isinstance(error, EmttaError) else f"{type(error).__name__}: {text}".removesuffix(": ")
