"""Cells in this very process: for notebooks, for debugging, and where somebody else keeps processes apart."""

from collections.abc import Sequence

from emtta_core.errors import UsageError
from emtta_core.pipeline.attempt import CellReport
from emtta_core.pipeline.evaluate import evaluate_job
from emtta_core.pipeline.job import Job
from emtta_core.pipeline.progress import channel
from emtta_core.pipeline.workers import share_cores
from emtta_core.store import Store
from emtta_core.worker.devices import Device


class OwnProcess:
    """Does jobs in the threads that bring them."""

    def __init__(self, devices: Sequence[Device]) -> None:
        """Compute on the device of these slots.

        Raises:
            UsageError: they are on several devices.
        """
        names = sorted({device.name for device in devices})
        if len(names) > 1:
            raise UsageError(f"one process computes on one device, not on {', '.join(names)}; use --isolation process")
        self._device = names[0]

    def do(self, job: Job) -> CellReport:
        """Evaluate a cell; the process's channel is told how it goes, and may ask to stop.

        Raises:
            Exception: whatever ends the attempt; it is recorded.
        """
        placed = job.on(self._device, self._device)
        share_cores(job.runtime, self._device)
        return evaluate_job(placed, Store.open(job.store), progress=channel.publish, stop=channel.stopping)
