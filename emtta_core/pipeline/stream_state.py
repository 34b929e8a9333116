"""A stream at a moment: its segments, how far each is, and what it carries; kept in the store while it goes on.

A *segment* is the part of a stream between two resets that are known beforehand. What dynamic resets do is decided on
the way, inside a segment.
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
    """Where an utterance stands in a stream."""

    cell: int  # the number of its cell among those of the stream
    row: int  # its number in the cell's corpus
    position: int  # its number in the stream, from 0


def arranged(stream: Stream, ids: Sequence[Sequence[str]]) -> list[Place]:
    """The utterances of a stream in its order, given the ids of each cell's, cell by cell, in the corpus's order.

    What is shuffled is sorted by a digest of the seed, the cell's number and the utterance's id.
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
"""A shift is seen where the mean of so many utterances is so many of its standard deviations above what it was, so many
times in a row; the published numbers of Dynamic-SUTA (arXiv:2406.11064)."""


@dataclass(slots=True)
class ShiftDetector:
    """Decides when a stream goes back to the source model, from how much better than that it does.

    The index of an utterance is the entropy along its greedy hypothesis in the state in which it is met, minus that in
    the source model. What is usual is learned from the second half of the first `after` utterances since a reset.
    """

    after: int
    heard: int = 0  # utterances since the reset
    usual: list[float] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    beyond: int = 0  # how many groups in a row were

    def hears_shift(self, index: float) -> bool:
        """Take the index of the next utterance; whether the stream is to be reset, and then begin anew."""
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
    """A segment of a stream, and how far it is."""

    places: Sequence[Place]
    next: int = 0  # which of them comes next
    settled: Carried | None = None  # what it carries to that one; None: the source model
    detector: ShiftDetector | None = None  # where resets are dynamic
    reset: bool = False  # whether the source model was brought back before that one
    going: Going | None = None  # that utterance, while it is adapted to
    state: Carried | None = None  # what that one's next window is met with
    tries: int = 0  # how often that one was tried before

    @property
    def over(self) -> bool:
        """Whether nothing comes any more."""
        return self.next >= len(self.places)


def segments_of(stream: Stream, places: Sequence[Place]) -> list[Segment]:
    """The segments of a stream that has not begun."""
    length = stream.every or len(places)
    after = stream.detects_after
    return [
        Segment(places[begin : begin + length], detector=ShiftDetector(after) if after else None, reset=begin > 0)
        for begin in range(0, len(places), length)
    ]


_PARTS = tuple(part.name for part in fields(Carried))


def packed(segments: Sequence[Segment]) -> bytes:
    """How far segments are, and what they carry, as a file of safetensors."""
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
    """Bring segments that have not begun to where `packed` found them; whether that is what the content says."""
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
