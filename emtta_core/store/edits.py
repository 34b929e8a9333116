"""The SQL function `word_edits`: which words of a reference were misheard, and as what.

The alignment is not stored. It is found anew, for the rows that a question asks of, by the aligner that counted the
errors when they were scored: so the runs of every release can be asked, and the kinds of edits add up to the counts.
"""

from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa
from duckdb.func import PythonUDFType

FUNCTION = "word_edits"

_EDIT = pa.struct([("kind", pa.string()), ("reference", pa.string()), ("hypothesis", pa.string())])
_KINDS = {"substitute": "substitution", "delete": "deletion", "insert": "insertion"}

Edit = tuple[str, str | None, str | None]
"""Its kind (`substitution`, `deletion`, `insertion`), the word that was said, and the word that was heard."""


def create_word_edits(connection: duckdb.DuckDBPyConnection) -> None:
    """Give a connection the function `word_edits(reference, hypothesis)`.

    In SQL it returns a list of `STRUCT(kind, reference, hypothesis)`; NULL where one of the texts is NULL.
    """
    edits = "STRUCT(kind VARCHAR, reference VARCHAR, hypothesis VARCHAR)[]"
    connection.create_function(FUNCTION, _of_batch, ["VARCHAR", "VARCHAR"], edits, type=PythonUDFType.ARROW)


def word_edits(references: Sequence[str], hypotheses: Sequence[str]) -> Iterator[list[Edit]]:
    """Yield the edits that make each hypothesis of its reference, in order; both normalized, no reference empty."""
    import jiwer  # only who asks for words pays for it

    found = jiwer.process_words(list(references), list(hypotheses))
    for said, heard, chunks in zip(found.references, found.hypotheses, found.alignments, strict=True):
        edits: list[Edit] = []
        for chunk in chunks:
            if chunk.type == "equal":
                continue
            words: Sequence[str | None] = said[chunk.ref_start_idx : chunk.ref_end_idx]
            others: Sequence[str | None] = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
            length = max(len(words), len(others))
            edits += zip(
                [_KINDS[chunk.type]] * length, words or [None] * length, others or [None] * length, strict=True
            )
        yield edits


def _of_batch(references: pa.ChunkedArray, hypotheses: pa.ChunkedArray) -> pa.Array:
    """Return the edits of some rows, none of them NULL; an empty reference, as no scorer leaves it, has none."""
    pairs = list(zip(references.to_pylist(), hypotheses.to_pylist(), strict=True))
    whole = [pair for pair in dict.fromkeys(pairs) if pair[0].split()]
    edits = dict(zip(whole, word_edits(*zip(*whole, strict=True)), strict=True)) if whole else {}
    rows = [[dict(zip(_EDIT.names, edit, strict=True)) for edit in edits.get(pair, ())] for pair in pairs]
    return pa.array(rows, pa.list_(_EDIT))
