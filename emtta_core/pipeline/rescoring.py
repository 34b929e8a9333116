"""Score again what a run has stored: by other scorers, by another release of one, with corrected references.

Hypotheses stay as they are. The scores made anew lie beside those that were made with the hypotheses, and count in
their place (see the view `utterances`). What is scored already as it would be now is left alone, so that a scoring that
was killed goes on where it stopped.
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
from emtta_core.pipeline.run_results import has_results, settle_results
from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.scoring import ScorerError, scorer
from emtta_core.scoring.wer import Heard, score_all
from emtta_core.store import Catalogue, RescoreRow, Store
from emtta_core.store.lease import Lease, lease

log = logging.getLogger("emtta.pipeline")

SHARD = 50_000
"""Rows of a file."""

CHUNK = 1_000
"""Utterances that a process is given at once."""

_Answer = TypeVar("_Answer")

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

# An utterance's rows come one after another, for the methods often hear the same.
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
"""A domain and an utterance of it."""


@dataclass(slots=True)
class Rescoring:
    """What a scoring did."""

    scored: dict[str, int] = field(default_factory=dict)  # utterances that were scored, by scorer
    kept: dict[str, int] = field(default_factory=dict)  # utterances that had been scored in the same way, by scorer


def rescore(
    store: Store,
    run_id: str,
    scorers: Sequence[str] = (),
    *,
    references: Mapping[Key, str] | None = None,
    workers: int = 1,
    held: Lease | None = None,
) -> Rescoring:
    """Score a run again, compute its statistics, and write its results.

    Args:
        store: the run's.
        run_id: the run.
        scorers: by which; by default those of its suite, and all by which it has been scored.
        references: corrected transcripts by domain and utterance; the others stay as they are.
        workers: processes.
        held: the run's lease, where the caller has it.

    Raises:
        UsageError: there is no such run or scorer.
        ScorerError: a normalizer of another package failed; no score of this scoring is kept.
        StoreError: another process works on the run, or its files cannot be read or written.
    """
    suite_scorers = store.run(run_id).scorers
    with lease(store, run_id) if held is None else nullcontext():
        with Catalogue(store, runs=[run_id]) as catalogue:
            known = [str(name) for (name,) in catalogue.query(_SCORERS, {"run_id": run_id}).rows]
            found = catalogue.query(_CORRECTED, {"run_id": run_id}).rows
            ((hypotheses,),) = catalogue.query(_HYPOTHESES, {"run_id": run_id}).rows
        corrected = {(str(domain), str(utterance)): str(text) for domain, utterance, text in found}
        corrected |= references or {}
        wanted = list(scorers) or list(dict.fromkeys([*suite_scorers, *sorted(known)]))
        for name in wanted:
            scorer(name)
        made = Rescoring()
        writer = _Writer(store, run_id, store.rescorings(run_id) + 1)
        with _pool(min(workers, max(1, hypotheses // CHUNK))) as pool:
            try:
                for name in wanted:
                    _rescore_by(name, writer, corrected, pool, made)
            except ScorerError:
                store.backend.remove(writer.files)  # half of a scoring says nothing
                raise
        for name in wanted:
            update_statistics(store, run_id, name)
    with Catalogue(store, runs=[run_id]) as catalogue:
        settle_results(catalogue, run_id)
    return made


def settle_figures(
    store: Store, run_id: str, held: Lease | None = None, show: Callable[[Catalogue], None] | None = None
) -> None:
    """See that a run is scored as its suite says, with its statistics and results; what fails twice is logged alone.

    Args:
        store: the run's.
        run_id: the run.
        held: the run's lease, where the caller has it.
        show: is given a catalogue of the run afterwards, whose rows are in memory.
    """
    try:
        _tried_twice(lambda: _settle(store, run_id, held, show))
    except Exception:
        text = "the figures of run %s could not be computed; its rows are all there; compute them with: %s"
        log.warning(text, run_id, store.command("rerun", run_id), exc_info=True)


def _tried_twice(compute: Callable[[], _Answer]) -> _Answer:
    # A fault of the store may pass, and all figures are computed from its rows, which can be read once more.
    try:
        return compute()
    except StoreError:
        return compute()


def _settle(store: Store, run_id: str, held: Lease | None, show: Callable[[Catalogue], None] | None) -> None:
    with Catalogue(store, runs=[run_id]) as catalogue:
        catalogue.cache_rows()
        if not _settle_scores(catalogue, run_id, held) or not has_results(store, run_id):
            settle_results(catalogue, run_id)
        if show is not None:
            show(catalogue)


def _settle_scores(catalogue: Catalogue, run_id: str, held: Lease | None) -> bool:
    # See that the scores and statistics by each scorer of the suite are there; whether the results tell them already.
    store = catalogue.store
    found: dict[str, str] = {}
    for name in store.run(run_id).scorers:
        try:
            found[name] = _tried_twice(partial(_settle_statistics, catalogue, run_id, name))
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
            again = store.command("score", run_id)
            log.warning("run %s could not be scored as its suite says: %s; score it with: %s", run_id, error, again)
    return set(found.values()) == {"settled"}


def _settle_statistics(catalogue: Catalogue, run_id: str, name: str) -> Literal["settled", "computed", "unscored"]:
    # See that the statistics by a scorer are there. The catalogue has the rows by the first scorer in memory.
    store = catalogue.store
    is_first = name == store.run(run_id).scorers[0]
    with nullcontext(catalogue) if is_first else Catalogue(store, runs=[run_id], scorer=name) as opened:
        if any(_is_stale(name, language, scored_by) for _, language, scored_by, _ in _states(opened, run_id)):
            return "unscored"
        return "computed" if update_statistics(store, run_id, name, opened) else "settled"


@dataclass(frozen=True, slots=True)
class _Domain:
    """The utterances of a domain that are scored anew."""

    name: str
    utterances: Sequence[tuple[tuple[str, str, int], Heard]]  # each with its method, its cell's identity, its attempt
    scores: Iterable[dict[str, Any]]  # of each, in order


class _Writer:
    """Writes scores to the store, many to a file."""

    def __init__(self, store: Store, run_id: str, scoring: int) -> None:
        self.store, self.run_id, self.scoring = store, run_id, scoring
        self.files: list[str] = []
        self._rows: list[RescoreRow] = []

    def add(self, domain: _Domain, corrected: Mapping[Key, str]) -> None:
        for ((method, cell_id, attempt), heard), columns in zip(domain.utterances, domain.scores, strict=True):
            self._rows.append(
                RescoreRow(
                    **columns,
                    domain=domain.name,
                    method=method,
                    cell_id=cell_id,
                    attempt=attempt,
                    utterance_id=heard.utterance_id,
                    scoring=self.scoring,
                    reference=corrected.get((domain.name, heard.utterance_id)),
                )
            )
        if len(self._rows) >= SHARD:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self.files.append(self.store.write_rescores(self.run_id, self.scoring, len(self.files), self._rows))
            self._rows = []


def _rescore_by(
    name: str, writer: _Writer, corrected: Mapping[Key, str], pool: Executor | None, made: Rescoring
) -> None:
    with Catalogue(writer.store, runs=[writer.run_id], scorer=name) as catalogue:
        states = _states(catalogue, writer.run_id)
    stale = {domain for domain, language, normalizer, _ in states if _is_stale(name, language, normalizer)}
    stale |= {domain for domain, _ in corrected}
    domains = [domain for domain in dict.fromkeys(state[0] for state in states) if domain in stale]
    made.scored[name] = 0
    # A pair is there when its second has been begun: other processes score that one while the first is written.
    for domain, _ in pairwise(chain(_begun(name, writer, domains, corrected, pool), [None])):
        assert domain is not None
        writer.add(domain, corrected)
        made.scored[name] += len(domain.utterances)
    writer.flush()
    made.kept[name] = sum(count for *_, count in states) - made.scored[name]


def _begun(
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
                    todo.append(((method, cell_id, attempt), Heard(utterance_id, language, text, hypothesis, steps)))
            yield _Domain(domain, todo, _scored([heard for _, heard in todo], name, pool))


def _states(catalogue: Catalogue, run_id: str) -> list[tuple[Any, ...]]:
    # By whom the utterances of each domain are scored, with their number.
    return catalogue.query(_STATES, {"run_id": run_id}).rows


def _is_stale(name: str, language: str, normalizer: str | None) -> bool:
    return normalizer != scorer(name).normalizer(language).name


def _pool(workers: int) -> AbstractContextManager[Executor | None]:
    # Processes that know scoring alone, and so begin within a second.
    if workers == 1:
        return nullcontext()
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent, (os.getpid(),))


def _end_with_parent(parent: int) -> None:
    # A pool's process would wait for work for ever if its parent were killed.
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _scored(utterances: Sequence[Heard], name: str, pool: Executor | None) -> Iterable[dict[str, Any]]:
    # Processes begin at once; this one does nothing before the scores are asked for.
    chunks = [utterances[start : start + CHUNK] for start in range(0, len(utterances), CHUNK)]
    by = repeat(name)
    return chain.from_iterable(map(score_all, chunks, by) if pool is None else pool.map(score_all, chunks, by))
