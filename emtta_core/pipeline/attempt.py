"""An attempt at a cell: how far it is, what it came to, and the record of one that failed.

No model here, so that who begins a cell elsewhere need not import torch.
"""

import logging
import platform
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from emtta_core.errors import EmttaError, StoreError
from emtta_core.network import without_passwords
from emtta_core.pipeline.cell import Cell
from emtta_core.pipeline.progress import AttemptBegun, CellFinished, Listener, ignore
from emtta_core.pipeline.rows import Tally, tally_done
from emtta_core.store import COMPLETE, FAILED, INTERRUPTED, CellKey, CellRow, Store

if TYPE_CHECKING:
    from emtta_core.adaptation import Adapter

log = logging.getLogger("emtta.pipeline")


class InterruptedRunError(EmttaError):
    """The run was asked to stop; what is finished is in the store."""


@dataclass(frozen=True, slots=True)
class CellReport:
    """What an attempt at a cell came to.

    Attributes:
        cell: which.
        attempt: its number.
        done: utterances that this attempt did.
        reused: utterances that an earlier one had done.
        errors: of both, those in error.
        wer: word error rate of both in percent; none where nothing was scored.
        seconds: wall seconds.
    """

    cell: Cell
    attempt: int
    done: int
    reused: int
    errors: int
    wer: float | None
    seconds: float


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
        """Return the record of the attempt as it ends now; `peak_memory` in bytes."""
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

    Args:
        cell: which.
        store: where.
        run_id: the run.
        error: why.
        progress: is told of the end, and before it of an attempt that is begun here.
        attempt: its number; None where none was begun.
        device: where it ran.
    """
    key = CellKey(run_id, cell.domain, cell.method)
    try:
        number = store.begin_attempt(key) if attempt is None else attempt
        reused = tally_done(list(store.done(key, cell.cell_id).values()))
    except StoreError as refusal:
        _log_unrecorded(key, refusal)
        progress(CellFinished(cell.domain, cell.method, 0, 0, None, 0.0, describe(error)))
    else:
        if attempt is None:
            progress(AttemptBegun(cell.domain, cell.method, number))
        lost = Attempt(cell, key, number, device, reused=reused)
        record_failure(store, key, lost.row(error), progress)


def record_failure(store: Store, key: CellKey, row: CellRow, progress: Listener) -> None:
    """Write the record of a failed attempt if the store still takes it, and tell of it."""
    try:
        store.write_cell(key, row)
    except StoreError as error:
        _log_unrecorded(key, error)
    progress(CellFinished(key.domain, key.method, row.done + row.reused, row.errors, None, row.seconds, row.error))


def _log_unrecorded(key: CellKey, error: StoreError) -> None:
    """Say that a failed attempt is not in the store."""
    log.error("the failed attempt at %s/%s could not be recorded: %s", key.domain, key.method, error)


def _ending(error: BaseException | None) -> str:
    """Return the state of an attempt that ended with this exception, or without one."""
    if error is None:
        return COMPLETE
    return INTERRUPTED if isinstance(error, InterruptedRunError) else FAILED


def describe(error: BaseException) -> str:
    """Return an exception in one line: the message of ours, the kind and the message of any other."""
    text = without_passwords(" ".join(str(error).split()))
    return text if isinstance(error, EmttaError) else f"{type(error).__name__}: {text}".removesuffix(": ")
