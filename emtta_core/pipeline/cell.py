"""The cell: what a run is made of."""

from dataclasses import dataclass

UNAVAILABLE = "unavailable-"
"""How the identity of audio begins that could not be had when it was planned."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One domain adapted to with one method.

    Attributes:
        cell_id: identity of its hypotheses: of the recipe and the audio together.
        corpus_id: identity of its prepared audio.
        recipe_id: identity of what is done to each utterance.
        utterances: how many it has.
    """

    domain: str
    group: str
    method: str
    cell_id: str
    corpus_id: str
    recipe_id: str
    utterances: int

    @property
    def available(self) -> bool:
        """Whether its audio could be had when it was planned."""
        return not self.corpus_id.startswith(UNAVAILABLE)

    @property
    def name(self) -> str:
        """What it is called in messages: `domain/method`."""
        return f"{self.domain}/{self.method}"
