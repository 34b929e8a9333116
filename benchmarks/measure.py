"""Measurements for the benchmarks: time, memory, operations, and the machine's peak rate."""

import ctypes
import gc
import logging
import os
import platform
import resource
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
import transformers
from rich.console import Console
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from emtta_core.model.weights import Precision

WIDTH = 112
"""Width of the widest table, in characters."""

PAGE = 4096
GLIBC = platform.libc_ver()[0] == "glibc"
M_MMAP_THRESHOLD = -3  # from malloc.h

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """The cost of one run.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time of all threads of the process, on which other processes have less effect.
        peak_bytes: maximum memory in use: of the process on a CPU, of torch on a GPU.
        resting_bytes: memory in use before the run, including models.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    resting_bytes: int = 0


@dataclass(frozen=True)
class Rate:
    """The rate of matrix multiplication.

    Attributes:
        wall: floating-point operations per second.
        cpu: the same per second of processor time; None on a GPU.
    """

    wall: float
    cpu: float | None


@dataclass(frozen=True)
class Fit:
    """A straight line fitted by least squares.

    Attributes:
        slope: the cost of one more.
        intercept: the cost of none.
        r2: the share of the variance that the line explains, R²; 1 if all points are on it.
    """

    slope: float
    intercept: float
    r2: float

    @classmethod
    def of(cls, x: Sequence[float], y: Sequence[float]) -> Self:
        """Fit the line to at least two points."""
        slope, intercept = np.polyfit(x, y, 1)
        values = np.asarray(y)
        left = float(((values - slope * np.asarray(x) - intercept) ** 2).sum())
        spread = float(((values - values.mean()) ** 2).sum())
        return cls(float(slope), float(intercept), 1 - left / spread if spread else 1.0)


class MemoryWarnings(logging.Handler):
    """Records, while entered, each time the engine halves a batch because memory ran out.

    Attributes:
        messages: the engine's messages.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._engine = logging.getLogger("emtta.adaptation")

    def emit(self, record: logging.LogRecord) -> None:
        """Record a warning that concerns memory."""
        if "out of memory" in record.getMessage():
            self.messages.append(record.getMessage())

    def __enter__(self) -> Self:
        self._engine.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.removeHandler(self)


def measure(work: Callable[[], object], device: torch.device) -> Cost:
    """Run `work` once, and return its cost."""
    return timed(work, device)[0]


def timed(work: Callable[[], Result], device: torch.device) -> tuple[Cost, Result]:
    """Run `work` once, and return its cost and its result."""
    release(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        resting = torch.cuda.memory_allocated(device)
        started, busy = time.perf_counter(), time.process_time()
        result = work()
        torch.cuda.synchronize(device)
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        return Cost(seconds, busy, torch.cuda.max_memory_allocated(device), resting), result
    done = threading.Event()
    resting = resident()
    peak = [resting]

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, busy = time.perf_counter(), time.process_time()
    try:
        result = work()
    finally:
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        done.set()
        watcher.join()
    return Cost(seconds, busy, peak[0], resting), result


def release(device: torch.device) -> None:
    """Release memory that earlier runs no longer use, so that it does not count for the next one."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    elif GLIBC:
        ctypes.CDLL(None).malloc_trim(0)


def limit_memory(device: torch.device, gibibytes: float) -> None:
    """Limit this process to its current memory plus `gibibytes`, on a GPU or in the machine's memory (Linux)."""
    spare = int(gibibytes * 2**30)
    release(device)  # memory of a GPU that torch caches would add to the limit
    if device.type == "cuda":
        share = (torch.cuda.memory_reserved(device) + spare) / torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)
        return
    # Return freed memory at once; otherwise glibc keeps fragments of the wrong size, which count towards the limit.
    if GLIBC:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)
    lines = Path("/proc/self/status").read_text().splitlines()
    used = next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + spare, resource.RLIM_INFINITY))


def resident() -> int:
    """Return the process's resident memory in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def operations(work: Callable[[], object]) -> int:
    """Return the floating-point operations of the matrix multiplications, convolutions and attention of `work`.

    Counts only calls through torch's dispatcher: the replay of a CUDA graph would be missed.
    """

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(gradient, query, key, value))

    aten = torch.ops.aten
    mapping = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        work()
    return int(counter.get_total_flops())


def matrix_peak(device: torch.device, precision: Precision, *, seconds: float = 1.0) -> Rate:
    """Return the rate of the fastest of many square matrix multiplications, in the precision's own arithmetic."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device).to(precision.weights) for _ in range(2))
    costs = []
    with precision.arithmetic(device):
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            costs.append(measure_once(lambda: left @ right, device))
    wall, cpu = (min(column) for column in zip(*costs, strict=True))
    return Rate(2 * size**3 / wall, None if device.type == "cuda" else 2 * size**3 / cpu)


def measure_once(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the wall and processor seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started, busy = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, time.process_time() - busy


def profile(work: Callable[[], object], device: torch.device, *, rows: int = 25) -> str:
    """Return torch.profiler's table of where `work` spends its time, the most expensive operation first."""
    activities, order = [ProfilerActivity.CPU], "self_cpu_time_total"
    if device.type == "cuda":
        activities, order = [*activities, ProfilerActivity.CUDA], "self_cuda_time_total"
    with torch.profiler.profile(activities=activities) as profiler:
        work()
    return str(profiler.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=50))


def machine(device: torch.device) -> dict[str, object]:
    """Return facts about the machine that affect the measurements, including its current load."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    facts: dict[str, object] = {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": load_average(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if device.type == "cuda":
        facts |= {
            "device": torch.cuda.get_device_name(device),
            "processor": name,
            "memory_bytes": torch.cuda.get_device_properties(device).total_memory,
            "cuda": torch.version.cuda,
        }
    return facts


def load_average() -> list[float]:
    """Return the load average over 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def console() -> Console:
    """Return a console for tables: the terminal, or a wider one if it is too narrow for them."""
    terminal = Console()
    return terminal if terminal.width >= WIDTH else Console(width=WIDTH)


def medians(costs: Sequence[Cost]) -> dict[str, Any]:
    """Return the median times of several runs, and the maximum memory."""
    return {
        "seconds": statistics.median(cost.seconds for cost in costs),
        "cpu_seconds": statistics.median(cost.cpu_seconds for cost in costs),
        "seconds_of_runs": [cost.seconds for cost in costs],
        "cpu_seconds_of_runs": [cost.cpu_seconds for cost in costs],
        "peak_memory_bytes": max(cost.peak_bytes for cost in costs),
        "resting_memory_bytes": min(cost.resting_bytes for cost in costs),
    }
