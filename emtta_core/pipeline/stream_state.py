"""The state of a stream, kept in the store while it runs: its segments, their progress, and what they carry over.

A *segment* is the part of a stream between two resets that are known in advance. Dynamic resets are decided along the
way, within a segment.
"""

import hashlib
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from emtta_core.adaptation.optimizer import Carried
from emtta_core.pipeline.batches import OpenUtterance
from emtta_core.suite.stream import Stream


@dataclass(frozen=True, slots=True)
class StreamItem:
    """The place of an utterance in a stream."""

    cell: int  # the number of its cell among those of the stream
    row: int  # its number in the cell's corpus
    position: int  # its position in the stream, from 0


def arranged(stream: Stream, ids: Sequence[Sequence[str]]) -> list[StreamItem]:
    """The utterances of a stream in stream order, given the ids of each cell's utterances in corpus order.

    Shuffling sorts by a digest of the seed, the cell's number and the utterance's id.
    """
    items = [(cell, row) for cell, names in enumerate(ids) for row in range(len(names))]

    def sort_key(item: tuple[int, int]) -> bytes:
        cell, row = item
        return hashlib.sha256(f"{stream.seed}\0{cell}\0{ids[cell][row]}".encode()).digest()

    if stream.order == "shuffled":
        items.sort(key=lambda item: (item[0], sort_key(item)))
    elif stream.order == "mixed":
        items.sort(key=sort_key)
    return [StreamItem(*item, position) for position, item in enumerate(items)]


GROUP, BEYOND, PATIENCE = 5, 2.0, 2
"""A shift is detected when the mean of `GROUP` utterances is more than `BEYOND` standard errors above the usual mean,
`PATIENCE` times in a row; the values are those published for Dynamic-SUTA (arXiv:2406.11064)."""


@dataclass(slots=True)
class ShiftDetector:
    """Decides when a stream returns to the source model, by comparing the entropies of the two.

    The index of an utterance is the entropy along its greedy hypothesis in the state that the stream has reached,
    minus that in the source model. The usual index is learned from the second half of the first `after` utterances
    since a reset.
    """

    after: int
    heard: int = 0  # utterances since the reset
    usual: list[float] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    beyond: int = 0  # number of consecutive groups beyond the threshold

    def detects_shift(self, index: float) -> bool:
        """Take the index of the next utterance; if the stream must be reset, return True and start over."""
        if not math.isfinite(index):
            return False
        self.heard += 1
        if self.heard <= self.after:
            self.usual += [index] if self.heard > self.after // 2 else []
            return False
        self.recent.append(index)
        if len(self.recent) < GROUP:
            return False
        above, self.recent = statistics.fmean(self.recent) - statistics.fmean(self.usual), []
        shifted = above > BEYOND * statistics.stdev(self.usual) / math.sqrt(GROUP)
        self.beyond = self.beyond + 1 if shifted else 0
        if self.beyond < PATIENCE:
            return False
        self.heard, self.usual, self.beyond = 0, [], 0
        return True


@dataclass(slots=True, eq=False)
class Segment:
    """A segment of a stream, and its progress."""

    items: Sequence[StreamItem]
    next: int = 0  # index of the next utterance
    carried: Carried | None = None  # what it carries to the next utterance; None: the source model
    detector: ShiftDetector | None = None  # set if resets are dynamic
    reset: bool = False  # whether the stream was reset before the next utterance
    current: OpenUtterance | None = None  # the next utterance, while it is being adapted to
    state: Carried | None = None  # the state for that utterance's next window
    tries: int = 0  # number of earlier tries of that utterance

    @property
    def finished(self) -> bool:
        """Whether no utterance is left."""
        return self.next >= len(self.items)


def segments_of(stream: Stream, items: Sequence[StreamItem]) -> list[Segment]:
    """The segments of a stream before it begins."""
    length = stream.every or len(items)
    after = stream.detects_after
    return [
        Segment(items[begin : begin + length], detector=ShiftDetector(after) if after else None, reset=begin > 0)
        for begin in range(0, len(items), length)
    ]


_PARTS = tuple(part.name for part in fields(Carried))


def packed(segments: Sequence[Segment]) -> bytes:
    """Serialize the progress of segments and what they carry, as a safetensors file."""
    progress = [
        {
            "next": segment.next,
            "reset": segment.reset,
            "detector": segment.detector and asdict(segment.detector),
        }
        for segment in segments
    ]
    tensors = {"progress": torch.tensor(list(json.dumps(progress).encode()), dtype=torch.uint8)}
    for number, segment in enumerate(segments):
        if segment.carried is not None and not segment.finished:
            tensors |= {f"{number}.{name}": getattr(segment.carried, name).cpu() for name in _PARTS}
    return save(tensors)


def unpack(content: bytes, segments: Sequence[Segment], device: torch.device) -> bool:
    """Restore segments that have not begun from the content of `packed`; return whether the content fits them."""
    try:
        tensors = load(content)
        progress: list[dict[str, Any]] = json.loads(bytes(tensors["progress"].tolist()))
        if len(progress) != len(segments):
            return False
        for number, (segment, saved) in enumerate(zip(segments, progress, strict=True)):
            stored = {name: tensors.get(f"{number}.{name}") for name in _PARTS}
            segment.next, segment.reset = saved["next"], saved["reset"]
            segment.detector = None if saved["detector"] is None else ShiftDetector(**saved["detector"])
            if stored["parameters"] is not None:
                segment.carried = segment.state = Carried(*(tensors[f"{number}.{name}"].to(device) for name in _PARTS))
    except (SafetensorError, ValueError, KeyError, TypeError):
        return False
    return True
