"""How a hypothesis differs from its reference, word by word."""

from dataclasses import dataclass

import jiwer


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of words of an alignment.

    Attributes:
        kind: `same`, `substituted` (other words were heard), `missing` (nothing was), `added` (nothing was said).
        said: the words of the reference; empty where it has none.
        heard: the words of the hypothesis; empty where it has none, or where they are `said`.
    """

    kind: str
    said: str
    heard: str


_KINDS = {"equal": "same", "substitute": "substituted", "delete": "missing", "insert": "added"}


def word_differences(reference: str, hypothesis: str) -> tuple[Piece, ...]:
    """Return the alignment with the fewest edits between two normalized texts, as jiwer finds it.

    Args:
        reference: what was said; at least one word.
        hypothesis: what was heard.
    """
    aligned = jiwer.process_words(reference, hypothesis)
    said, heard = aligned.references[0], aligned.hypotheses[0]
    return tuple(
        Piece(
            _KINDS[chunk.type],
            " ".join(said[chunk.ref_start_idx : chunk.ref_end_idx]),
            "" if chunk.type == "equal" else " ".join(heard[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in aligned.alignments[0]
    )
