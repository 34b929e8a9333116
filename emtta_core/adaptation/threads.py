"""How many threads torch computes a batch with on a CPU: as many as the model is worth and the machine has free."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from emtta_core.cores import PASSIVE, CoreTimes, free_cores, waiting_threads_spin
from emtta_core.model.speech_model import Model

COLUMNS = 80
"""Of a model's width, for each thread at least. Two threads that sleep while they wait adapt the demo, which has 160, a
quarter faster than one; more would be woken for less work than waking them takes."""

SMALL = 256
"""A model of fewer columns is computed by one thread where waiting threads spin: a second one gains a quarter on a
machine that is idle, and on one that is not it takes many times as long."""

LOOK = 0.1
"""Seconds for which the cores are watched before a batch; Linux counts in hundredths."""

CONTENDED = 0.5
"""Cores that may be missing, on average over a batch, before the user is warned."""

WARNING = (
    "other processes need the cores that emtta's threads run on, and threads that wait for each other spin, which "
    f"slows both; set {'='.join(PASSIVE)} in the environment before Python starts, or call torch.set_num_threads(1)"
)


@contextmanager
def sized_threads(model: Model) -> Iterator[None]:
    """Set torch's number of threads for a batch inside the `with` block, never above what it was, and restore it.

    Where waiting threads sleep (`OMP_WAIT_POLICY=PASSIVE`), as in emtta's own processes, the number depends on the
    model alone; where they spin, on the cores that are free as well. The last digits of a result depend on it.
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
    """The process's number of threads, of which torch keeps one for each thread and one for those to come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._borrowers, self._usual = 0, 0

    @contextmanager
    def borrowed(self) -> Iterator[int]:
        # Yield the number that the user has set, and set it again at the end, whoever else borrows it meanwhile.
        with self._lock:
            # What a new thread finds while others borrow is theirs and not the user's.
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
