"""A planned and prepared suite, whose cells are evaluated one by one."""

from pathlib import Path

from emtta_core.model import load_model
from emtta_core.pipeline.evaluate import evaluate_cell
from emtta_core.pipeline.events import Event
from emtta_core.pipeline.job import Job
from emtta_core.pipeline.plan import Cell, plan
from emtta_core.pipeline.preparation import prepare_domain
from emtta_core.pipeline.run import Run, record
from emtta_core.store import CellKey, HypothesisRow, Store
from emtta_core.suite import Suite

RUN = "run"


class Bench:
    """A planned and prepared suite, whose cells are evaluated one by one."""

    def __init__(self, suite: Suite, store: Path) -> None:
        self.suite, self.store = suite, Store.open(store, create=True)
        self.model = load_model(suite.model.name)
        self.plan = plan(suite, self.model.digest)
        self.cells = {cell.method: cell for cell in self.plan.cells}
        self.events: list[Event] = []
        any_cell = next(iter(self.cells.values()))
        prepare_domain(suite.domains[0], any_cell.corpus_id, self.store, suite.limit)
        record(Run(RUN, suite, self.plan), self.store)

    def key(self, cell: Cell) -> CellKey:
        return cell.key(RUN)

    def evaluate(self, method: str, stop_after: int | None = None) -> dict[str, HypothesisRow]:
        """Evaluate the cell of a method, stopping after `stop_after` shards, and return the finished rows."""
        return self.evaluate_cell(self.cells[method], stop_after)

    def evaluate_cell(self, cell: Cell, stop_after: int | None = None) -> dict[str, HypothesisRow]:
        """Evaluate a cell, for methods that have several."""
        shards = 0

        def stop() -> bool:
            nonlocal shards
            shards += 1
            return stop_after is not None and shards >= stop_after

        try:
            evaluate_cell(
                Job.of(Run(RUN, self.suite, self.plan), cell, self.store.location),
                self.store,
                self.model,
                progress=self.events.append,
                stop=stop,
            )
        finally:
            done = self.store.done(self.key(cell), cell.cell_id)
            self.done = {name: utterance.hypothesis for name, utterance in done.items()}
        return self.done
