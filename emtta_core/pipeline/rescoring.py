"""Rescore what a run has stored: with other scorers, another release of one, or corrected references.

Hypotheses stay as they are. The new scores are stored beside those made with the hypotheses, and count in their place
(see the view `utterances`). Scores that would come out the same are kept, so a scoring that was killed resumes where it
stopped.
"""

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise, repeat
from typing import Any, Literal, TypeVar

from emtta_core.errors import StoreError
from emtta_core.pipeline.run_results import finalize_results, has_results
from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.scoring import ScorerError, scorer
from emtta_core.scoring.wer import Transcription, score_all
from emtta_core.store import Catalogue, RescoreRow, Store
from emtta_core.store.lease import Lease, lease

log = logging.getLogger("emtta.pipeline")

SHARD = 50_000
"""Rows per file."""

CHUNK = 1_000
"""Utterances given to a process at once."""

_Result = TypeVar("_Result")

_STATES = """
    SELECT domain, language, normalizer, count(*) AS utterances
    FROM utterances
    WHERE run_id = $run_id
    GROUP BY ALL
    ORDER BY domain
"""

_CORRECTED = """
    SELECT domain, utterance_id, arg_max(reference, scoring)
    FROM raw.rescores
    WHERE run_id = $run_id AND reference IS NOT NULL
    GROUP BY domain, utterance_id
"""

# The rows of an utterance are consecutive, as its hypotheses are often the same.
_OF_DOMAIN = """
    WITH
    decoded AS (
        SELECT method, cell_id, attempt, utterance_id, list(hypothesis ORDER BY step) AS texts
        FROM raw.steps
        WHERE run_id = $run_id AND domain = $domain
        GROUP BY method, cell_id, attempt, utterance_id
    )

    SELECT
        method, cell_id, utterances.attempt, utterance_id, utterances.language, utterances.reference,
        utterances.hypothesis, coalesce(decoded.texts, []), utterances.normalizer
    FROM utterances
    LEFT JOIN decoded USING (method, cell_id, attempt, utterance_id)
    WHERE run_id = $run_id AND domain = $domain
    ORDER BY utterance_id, method
"""

_SCORERS = """
    SELECT DISTINCT scorer FROM (
        SELECT scorer FROM raw.scores WHERE run_id = $run_id
        UNION ALL SELECT scorer FROM raw.rescores WHERE run_id = $run_id
    )
"""

_HYPOTHESES = "SELECT count(*) FROM raw.hypotheses WHERE run_id = $run_id"

Key = tuple[str, str]
"""A domain and one of its utterances."""


@dataclass(slots=True)
class Rescoring:
    """The outcome of a scoring."""

    scored: dict[str, int] = field(default_factory=dict)  # utterances scored, by scorer
    kept: dict[str, int] = field(default_factory=dict)  # utterances already scored in the same way, by scorer


def rescore(
    store: Store,
    run_id: str,
    scorers: Sequence[str] = (),
    *,
    references: Mapping[Key, str] | None = None,
    workers: int = 1,
    held: Lease | None = None,
) -> Rescoring:
    """Rescore a run, compute its statistics, and write its results.

    Args:
        store: the run's store.
        run_id: the run.
        scorers: the scorers; by default those of its suite and all that have scored it.
        references: corrected transcripts by domain and utterance; the others stay as they are.
        workers: number of processes.
        held: the run's lease, if the caller holds it.

    Raises:
        UsageError: there is no such run or scorer.
        ScorerError: a normalizer from another package failed; no score of this scoring is kept.
        StoreError: another process is working on the run, or its files cannot be read or written.
    """
    suite_scorers = store.run(run_id).scorers
    with lease(store, run_id) if held is None else nullcontext():
        with Catalogue(store, runs=[run_id]) as catalogue:
            known = [str(name) for (name,) in catalogue.query(_SCORERS, {"run_id": run_id}).rows]
            found = catalogue.query(_CORRECTED, {"run_id": run_id}).rows
            ((hypotheses,),) = catalogue.query(_HYPOTHESES, {"run_id": run_id}).rows
        corrected = {(str(domain), str(utterance)): str(text) for domain, utterance, text in found}
        corrected |= references or {}
        names = list(scorers) or list(dict.fromkeys([*suite_scorers, *sorted(known)]))
        for name in names:
            scorer(name)
        rescoring = Rescoring()
        writer = _Writer(store, run_id, store.rescorings(run_id) + 1)
        with _pool(min(workers, max(1, hypotheses // CHUNK))) as pool:
            try:
                for name in names:
                    _rescore_by(name, writer, corrected, pool, rescoring)
            except ScorerError:
                store.backend.remove(writer.files)  # a partial scoring is meaningless
                raise
        for name in names:
            update_statistics(store, run_id, name)
    with Catalogue(store, runs=[run_id]) as catalogue:
        finalize_results(catalogue, run_id)
    return rescoring


def finalize_figures(
    store: Store, run_id: str, held: Lease | None = None, show: Callable[[Catalogue], None] | None = None
) -> None:
    """Bring a run's scores, statistics and results up to date with its suite; failures are only logged.

    Args:
        store: the run's store.
        run_id: the run.
        held: the run's lease, if the caller holds it.
        show: called afterwards with a catalogue of the run whose rows are in memory.
    """
    try:
        _retry_once(lambda: _finalize(store, run_id, held, show))
    except Exception:
        text = "the figures of run %s could not be computed; all its rows are stored; compute the figures with: %s"
        log.warning(text, run_id, store.command("rerun", run_id), exc_info=True)


def _retry_once(compute: Callable[[], _Result]) -> _Result:
    # A fault of the store may be temporary; figures are computed from stored rows, so they can be computed again.
    try:
        return compute()
    except StoreError:
        return compute()


def _finalize(store: Store, run_id: str, held: Lease | None, show: Callable[[Catalogue], None] | None) -> None:
    with Catalogue(store, runs=[run_id]) as catalogue:
        catalogue.cache_rows()
        if not _finalize_scores(catalogue, run_id, held) or not has_results(store, run_id):
            finalize_results(catalogue, run_id)
        if show is not None:
            show(catalogue)


def _finalize_scores(catalogue: Catalogue, run_id: str, held: Lease | None) -> bool:
    # Compute missing scores and statistics for each scorer of the suite; return whether the results are up to date.
    store = catalogue.store
    found: dict[str, str] = {}
    for name in store.run(run_id).scorers:
        try:
            found[name] = _retry_once(partial(_finalize_statistics, catalogue, run_id, name))
        except Exception:
            found[name] = "failed"
            text = "the statistics of run %s by %s could not be computed; compute them with: %s"
            log.warning(text, run_id, name, store.command("rerun", run_id), exc_info=True)
    unscored = [name for name, state in found.items() if state == "unscored"]
    if unscored:
        try:
            rescore(store, run_id, unscored, held=held)
            return True  # it has written the results as well
        except Exception as error:
            command = store.command("score", run_id)
            log.warning("run %s could not be scored as its suite says: %s; score it with: %s", run_id, error, command)
    return set(found.values()) == {"settled"}


def _finalize_statistics(catalogue: Catalogue, run_id: str, name: str) -> Literal["settled", "computed", "unscored"]:
    # Compute the statistics for a scorer if they are missing. The catalogue holds the first scorer's rows in memory.
    store = catalogue.store
    is_first = name == store.run(run_id).scorers[0]
    with nullcontext(catalogue) if is_first else Catalogue(store, runs=[run_id], scorer=name) as opened:
        if any(_is_stale(name, language, scored_by) for _, language, scored_by, _ in _states(opened, run_id)):
            return "unscored"
        return "computed" if update_statistics(store, run_id, name, opened) else "settled"


@dataclass(frozen=True, slots=True)
class _Domain:
    """The utterances of a domain to rescore."""

    name: str
    utterances: Sequence[tuple[tuple[str, str, int], Transcription]]  # each with its method, cell identity and attempt
    scores: Iterable[dict[str, Any]]  # one per utterance, in order


class _Writer:
    """Writes scores to the store, many per file."""

    def __init__(self, store: Store, run_id: str, scoring: int) -> None:
        self.store, self.run_id, self.scoring = store, run_id, scoring
        self.files: list[str] = []
        self._rows: list[RescoreRow] = []

    def add(self, domain: _Domain, corrected: Mapping[Key, str]) -> None:
        for ((method, cell_id, attempt), transcription), columns in zip(domain.utterances, domain.scores, strict=True):
            self._rows.append(
                RescoreRow(
                    **columns,
                    domain=domain.name,
                    method=method,
                    cell_id=cell_id,
                    attempt=attempt,
                    utterance_id=transcription.utterance_id,
                    scoring=self.scoring,
                    reference=corrected.get((domain.name, transcription.utterance_id)),
                )
            )
        if len(self._rows) >= SHARD:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self.files.append(self.store.write_rescores(self.run_id, self.scoring, len(self.files), self._rows))
            self._rows = []


def _rescore_by(
    name: str, writer: _Writer, corrected: Mapping[Key, str], pool: Executor | None, rescoring: Rescoring
) -> None:
    with Catalogue(writer.store, runs=[writer.run_id], scorer=name) as catalogue:
        states = _states(catalogue, writer.run_id)
    stale = {domain for domain, language, normalizer, _ in states if _is_stale(name, language, normalizer)}
    stale |= {domain for domain, _ in corrected}
    domains = [domain for domain in dict.fromkeys(state[0] for state in states) if domain in stale]
    rescoring.scored[name] = 0
    # A domain is written once the next has been begun, so that other processes score the next meanwhile.
    for domain, _ in pairwise(chain(_start_scoring(name, writer, domains, corrected, pool), [None])):
        assert domain is not None
        writer.add(domain, corrected)
        rescoring.scored[name] += len(domain.utterances)
    writer.flush()
    rescoring.kept[name] = sum(count for *_, count in states) - rescoring.scored[name]


def _start_scoring(
    name: str, writer: _Writer, domains: Sequence[str], corrected: Mapping[Key, str], pool: Executor | None
) -> Iterator[_Domain]:
    with Catalogue(writer.store, runs=[writer.run_id], scorer=name) as catalogue:
        for domain in domains:
            rows = catalogue.query(_OF_DOMAIN, {"run_id": writer.run_id, "domain": domain}).rows
            catalogue.check_all_read()
            todo = []
            for method, cell_id, attempt, utterance_id, language, reference, hypothesis, steps, normalizer in rows:
                text = corrected.get((domain, utterance_id), reference)
                if text != reference or _is_stale(name, language, normalizer):
                    todo.append(
                        ((method, cell_id, attempt), Transcription(utterance_id, language, text, hypothesis, steps))
                    )
            yield _Domain(domain, todo, _scored([transcription for _, transcription in todo], name, pool))


def _states(catalogue: Catalogue, run_id: str) -> list[tuple[Any, ...]]:
    # The normalizers that scored the utterances of each domain, with the number of utterances.
    return catalogue.query(_STATES, {"run_id": run_id}).rows


def _is_stale(name: str, language: str, normalizer: str | None) -> bool:
    return normalizer != scorer(name).normalizer(language).name


def _pool(workers: int) -> AbstractContextManager[Executor | None]:
    # Processes that import only the scoring code, and so start within a second.
    if workers == 1:
        return nullcontext()
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent, (os.getpid(),))


def _end_with_parent(parent: int) -> None:
    # Otherwise a pool's process would wait for work forever if its parent were killed.
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _scored(utterances: Sequence[Transcription], name: str, pool: Executor | None) -> Iterable[dict[str, Any]]:
    # A pool begins at once; without one, scores are computed as they are requested.
    chunks = [utterances[start : start + CHUNK] for start in range(0, len(utterances), CHUNK)]
    by = repeat(name)
    return chain.from_iterable(map(score_all, chunks, by) if pool is None else pool.map(score_all, chunks, by))
