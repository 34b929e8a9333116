"""How many cells run at once in a process, and how they share its cores."""

import os

from emtta_core.suite import Runtime


def cells_at_once(runtime: Runtime) -> int:
    """Return how many cells run at once: what the suite says, else one."""
    return runtime.workers or 1


def share_cores(runtime: Runtime) -> None:
    """Give the calling thread its share of the cores for torch's arithmetic."""
    import torch

    torch.set_num_threads(max(1, cores() // cells_at_once(runtime)))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
