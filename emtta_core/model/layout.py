"""Where nodes stand: packed one behind the other for what treats each alone, padded by utterance for attention.

Utterances have different numbers of nodes. All but attention works on the packed rows `(F, d)`, so that padding costs
nothing there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """F nodes of B utterances, sorted by utterance, no utterance with more than N.

    Attributes:
        utterance: `(F,)`, whose each node is.
        rank: `(F,)`, its number among its utterance's.
        batch: B.
        width: N.
        place: `(F,)`, where each stands among the B · N padded places; None where nothing is padded.
        filler: `(B · N,)`, the node that stands in each padded place: its own, or where there is none another of the
            same utterance, so that whatever goes wrong in one utterance stays there.
    """

    utterance: Tensor
    rank: Tensor
    batch: int
    width: int
    place: Tensor | None
    filler: Tensor

    @classmethod
    def of(cls, utterance: Tensor, batch: int) -> "Layout":
        """Return the layout of nodes whose utterances, sorted, are `(F,)`."""
        device = utterance.device
        counts = torch.bincount(utterance, minlength=batch)
        starts = counts.cumsum(0) - counts
        rank = torch.arange(len(utterance), device=device) - starts.index_select(0, utterance)
        width = int(counts.max())
        inside = torch.arange(width, device=device).minimum((counts - 1).clamp(min=0).unsqueeze(1))
        filler = (starts.unsqueeze(1) + inside).flatten().clamp_(max=len(utterance) - 1)
        place = None if len(utterance) == batch * width else utterance * width + rank
        return cls(utterance, rank, batch, width, place, filler)

    def pad(self, rows: Tensor) -> Tensor:
        """Return packed rows `(F, k)` as `(B, N, k)`."""
        if self.place is not None:
            rows = rows.index_select(0, self.filler)
        return rows.view(self.batch, self.width, -1)

    def pack(self, padded: Tensor) -> Tensor:
        """Return the rows `(F, k)` of `(B, N, k)`."""
        rows = padded.reshape(self.batch * self.width, -1)
        return rows if self.place is None else rows.index_select(0, self.place)
