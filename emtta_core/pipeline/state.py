"""How far a run is: read from the store, which is the truth about what is done, through its views."""

from dataclasses import dataclass

from emtta_core.pipeline.cell import Cell
from emtta_core.store import COMPLETE, Store
from emtta_core.store.catalogue import Catalogue


def planned_cells(store: Store, run_id: str) -> tuple[Cell, ...]:
    """Return the planned cells of a run, in order.

    Raises:
        UsageError: there is no such run; lists those there are.
    """
    return tuple(
        Cell(row.domain, row.group, row.method, row.cell_id, row.corpus_id, row.utterances)
        for row in store.plan(run_id)
    )


@dataclass(frozen=True, slots=True)
class CellState:
    """How far a planned cell is, as the store has it.

    Attributes:
        cell: which.
        state: `complete`, `failed`, `partial` or `missing`, as the view `cells` defines them.
        done: utterances that are done, those in error included.
        in_error: utterances in error.
        wer: word error rate of what is done, in percent.
        error: why the newest attempt failed, where the cell is not complete.
    """

    cell: Cell
    state: str
    done: int
    in_error: int
    wer: float | None
    error: str | None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.state == COMPLETE

    @property
    def missing(self) -> int:
        """Utterances still to be done."""
        return max(0, self.cell.utterances - self.done)


def cell_states(store: Store, run_id: str) -> tuple[CellState, ...]:
    """Return how far each cell of a run is, in the order of its plan.

    Raises:
        UsageError: there is no such run; lists those there are.
    """
    cells = planned_cells(store, run_id)
    query = "SELECT domain, method, state, done, in_error, wer, error FROM cells WHERE run_id = $run_id"
    with Catalogue(store) as catalogue:
        rows = catalogue.query(query, {"run_id": run_id}).rows
    by_name = {(domain, method): rest for domain, method, *rest in rows}
    return tuple(CellState(cell, *by_name[cell.domain, cell.method]) for cell in cells)
