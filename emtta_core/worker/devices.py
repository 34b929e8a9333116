"""The devices of this machine that cells run on, and how the cells of a process share its cores."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emtta_core.cores import PASSIVE, cores
from emtta_core.errors import UsageError
from emtta_core.suite import Runtime

CELLS_ON_A_CPU = 2
"""The number of concurrent cells on a CPU, unless a suite sets it.

A small model spends its time in many short operations. A second torch thread costs them a fifth more CPU time, and far
more on a busy machine, where it spins while waiting; a second cell costs none, but a third has to wait for the GIL.
"""


def cells_at_once(runtime: Runtime, device: str) -> int:
    """The number of concurrent cells: the suite's, or else what suits the device.

    Args:
        runtime: the suite's.
        device: the model's, such as `cpu` or `cuda:0`; a GPU runs one cell at a time, in batches.
    """
    if runtime.workers is not None:
        return runtime.workers
    return min(CELLS_ON_A_CPU, cores()) if device == "cpu" else 1


def share_cores(runtime: Runtime, device: str) -> None:
    """Limit torch in the calling thread to its share of the cores."""
    import torch

    torch.set_num_threads(max(1, cores() // cells_at_once(runtime, device)))


_DRIVERS = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")
"""Device files of GPU drivers under /dev on Linux: NVIDIA's, Tegra's, WSL's and AMD's."""


@dataclass(frozen=True, slots=True)
class Device:
    """A slot that runs one cell at a time; a device for several cells is several slots."""

    name: str  # for users and the store: `cpu`, `cuda:1`
    torch_name: str  # torch's name in a process that sees only this device
    environment: Mapping[str, str] = field(default_factory=dict)  # environment variables of such a process


def choose_devices(requested: str, runtime: Runtime) -> tuple[Device, ...]:
    """The slots of the devices where cells run.

    Args:
        requested: `auto` (every GPU, or else the CPU), `cpu`, or comma-separated devices such as `cuda:0,cuda:1`.
        runtime: the suite's, which may set the number of cells per device.

    Raises:
        UsageError: this machine does not have such a device; lists those it has.
    """
    gpus = _gpus()
    names = [name.strip() for name in requested.split(",")]
    if names == ["auto"]:
        names = gpus or ["cpu"]
    elif names == ["cuda"]:
        names = gpus[:1] or names
    for name in names:
        if name != "cpu" and name not in gpus:
            available = ", ".join(["auto", "cpu", *gpus])
            raise UsageError(f"there is no device {name!r} on this machine; choose from: {available}")
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise UsageError(
            f"the device {duplicates[0]!r} is named twice; runtime.workers sets the number of cells per device"
        )
    slots = [name for name in names for _ in range(cells_at_once(runtime, name))]
    return tuple(_slot(name, len(slots)) for name in slots)


def _slot(name: str, count: int) -> Device:
    # A device for one of `count` processes on this machine, each with its share of the cores.
    policy, passive = PASSIVE
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // count)), policy: os.environ.get(policy, passive)}
    if name == "cpu":
        return Device(name, name, threads | {"CUDA_VISIBLE_DEVICES": ""})
    return Device(name, "cuda:0", threads | {"CUDA_VISIBLE_DEVICES": _visible(int(name.partition(":")[2]))})


def _visible(index: int) -> str:
    # The name of a GPU for a process that should see only this one; `index` counts the GPUs visible to this process.
    listed = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    return listed[index] if listed else str(index)


def _gpus() -> list[str]:
    if sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in _DRIVERS):
        return []  # without importing torch
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
