"""A GPU in the mind: tensors that say they are on `cuda:0`, whose arithmetic a CPU does.

It holds torch to a GPU's rules of where tensors are. What mixes them with tensors in the machine's own memory is
refused as CUDA refuses it; what makes the host wait, and how much memory is held, is counted. It has no kernels of a
GPU's, and so shows none of their limits, nothing of their rounding, and no speed.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

NAME = torch.device("cuda:0")

COPIES = {"_to_copy", "copy_"}
"""What may have tensors on both sides."""

INDEXING = {"index", "index_put_", "index_put", "_index_put_impl_"}
"""What takes its indices from either side."""

FILLING = {"fill_", "masked_fill", "masked_fill_", *INDEXING}
"""What takes one number from either side, as whatever works element by element does."""

WAITS = {"_local_scalar_dense", "_unique2", "bincount", "equal", "masked_select", "nonzero", "unique_consecutive"}
"""What brings numbers to the host, or has a result whose size depends on numbers."""


class OnAccelerator(Tensor):
    """A tensor on the device.

    To torch's C++ its device is `meta`, which needs no driver; whoever asks in Python is told the accelerator's name.

    Attributes:
        numbers: the tensor that has its numbers.
        accelerator: whose memory it is in.
    """

    numbers: Tensor
    accelerator: "PretendAccelerator"

    @staticmethod
    def __new__(cls, numbers: Tensor, accelerator: "PretendAccelerator") -> "OnAccelerator":
        made: OnAccelerator = Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device="meta",
        )
        made.numbers, made.accelerator = numbers, accelerator
        return made

    @property
    def device(self) -> torch.device:
        return NAME

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return INSTEAD.get(function, function)(*args, **kwargs or {})

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = next(tensor for tensor in tensors_of((args, kwargs or {})) if isinstance(tensor, OnAccelerator))
        return found.accelerator.run(operation, args, kwargs or {})


def attention(
    query: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """Attend by the CPU's kernel, which torch does not choose for a device that has one of its own."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out: Tensor = kernel(query, keys, values, 0.0, False, attn_mask=attn_mask, scale=scale)[0]
    return out


def listed(tensor: Tensor) -> Any:
    """Return a tensor's numbers, which torch will not list of a tensor that it does not know."""
    return tensor.cpu().tolist()


def taken(tensor: Tensor, index: Any) -> Tensor:
    """Return what an index picks; torch makes its lists tensors of `meta`, which have no numbers."""
    return tensor[with_tensors(index)]


def put(tensor: Tensor, index: Any, value: Any) -> None:
    """Set what an index picks."""
    tensor[with_tensors(index)] = value


def with_tensors(index: Any) -> Any:
    """Return an index whose lists are tensors of the host, as torch copies them to a GPU."""
    if isinstance(index, tuple):
        return tuple(map(with_tensors, index))
    return torch.tensor(index) if isinstance(index, list) else index


INSTEAD = {
    F.scaled_dot_product_attention: attention,
    Tensor.tolist: listed,
    Tensor.__getitem__: taken,
    Tensor.__setitem__: put,
}
"""What is called in place of functions that look at a tensor's kind or device before any operation."""


class PretendAccelerator(TorchDispatchMode):
    """The device, while it is entered.

    Attributes:
        waits: how often the host has waited for it.
        held: bytes of its memory in use.
        most: the most that were at once.
        room: bytes of its memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = self.held = self.most = 0
        self.room = 2**40
        self._storages: set[int] = set()

    def __enter__(self) -> Self:
        super().__enter__()
        torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor makes its tensor where no mode sees it
        return self

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.run(operation, args, kwargs or {})

    def run(self, operation: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operation on the numbers, and put the result where a GPU would have it.

        Raises:
            RuntimeError: it mixes tensors of the device with others.
        """
        name = operation.overloadpacket.__name__
        given = list(tensors_of((args, kwargs)))
        here = any(isinstance(tensor, OnAccelerator) for tensor in given)
        device = kwargs.get("device")
        there = here if device is None else device.type != "cpu"
        if here and name not in COPIES:
            self._check(name, operation, args, given)
        self.waits += here and (not there or host_waits(name, args, kwargs))
        if device is not None:
            kwargs = kwargs | {"device": torch.device("cpu")}
        args_of_numbers, kwargs_of_numbers = changed((args, kwargs), numbers_of)
        out = operation(*args_of_numbers, **kwargs_of_numbers)
        # What works in place returns its first tensor, or nothing; `__rshift__` and its like do not.
        if name.endswith("_") and operation._schema.is_mutable:
            return None if out is None else args[0]
        return changed(out, self._take) if there else out

    def _check(self, name: str, operation: Any, args: Sequence[Any], given: Sequence[Tensor]) -> None:
        """Refuse what is not on the device, but for indices and single numbers."""
        indices = args[1] if name in INDEXING and isinstance(args[0], OnAccelerator) else ()
        free = {id(index) for index in indices if index is not None and index.device.type == "cpu"}
        numbers = name in FILLING or torch.Tag.pointwise in operation.tags
        for tensor in given:
            strange = not isinstance(tensor, OnAccelerator) and id(tensor) not in free
            if strange and (tensor.dim() or not numbers):
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found at least two devices, {NAME} and "
                    f"{tensor.device}! (in {operation}, a tensor of the shape {tuple(tensor.shape)})"
                )

    def _take(self, numbers: Tensor) -> OnAccelerator:
        """Return a tensor of the device with these numbers.

        Raises:
            OutOfMemoryError: it has no room for them.
        """
        storage = numbers.untyped_storage()
        if storage._cdata not in self._storages:
            if self.held + storage.nbytes() > self.room:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {storage.nbytes()} bytes.")
            self._storages.add(storage._cdata)
            self.held += storage.nbytes()
            self.most = max(self.most, self.held)
            weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        return OnAccelerator(numbers, self)

    def _forget(self, storage: int, size: int) -> None:
        self._storages.discard(storage)
        self.held -= size


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors_of(part)


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return arguments or results with their tensors changed (torch's own functions for it take most of the time)."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)([changed(part, change) for part in value])
    return {name: changed(part, change) for name, part in value.items()} if isinstance(value, dict) else value


def numbers_of(tensor: Tensor) -> Tensor:
    """Return the tensor that a CPU can compute with."""
    return tensor.numbers if isinstance(tensor, OnAccelerator) else tensor


def host_waits(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Return whether the host waits for an operation on the device, beside the way of its result to the host."""
    by_mask = name in INDEXING and any(part is not None and part.dtype == torch.bool for part in args[1])
    unsized = name == "repeat_interleave" and kwargs.get("output_size") is None
    return name in WAITS or by_mask or unsized


@contextmanager
def pretend_accelerator(patch: pytest.MonkeyPatch) -> Iterator[PretendAccelerator]:
    """Yield the device, to which torch now answers for `cuda`."""
    with PretendAccelerator() as device:
        patch.setattr("torch.cuda._lazy_init", lambda: None)
        patch.setattr("torch.cuda.mem_get_info", lambda _: (device.room - device.held, device.room))
        yield device
