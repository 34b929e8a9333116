"""The rows of the store: one frozen record class per table, from which `emtta_core.store.tables` derives the schema."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

SCHEMA_VERSION = 7
"""Incremented whenever a column is added, removed, or changes its meaning; recorded in the metadata of each file."""

SAMPLE_RATE = 16_000
"""Sample rate of every waveform in the store, in Hz."""

VERSION_KEY = b"emtta.schema_version"
TABLE_KEY = b"emtta.table"

COMPLETE = "complete"
FAILED = "failed"
INTERRUPTED = "interrupted"
"""The final states of an attempt at a cell; an interrupted one was asked to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioBytes:
    """An encoded waveform, in the two fields that the `datasets` library expects of audio."""

    bytes: Annotated[bytes, "the waveform as a FLAC file: 16 kHz, mono, 16 bit"]
    path: Annotated[str, "a file name for it, `<utterance_id>.flac`"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRow:
    """One row per utterance of a prepared corpus, shared by all runs whose domains have the same content."""

    utterance_id: Annotated[str, "the utterance, unique within its corpus"]
    audio: Annotated[AudioBytes | None, "the waveform given to the models; null if the utterance is in error"]
    text: Annotated[str, "the transcript as the corpus gives it, not normalized"]
    language: Annotated[str, "ISO 639-1 code"]
    speaker: Annotated[str, "the speaker"]
    seconds: Annotated[float, "length of the waveform in seconds; 0 if there is none"]
    corruption: Annotated[str | None, "the corruption applied to the clean speech; null if none"]
    snr_db: Annotated[float | None, "signal-to-noise ratio of the mixture in dB; null if there is no noise"]
    gain: Annotated[float, "the factor that scaled down a mixture beyond full scale; otherwise 1"] = 1.0
    metadata: Annotated[
        str, "JSON object: further columns of the manifest or data set, as text, numbers or booleans"
    ] = "{}"
    error: Annotated[str | None, "why there is no waveform"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HypothesisRow:
    """One row per utterance and attempt: the result of the method."""

    cell_id: Annotated[str, "identity of the cell (model, method, options, corpus) that made this row"]
    attempt: Annotated[int, "the attempt at the cell that made this row, from 1"]
    utterance_id: Annotated[str, "the utterance, unique within its domain"]
    language: Annotated[str, "ISO 639-1 code"]
    speaker: Annotated[str, "the speaker"]
    audio_seconds: Annotated[float, "length of the waveform in seconds"]
    reference: Annotated[str, "the transcript, not normalized"]
    hypothesis: Annotated[str | None, "hypothesis of the adapted model, not normalized; null if in error"]
    source_hypothesis: Annotated[
        str | None, "that of the unadapted model; in a stream, of the model before its updates"
    ]
    entropy_before: Annotated[
        float | None, "mean entropy along the unadapted model's greedy hypothesis, nats per token"
    ]
    entropy_after: Annotated[float | None, "the same for the adapted model"]
    tokens: Annotated[int | None, "tokens of the hypothesis, including the end token"]
    seconds: Annotated[float | None, "wall seconds spent; those of a batch are shared equally"]
    flags: Annotated[
        tuple[str, ...],
        "`truncated`, `collapsed`; `gated`, `reverted`: the hypothesis is the source's; `reset`: the source came back",
    ] = ()
    metadata: Annotated[
        str, "JSON object: further columns of the manifest or data set, as text, numbers or booleans"
    ] = "{}"
    error: Annotated[str | None, "why there is no hypothesis"] = None
    utterance_key: Annotated[
        str, "identity of the work (recipe, prepared audio, transcript): rows of equal keys are the same result"
    ] = ""
    position: Annotated[int | None, "number of the utterance in its stream, from 0; null for an episode"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRow:
    """One row per utterance whose result a run reuses: where that result is, with the same seed. Read as attempt 0."""

    domain: Annotated[str, "the domain"]
    method: Annotated[str, "the method"]
    cell_id: Annotated[str, "identity of the cell that reuses the result"]
    utterance_id: Annotated[str, "the utterance, unique within its domain"]
    source_domain: Annotated[str, "the domain of the cell that made the result"]
    source_method: Annotated[str, "its method"]
    source_cell_id: Annotated[str, "its identity"]
    source_attempt: Annotated[int, "the attempt that made the result, from 1"]
    metadata: Annotated[str, "the utterance's metadata as its corpus has it now"] = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One row per utterance, attempt and step: a state of the model, and the update made from it."""

    cell_id: Annotated[str, "identity of the cell that made this row"]
    attempt: Annotated[int, "the attempt at the cell that made this row, from 1"]
    utterance_id: Annotated[str, "the utterance, unique within its domain"]
    step: Annotated[int, "updates made so far; 0 is the unadapted model"]
    hypothesis: Annotated[str | None, "greedy hypothesis in this state; null if it was not decoded"]
    entropy: Annotated[float | None, "mean entropy along that hypothesis, nats per token"]
    tokens: Annotated[int | None, "tokens of that hypothesis, including the end token"]
    loss: Annotated[float | None, "loss of the update made from this state; null for the last state"] = None
    policy_loss: Annotated[float | None, "its policy-gradient part"] = None
    entropy_loss: Annotated[float | None, "its entropy part"] = None
    candidate_entropy: Annotated[float | None, "mean entropy along the candidates, nats per token"] = None
    advantage_std: Annotated[float | None, "standard deviation of the candidates' advantages"] = None
    gradient_norm: Annotated[
        float | None, "Euclidean norm of the gradient over the utterance's LayerNorm parameters"
    ] = None
    candidate_tokens: Annotated[float | None, "mean number of tokens of a candidate"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRow:
    """One row per window and attempt, for utterances that were cut or whose language was detected."""

    cell_id: Annotated[str, "identity of the cell that made this row"]
    attempt: Annotated[int, "the attempt at the cell that made this row, from 1"]
    utterance_id: Annotated[str, "the utterance, unique within its domain"]
    window: Annotated[int, "the window's number in the utterance, from 1"]
    begins: Annotated[float, "start of the window within the utterance, in seconds"]
    seconds: Annotated[float, "length of the window in seconds"]
    language: Annotated[str, "the language given to the model"]
    language_probability: Annotated[
        float | None, "probability of the detected language among all; null if it was given"
    ]
    hypothesis: Annotated[str | None, "hypothesis of the adapted model, not normalized; null if in error"]
    source_hypothesis: Annotated[
        str | None, "that of the unadapted model; in a stream, of the model before its updates"
    ]
    entropy_before: Annotated[
        float | None, "mean entropy along the unadapted model's greedy hypothesis, nats per token"
    ]
    entropy_after: Annotated[float | None, "the same for the adapted model"]
    tokens: Annotated[int | None, "tokens of the hypothesis, including the end token"]
    updates: Annotated[int | None, "updates made"]
    flags: Annotated[
        tuple[str, ...],
        "`truncated`, `collapsed`; `gated`, `reverted`: the hypothesis is the source's; `reset`: the source came back",
    ] = ()
    error: Annotated[str | None, "why there is no hypothesis, for example in a silent window"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """One row per utterance and attempt: its errors against the reference, as scored when the hypothesis was made."""

    cell_id: Annotated[str, "identity of the cell that made the hypothesis"]
    attempt: Annotated[int, "the attempt that made the hypothesis, from 1; 0 if the result is reused"]
    utterance_id: Annotated[str, "the utterance, unique within its domain"]
    scorer: Annotated[str, "the scorer, as a suite names it"]
    hits: Annotated[int | None, "correct words"]
    substitutions: Annotated[int | None, "substituted words"]
    deletions: Annotated[int | None, "words missing from the hypothesis; all if the utterance is in error"]
    insertions: Annotated[int | None, "words that are not in the reference"]
    insertion_run: Annotated[int | None, "the most insertions side by side"]
    words: Annotated[int | None, "words of the reference: hits + substitutions + deletions"]
    characters: Annotated[int | None, "characters of the reference"]
    character_errors: Annotated[int | None, "character edits between the two texts"]
    normalizer: Annotated[str, "the normalizer and its version"]
    reference_normalized: Annotated[str | None, "the reference as compared"]
    hypothesis_normalized: Annotated[str | None, "the hypothesis as compared"]
    step_substitutions: Annotated[
        tuple[int | None, ...], "substituted words after 0, 1, … updates; null for states that were not decoded"
    ] = ()
    step_deletions: Annotated[tuple[int | None, ...], "missing words, likewise"] = ()
    step_insertions: Annotated[tuple[int | None, ...], "words that are not in the reference, likewise"] = ()
    error: Annotated[str | None, "why there is no score; the counts are then null"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RescoreRow(ScoreRow):
    """One row per utterance, attempt and rescoring: with another scorer, release or transcript."""

    domain: Annotated[str, "the domain"]
    method: Annotated[str, "the method"]
    scoring: Annotated[int, "number of the rescoring of the run, from 1; the row of the newest counts"]
    reference: Annotated[str | None, "the corrected transcript, not normalized; null if it is the corpus's"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRow:
    """One row per attempt at a cell, written when the attempt ends."""

    cell_id: Annotated[str, "identity of the cell"]
    attempt: Annotated[int, "the attempt, from 1"]
    group: Annotated[str, "the group that the domain belongs to"]
    state: Annotated[str, "how it ended: `complete`, `failed` or `interrupted`"]
    planned: Annotated[int, "utterances in the cell"]
    done: Annotated[int, "utterances that this attempt did, including those in error"]
    reused: Annotated[int, "utterances that an earlier attempt had done"]
    errors: Annotated[int, "utterances in error"]
    error: Annotated[str | None, "why the attempt is not complete"]
    started_at: Annotated[datetime, "UTC"]
    finished_at: Annotated[datetime, "UTC"]
    seconds: Annotated[float, "wall seconds of the attempt"]
    audio_seconds: Annotated[float, "seconds of speech that this attempt processed"]
    device: Annotated[str, "where the model ran, such as `cpu` or `cuda:0`"]
    peak_memory_bytes: Annotated[int | None, "peak memory: of the device, or of the process on a CPU"]
    host: Annotated[str, "the machine"]
    batch_size: Annotated[int, "utterances adapted side by side at the end of the attempt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One row per planned cell of a run."""

    domain: Annotated[str, "the domain"]
    group: Annotated[str, "the group that the domain belongs to"]
    method: Annotated[str, "the method"]
    seed: Annotated[int | None, "the seed of the method's random numbers; null if it draws none"] = None
    cell_id: Annotated[str, "identity of the cell; rows with a different identity do not count"]
    corpus_id: Annotated[str, "identity of the prepared corpus, the folder under `prepared/`"]
    recipe_id: Annotated[str, "identity of the processing of each utterance (model, method, options)"]
    utterances: Annotated[int, "planned utterances"]
    sample: Annotated[str | None, "which corpus utterances a limit selects, in words; NULL if all are used"] = None
    position: Annotated[int, "position in the plan, from 0; assigned when the plan is written"] = 0
    scorer: Annotated[str, "the scorer of the figures, unless another is requested: the suite's first"] = "whisper"
    counts_errors: Annotated[bool, "whether rates count utterances in error as deleted, instead of excluding them"] = (
        False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One row per run."""

    suite: Annotated[str, "name of the suite"]
    suite_toml: Annotated[str, "the suite as recorded"]
    plan_id: Annotated[str, "identity of the plan, derived from all its cells"]
    created_at: Annotated[datetime, "UTC"]
    model: Annotated[str, "the model as the suite names it"]
    model_digest: Annotated[str, "digest of the model's weights and configuration"]
    algorithm_version: Annotated[
        int, "version of the adaptation algorithm; different versions may give different results"
    ]
    versions: Annotated[str, "JSON: versions of Python and relevant libraries, and the processor's vector instructions"]
    git_commit: Annotated[str | None, "commit of the code, if known"]
    host: Annotated[str, "the machine that started the run"]
    scorers: Annotated[tuple[str, ...], "the suite's scorers, by which the run is scored"] = ("whisper",)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsRow:
    """One row per method and domain of a run, and one per method, group and other method: intervals and tests."""

    scorer: Annotated[str, "the scorer"] = "whisper"
    method: Annotated[str, "the method"]
    group: Annotated[str, "the domain's group; for a mean over domains, that group or `all`"]
    domain: Annotated[str | None, "the domain; null for the mean over the domains of a group"]
    revision: Annotated[str, "digest of the results it was computed from, as in the view `revisions`"]
    baseline: Annotated[str | None, "the method it is compared with: `source`, or for a group each before it"] = None
    baseline_revision: Annotated[str | None, "digest of the baseline's results"] = None
    utterances: Annotated[int, "utterances without an error"]
    pairs: Annotated[int | None, "utterances that the baseline also has without an error"] = None
    units: Annotated[int, "number of units (utterances or speakers) on which intervals and tests are based"]
    drawn: Annotated[str, "kind of units: `utterances`, `speakers`, or `both` if domains differ"]
    note: Annotated[str | None, "what the intervals do not cover; null if all units are speakers"]
    wer: Annotated[float, "word error rate, %; for a group, the mean over its domains"]
    wer_low: Annotated[float | None, "lower end of its interval, %; null with fewer than 5 units"]
    wer_high: Annotated[float | None, "upper end, %"]
    baseline_wer: Annotated[float | None, "word error rate of the baseline over the pairs, %"] = None
    change: Annotated[float | None, "WER over the pairs minus `baseline_wer`, points"] = None
    change_low: Annotated[float | None, "lower end of its interval, points"] = None
    change_high: Annotated[float | None, "upper end, points"] = None
    p: Annotated[
        float | None,
        "p-value of the test that the mean change is 0, which decides; for a domain, Holm-corrected over all domains",
    ] = None
    p_sign_flip: Annotated[float | None, "p-value of the sign-flip test that the two can be exchanged, likewise"] = None
    p_between: Annotated[
        float | None, "for a group, `p` Holm-corrected over all pairs of the run's methods; null for a domain"
    ] = None
    p_sign_flip_between: Annotated[float | None, "`p_sign_flip`, likewise"] = None
    wins: Annotated[int | None, "pairs with fewer word errors than the baseline"] = None
    ties: Annotated[int | None, "pairs with equally many word errors"] = None
    losses: Annotated[int | None, "pairs with more word errors"] = None
    confidence: Annotated[float, "confidence level of the intervals, such as 0.95"]
