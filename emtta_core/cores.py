"""The processor cores that this process may use, and how many of them other processes leave free."""

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Linux's file with a container's CPU quota: microseconds (or `max`), and the period in microseconds."""

TIMES = Path("/proc/stat")
"""Linux's file with the busy and idle times of each core."""

PASSIVE = ("OMP_WAIT_POLICY", "PASSIVE")
"""The environment variable, and its value, that makes OpenMP threads sleep while they wait for each other.

Otherwise they spin. On a shared machine, a spinning thread keeps the core from the very thread it waits for: em-tok-b
on six utterances of the demo took 39 s with two spinning threads, 4 s with two sleeping ones, and 5 s with one. The
variable is read when torch is imported.
"""


def cores() -> int:
    """How many cores this process may use: those in its affinity mask, limited by its container's quota."""
    count = len(_affinity() or ()) or os.cpu_count() or 1
    return min(count, _quota(QUOTA) or count)


def waiting_threads_spin() -> bool:
    """Whether OpenMP threads spin while they wait, as they do unless the environment says otherwise."""
    name, value = PASSIVE
    return os.environ.get(name, "").strip().upper() != value


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """The use of this process's cores, in core-seconds since some time in the past."""

    total: float  # busy and idle
    busy: float  # used by any process
    own: float  # used by this process

    @classmethod
    def now(cls) -> Self | None:
        """Read the counters; None if the system lacks them."""
        affinity = _affinity()
        if affinity is None or not TIMES.is_file():
            return None
        total = busy = 0.0
        for line in TIMES.read_text(encoding="ascii").splitlines():
            name, *counts = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in affinity:
                ticks = [int(count) for count in counts[:8]]  # these include the later ones
                total += sum(ticks)
                busy += sum(ticks) - ticks[3] - ticks[4]  # minus idle and iowait
        second = os.sysconf("SC_CLK_TCK")
        return cls(total / second, busy / second, time.process_time())

    def free_since(self, earlier: "CoreTimes") -> float:
        """The average number of cores that other processes have left to this one since an earlier reading."""
        span = self.total - earlier.total
        if span <= 0:
            return float(cores())
        others = max(0.0, self.busy - earlier.busy - (self.own - earlier.own))
        return min(float(cores()), len(_affinity() or ()) * (1 - others / span))


def free_cores(seconds: float) -> float:
    """Watch the cores for some seconds, and return how many others left free; all cores if this is unknown."""
    before = CoreTimes.now()
    if before is None:
        return float(cores())
    time.sleep(seconds)
    after = CoreTimes.now()
    return float(cores()) if after is None else after.free_since(before)


def _affinity() -> set[int] | None:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _quota(file: Path) -> int | None:
    # The cores that a control group grants, rounded up; None if there is no group or no limit.
    try:
        granted, period = file.read_text(encoding="ascii").split()
        return math.ceil(int(granted) / int(period))
    except (OSError, ValueError):  # the quota is "max" if there is no limit
        return None
