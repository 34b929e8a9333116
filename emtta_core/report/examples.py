"""The utterances that each method changed most: the words that differ, and the recordings."""

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import jiwer

from emtta_core.errors import EmttaError
from emtta_core.scoring import word_errors
from emtta_core.store import Catalogue, Store

MAX_PER_DIRECTION = 10
"""The number of improved utterances, and of worsened ones, that a page shows for each method."""

_LARGEST_CHANGES = """
    SELECT
        changes.* REPLACE (
            CASE WHEN (SELECT count(DISTINCT seed) > 1 FROM planned WHERE run_id = $run) THEN changes.seed END AS seed
        ),
        planned.corpus_id,
        count(*) FILTER (added < 0) OVER (PARTITION BY method) AS improved,
        count(*) FILTER (added > 0) OVER (PARTITION BY method) AS worsened
    FROM changes
    INNER JOIN planned USING (run_id, domain, method, cell_id)
    WHERE run_id = $run
    QUALIFY
        added <> 0
        AND row_number() OVER (
            PARTITION BY method, sign(added) ORDER BY abs(added) DESC, changes.words, domain, utterance_id, changes.seed
        ) <= $most
    ORDER BY abs(added) DESC, changes.words, domain, utterance_id, changes.seed
"""

_KINDS = {"equal": "same", "substitute": "substituted", "delete": "missing", "insert": "added"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of words in an alignment."""

    kind: str  # `same`, `substituted`, `missing` from the hypothesis, or `added` in the hypothesis
    reference: str  # the words of the reference; empty if it has none
    hypothesis: str  # the words of the hypothesis; empty if it has none or they equal `reference`


@dataclass(frozen=True, slots=True)
class Example:
    """An utterance that adaptation changed."""

    method: str  # the method that changed it
    seed: int | None  # the method's seed, in a run whose methods have several
    group: str  # the group of its domain
    domain: str  # its domain
    corpus_id: str  # the prepared corpus with its audio
    utterance_id: str  # the utterance
    speaker: str  # the speaker
    words: int  # words of its reference
    errors: int  # word errors after adaptation
    source_errors: int  # word errors before adaptation
    before: tuple[Piece, ...]  # the unadapted model's hypothesis, aligned with the reference
    after: tuple[Piece, ...]  # the adapted model's hypothesis, aligned with the reference

    @property
    def added(self) -> int:
        """Word errors that adaptation added; negative if it removed errors."""
        return self.errors - self.source_errors

    @property
    def key(self) -> tuple[str, str]:
        """The key of its recording, the same for all methods."""
        return self.corpus_id, self.utterance_id


@dataclass(frozen=True, slots=True)
class Examples:
    """The examples of a method."""

    method: str  # the method
    improved: tuple[Example, ...]  # the utterances that improved most, best first
    worsened: tuple[Example, ...]  # the utterances that worsened most, worst first
    improved_of: int  # number of utterances that improved
    worsened_of: int  # number of utterances that worsened


def find_examples(catalogue: Catalogue, run_id: str, methods: Iterable[str]) -> tuple[Examples, ...]:
    """Find what each method changed most, in the given order; methods that changed nothing are left out.

    Errors are compared with those of the unadapted model on the same utterance, so a run without `source` has examples
    too.
    """
    rows = catalogue.query(_LARGEST_CHANGES, {"run": run_id, "most": MAX_PER_DIRECTION}).records
    found = []
    for method in methods:
        of_method = [row for row in rows if row["method"] == method]
        if of_method:
            improved = tuple(_example(row) for row in of_method if row["added"] < 0)
            worsened = tuple(_example(row) for row in of_method if row["added"] > 0)
            found.append(Examples(method, improved, worsened, of_method[0]["improved"], of_method[0]["worsened"]))
    return tuple(found)


def _example(row: Mapping[str, Any]) -> Example:
    same = (
        "method",
        "seed",
        "group",
        "domain",
        "corpus_id",
        "utterance_id",
        "speaker",
        "words",
        "errors",
        "source_errors",
    )
    reference = row["reference_normalized"]
    before = row["source_hypothesis"] or ""
    with suppress(EmttaError):  # the scorer's package may not be installed here
        before = word_errors(row["reference"], before, row["language"], row["scorer"]).hypothesis_normalized
    return Example(
        **{name: row[name] for name in same},
        before=word_differences(reference, before),
        after=word_differences(reference, row["hypothesis_normalized"] or ""),
    )


def word_differences(reference: str, hypothesis: str) -> tuple[Piece, ...]:
    """Align two normalized texts with the fewest edits, as jiwer does; the reference may be empty."""
    if not reference:
        return (Piece("added", "", hypothesis),) if hypothesis else ()
    aligned = jiwer.process_words(reference, hypothesis)
    reference_words, hypothesis_words = aligned.references[0], aligned.hypotheses[0]
    return tuple(
        Piece(
            _KINDS[chunk.type],
            " ".join(reference_words[chunk.ref_start_idx : chunk.ref_end_idx]),
            "" if chunk.type == "equal" else " ".join(hypothesis_words[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in aligned.alignments[0]
    )


def audio_of(store: Store, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """Read prepared recordings as FLAC files, by corpus id and utterance id.

    A missing recording (its corpus was removed, or its utterance is in error) is left out.

    Raises:
        StoreError: a file of prepared audio is broken.
    """
    wanted: dict[str, set[str]] = {}
    for corpus_id, utterance_id in keys:
        wanted.setdefault(corpus_id, set()).add(utterance_id)
    audio = {}
    for corpus_id, remaining in wanted.items():
        corpus = store.prepared(corpus_id)
        for row in store.read_prepared(corpus) if corpus is not None else ():
            if row.utterance_id in remaining:
                remaining.discard(row.utterance_id)
                if row.audio is not None:
                    audio[corpus_id, row.utterance_id] = row.audio.bytes
            if not remaining:
                break
    return audio


def data_uri(flac: bytes) -> str:
    """A data URI for a FLAC file."""
    return f"data:audio/flac;base64,{base64.b64encode(flac).decode('ascii')}"


def first_of_each(examples: Sequence[Examples], count: int) -> list[Example]:
    """The examples whose audio a page includes: alternately one that improved and one that worsened, largest first."""
    alternating = (
        one
        for of_method in examples
        for pair in zip_longest(of_method.improved, of_method.worsened)
        for one in pair
        if one is not None
    )
    chosen: dict[tuple[str, str], Example] = {}
    for one in alternating:
        if len(chosen) < count:
            chosen.setdefault(one.key, one)
    return list(chosen.values())
