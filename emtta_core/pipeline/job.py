"""The job: all that a cell's evaluation needs to know, in a form that travels to another process or machine."""

from pydantic import BaseModel, ConfigDict

from emtta_core.pipeline.cell import Cell
from emtta_core.pipeline.redo import Redo
from emtta_core.pipeline.run import Run
from emtta_core.scoring import Rule
from emtta_core.store import Store
from emtta_core.store.lease import Lease
from emtta_core.suite import ModelChoice, Runtime
from emtta_core.suite.composed import Adaptation, MethodChoice


class Job(BaseModel):
    """One cell to be evaluated.

    Attributes:
        store: where its audio lies and its rows go.
        run_id: the run that it belongs to.
        cell: which; its domain must be prepared.
        model: which model, and on which device.
        model_digest: of the model that the run was planned with.
        method: the cell's.
        adaptation: the method's options.
        normalizer: how texts are normalized before they are compared.
        runtime: how it is carried out.
        redo: what is done again though it is done.
        lease: the number of the lease of its run; None: nobody took one.
        device: what the device is called in the store; None: as torch calls it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str
    run_id: str
    cell: Cell
    model: ModelChoice
    model_digest: str
    method: MethodChoice
    adaptation: Adaptation
    normalizer: Rule = "whisper"
    runtime: Runtime
    redo: Redo = "missing"
    lease: int | None = None
    device: str | None = None

    @classmethod
    def of(cls, run: Run, cell: Cell, store: str, redo: Redo = "missing", lease: int | None = None) -> "Job":
        """Return the job of a run's cell."""
        suite = run.suite
        choice = suite.method(cell.method)
        return cls(
            store=store,
            run_id=run.run_id,
            cell=cell,
            model=suite.model,
            model_digest=run.plan.model_digest,
            method=choice,
            adaptation=choice.adapted(suite.adaptation),
            normalizer=suite.normalizer,
            runtime=suite.runtime,
            redo=redo,
            lease=lease,
        )

    def check_lease(self, store: Store) -> None:
        """Check that nobody has taken the run over from whoever gave this job.

        Raises:
            LeaseLostError: another process has; names it.
        """
        if self.lease is not None:
            Lease(self.run_id, self.lease).check(store)

    def on(self, device: str, called: str) -> "Job":
        """Return the same job on another device.

        Args:
            device: as torch is to be asked for it.
            called: what the store calls it.
        """
        model = self.model.model_copy(update={"device": device})
        return self.model_copy(update={"model": model, "device": called})
