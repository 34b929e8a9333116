"""What the store holds: a frozen record a table, and the Parquet schema that follows from it.

A record is the one source: a field's type gives its column's type (`str | None` may be null, `str` may not),
and the text in its `Annotated` is the column's documentation, which is written into every file.
The hive keys (`run_id`, `domain`, `method`) stand in a file's path and not in its columns.
"""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Annotated, Any

import pyarrow as pa

SCHEMA_VERSION = 1
"""Raised whenever a column is added, removed, or changes its meaning; stands in the metadata of each file."""

SAMPLE_RATE = 16_000
"""Hz, of every waveform in the store."""

VERSION_KEY = b"emtta.schema_version"
TABLE_KEY = b"emtta.table"

COMPLETE = "complete"
FAILED = "failed"
"""How an attempt at a cell can have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioBytes:
    """An encoded waveform, in the two fields that the `datasets` library expects of audio."""

    bytes: Annotated[bytes, "the waveform as a FLAC file: 16 kHz, mono, 16 bit"]
    path: Annotated[str, "a file name for it, `<utterance_id>.flac`"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRow:
    """One row an utterance of a prepared corpus, shared by every run whose domain has the same content."""

    utterance_id: Annotated[str, "the utterance, unique within its corpus"]
    audio: Annotated[AudioBytes | None, "the waveform as the models hear it; null where the utterance is in error"]
    text: Annotated[str, "the transcript as the corpus gives it, not normalised"]
    language: Annotated[str, "ISO 639-1 code"]
    speaker: Annotated[str, "who speaks"]
    seconds: Annotated[float, "length of the waveform; 0 where there is none"]
    corruption: Annotated[str | None, "what was done to the clean speech; null for nothing"]
    snr_db: Annotated[float | None, "signal-to-noise ratio of the mixture in dB; null without noise"]
    gain: Annotated[float, "the factor that scaled an overflowing mixture back; 1 where nothing overflowed"] = 1.0
    error: Annotated[str | None, "why there is no waveform"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HypothesisRow:
    """One row an utterance and attempt: what the method made of it."""

    cell_id: Annotated[str, "identity of the cell (model, method, options, corpus) that made this row"]
    attempt: Annotated[int, "the attempt at the cell that made this row, from 1"]
    utterance_id: Annotated[str, "the utterance, unique within its domain"]
    language: Annotated[str, "ISO 639-1 code"]
    speaker: Annotated[str, "who speaks"]
    audio_seconds: Annotated[float, "length of the waveform"]
    reference: Annotated[str, "the transcript, not normalised"]
    hypothesis: Annotated[str | None, "what the adapted model heard, not normalised; null where in error"]
    source_hypothesis: Annotated[str | None, "what the unadapted model heard, not normalised"]
    entropy_before: Annotated[float | None, "mean entropy along the unadapted model's greedy hypothesis, nats a token"]
    entropy_after: Annotated[float | None, "the same of the adapted model"]
    tokens: Annotated[int | None, "tokens of the hypothesis, the end token included"]
    seconds: Annotated[float | None, "wall seconds spent: those of its batch, shared equally"]
    flags: Annotated[tuple[str, ...], "what to know of it: `truncated`, `collapsed`"] = ()
    error: Annotated[str | None, "why there is no hypothesis"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One row an utterance, attempt and step: a state of the model, and the update made from it."""

    cell_id: Annotated[str, "identity of the cell that made this row"]
    attempt: Annotated[int, "the attempt at the cell that made this row, from 1"]
    utterance_id: Annotated[str, "the utterance, unique within its domain"]
    step: Annotated[int, "updates made so far; 0 is the unadapted model"]
    hypothesis: Annotated[str | None, "greedy hypothesis in this state; null where it was not decoded"]
    entropy: Annotated[float | None, "mean entropy along that hypothesis, nats a token"]
    tokens: Annotated[int | None, "tokens of that hypothesis, the end token included"]
    loss: Annotated[float | None, "loss of the update made from this state; null at the last"] = None
    policy_loss: Annotated[float | None, "its policy-gradient part"] = None
    entropy_loss: Annotated[float | None, "its pathwise part"] = None
    candidate_entropy: Annotated[float | None, "mean entropy along the candidates, nats a token"] = None
    advantage_std: Annotated[float | None, "standard deviation of the candidates' advantages"] = None
    gradient_norm: Annotated[float | None, "Euclidean norm of the gradient over the utterance's LayerNorm"] = None
    candidate_tokens: Annotated[float | None, "mean tokens of a candidate"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRow:
    """One row a window and attempt, of an utterance that was cut into several or whose language was detected."""

    cell_id: Annotated[str, "identity of the cell that made this row"]
    attempt: Annotated[int, "the attempt at the cell that made this row, from 1"]
    utterance_id: Annotated[str, "the utterance, unique within its domain"]
    window: Annotated[int, "the window's number in the utterance, from 1"]
    begins: Annotated[float, "where in the utterance it begins, seconds"]
    seconds: Annotated[float, "how long it is"]
    language: Annotated[str, "what the model was told to hear"]
    language_probability: Annotated[float | None, "of that language where the unadapted model detected it, among all"]
    hypothesis: Annotated[str | None, "what the adapted model heard, not normalised; null where in error"]
    source_hypothesis: Annotated[str | None, "what the unadapted model heard, not normalised"]
    entropy_before: Annotated[float | None, "mean entropy along the unadapted model's greedy hypothesis, nats a token"]
    entropy_after: Annotated[float | None, "the same of the adapted model"]
    tokens: Annotated[int | None, "tokens of the hypothesis, the end token included"]
    updates: Annotated[int | None, "updates made"]
    flags: Annotated[tuple[str, ...], "what to know of it: `truncated`, `collapsed`"] = ()
    error: Annotated[str | None, "why there is no hypothesis, as of a silent window"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """One row an utterance and attempt: its errors against the reference, after normalisation."""

    cell_id: Annotated[str, "identity of the cell that made the hypothesis"]
    attempt: Annotated[int, "the attempt that made the hypothesis, from 1"]
    utterance_id: Annotated[str, "the utterance, unique within its domain"]
    hits: Annotated[int | None, "words that agree"]
    substitutions: Annotated[int | None, "words that differ"]
    deletions: Annotated[int | None, "words of the reference that are missing"]
    insertions: Annotated[int | None, "words that the reference has not"]
    words: Annotated[int | None, "words of the reference: hits + substitutions + deletions"]
    characters: Annotated[int | None, "characters of the reference"]
    character_errors: Annotated[int | None, "edits between the two texts by character"]
    normaliser: Annotated[str, "the normaliser and its version"]
    reference_normalised: Annotated[str | None, "the reference as it was compared"]
    hypothesis_normalised: Annotated[str | None, "the hypothesis as it was compared"]
    step_errors: Annotated[
        tuple[int | None, ...], "word errors after 0, 1, … updates; null for a state that was not decoded"
    ] = ()
    error: Annotated[str | None, "why it has no score; the counts are null then"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRow:
    """One row an attempt at a cell, written at its end."""

    cell_id: Annotated[str, "identity of the cell"]
    attempt: Annotated[int, "the attempt, from 1"]
    group: Annotated[str, "the group that the domain belongs to"]
    state: Annotated[str, "how it ended: `complete` or `failed`"]
    planned: Annotated[int, "utterances that the cell has"]
    done: Annotated[int, "utterances that this attempt did, those in error included"]
    reused: Annotated[int, "utterances that an earlier attempt had done"]
    errors: Annotated[int, "utterances in error"]
    error: Annotated[str | None, "why the attempt failed"]
    started_at: Annotated[datetime, "UTC"]
    finished_at: Annotated[datetime, "UTC"]
    seconds: Annotated[float, "wall seconds of the attempt"]
    audio_seconds: Annotated[float, "length of the speech that this attempt did"]
    device: Annotated[str, "where the model ran, as `cpu` or `cuda:0`"]
    peak_memory_bytes: Annotated[int | None, "most memory in use: of the device, or of the process on a CPU"]
    host: Annotated[str, "the machine"]
    batch_size: Annotated[int, "utterances side by side at the end of the attempt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One row a planned cell of a run."""

    domain: Annotated[str, "the domain"]
    group: Annotated[str, "the group that the domain belongs to"]
    method: Annotated[str, "the method"]
    cell_id: Annotated[str, "identity of the cell; rows of another identity do not count"]
    corpus_id: Annotated[str, "identity of the prepared corpus, the folder under `prepared/`"]
    utterances: Annotated[int, "utterances that the cell is to have"]
    position: Annotated[int, "place in the plan, from 0; given when the plan is written"] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One row a run."""

    suite: Annotated[str, "name of the suite"]
    suite_toml: Annotated[str, "the suite as it was"]
    plan_id: Annotated[str, "identity of the plan: of all its cells"]
    created_at: Annotated[datetime, "UTC"]
    model: Annotated[str, "the model as the suite names it"]
    model_digest: Annotated[str, "digest of the model's weights and configuration"]
    algorithm_version: Annotated[int, "version of the adaptation's code; another may give other results"]
    versions: Annotated[
        str, "JSON: releases of Python and of the libraries that matter, and the processor's vector instructions"
    ]
    git_commit: Annotated[str | None, "commit of the code, where it is known"]
    host: Annotated[str, "the machine that began it"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsRow:
    """One row a method and domain of a run, and one a method and group: how sure its figures are."""

    method: Annotated[str, "the method"]
    group: Annotated[str, "the group that the domain belongs to; of a mean over domains its group, or `all`"]
    domain: Annotated[str | None, "the domain; null for the mean over the domains of a group"]
    revision: Annotated[str, "the facts that it was computed from, as the view `revisions` names them"]
    utterances: Annotated[int, "utterances without an error"]
    pairs: Annotated[int | None, "those that `source` has without an error too; null for `source`, and without it"]
    units: Annotated[int, "what the interval draws: so many utterances or speakers"]
    drawn: Annotated[str, "`utterances`, `speakers`, or `both` where domains differ in it"]
    wer: Annotated[float, "word error rate, %; of a group the mean over its domains"]
    wer_low: Annotated[float | None, "lower end of its interval, %; null for fewer than 5 units"]
    wer_high: Annotated[float | None, "upper end, %"]
    source_wer: Annotated[float | None, "word error rate of `source` over the pairs, %; of `source` its `wer`"]
    change: Annotated[float | None, "WER over the pairs less `source_wer`, points; null for `source`"]
    change_low: Annotated[float | None, "lower end of its interval, points"]
    change_high: Annotated[float | None, "upper end, points"]
    p: Annotated[float | None, "of the sign-flip test, two-sided; of a domain by Holm over the method's domains"]
    wins: Annotated[int | None, "pairs with fewer word errors than `source`"]
    ties: Annotated[int | None, "pairs with as many"]
    losses: Annotated[int | None, "pairs with more"]
    confidence: Annotated[float, "of the intervals, as 0.95"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the store.

    Attributes:
        name: the table and its folder.
        row: the record that a row is.
        keys: the hive keys in the path, outermost first.
        layout: where its files lie, below the store.
    """

    name: str
    row: type[Any]
    keys: tuple[str, ...]
    layout: str

    @property
    def schema(self) -> pa.Schema:
        """The Parquet schema, with a line of documentation a column and the schema's version."""
        return _schema(self.name, self.row)

    def holds(self, name: str) -> bool:
        """Return whether the file `name` of the store lies where the table's files do."""
        return (
            name.startswith(f"{self.name}/") and name.count("/") == self.layout.count("/") and name.endswith(".parquet")
        )


_CELL = ("run_id", "domain", "method")
_SHARD = "run_id=…/domain=…/method=…/<attempt>-<shard>.parquet"

TABLES: Mapping[str, Table] = types.MappingProxyType(
    {
        table.name: table
        for table in (
            Table("prepared", PreparedRow, (), "prepared/<corpus_id>/part-<shard>.parquet"),
            Table("hypotheses", HypothesisRow, _CELL, f"hypotheses/{_SHARD}"),
            Table("steps", StepRow, _CELL, f"steps/{_SHARD}"),
            Table("windows", WindowRow, _CELL, f"windows/{_SHARD}"),
            Table("scores", ScoreRow, _CELL, f"scores/{_SHARD}"),
            Table("cells", CellRow, _CELL, "cells/run_id=…/domain=…/method=…/<attempt>.parquet"),
            Table("plans", PlanRow, ("run_id",), "plans/run_id=…/plan.parquet"),
            Table("runs", RunRow, ("run_id",), "runs/run_id=…/run.parquet"),
            Table("statistics", StatisticsRow, ("run_id",), "statistics/run_id=…/statistics.parquet"),
        )
    }
)
"""Every table of the store, by name."""


def documented(row: type[Any]) -> tuple[tuple[str, Any, str], ...]:
    """Return each field of the record `row` as (name, type, documentation)."""
    hints = typing.get_type_hints(row, include_extras=True)
    result = []
    for field in fields(row):
        kind, text = typing.get_args(hints[field.name])
        result.append((field.name, kind, text))
    return tuple(result)


def _schema(name: str, row: type[Any]) -> pa.Schema:
    columns = pa.schema(_arrow_fields(row))
    metadata = {VERSION_KEY: str(SCHEMA_VERSION).encode(), TABLE_KEY: name.encode()}
    if row is PreparedRow:
        metadata[b"huggingface"] = json.dumps({"info": {"features": _features(columns)}}).encode()
    return columns.with_metadata(metadata)


def _features(columns: pa.Schema) -> dict[str, Any]:
    """Return the columns as the features of the `datasets` library, which reads them from a file's metadata."""
    features: dict[str, Any] = {
        field.name: {"dtype": str(field.type).replace("double", "float64"), "_type": "Value"} for field in columns
    }
    features["audio"] = {"sampling_rate": SAMPLE_RATE, "_type": "Audio"}
    return features


def _arrow_fields(row: type[Any]) -> list[pa.Field]:
    result = []
    for name, kind, text in documented(row):
        nullable, inner = _optional(kind)
        result.append(pa.field(name, _arrow_type(inner), nullable=nullable, metadata={b"doc": text.encode()}))
    return result


def _optional(kind: Any) -> tuple[bool, Any]:
    """Return whether the type `kind` allows None, and the type without it."""
    if isinstance(kind, types.UnionType):
        (inner,) = (item for item in typing.get_args(kind) if item is not types.NoneType)
        return True, inner
    return False, kind


def _arrow_type(kind: Any) -> pa.DataType:
    """Return the Arrow type of a Python type: a scalar, a `tuple[item, ...]`, or a nested record."""
    scalars = {
        str: pa.string(),
        bytes: pa.binary(),
        int: pa.int64(),
        float: pa.float64(),
        datetime: pa.timestamp("us", tz="UTC"),
    }
    if kind in scalars:
        return scalars[kind]
    if typing.get_origin(kind) is tuple:
        nullable, inner = _optional(typing.get_args(kind)[0])
        return pa.list_(pa.field("element", _arrow_type(inner), nullable=nullable))
    if is_dataclass(kind):
        inside = _arrow_fields(typing.cast("type[Any]", kind))
        return pa.struct([field.with_nullable(True) for field in inside])  # `datasets` knows audio in this form alone
    raise TypeError(f"no column can hold {kind!r}")
