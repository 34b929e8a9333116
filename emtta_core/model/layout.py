"""Where nodes stand: packed one behind the other for what treats each alone, padded by utterance for attention.

Utterances have different numbers of nodes. All but attention works on the packed rows `(F, d)`, so that padding costs
nothing there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """F nodes of B utterances, sorted by utterance, no utterance with more than N.

    Attributes:
        sizes: how many nodes each of the B utterances has, known to the host.
        counts: `(B,)`, the same on the device.
        starts: `(B,)`, each utterance's first node.
        utterance: `(F,)`, whose each node is.
        rank: `(F,)`, its number among its utterance's.
        place: `(F,)`, where each stands among the B · N padded places; None where nothing is padded.
        filler: `(B · N,)`, the node that stands in each padded place: its own, or where there is none another of the
            same utterance, so that whatever goes wrong in one utterance stays there.
    """

    sizes: Sequence[int]
    counts: Tensor
    starts: Tensor
    utterance: Tensor
    rank: Tensor
    place: Tensor | None
    filler: Tensor

    @classmethod
    def of(cls, counts: Tensor, sizes: Sequence[int]) -> "Layout":
        """Return the layout of utterances that have `counts` `(B,)` nodes; `sizes` are the same numbers on the host.

        With both at hand, nothing here waits for the device.
        """
        device, total, width = counts.device, sum(sizes), max(sizes)
        starts = counts.cumsum(0) - counts
        utterance = torch.repeat_interleave(counts, output_size=total)
        rank = torch.arange(total, device=device) - starts.index_select(0, utterance)
        inside = torch.arange(width, device=device).minimum((counts - 1).clamp(min=0).unsqueeze(1))
        filler = (starts.unsqueeze(1) + inside).flatten().clamp_(max=total - 1)
        place = None if total == len(sizes) * width else utterance * width + rank
        return cls(sizes, counts, starts, utterance, rank, place, filler)

    @property
    def batch(self) -> int:
        """B."""
        return len(self.sizes)

    @property
    def width(self) -> int:
        """N."""
        return max(self.sizes)

    def pad(self, rows: Tensor) -> Tensor:
        """Return packed rows `(F, k)` as `(B, N, k)`."""
        if self.place is not None:
            rows = rows.index_select(0, self.filler)
        return rows.view(self.batch, self.width, -1)

    def pack(self, padded: Tensor) -> Tensor:
        """Return the rows `(F, k)` of `(B, N, k)`."""
        rows = padded.reshape(self.batch * self.width, -1)
        return rows if self.place is None else rows.index_select(0, self.place)
