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

LOOK = 0.1
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
    with _setting.borrowed() as usual:
        count = min(usual, max(1, model.width // COLUMNS))
        spin = count > 1 and waiting_threads_spin()
        if spin:
            count = 1 if model.width < SMALL else max(1, min(count, round(free_cores(LOOK))))
        if count != torch.get_num_threads():
            torch.set_num_threads(count)
        before = CoreTimes.now() if spin and count > 1 else None
        yield
        after = CoreTimes.now() if before is not None else None
        if before is not None and after is not None and after.free_since(before) < count - CONTENDED:
            warnings.warn(WARNING, RuntimeWarning, stacklevel=3)


class _Setting:
    """The number of threads that the user has set; torch keeps one for each thread and one for new threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._borrowers, self._usual = 0, 0

    @contextmanager
    def borrowed(self) -> Iterator[int]:
        # Yield the number that the user has set, and restore it at the end, even if others borrow it meanwhile.
        with self._lock:
            # While others borrow, a new thread sees their number and not the user's.
            self._usual = self._usual if self._borrowers else torch.get_num_threads()
            self._borrowers += 1
            usual = self._usual
        try:
            yield usual
        finally:
            with self._lock:
                self._borrowers -= 1
                if torch.get_num_threads() != usual:
                    torch.set_num_threads(usual)


_setting = _Setting()
