"""Memory that does not suffice, as Python, torch and CUDA's libraries say it."""

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
    """Return whether memory did not suffice, of the machine or of a device."""
    # torch's own error is known by its name, so that this module need not import torch.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)
