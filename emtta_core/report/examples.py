"""How a hypothesis differs from its reference, word by word."""

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jiwer

from emtta_core.scoring import normalizer_named
from emtta_core.store import Catalogue, Store


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of words of an alignment."""

    kind: str  # `same`, `substituted` (other words were heard), `missing` (nothing was), `added` (nothing was said)
    said: str  # the words of the reference; empty where it has none
    heard: str  # the words of the hypothesis; empty where it has none, or where they are `said`


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


EACH_WAY = 10
"""Utterances that a page shows of each method: so many that improved, and so many that worsened."""

_QUERY = """
    WITH
    placed AS (
        SELECT
            changes.*,
            planned.corpus_id,
            row_number() OVER (
                PARTITION BY method ORDER BY added, changes.words, domain, utterance_id
            ) AS place_down,
            row_number() OVER (
                PARTITION BY method ORDER BY added DESC, changes.words, domain, utterance_id
            ) AS place_up,
            count(*) FILTER (added < 0) OVER (PARTITION BY method) AS improved,
            count(*) FILTER (added > 0) OVER (PARTITION BY method) AS worsened
        FROM changes
        INNER JOIN planned USING (run_id, domain, method)
        WHERE run_id = $run
    )

    FROM placed
    WHERE (added < 0 AND place_down <= $most) OR (added > 0 AND place_up <= $most)
"""


@dataclass(frozen=True, slots=True)
class Example:
    """An utterance that adaptation changed."""

    method: str  # what changed it
    group: str  # the group of its domain
    domain: str  # its domain
    corpus_id: str  # where its audio lies
    utterance_id: str  # which
    speaker: str  # who speaks
    words: int  # words of its reference
    errors: int  # word errors after adaptation
    source_errors: int  # before it
    before: tuple[Piece, ...]  # what the unadapted model heard, beside what was said
    after: tuple[Piece, ...]  # what the adapted model heard, likewise

    @property
    def added(self) -> int:
        """Word errors that adaptation added; below zero where it took some away."""
        return self.errors - self.source_errors

    @property
    def key(self) -> tuple[str, str]:
        """Which recording it is, of a method or another."""
        return self.corpus_id, self.utterance_id


@dataclass(frozen=True, slots=True)
class Examples:
    """What a method changed."""

    method: str  # the method
    improved: tuple[Example, ...]  # the utterances with fewest errors added, the best first
    worsened: tuple[Example, ...]  # those with most, the worst first
    improved_of: int  # how many improved
    worsened_of: int  # how many worsened


def find_examples(
    catalogue: Catalogue, run_id: str, methods: Iterable[str], each_way: int = EACH_WAY
) -> tuple[Examples, ...]:
    """Return what each method changed most, the methods in the order given; those that changed nothing are left out.

    Errors are compared with those of the unadapted model on the same utterance, so that a run without `source` has
    examples as well.

    Args:
        catalogue: of the run.
        run_id: the run.
        methods: which.
        each_way: at most so many that improved, and so many that worsened.
    """
    rows = catalogue.query(_QUERY, {"run": run_id, "most": each_way}).records
    found = []
    for method in methods:
        of_method = [row for row in rows if row["method"] == method]
        if not of_method:
            continue
        down = sorted((row for row in of_method if row["added"] < 0), key=lambda row: int(row["place_down"]))
        up = sorted((row for row in of_method if row["added"] > 0), key=lambda row: int(row["place_up"]))
        counts = of_method[0]["improved"], of_method[0]["worsened"]
        found.append(Examples(method, tuple(map(_example, down)), tuple(map(_example, up)), *counts))
    return tuple(found)


def audio_of(store: Store, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """Return the recordings as the models heard them, FLAC files, by corpus id and utterance id.

    A recording that is not there (its corpus was removed, its utterance is in error) is left out.

    Raises:
        StoreError: a file of prepared audio is broken.
    """
    wanted: dict[str, set[str]] = {}
    for corpus_id, utterance_id in keys:
        wanted.setdefault(corpus_id, set()).add(utterance_id)
    found = {}
    for corpus_id, left in wanted.items():
        corpus = store.prepared(corpus_id)
        for row in store.read_prepared(corpus) if corpus is not None else ():
            if row.utterance_id in left:
                left.discard(row.utterance_id)
                if row.audio is not None:
                    found[corpus_id, row.utterance_id] = row.audio.bytes
            if not left:
                break
    return found


def data_uri(flac: bytes) -> str:
    """Return a FLAC file as an address that holds it."""
    return f"data:audio/flac;base64,{base64.b64encode(flac).decode('ascii')}"


def first_of_each(examples: Sequence[Examples], count: int) -> list[Example]:
    """Return the examples whose audio a page holds: by turns one that improved and one that worsened, the best first.

    Args:
        examples: by method, the most important first.
        count: how many recordings.
    """
    chosen: dict[tuple[str, str], Example] = {}
    for one in examples:
        for place in range(max(len(one.improved), len(one.worsened))):
            for way in (one.improved, one.worsened):
                if place < len(way) and len(chosen) < count:
                    chosen.setdefault(way[place].key, way[place])
    return list(chosen.values())


def _example(row: Mapping[str, Any]) -> Example:
    same = ("method", "group", "domain", "corpus_id", "utterance_id", "speaker", "words", "errors")
    heard_before = normalizer_named(row["normalizer"])(row["source_hypothesis"] or "")
    return Example(
        **{name: row[name] for name in same},
        source_errors=row["source_errors"],
        before=word_differences(row["reference_normalized"], heard_before),
        after=word_differences(row["reference_normalized"], row["hypothesis_normalized"] or ""),
    )
