"""How many utterances are adapted per batch: as many as requested, or as many as fit in memory."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from emtta_core.adaptation.methods import Method, Objective
from emtta_core.adaptation.options import Options
from emtta_core.errors import UsageError
from emtta_core.model.speech_model import Model, SpeechModel

AUTO = "auto"

BatchSizeChoice = int | Literal["auto"]
"""A number of utterances, or "auto": as many as fit in memory."""

MAX_BATCH = {"cpu": 16, "cuda": 256}
"""Maximum utterances per batch with "auto"; larger batches are no faster (benchmarks/NOTES.md)."""

SHARE = 0.7
"""The share of free memory that "auto" plans to use, as its plan is an estimate."""

CPU_BYTES = 3 * 2**30
"""The most CPU memory that "auto" plans to use: other processes need memory too, and Linux kills a process that takes
too much instead of refusing the allocation. If all sequences reach their cap, about twice the plan is used."""

GROUP = Path("/sys/fs/cgroup")
"""Where Linux reports a container's memory limit and usage."""

SPOKEN = 0.35
"""How many contexts "auto" plans for, as a share of the tokens that the cap allows an utterance's candidates. The
demo's speech has 0.15 to 0.25 with 8 or 16 candidates, which share their prefixes; sequences at the cap have up to 1.
"""


class BatchSize:
    """The number of utterances per batch.

    After running out of memory, a requested number never grows again; "auto" never again plans for more memory than
    half of that batch was estimated to need, so that shorter utterances still make larger batches.

    Attributes:
        maximum: the maximum number of utterances per batch.
        auto: whether free memory also limits it.
        largest: the largest batch since memory last ran out; `maximum` if not `auto`.
    """

    def __init__(self, choice: BatchSizeChoice, model: Model, method: Method, options: Options):
        """Set the requested size for a model, a method and its options; it is 1 on the generic path.

        Raises:
            UsageError: if it is neither "auto" nor a whole number of at least 1.
        """
        self.auto = choice == AUTO
        if not self.auto and (isinstance(choice, bool) or not isinstance(choice, int) or choice < 1):
            raise UsageError(f"batch_size is {choice!r}; it must be a whole number, at least 1, or 'auto'")
        self.maximum = int(choice) if isinstance(choice, int) else MAX_BATCH.get(model.device.type, MAX_BATCH["cpu"])
        self.largest = 0 if self.auto else self.maximum
        self._max_bytes = math.inf
        self._device = model.device
        self._adapted: tuple[Any, Method, Options] = (model, method, options)
        if not isinstance(model, SpeechModel):
            self.auto, self.maximum, self.largest = False, 1, 1

    def fitting(self, limits: Sequence[int]) -> int:
        """How many of the next utterances to take; `limits` are their maximum hypothesis lengths, in order."""
        size = min(self.maximum, len(limits))
        if self.auto:
            size = self._fit_in_memory(limits[:size])
        self.largest = max(self.largest, size)
        return size

    def _fit_in_memory(self, limits: Sequence[int]) -> int:
        # How many of the next utterances fit in memory; one is always tried.
        free = min(free_bytes(self._device), self._max_bytes)
        longest = 0
        for count, limit in enumerate(limits, start=1):
            longest = max(longest, limit)
            if count > 1 and count * episode_bytes(*self._adapted, longest) > free:
                return count - 1
        return len(limits)

    def halve(self, limits: Sequence[int]) -> int:
        """Halve a batch that did not fit, whose utterances have these limits, and return its new size."""
        half = len(limits) // 2
        if self.auto:
            self._max_bytes = half * episode_bytes(*self._adapted, max(limits))
            self.largest = 0
        else:
            self.maximum = self.largest = half
        return half

    def out_of_memory_message(self, seconds: float, reason: str) -> str:
        """The message for an utterance of this duration that does not fit in memory even alone, with a remedy."""
        _, method, options = self._adapted
        many = [name for name in ("candidates", "beams") if name in method.options]
        counts = " and".join(f" with {getattr(options, name)} {name}" for name in many)
        fewer = "".join(f"fewer {name}, " for name in many)
        return (
            f"out of memory with this utterance of {seconds:.2f} s alone{counts} ({reason}); use {fewer}the "
            "precision bf16 or a GPU with more memory"
        )


def episode_bytes(model: SpeechModel, method: Method, options: Options, limit: int) -> int:
    """Estimate the memory of an utterance's episode in bytes, excluding the weights.

    Args:
        model: the model to adapt.
        method: the adaptation method.
        options: the method's options.
        limit: the maximum number of tokens of a hypothesis.
    """
    weights = model.weights
    width, vocabulary = weights.width, len(weights.head)
    narrow, wide = weights.head.element_size(), weights.norms.element_size()
    positions = model.front_end.positions
    # The cross-attention keys and values, and the largest temporary tensor.
    memory = positions * width * 2 * narrow * len(weights.decoder_layers)
    moment = positions * width * 8 * wide
    # The decision needs the logits of its sequences, and their KV cache.
    deciding = {"greedy": 1, "beam": options.beams}.get(method.decision, options.candidates)
    cache = (model.prompt.length + SPOKEN * limit * deciding) * width * 2 * narrow * len(weights.decoder_layers)
    decision = memory + max(moment, deciding * vocabulary * 5 * wide + cache)
    if not method.adapts:
        return int(decision)
    sequences = 1 if method.candidates == "greedy" else options.candidates
    nodes = model.prompt.length + SPOKEN * limit * sequences
    # What a step keeps for its gradient, per layer: for each encoder position, the input and the normalized input of
    # two LayerNorms, the query, key, value and output of attention and the input of GELU; the same for each decoder
    # node, and its own copy of every LayerNorm.
    encoder = positions * width * (4 * wide + 8 * narrow) * len(weights.encoder_layers)
    decoder = nodes * width * (6 * wide + 12 * narrow) * len(weights.decoder_layers)
    norms = nodes * weights.norms[0].numel() * wide * (len(weights.norms) - weights.encoder_norms)
    # Masked, as log-probabilities and as probabilities; other objectives need twice as many tensors.
    logits = nodes * vocabulary * (3 if isinstance(method.objective, Objective) else 6) * wide
    # Which nodes see each other: one mask, of which CUDA's attention keeps a copy per layer, as it needs aligned rows.
    mask = nodes**2 * (1 + narrow * (1 + len(weights.decoder_layers)))
    return int(max(decision, memory + moment + encoder + decoder + norms + logits + mask))


def free_bytes(device: torch.device) -> float:
    """The memory in bytes that "auto" may plan for."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return SHARE * (torch.cuda.mem_get_info(device)[0] + unused)
    return min(SHARE * _available(), SHARE * _granted(GROUP), CPU_BYTES)


def _available() -> float:
    # The bytes available on a Linux machine; infinity elsewhere.
    table = Path("/proc/meminfo")
    if table.is_file():
        for line in table.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return math.inf


def _granted(group: Path) -> float:
    # The bytes left in a container's control group; infinity if there is no group or no limit. Its inactive page cache
    # can be reclaimed, so that does not count as used.
    try:
        limit, used = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        lines = (line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return limit - used + next(int(value) for name, value in lines if name == "inactive_file")
    except (OSError, ValueError, StopIteration):  # "max" if there is no limit
        return math.inf
