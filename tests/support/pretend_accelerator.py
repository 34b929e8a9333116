"""A pretend GPU: its tensors report `cuda:0` as their device, and a CPU does the arithmetic.

It enforces a GPU's rules on where tensors are: mixing its tensors with those of the host fails as in CUDA. It counts
how often the host waits, and how much memory is in use. As it has no GPU kernels, it shows nothing of their limits,
rounding or speed.
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
"""Operations that accept tensors on both devices."""

INDEXING = {"index", "index_put_", "index_put", "_index_put_impl_"}
"""Operations that accept indices on either device."""

FILLING = {"fill_", "masked_fill", "masked_fill_", *INDEXING}
"""Operations that accept a single number from either device, as pointwise operations do."""

WAITS = {"_local_scalar_dense", "_unique2", "bincount", "equal", "masked_select", "nonzero", "unique_consecutive"}
"""Operations that copy numbers to the host, or whose result has a size that depends on numbers."""


class OnAccelerator(Tensor):
    """A tensor on the device.

    In torch's C++, its device is `meta`, which needs no driver; Python code sees the accelerator's name.

    Attributes:
        numbers: the tensor with its numbers.
        accelerator: the device that it is on.
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
    """Attention by the CPU's kernel, which torch does not choose for a device that has its own."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out: Tensor = kernel(query, keys, values, 0.0, False, attn_mask=attn_mask, scale=scale)[0]
    return out


def listed(tensor: Tensor) -> Any:
    """A tensor's numbers as a list, which torch refuses for a type of tensor that it does not know."""
    return tensor.cpu().tolist()


def taken(tensor: Tensor, index: Any) -> Tensor:
    """The elements at an index; torch itself would convert lists to `meta` tensors, which have no numbers."""
    return tensor[with_tensors(index)]


def put(tensor: Tensor, index: Any, value: Any) -> None:
    """Set the elements at an index."""
    tensor[with_tensors(index)] = value


def with_tensors(index: Any) -> Any:
    """An index with lists converted to tensors of the host, as torch copies them to a GPU."""
    if isinstance(index, tuple):
        return tuple(map(with_tensors, index))
    return torch.tensor(index) if isinstance(index, list) else index


INSTEAD = {
    F.scaled_dot_product_attention: attention,
    Tensor.tolist: listed,
    Tensor.__getitem__: taken,
    Tensor.__setitem__: put,
}
"""Replacements of functions that check a tensor's type or device before any operation."""


class PretendAccelerator(TorchDispatchMode):
    """The device, active while it is entered.

    Attributes:
        waits: how often the host has waited for it.
        held: bytes of its memory in use.
        most: the peak of `held`.
        room: its memory in bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = self.held = self.most = 0
        self.room = 2**40
        self._storages: set[int] = set()

    def __enter__(self) -> Self:
        super().__enter__()
        torch._C._set_only_lift_cpu_tensors(True)  # otherwise torch.tensor makes a tensor that no mode sees
        return self

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.run(operation, args, kwargs or {})

    def run(self, operation: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Execute an operation on the numbers, and put the result where a GPU would.

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
        # In-place operations return their first tensor, or nothing; `__rshift__` and the like are not in place.
        if name.endswith("_") and operation._schema.is_mutable:
            return None if out is None else args[0]
        return changed(out, self._take) if there else out

    def _check(self, name: str, operation: Any, args: Sequence[Any], given: Sequence[Tensor]) -> None:
        """Refuse tensors that are not on the device, except indices and single numbers."""
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
        """A tensor of the device with these numbers.

        Raises:
            OutOfMemoryError: there is no memory left for them.
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
    """Arguments or results with their tensors changed (torch's own functions for this take most of the time)."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)([changed(part, change) for part in value])
    return {name: changed(part, change) for name, part in value.items()} if isinstance(value, dict) else value


def numbers_of(tensor: Tensor) -> Tensor:
    """The tensor that a CPU can compute with."""
    return tensor.numbers if isinstance(tensor, OnAccelerator) else tensor


def host_waits(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether the host waits for an operation on the device, apart from copying its result to the host."""
    by_mask = name in INDEXING and any(part is not None and part.dtype == torch.bool for part in args[1])
    unsized = name == "repeat_interleave" and kwargs.get("output_size") is None
    return name in WAITS or by_mask or unsized


@contextmanager
def pretend_accelerator(patch: pytest.MonkeyPatch) -> Iterator[PretendAccelerator]:
    """Yield the device, which torch now uses for `cuda`."""
    with PretendAccelerator() as device:
        patch.setattr("torch.cuda._lazy_init", lambda: None)
        patch.setattr("torch.cuda.mem_get_info", lambda _: (device.room - device.held, device.room))
        yield device
