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
from emtta_core.pipeline.batches import Going
from emtta_core.suite.stream import Stream


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an utterance in a stream."""

    cell: int  # the number of its cell among those of the stream
    row: int  # its number in the cell's corpus
    position: int  # its position in the stream, from 0


def arranged(stream: Stream, ids: Sequence[Sequence[str]]) -> list[Place]:
    """The utterances of a stream in stream order, given the ids of each cell's utterances in corpus order.

    Shuffling sorts by a digest of the seed, the cell's number and the utterance's id.
    """
    places = [(cell, row) for cell, names in enumerate(ids) for row in range(len(names))]

    def drawn(place: tuple[int, int]) -> bytes:
        cell, row = place
        return hashlib.sha256(f"{stream.seed}\0{cell}\0{ids[cell][row]}".encode()).digest()

    if stream.order == "shuffled":
        places.sort(key=lambda place: (place[0], drawn(place)))
    elif stream.order == "mixed":
        places.sort(key=drawn)
    return [Place(*place, position) for position, place in enumerate(places)]


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

    def hears_shift(self, index: float) -> bool:
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

    places: Sequence[Place]
    next: int = 0  # index of the next utterance
    settled: Carried | None = None  # what it carries to the next utterance; None: the source model
    detector: ShiftDetector | None = None  # set if resets are dynamic
    reset: bool = False  # whether the stream was reset before the next utterance
    going: Going | None = None  # the next utterance, while it is being adapted to
    state: Carried | None = None  # the state for that utterance's next window
    tries: int = 0  # number of earlier tries of that utterance

    @property
    def over(self) -> bool:
        """Whether no utterance is left."""
        return self.next >= len(self.places)


def segments_of(stream: Stream, places: Sequence[Place]) -> list[Segment]:
    """The segments of a stream before it begins."""
    length = stream.every or len(places)
    after = stream.detects_after
    return [
        Segment(places[begin : begin + length], detector=ShiftDetector(after) if after else None, reset=begin > 0)
        for begin in range(0, len(places), length)
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
        if segment.settled is not None and not segment.over:
            tensors |= {f"{number}.{name}": getattr(segment.settled, name).cpu() for name in _PARTS}
    return save(tensors)


def unpack(content: bytes, segments: Sequence[Segment], device: torch.device) -> bool:
    """Restore segments that have not begun from the content of `packed`; return whether the content fits them."""
    try:
        tensors = load(content)
        progress: list[dict[str, Any]] = json.loads(bytes(tensors["progress"].tolist()))
        if len(progress) != len(segments):
            return False
        for number, (segment, found) in enumerate(zip(segments, progress, strict=True)):
            own = {name: tensors.get(f"{number}.{name}") for name in _PARTS}
            segment.next, segment.reset = found["next"], found["reset"]
            segment.detector = None if found["detector"] is None else ShiftDetector(**found["detector"])
            if own["parameters"] is not None:
                segment.settled = segment.state = Carried(*(tensors[f"{number}.{name}"].to(device) for name in _PARTS))
    except (SafetensorError, ValueError, KeyError, TypeError):
        return False
    return True
