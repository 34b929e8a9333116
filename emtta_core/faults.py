"""Classification of errors: transient ones, which are worth another attempt, and those that mean out of memory."""

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
"""Messages with which torch raises a plain `RuntimeError`: of its CPU allocators, of CUDA outside torch's allocator,
and of the underlying libraries.

oneDNN says only that it could not create a primitive, and torch, for a convolution for which cuDNN lacks memory, that
there is no engine for it (https://github.com/pytorch/pytorch/issues/108645); if there is another reason, a batch of one
finally reports it as its error."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the machine or a device ran out of memory."""
    # torch's own error is recognized by name, so that this module need not import torch.
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


PERMANENT = ("no kernel image is available", "invalid device ordinal", "no CUDA-capable device")
"""CUDA messages for faults that persist in another process: torch has no code for the GPU, or there is no GPU."""


GPU_FAILURES = (
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUFFT_EXEC_FAILED",
    "CUFFT_INTERNAL_ERROR",
)
"""Messages of CUDA's libraries for a GPU that failed; torch raises them as a plain `RuntimeError`."""


REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within the quota",
    errno.EROFS: "choose folders that can be written",
    errno.EACCES: "choose folders that can be read and written",
    errno.EPERM: "choose folders that can be read and written",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network drive",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "reduce the load on the machine",
    errno.EAGAIN: "raise the limit on processes (ulimit -u)",
    errno.ENOMEM: "reduce the load on the machine",
}
"""The remedy for a fault of the machine."""


DISK_FULL = ("No space left on device", "database or disk is full")
"""Messages of libraries whose exceptions have no error number."""


class TransientError(EmttaError):
    """A fault that is known to be possibly temporary."""


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed where this one failed."""
    return is_device_lost(error) or any(_transient(cause) for cause in _chain(error))


def is_fatal(error: BaseException) -> bool:
    """Whether an error concerns more than the utterance at which it occurred.

    emtta's own errors state what they concern; memory, a device and the machine affect all utterances; and anything
    that is not an `Exception`, such as an interrupt, is meant for the process.
    """
    return isinstance(error, EmttaError) or not isinstance(error, Exception) or is_transient(error)


def unexpected(done: str, error: BaseException) -> str:
    """The reason for an utterance that could not be `done` ("prepared", for example) due to an unexpected error."""
    return f"it could not be {done}: {in_words(error)}; the log has details: please report it, with this utterance"


def is_device_lost(error: BaseException) -> bool:
    """Whether CUDA failed, after which a process can no longer compute on its GPU."""
    return any(_lost_device(cause) for cause in _chain(error))


def machine_fault(error: BaseException) -> str | None:
    """What is wrong with the machine, and what to do; None if an error is not the machine's fault."""
    for cause in _chain(error):
        if is_out_of_memory(cause):
            return "not enough memory; repeat the command with fewer workers or a smaller limit"
        if isinstance(cause, OSError) and cause.errno in REMEDIES:
            what = f"{cause.strerror}{f': {cause.filename}' if cause.filename else ''}"
            return f"{what}; {REMEDIES[cause.errno]}, and repeat the command: finished work is kept"
        if any(words in str(cause) for words in DISK_FULL):
            return f"{in_words(cause)}; {REMEDIES[errno.ENOSPC]}, and repeat the command: finished work is kept"
    return None


def _lost_device(error: BaseException) -> bool:
    text = str(error)
    if is_out_of_memory(error) or any(words in text for words in PERMANENT):
        return False
    # torch's own error is recognized by name, so that this module need not import torch.
    in_a_library = isinstance(error, RuntimeError) and any(words in text for words in GPU_FAILURES)
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
