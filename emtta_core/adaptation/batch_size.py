"""How many utterances are adapted side by side: as many as were asked for, or as memory holds."""

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
"""A number of utterances, or "auto": as many as memory holds."""

MOST = {"cpu": 16, "cuda": 256}
"""Utterances side by side at most with "auto"; more gain nothing there (benchmarks/NOTES.md)."""

SHARE = 0.7
"""Of the memory that is free, what "auto" plans to use: what it plans by is an estimate."""

CPU_BYTES = 3 * 2**30
"""What "auto" plans to use of a CPU's memory, at most: others need it too, and a system ends what takes too much rather
than refuse it. Sequences that all run to the cap take about twice what is planned."""

GROUP = Path("/sys/fs/cgroup")
"""Where Linux says how much memory a container gets, and uses."""

SPOKEN = 0.35
"""Of the tokens that their cap allows an utterance's candidates, how many contexts "auto" plans for. The demo's speech
has 0.15 to 0.25 with 8 or 16 candidates, which share their beginnings; sequences that run to the cap have up to 1."""


class BatchSize:
    """The number of utterances side by side.

    Once memory did not suffice, a number that was asked for never grows again; "auto" never again plans for more memory
    than half of that batch was estimated to need, so that shorter utterances still make larger batches.

    Attributes:
        most: utterances side by side at most.
        auto: whether memory decides too.
        largest: the most that were taken at once since memory last did not suffice; `most` where it does not decide.
    """

    def __init__(self, choice: BatchSizeChoice, model: Model, method: Method, options: Options):
        """Take what was asked for, for a model that is adapted by a method with these options; on the generic path 1.

        Raises:
            UsageError: if it is neither "auto" nor a whole number of at least 1.
        """
        self.auto = choice == AUTO
        if not self.auto and (isinstance(choice, bool) or not isinstance(choice, int) or choice < 1):
            raise UsageError(f"batch_size is {choice!r}; it must be a whole number, at least 1, or 'auto'")
        self.most = int(choice) if isinstance(choice, int) else MOST.get(model.device.type, MOST["cpu"])
        self.largest = 0 if self.auto else self.most
        self._most_bytes = math.inf
        self._device = model.device
        self._adapted: tuple[Any, Method, Options] = (model, method, options)
        if not isinstance(model, SpeechModel):
            self.auto, self.most, self.largest = False, 1, 1

    def fitting(self, limits: Sequence[int]) -> int:
        """How many of the next utterances to take; `limits` are the most tokens of a hypothesis of each, in order."""
        size = min(self.most, len(limits))
        if self.auto:
            size = self._held(limits[:size])
        self.largest = max(self.largest, size)
        return size

    def _held(self, limits: Sequence[int]) -> int:
        # How many of the next utterances memory holds; one is always tried.
        free = min(free_bytes(self._device), self._most_bytes)
        longest = 0
        for count, limit in enumerate(limits, start=1):
            longest = max(longest, limit)
            if count > 1 and count * episode_bytes(*self._adapted, longest) > free:
                return count - 1
        return len(limits)

    def halve(self, limits: Sequence[int]) -> int:
        """Take half as many utterances as did not fit, of these limits; returns how many that is."""
        half = len(limits) // 2
        if self.auto:
            self._most_bytes = half * episode_bytes(*self._adapted, max(limits))
            self.largest = 0
        else:
            self.most = self.largest = half
        return half

    def refusal(self, seconds: float, reason: str) -> str:
        """Say that memory does not hold an utterance of so many seconds alone, and what to do."""
        _, method, options = self._adapted
        many = [name for name in ("candidates", "beams") if name in method.options]
        counts = " and".join(f" with {getattr(options, name)} {name}" for name in many)
        fewer = "".join(f"fewer {name}, " for name in many)
        return (
            f"out of memory with this utterance of {seconds:.2f} s alone{counts} ({reason}); use {fewer}the "
            "precision bf16 or a GPU with more memory"
        )


def episode_bytes(model: SpeechModel, method: Method, options: Options, limit: int) -> int:
    """Estimate the memory of an utterance's episode besides the weights, in bytes.

    Args:
        model: what is adapted.
        method: by what.
        options: how.
        limit: the most tokens of a hypothesis.
    """
    weights = model.weights
    width, vocabulary = weights.width, len(weights.head)
    narrow, wide = weights.head.element_size(), weights.norms.element_size()
    positions = model.front_end.positions
    # The cross-attention keys and values, and the largest of what is needed for a moment.
    memory = positions * width * 2 * narrow * len(weights.decoder_layers)
    moment = positions * width * 8 * wide
    # What decides needs the logits of its sequences, and their cache of keys and values.
    deciding = {"greedy": 1, "beam": options.beams}.get(method.decision, options.candidates)
    cache = (model.prompt.length + SPOKEN * limit * deciding) * width * 2 * narrow * len(weights.decoder_layers)
    decision = memory + max(moment, deciding * vocabulary * 5 * wide + cache)
    if not method.adapts:
        return int(decision)
    sequences = 1 if method.candidates == "greedy" else options.candidates
    nodes = model.prompt.length + SPOKEN * limit * sequences
    # A step keeps for its gradient, a layer: of a position of the encoder, the input and the normalized input of two
    # LayerNorms, the query, key, value and output of attention and the input of GELU; of a node of the decoder
    # likewise, and its own copy of every LayerNorm.
    encoder = positions * width * (4 * wide + 8 * narrow) * len(weights.encoder_layers)
    decoder = nodes * width * (6 * wide + 12 * narrow) * len(weights.decoder_layers)
    norms = nodes * weights.norms[0].numel() * wide * (len(weights.norms) - weights.encoder_norms)
    # Masked, as log-probabilities and as probabilities; other objectives have as many tensors of their own again.
    logits = nodes * vocabulary * (3 if isinstance(method.objective, Objective) else 6) * wide
    # Which nodes see each other: one mask, of which CUDA's attention keeps a copy a layer, since it needs rows aligned.
    mask = nodes**2 * (1 + narrow * (1 + len(weights.decoder_layers)))
    return int(max(decision, memory + moment + encoder + decoder + norms + logits + mask))


def free_bytes(device: torch.device) -> float:
    """The memory that may be planned for."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return SHARE * (torch.cuda.mem_get_info(device)[0] + unused)
    return min(SHARE * _available(), SHARE * _granted(GROUP), CPU_BYTES)


def _available() -> float:
    # The bytes that a Linux machine has to spare; infinity elsewhere.
    table = Path("/proc/meminfo")
    if table.is_file():
        for line in table.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return math.inf


def _granted(group: Path) -> float:
    # The bytes that a container's control group still grants; infinity where there is none, or no limit. What it holds
    # of files that nobody reads it gives back when asked, so that does not count as used.
    try:
        limit, used = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        lines = (line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return limit - used + next(int(value) for name, value in lines if name == "inactive_file")
    except (OSError, ValueError, StopIteration):  # "max" where there is no limit
        return math.inf
