"""The task that owns a cell: adapt, score, store."""

from prefect import task

from emtta_core.adaptation import Method
from emtta_core.pipeline.cell import Cell
from emtta_core.pipeline.evaluate import CellReport, evaluate_cell
from emtta_core.pipeline.models import model_of
from emtta_core.pipeline.progress import channel
from emtta_core.pipeline.workers import share_cores
from emtta_core.store import Store
from emtta_core.suite import ModelChoice, Runtime
from emtta_core.suite_method import Adaptation
from tasks.options import UNCACHED


@task(name="evaluate-cell", task_run_name="{cell.domain}/{cell.method}", **UNCACHED)
def evaluate(
    cell: Cell,
    store: str,
    run_id: str,
    model: ModelChoice,
    method: Method,
    adaptation: Adaptation,
    runtime: Runtime,
) -> CellReport:
    """Evaluate a cell whose domain is prepared; utterances that are done are left alone.

    Args:
        cell: which.
        store: the store's folder.
        run_id: the run that the cell belongs to.
        model: which model, loaded once a process.
        method: the cell's.
        adaptation: its options.
        runtime: how it is carried out.
    """
    loaded = model_of(model)
    share_cores(runtime, str(loaded.device))
    return evaluate_cell(
        cell,
        Store.open(store),
        run_id,
        loaded,
        method,
        adaptation,
        batch_size=runtime.batch_size,
        trace=runtime.trace,
        progress=channel.publish,
        stop=channel.stopping,
    )
