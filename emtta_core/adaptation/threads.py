"""How many threads torch uses for a batch on a CPU: as many as pay off for the model's size and are free."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from emtta_core.cores import PASSIVE, CoreTimes, free_cores, waiting_threads_spin
from emtta_core.model.speech_model import Model

COLUMNS = 80
"""The minimum of the model's width per thread. Two threads that sleep while waiting adapt the demo, of width 160, a
quarter faster than one; with more, waking them would take longer than their work."""

SMALL = 256
"""A model with fewer columns uses one thread if waiting threads spin: a second one is a quarter faster on an idle
machine, but many times slower on a busy one."""

WATCH_SECONDS = 0.1
"""Seconds for which the cores are watched before a batch; Linux counts in hundredths."""

CONTENDED = 0.5
"""Cores that may be unavailable, on average over a batch, before the user is warned."""

WARNING = (
    "other processes need the cores that emtta's threads run on, and threads that wait for each other spin, which "
    f"slows both; set {'='.join(PASSIVE)} in the environment before starting Python, or call torch.set_num_threads(1)"
)


@contextmanager
def sized_threads(model: Model) -> Iterator[None]:
    """Set torch's number of threads for a batch inside the `with` block, never above its old value, and restore it.

    If waiting threads sleep (`OMP_WAIT_POLICY=PASSIVE`), as in emtta's own processes, the number depends only on the
    model; if they spin, also on the free cores. The last digits of a result depend on it.
    """
    if model.device.type != "cpu":
        yield
        return
    with _thread_count.restored_at_exit() as original:
        count = min(original, max(1, model.width // COLUMNS))
        spin = count > 1 and waiting_threads_spin()
        if spin:
            count = 1 if model.width < SMALL else max(1, min(count, round(free_cores(WATCH_SECONDS))))
        if count != torch.get_num_threads():
            torch.set_num_threads(count)
        before = CoreTimes.now() if spin and count > 1 else None
        yield
        after = CoreTimes.now() if before is not None else None
        if before is not None and after is not None and after.free_since(before) < count - CONTENDED:
            warnings.warn(WARNING, RuntimeWarning, stacklevel=3)


class _ThreadCount:
    """The number of threads that the user has set; torch keeps one for each thread and one for new threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users, self._original = 0, 0

    @contextmanager
    def restored_at_exit(self) -> Iterator[int]:
        # Yield the number that the user has set, and restore it at the end, even if others change it meanwhile.
        with self._lock:
            # While others have changed it, a new thread sees their number and not the user's.
            self._original = self._original if self._users else torch.get_num_threads()
            self._users += 1
            original = self._original
        try:
            yield original
        finally:
            with self._lock:
                self._users -= 1
                if torch.get_num_threads() != original:
                    torch.set_num_threads(original)


_thread_count = _ThreadCount()
