"""Prepare a domain's audio: corrupt clean speech, and write Parquet shards of FLAC, once for the same content."""

import itertools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache

from emtta_core.audio.corruption import Corruption
from emtta_core.audio.files import encode_flac
from emtta_core.audio.mix import scale_back
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform
from emtta_core.corpora.base import Utterance
from emtta_core.corpora.synthetic import voices_for_noise
from emtta_core.errors import AudioError, EmttaError, StoreError, UsageError
from emtta_core.faults import is_fatal, unexpected
from emtta_core.pipeline.inventory import locate
from emtta_core.pipeline.plan import UNAVAILABLE, Audio, audio_of, content_digest, plan_audio
from emtta_core.pipeline.plan import corpus_id as identity_of
from emtta_core.store import AudioBytes, PreparedCorpus, PreparedRow, Store
from emtta_core.suite import Domain, Suite

SHARD_UTTERANCES = 64
"""Utterances per file: a few megabytes, so that a reader can hold a file in memory."""

log = logging.getLogger("emtta.pipeline")

_locks: dict[str, threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A domain whose audio is in the store."""

    corpus: PreparedCorpus  # the prepared audio
    reused: bool  # whether it was there already
    seconds: float  # wall-clock seconds taken


def prepare_domain(
    domain: Domain, corpus_id: str, store: Store, limit: int | None = None, *, retry_errors: bool = False
) -> Prepared:
    """Prepare the audio of a domain, unless the store has it.

    An utterance whose audio cannot be used, or whose transcript is blank, becomes a row with an `error` and does not
    affect the others. Domains of the same content are prepared once, even when requested at the same time.

    Args:
        domain: the domain.
        corpus_id: its identity, from `emtta_core.pipeline.plan.corpus_id`.
        store: the store to write to.
        limit: the most utterances to prepare, spread over the speakers.
        retry_errors: prepare audio again if it has utterances in error, as the cause may have been fixed.

    Raises:
        CorpusError: the corpus is not available.
        UsageError: the corpus as a whole cannot be read, it has changed since it was planned, or the corruption cannot
            be applied.
        StoreError: the store cannot be written.
    """
    started = time.perf_counter()
    with _locks[f"{store.location}/{corpus_id}"]:
        existing = store.prepared(corpus_id)
        if existing is not None and not (retry_errors and existing.errors):
            return Prepared(existing, reused=True, seconds=time.perf_counter() - started)
        _refuse_changed(domain, corpus_id, limit)
        shards = utterances = 0
        errors: list[str] = []
        for rows in _shards(_rows(domain, limit)):
            store.write_prepared(corpus_id, shards, rows)
            shards, utterances = shards + 1, utterances + len(rows)
            errors += [f"{row.utterance_id}: {row.error}" for row in rows if row.error is not None]
        left_out = domain.corpus.count(limit).left_out
        if left_out:
            log.info("%s: %d utterances are longer than max_seconds and are left out", domain.name, left_out)
        corpus = store.finish_prepared(
            corpus_id,
            shards=shards,
            utterances=utterances,
            left_out=left_out,
            errors=len(errors),
            first_error=next(iter(errors), None),
        )
        return Prepared(corpus, reused=False, seconds=time.perf_counter() - started)


def _refuse_changed(domain: Domain, planned: str, limit: int | None) -> None:
    # Refuse a corpus other than the planned one: its audio would be stored under the wrong identity.
    if planned.startswith(UNAVAILABLE):
        current = audio_of(domain, limit, content_digest, lambda corpus: corpus.count(limit))
        if current.error is not None:
            raise current.error
        raise UsageError(
            f"the corpus of domain {domain.name!r} was not available when the run was planned, and is now; "
            "a rerun plans the domain again and continues"
        )
    if identity_of(domain, limit) != planned:
        raise UsageError(
            f"the corpus of domain {domain.name!r} is not the one that was planned: it, the noise, or emtta has "
            "changed since; a rerun plans the domain again, as it is now"
        )


def _rows(domain: Domain, limit: int | None) -> Iterator[PreparedRow]:
    for utterance in domain.corpus.read_all(limit):
        try:
            yield _row(utterance, domain.corruption)
        except AudioError as error:
            yield _row_in_error(utterance, domain.corruption, str(error))
        except Exception as error:
            if is_fatal(error) and not isinstance(error, MemoryError):  # one recording may need any amount of memory
                raise
            log.warning("%s: utterance %s could not be prepared", domain.name, utterance.id, exc_info=True)
            yield _row_in_error(utterance, domain.corruption, unexpected("prepared", error))


def _row(utterance: Utterance, corruption: Corruption | None) -> PreparedRow:
    # The row of an utterance; raises AudioError if its audio cannot be used or its transcript is blank.
    waveform = utterance.read()  # its errors give more detail about a folder's file
    if not utterance.text.strip() and not utterance.silence:
        raise AudioError(
            f"its transcript is empty ({utterance.text!r}), so there is no word to compare; get the corpus again, or "
            "report this to its publisher"
        )
    if corruption is None:
        (waveform, gain), snr_db = scale_back(waveform), None
    else:
        corrupted = corruption.apply(waveform, utterance.id, lambda count: _voices(count, corruption.seed))
        waveform, snr_db, gain = corrupted.waveform, corrupted.snr_db, corrupted.gain
    return PreparedRow(
        utterance_id=utterance.id,
        audio=AudioBytes(bytes=encode_flac(waveform), path=f"{utterance.id}.flac"),
        text=utterance.text,
        language=utterance.language,
        speaker=utterance.speaker,
        seconds=len(waveform) / SAMPLE_RATE,
        corruption=_label(corruption),
        snr_db=snr_db,
        gain=gain,
        metadata=utterance.metadata,
    )


def _row_in_error(utterance: Utterance, corruption: Corruption | None, error: str) -> PreparedRow:
    return PreparedRow(
        utterance_id=utterance.id,
        audio=None,
        text=utterance.text,
        language=utterance.language,
        speaker=utterance.speaker,
        seconds=0.0,
        corruption=_label(corruption),
        snr_db=None,
        metadata=utterance.metadata,
        error=error,
    )


def _label(corruption: Corruption | None) -> str | None:
    return None if corruption is None else corruption.label()


@cache
def _voices(count: int, seed: int) -> Sequence[Waveform]:
    # Clean voices for babble and similar noises; synthesized once per process, as every utterance uses them.
    return voices_for_noise(count, seed)


def _shards(rows: Iterator[PreparedRow]) -> Iterator[list[PreparedRow]]:
    return iter(lambda: list(itertools.islice(rows, SHARD_UTTERANCES)), [])


Listener = Callable[[str, Prepared | EmttaError], None]
"""Called for each domain with its name and what was prepared, or why nothing was."""


def prepare_all(suite: Suite, store: Store, listener: Listener) -> dict[str, str]:
    """Prepare each domain of a suite, as many at once as its runtime says; a failure does not affect the others.

    `listener` is called for each domain when it is done.

    Returns:
        Why a domain could not be prepared, or has no usable utterance, by its name.

    Raises:
        StoreError: the store cannot be written.
    """
    suite = locate(suite)
    audio = plan_audio(suite)

    def prepare(domain: Domain) -> Prepared | EmttaError:
        return _prepare(domain, audio[domain.name], store, suite.limit)

    failures = {}
    with ThreadPoolExecutor(suite.runtime.prepare_workers) as pool:
        futures = {pool.submit(prepare, domain): domain.name for domain in suite.domains}
        for future in as_completed(futures):
            name, found = futures[future], future.result()
            listener(name, found)
            if isinstance(found, EmttaError):
                failures[name] = str(found)
            elif found.corpus.errors == found.corpus.utterances:
                failures[name] = f"all {found.corpus.utterances} utterances are in error"
    return failures


def _prepare(domain: Domain, audio: Audio, store: Store, limit: int | None) -> Prepared | EmttaError:
    # Prepare a domain, or return why it cannot be prepared; raises StoreError if the store is the cause.
    if audio.error is not None:
        return audio.error
    try:
        return prepare_domain(domain, audio.corpus_id, store, limit)
    except StoreError:  # the other domains would fail for the same reason
        raise
    except EmttaError as error:
        return error
