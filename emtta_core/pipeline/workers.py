"""How many cells run at once in a process, and how they share its cores."""

import math
import os
from pathlib import Path

from emtta_core.suite import Runtime

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much processor time a container gets: microseconds in a period of so many, or `max`."""

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


def cores() -> int:
    """Return how many cores this process may use: those of its affinity, no more than its container's quota allows."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(here, _quota(QUOTA) or here)


def _quota(file: Path) -> int | None:
    """Return the cores that a control group grants, rounded up; none where there is no group, or no limit."""
    try:
        granted, period = file.read_text(encoding="ascii").split()
        return math.ceil(int(granted) / int(period))
    except (OSError, ValueError):  # "max" where there is no limit
        return None
