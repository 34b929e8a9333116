"""The devices of this machine that cells are given to, and how the cells of a process share its cores."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emtta_core.cores import PASSIVE, cores
from emtta_core.errors import UsageError
from emtta_core.suite import Runtime

CELLS_ON_A_CPU = 2
"""Cells at once on a CPU, unless a suite says otherwise.

A small model spends its time in many short operations. A second thread of torch's own costs them a fifth more processor
time and far more on a busy machine, where it spins while it waits; a second cell costs none, but a third finds Python's
lock taken.
"""


def cells_at_once(runtime: Runtime, device: str) -> int:
    """How many cells run at once: what the suite says, else what suits the device.

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


_DRIVERS = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")
"""What a driver of a GPU puts below /dev on Linux: NVIDIA's, that of its boards, of Windows's Linux, and AMD's."""


@dataclass(frozen=True, slots=True)
class Device:
    """One slot, where one cell at a time runs; a device that takes several cells is several slots."""

    name: str  # what users and the store call it: `cpu`, `cuda:1`
    torch_name: str  # what torch calls it in a process that sees no other
    environment: Mapping[str, str] = field(default_factory=dict)  # variables of such a process


def choose_devices(wanted: str, runtime: Runtime) -> tuple[Device, ...]:
    """The slots of the devices where cells run.

    Args:
        wanted: `auto` (every GPU, else the CPU), `cpu`, or devices with commas between them, as in `cuda:0,cuda:1`.
        runtime: of the suite; says how many cells a device takes, if it says so.

    Raises:
        UsageError: a device that this machine does not have; lists those it has.
    """
    found = _gpus()
    names = [name.strip() for name in wanted.split(",")]
    if names == ["auto"]:
        names = found or ["cpu"]
    elif names == ["cuda"]:
        names = found[:1] or names
    for name in names:
        if name != "cpu" and name not in found:
            there = ", ".join(["auto", "cpu", *found])
            raise UsageError(f"there is no device {name!r} on this machine; choose from: {there}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"the device {twice[0]!r} is named twice; runtime.workers says how many cells one takes")
    slots = [name for name in names for _ in range(cells_at_once(runtime, name))]
    return tuple(_slot(name, len(slots)) for name in slots)


def _slot(name: str, count: int) -> Device:
    # A device as one of `count` processes on this machine sees it, each with its share of the cores.
    policy, passive = PASSIVE
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // count)), policy: os.environ.get(policy, passive)}
    if name == "cpu":
        return Device(name, name, threads | {"CUDA_VISIBLE_DEVICES": ""})
    return Device(name, "cuda:0", threads | {"CUDA_VISIBLE_DEVICES": _visible(int(name.partition(":")[2]))})


def _visible(index: int) -> str:
    # The name of a GPU for a process that is to see it alone; numbers count those that this process may see.
    listed = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    return listed[index] if listed else str(index)


def _gpus() -> list[str]:
    if sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in _DRIVERS):
        return []  # torch need not be imported to find none
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
