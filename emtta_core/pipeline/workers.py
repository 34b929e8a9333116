"""How many cells run at once in a process, and how they share its cores."""

from emtta_core.cores import cores
from emtta_core.suite import Runtime

CELLS_ON_A_CPU = 2
"""Cells at once on a CPU, unless a suite says otherwise.

A small model spends its time in many short operations. A second thread of torch's own costs them a fifth more processor
time and far more on a busy machine, where it spins while it waits; a second cell costs none, but a third finds Python's
lock taken.
"""


def cells_at_once(runtime: Runtime, device: str) -> int:
    """Return how many cells run at once: what the suite says, else what suits the device.

    Args:
        runtime: of the suite.
        device: of the model, as `cpu` or `cuda:0`; a GPU takes one cell at a time, in batches.
    """
    if runtime.workers is not None:
        return runtime.workers
    return min(CELLS_ON_A_CPU, cores()) if device == "cpu" else 1


def share_cores(runtime: Runtime, device: str) -> None:
    """Give the calling thread its share of the cores for torch's arithmetic."""
    import torch

    torch.set_num_threads(max(1, cores() // cells_at_once(runtime, device)))
