"""What the benchmarks measure with: time, memory, operations, and the machine's own peak."""

import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

PAGE = 4096


@dataclass(frozen=True)
class Cost:
    """Of one run.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time of all the process's threads, which other processes disturb less.
        peak_bytes: the most memory that was in use at once: of the process on a CPU, of torch on a GPU.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measure(work: Callable[[], object], device: torch.device) -> Cost:
    """Run `work` once."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        began, busy = time.perf_counter(), time.process_time()
        work()
        torch.cuda.synchronize(device)
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        return Cost(seconds, busy, torch.cuda.max_memory_allocated(device))
    done = threading.Event()
    peak = [resident()]

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, busy = time.perf_counter(), time.process_time()
    try:
        work()
    finally:
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        done.set()
        watcher.join()
    return Cost(seconds, busy, peak[0])


def resident() -> int:
    """Return the bytes of memory that the process has now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def operations(work: Callable[[], object]) -> int:
    """Return the floating-point operations of the matrix multiplications, convolutions and attention of `work`."""

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


def matrix_peak(device: torch.device, dtype: torch.dtype, *, size: int = 2048, seconds: float = 1.0) -> float:
    """Return the operations a second of the best of many square matrix multiplications."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        best = min(best, measure_once(lambda: left @ right, device))
    return 2 * size**3 / best


def measure_once(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def machine(device: torch.device) -> dict[str, object]:
    """Return what the numbers depend on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
