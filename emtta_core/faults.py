"""Faults: which may pass by themselves, so that the same work is worth another attempt, and which mean full memory."""

import errno
from collections.abc import Iterator

from emtta_core.errors import EmttaError, in_words

_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "could not create a primitive",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
    "unable to find an engine to execute this computation",
)
"""What torch says in a plain `RuntimeError`: its allocators of a CPU's memory, CUDA beside torch's allocator, and the
libraries under it.

oneDNN says no more than that it could not create a primitive, and torch of a convolution for which cuDNN finds no room
that there is no engine for it (https://github.com/pytorch/pytorch/issues/108645); were that for another reason, a batch
of one would give it as its error in the end."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, of the machine or of a device."""
    # torch's own error is known by its name, so that this module need not import torch.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


TRANSIENT_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EDQUOT,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENFILE,
        errno.ENOLCK,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


FOR_GOOD = ("no kernel image is available", "invalid device ordinal", "no CUDA-capable device")
"""What CUDA says of a GPU that is no better in another process: this torch has no code for it, or it is not there."""


LOST = (
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUFFT_EXEC_FAILED",
    "CUFFT_INTERNAL_ERROR",
)
"""What CUDA's libraries say of a GPU that failed under them; torch raises it as a plain `RuntimeError`."""


REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within the quota",
    errno.EROFS: "choose folders that can be written",
    errno.EACCES: "choose folders that can be read and written",
    errno.EPERM: "choose folders that can be read and written",
    errno.EIO: "look at the disk",
    errno.ESTALE: "look at the network drive",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "let the machine do less at once",
    errno.EAGAIN: "raise the limit of processes (ulimit -u)",
    errno.ENOMEM: "let the machine do less at once",
}
"""What mends a fault of the machine."""


DISK_FULL = ("No space left on device", "database or disk is full")
"""How libraries say it whose exceptions have no number."""


class TransientError(EmttaError):
    """A fault that may pass, and is known to."""


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed where this one failed."""
    return is_device_lost(error) or any(_transient(cause) for cause in _chain(error))


def is_fatal(error: BaseException) -> bool:
    """Whether an error says something of more than the utterance at which it was met.

    Those of emtta say of what they are; memory, a device and the machine serve all utterances; and what is no
    `Exception`, as an interrupt, is meant for the process.
    """
    return isinstance(error, EmttaError) or not isinstance(error, Exception) or is_transient(error)


def unexpected(done: str, error: BaseException) -> str:
    """Why an utterance is in error that could not be `done`, as in "prepared": a library failed as nobody foresaw."""
    return f"it could not be {done}: {in_words(error)}; the log says where: please report it, with this utterance"


def is_device_lost(error: BaseException) -> bool:
    """Whether CUDA failed, after which a process can compute nothing on its GPU any more."""
    return any(_lost_device(cause) for cause in _chain(error))


def machine_fault(error: BaseException) -> str | None:
    """Say in words what is wrong with the machine, and what to do; None if an error is none of the machine's."""
    for cause in _chain(error):
        if is_out_of_memory(cause):
            return "memory did not suffice; repeat the command with fewer workers or a smaller limit"
        if isinstance(cause, OSError) and cause.errno in REMEDIES:
            what = f"{cause.strerror}{f': {cause.filename}' if cause.filename else ''}"
            return f"{what}; {REMEDIES[cause.errno]}, and repeat the command: what is finished is kept"
        if any(words in str(cause) for words in DISK_FULL):
            return f"{in_words(cause)}; {REMEDIES[errno.ENOSPC]}, and repeat the command: what is finished is kept"
    return None


def _lost_device(error: BaseException) -> bool:
    text = str(error)
    if is_out_of_memory(error) or any(words in text for words in FOR_GOOD):
        return False
    # torch's own error is known by its name, so that this module need not import torch.
    in_a_library = isinstance(error, RuntimeError) and any(words in text for words in LOST)
    return in_a_library or type(error).__name__ == "AcceleratorError"


def _transient(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | TransientError):
        return True
    if isinstance(error, OSError):
        return error.errno in TRANSIENT_ERRNOS
    return is_out_of_memory(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__
