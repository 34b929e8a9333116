"""Prepare a domain: clean speech, corruption, Parquet shards of FLAC. Made once, and found again by content."""

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
"""Utterances a file: some megabytes, so that a reader holds one in memory."""

log = logging.getLogger("emtta.pipeline")

_locks: dict[str, threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A domain whose audio lies in the store."""

    corpus: PreparedCorpus  # where
    reused: bool  # whether it lay there already
    seconds: float  # wall seconds that this took


def prepare_domain(
    domain: Domain, corpus_id: str, store: Store, limit: int | None = None, *, retry_errors: bool = False
) -> Prepared:
    """Make the audio of a domain, unless the store has it.

    An utterance whose audio cannot be used, or whose transcript is blank, becomes a row with its `error` and costs no
    other. Two domains of the same content are made once, also when they are asked for at the same time.

    Args:
        domain: which.
        corpus_id: its identity, of `emtta_core.pipeline.plan.corpus_id`.
        store: where to.
        limit: at most this many utterances, spread over the speakers.
        retry_errors: make audio anew that is there with utterances in error: their cause may be mended.

    Raises:
        CorpusError: the corpus cannot be had.
        UsageError: the corpus as a whole cannot be read, is another one than when it was planned, or the corruption
            cannot be applied.
        StoreError: the store cannot be written.
    """
    started = time.perf_counter()
    with _locks[f"{store.location}/{corpus_id}"]:
        there = store.prepared(corpus_id)
        if there is not None and not (retry_errors and there.errors):
            return Prepared(there, reused=True, seconds=time.perf_counter() - started)
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
        made = store.finish_prepared(
            corpus_id,
            shards=shards,
            utterances=utterances,
            left_out=left_out,
            errors=len(errors),
            first_error=next(iter(errors), None),
        )
        return Prepared(made, reused=False, seconds=time.perf_counter() - started)


def _refuse_changed(domain: Domain, planned: str, limit: int | None) -> None:
    # Refuse a corpus that is not the one that was planned: what it gave would be kept under a wrong identity.
    if planned.startswith(UNAVAILABLE):
        now = audio_of(domain, limit, content_digest, lambda corpus: corpus.count(limit))
        if now.error is not None:
            raise now.error
        raise UsageError(
            f"the corpus of domain {domain.name!r} was not there when the run was planned, and is now; "
            "a rerun plans the domain anew and goes on"
        )
    if identity_of(domain, limit) != planned:
        raise UsageError(
            f"the corpus of domain {domain.name!r} is not the one that was planned: it, the noise, or emtta has "
            "changed since; a rerun plans the domain anew, as it is now"
        )


def _rows(domain: Domain, limit: int | None) -> Iterator[PreparedRow]:
    for utterance in domain.corpus.read_all(limit):
        try:
            yield _row(utterance, domain.corruption)
        except AudioError as error:
            yield _row_in_error(utterance, domain.corruption, str(error))
        except Exception as error:
            if is_fatal(error) and not isinstance(error, MemoryError):  # of which a recording can ask any amount
                raise
            log.warning("%s: utterance %s could not be prepared", domain.name, utterance.id, exc_info=True)
            yield _row_in_error(utterance, domain.corruption, unexpected("prepared", error))


def _row(utterance: Utterance, corruption: Corruption | None) -> PreparedRow:
    # The row of an utterance; AudioError where its audio cannot be used, or its transcript is blank.
    waveform = utterance.read()  # says of a folder's file more of what is wrong
    if not utterance.text.strip() and not utterance.silence:
        raise AudioError(
            f"its transcript is empty ({utterance.text!r}), so that no word can be compared; get the corpus anew, or "
            "report it to those who publish it"
        )
    if corruption is None:
        (waveform, gain), snr_db = scale_back(waveform), None
    else:
        corrupted = corruption.apply(waveform, utterance.id, lambda count: _murmur(count, corruption.seed))
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
def _murmur(count: int, seed: int) -> Sequence[Waveform]:
    # Clean voices for babble and its like; spoken once a process, for they serve every utterance.
    return voices_for_noise(count, seed)


def _shards(rows: Iterator[PreparedRow]) -> Iterator[list[PreparedRow]]:
    return iter(lambda: list(itertools.islice(rows, SHARD_UTTERANCES)), [])


Listener = Callable[[str, Prepared | EmttaError], None]
"""Is told of each domain by its name: what was prepared, or why nothing was."""


def prepare_all(suite: Suite, store: Store, listener: Listener) -> dict[str, str]:
    """Prepare each domain of a suite, as many at once as its runtime says; one that fails costs no other.

    `listener` gets each domain when it is done.

    Returns:
        Why a domain could not be prepared, or has no utterance that can be used, by its name.

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
    # Prepare a domain, or return why it cannot be; StoreError where the store is why.
    if audio.error is not None:
        return audio.error
    try:
        return prepare_domain(domain, audio.corpus_id, store, limit)
    except StoreError:  # the others would meet the same
        raise
    except EmttaError as error:
        return error
