"""Measure what the engine's own choice of threads gains, on the machine as it is and next to busy processes.

    python benchmarks/threads.py                     # the demo model
    python benchmarks/threads.py base --steps 1      # Whisper-base's shape

Compares, in turn and in this process, torch's default number of threads, one per core, with the number that the engine
chooses for each batch: first on the machine as it is, then next to `--busy` busy processes of low priority, which this
program starts and ends. OpenMP reads OMP_WAIT_POLICY when torch is imported, so run it with and without
OMP_WAIT_POLICY=PASSIVE.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

import torch
from measure import console
from rich.table import Table
from works import WORKS, load, sounds

from emtta_core.adaptation import Adapter, adapter
from emtta_core.adaptation.threads import sized_threads

BUSY = "import os; os.nice(19)\nowner = os.getppid()\nwhile os.getppid() == owner: sum(range(100_000))"
"""A process that uses a core whenever it gets one, until its parent ends."""

SIDES = {"torch's own": lambda _: nullcontext(), "the engine's": sized_threads}


def main() -> None:
    """Measure the workload of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", nargs="?", default="demo", choices=["demo", "base"])
    parser.add_argument("--busy", type=int, default=4, help="busy processes during the second measurement")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, in turn")
    parser.add_argument("--utterances", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    work = WORKS[arguments.work]
    _, model = load(work, "float32")
    waveforms = sounds(work, arguments.utterances)

    def run() -> float:
        began = time.perf_counter()
        Adapter(model, "em-tok-b", steps=arguments.steps, candidates=8).transcribe(waveforms)
        return time.perf_counter() - began

    policy = os.environ.get("OMP_WAIT_POLICY", "not set")
    table = Table(title=f"{arguments.work}: seconds of a call, {torch.get_num_threads()} threads; wait policy {policy}")
    for heading in ("busy processes", "load average", *SIDES, "ratio"):
        table.add_column(heading, justify="right")
    for count in (0, arguments.busy):
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        with busy(count):
            for _ in range(arguments.repeat):
                for side, context in SIDES.items():
                    with mock.patch.object(adapter, "sized_threads", context):
                        seconds[side].append(run())
            load_average = os.getloadavg()[0]
        theirs, ours = (statistics.median(runs) for runs in seconds.values())
        table.add_row(str(count), f"{load_average:.1f}", f"{theirs:.1f}", f"{ours:.1f}", f"{theirs / ours:.1f}")
    console().print(table)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep this many processes busy inside the `with` block."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
