"""The processor cores that this process may use, and how many of them others leave free."""

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much processor time a container gets: microseconds in a period of so many, or `max`."""

TIMES = Path("/proc/stat")
"""Where Linux counts how long each core was busy and idle."""

PASSIVE = ("OMP_WAIT_POLICY", "PASSIVE")
"""The variable, and its value, by which OpenMP's threads sleep while they wait for each other.

Else they spin. On a machine that others use too, a thread that spins keeps the core from the very thread that it waits
for: em-tok-b on six utterances of the demo took 39 s with two threads that spin, 4 s with two that sleep, and 5 s with
one. It is read when torch is imported.
"""


def cores() -> int:
    """How many cores this process may use: those of its affinity, no more than its container's quota allows."""
    here = len(_affinity() or ()) or os.cpu_count() or 1
    return min(here, _quota(QUOTA) or here)


def waiting_threads_spin() -> bool:
    """Whether OpenMP's threads spin while they wait, as they do unless the environment says otherwise."""
    name, value = PASSIVE
    return os.environ.get(name, "").strip().upper() != value


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """How long the cores of this process have been in use, in core-seconds since some time in the past."""

    total: float  # busy or not
    busy: float  # with any process
    own: float  # with this process

    @classmethod
    def now(cls) -> Self | None:
        """Read the counters; None if the system has none."""
        affinity = _affinity()
        if affinity is None or not TIMES.is_file():
            return None
        total = busy = 0.0
        for line in TIMES.read_text(encoding="ascii").splitlines():
            name, *counts = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in affinity:
                ticks = [int(count) for count in counts[:8]]  # those after them are counted in these already
                total += sum(ticks)
                busy += sum(ticks) - ticks[3] - ticks[4]  # idle, and idle with input or output outstanding
        second = os.sysconf("SC_CLK_TCK")
        return cls(total / second, busy / second, time.process_time())

    def free_since(self, earlier: "CoreTimes") -> float:
        """How many cores other processes left to this one since an earlier reading, on average."""
        span = self.total - earlier.total
        if span <= 0:
            return float(cores())
        others = max(0.0, self.busy - earlier.busy - (self.own - earlier.own))
        return min(float(cores()), len(_affinity() or ()) * (1 - others / span))


def free_cores(seconds: float) -> float:
    """Watch the cores for so many seconds, and return how many of them others left free; all where nothing tells."""
    before = CoreTimes.now()
    if before is None:
        return float(cores())
    time.sleep(seconds)
    after = CoreTimes.now()
    return float(cores()) if after is None else after.free_since(before)


def _affinity() -> set[int] | None:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _quota(file: Path) -> int | None:
    # The cores that a control group grants, rounded up; none where there is no group, or no limit.
    try:
        granted, period = file.read_text(encoding="ascii").split()
        return math.ceil(int(granted) / int(period))
    except (OSError, ValueError):  # "max" where there is no limit
        return None
