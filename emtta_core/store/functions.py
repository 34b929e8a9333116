"""The SQL functions of the store's queries that need Python: `word_edits`, `wer_interval`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
from duckdb.func import PythonUDFType

_EDIT = pa.struct([("kind", pa.string()), ("reference", pa.string()), ("hypothesis", pa.string())])
_KINDS = {"substitute": "substitution", "delete": "deletion", "insert": "insertion"}

Edit = tuple[str, str | None, str | None]
"""Its kind (`substitution`, `deletion`, `insertion`), the word of the reference, and the word of the hypothesis."""

_FIGURES = ("low", "high", "change", "change_low", "change_high", "p")

_INTERVAL = pa.struct([*((name, pa.float64()) for name in _FIGURES), ("drawn", pa.string())])


def create_functions(connection: duckdb.DuckDBPyConnection) -> None:
    """Register the Python functions on a connection.

    - `word_edits(reference, hypothesis)`: the edits between two normalized texts, as a list of `STRUCT(kind,
      reference, hypothesis)`; NULL if either text is NULL.
    - `wer_interval(utterances, speakers, baseline_errors, errors, words)`, with lists of equal length: the interval of
      errors / words in %, the change against the baseline with its interval and p, and the units drawn. If the
      baseline errors are NULL, the change is left out.
    """
    for name, function, parameters, returns in _FUNCTIONS:
        connection.create_function(name, function, list(parameters), returns, type=PythonUDFType.ARROW)


def word_edits(references: Sequence[str], hypotheses: Sequence[str]) -> Iterator[list[Edit]]:
    """Yield the edits that turn each reference into its hypothesis, in order; both normalized, no reference empty."""
    import jiwer  # imported late, as most queries do not need it

    aligned = jiwer.process_words(list(references), list(hypotheses))
    for reference, hypothesis, chunks in zip(aligned.references, aligned.hypotheses, aligned.alignments, strict=True):
        edits: list[Edit] = []
        for chunk in chunks:
            if chunk.type == "equal":
                continue
            words: Sequence[str | None] = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            others: Sequence[str | None] = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            length = max(len(words), len(others))
            edits += zip(
                [_KINDS[chunk.type]] * length, words or [None] * length, others or [None] * length, strict=True
            )
        yield edits


def _edits_of_batch(references: pa.ChunkedArray, hypotheses: pa.ChunkedArray) -> pa.Array:
    # The edits of some rows, none NULL; all words of a hypothesis for audio without speech are insertions.
    pairs = list(zip(references.to_pylist(), hypotheses.to_pylist(), strict=True))
    nonempty = [pair for pair in dict.fromkeys(pairs) if pair[0].split()]
    edits = dict(zip(nonempty, word_edits(*zip(*nonempty, strict=True)), strict=True)) if nonempty else {}
    edits |= {pair: [("insertion", None, word) for word in pair[1].split()] for pair in pairs if not pair[0].split()}
    rows = [[dict(zip(_EDIT.names, edit, strict=True)) for edit in edits[pair]] for pair in pairs]
    return pa.array(rows, pa.list_(_EDIT))


def _intervals_of_batch(
    utterances: pa.ChunkedArray,
    speakers: pa.ChunkedArray,
    baseline: pa.ChunkedArray,
    errors: pa.ChunkedArray,
    words: pa.ChunkedArray,
) -> pa.Array:
    columns = (utterances, speakers, baseline, errors, words)
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return pa.array([_interval(*row) for row in rows], _INTERVAL)


def _interval(
    utterances: Sequence[str],
    speakers: Sequence[str],
    baseline: Sequence[float | None],
    errors: Sequence[float],
    words: Sequence[float],
) -> Mapping[str, Any]:
    from emtta_core.scoring.paired import Sample

    same = (["all"] * len(utterances), utterances, [speaker or "" for speaker in speakers])
    rate = Sample(*same, list(zip(errors, words, strict=True))).rate(["all"])
    figures: dict[str, Any] = {"low": rate.low, "high": rate.high, "drawn": rate.drawn}
    before = [count for count in baseline if count is not None]
    if len(before) == len(errors):
        change = Sample(*same, list(zip(before, errors, words, strict=True))).change(["all"])
        figures |= {"change": change.difference, "change_low": change.low, "change_high": change.high, "p": change.p}
    return figures


_FUNCTIONS: Sequence[tuple[str, Callable[..., pa.Array], Sequence[str], str]] = (
    (
        "word_edits",
        _edits_of_batch,
        ("VARCHAR", "VARCHAR"),
        "STRUCT(kind VARCHAR, reference VARCHAR, hypothesis VARCHAR)[]",
    ),
    (
        "wer_interval",
        _intervals_of_batch,
        ("VARCHAR[]", "VARCHAR[]", "DOUBLE[]", "DOUBLE[]", "DOUBLE[]"),
        f"STRUCT({', '.join(f'{name} DOUBLE' for name in _FIGURES)}, drawn VARCHAR)",
    ),
)


def needs_python(sql: str) -> bool:
    """Whether a query calls one of the functions, which a plain DuckDB client lacks."""
    return any(f"{name}(" in sql for name, *_ in _FUNCTIONS)
