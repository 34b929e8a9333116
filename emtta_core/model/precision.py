"""Precisions: what the frozen weights are kept in, and how their matrix multiplications are done.

In each of them LayerNorms and their parameters, the residual stream, logits, entropies, losses and the optimizer's
state are float32 (float64 in float64): an update of a thousandth would be lost in the eight bits of bfloat16.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from emtta_core.errors import UsageError, unknown

_turns = threading.RLock()
"""Whose thread's choice of arithmetic torch has."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How numbers are kept and multiplied.

    Attributes:
        name: what users call it.
        weights: of the frozen weights, and of what they are multiplied with.
        sums: of LayerNorm, residuals, logits, entropies, losses and the optimizer.
        tensor_float: whether a GPU may round the factors of float32 products to TF32's 10 bits.
    """

    name: str
    weights: torch.dtype
    sums: torch.dtype
    tensor_float: bool = False

    @contextmanager
    def arithmetic(self, device: torch.device) -> Iterator[None]:
        """Multiply on a GPU as this precision says; torch keeps that for the whole process, so it is put back after.

        Threads take turns: what one put back would change another's numbers. A GPU that one thread keeps busy gives a
        second one nothing.

        Attention is not left to cuDNN, which torch prefers in bfloat16 on the newest GPUs: it plans anew for every
        shape that it has not seen, for tens of milliseconds and more, and every token has a shape of its own.
        """
        if device.type != "cuda":
            yield
            return
        with _turns:
            # Not `allow_tf32`: torch refuses to read it in a program that has chosen TF32 by `fp32_precision`.
            backends: Any = torch.backends  # torch makes what is in there as it is asked for, and types leave it out
            matmul, convolution = backends.cuda.matmul, backends.cudnn.conv
            before = matmul.fp32_precision, convolution.fp32_precision
            attention = backends.cuda.cudnn_sdp_enabled()
            matmul.fp32_precision = convolution.fp32_precision = "tf32" if self.tensor_float else "ieee"
            backends.cuda.enable_cudnn_sdp(False)
            try:
                yield
            finally:
                matmul.fp32_precision, convolution.fp32_precision = before
                backends.cuda.enable_cudnn_sdp(attention)


PRECISIONS: dict[str, Precision] = {
    precision.name: precision
    for precision in (
        Precision("float32", torch.float32, torch.float32),
        Precision("float64", torch.float64, torch.float64),
        Precision("tf32", torch.float32, torch.float32, tensor_float=True),
        Precision("bf16", torch.bfloat16, torch.float32),
    )
}
"""Every precision there is."""


def choose_precision(name: str, device: torch.device) -> Precision:
    """Return the precision of that name.

    Raises:
        UsageError: if there is none, or the device does not have it.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, list(PRECISIONS))
    if name == "tf32" and device.type != "cuda":
        raise UsageError(f"precision 'tf32' is a GPU's, and the device is {str(device)!r}; use 'float32' there")
    return PRECISIONS[name]
