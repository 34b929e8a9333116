"""Which errors are worth a retry: only those known to be transient."""

import errno
import re

import pytest
import torch

from emtta_core.errors import EmttaError, StoreError, UsageError
from emtta_core.faults import is_device_lost, is_transient, machine_fault

TRANSIENT = [
    OSError(errno.EIO, "input/output error"),
    OSError(errno.ENOSPC, "no space left"),
    OSError(errno.EAGAIN, "try again"),
    ConnectionResetError("reset"),
    TimeoutError("too slow"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported at some other API call"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
]
PERMANENT = [
    torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device"),
    UsageError("unknown method"),
    EmttaError("anything of ours"),
    FileNotFoundError(errno.ENOENT, "gone"),
    PermissionError(errno.EACCES, "forbidden"),
    OSError(errno.EROFS, "read-only file system"),
    ValueError("a bug"),
    RuntimeError("a bug"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_transient_error_is_retried(error: BaseException) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_permanent_error_is_not_retried(error: BaseException) -> None:
    assert not is_transient(error)


def test_torch_out_of_memory_is_transient() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**48)
    assert is_transient(refused.value)


def test_device_loss_is_not_out_of_memory() -> None:
    assert is_device_lost(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))
    assert not any(map(is_device_lost, (torch.AcceleratorError("CUDA error: out of memory"), RuntimeError("a bug"))))


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle, opa, opb, m, n, k, &alpha, a)`",
        "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST",
        "cuFFT error: CUFFT_EXEC_FAILED",
        "cuFFT error: CUFFT_INTERNAL_ERROR",
    ],
)
def test_lost_device_is_retried(text: str) -> None:
    assert is_device_lost(RuntimeError(text))
    assert is_transient(RuntimeError(text))
    assert not is_device_lost(ValueError(text))


def test_error_cause_counts() -> None:
    error = StoreError("cannot write")
    error.__cause__ = OSError(errno.EIO, "input/output error")
    assert is_transient(error)
    error.__cause__ = OSError(errno.EROFS, "read-only file system")
    assert not is_transient(error)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/store/x"),
            "No space left on device: /store/x; make room on",
        ),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system; choose folders that can be written"),
        (
            OSError(errno.EMFILE, "Too many open files"),
            r"Too many open files; raise the limit on open files \(ulimit -n\)",
        ),
        (RuntimeError("IO Error: No space left on device"), "IO Error: No space left on device; make room on"),
        (RuntimeError("database or disk is full"), "database or disk is full; make room on"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_machine_failure_names_remedy(error: Exception, fault: str) -> None:
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = error
    for one in (error, wrapped):
        found = machine_fault(one)
        assert found is not None
        assert re.match(fault, found), found
        assert "repeat the command" in found


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("name"), FileNotFoundError(errno.ENOENT, "gone")])
def test_bug_is_not_machine_failure(error: Exception) -> None:
    assert machine_fault(error) is None
