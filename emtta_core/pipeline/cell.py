"""The cell: what a run is made of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """One domain adapted to with one method.

    Attributes:
        cell_id: identity of its hypotheses.
        corpus_id: identity of its prepared audio.
        utterances: how many it has.
    """

    domain: str
    group: str
    method: str
    cell_id: str
    corpus_id: str
    utterances: int

    @property
    def name(self) -> str:
        """What it is called in messages: `domain/method`."""
        return f"{self.domain}/{self.method}"
