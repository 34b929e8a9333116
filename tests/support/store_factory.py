"""Small stores for tests: each test chooses the texts of its runs, and so their errors."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from emtta_core.scoring.wer import Transcription, score
from emtta_core.store import CellKey, CellRow, HypothesisRow, PlanRow, RunRow, ScoreRow, StepRow, Store

REFERENCE = "red green blue river"
"""Four words; `with_errors(n)` has n errors against it."""

LANGUAGE = "en"
"""The language of every utterance, and of its normalizer."""

ERROR = "the waveform is silent"


def with_errors(errors: int) -> str:
    """A hypothesis with `errors` substitutions (0 to 4) against `REFERENCE`."""
    return " ".join(["wrong"] * errors + REFERENCE.split()[errors:])


def cell_id_of(domain: str, method: str, seed: int | None = None) -> str:
    """The identity of a planned cell."""
    return f"{domain}.{method}" + ("" if seed is None else f".{seed}")


def begin_run(
    store: Store,
    run_id: str,
    cells: Sequence[tuple[str, str, str] | tuple[str, str, str, int]],
    *,
    utterances: int = 2,
    created_at: datetime = datetime(2026, 11, 23, tzinfo=UTC),
    suite_toml: str = 'name = "test"',
    errors: str = "exclude",
    scorer: str = "whisper",
    corpora: Mapping[str, str] | None = None,
) -> None:
    """Write the plan and the record of a run; `cells` are (group, domain, method), or with a seed as a fourth item.

    The corpus of a domain is `corpus-<domain>`, unless `corpora` names another.
    """
    store.write_plan(
        run_id,
        [
            PlanRow(
                domain=domain,
                group=group,
                method=method,
                seed=seed[0] if seed else None,
                cell_id=cell_id_of(domain, method, *seed),
                corpus_id=(corpora or {}).get(domain, f"corpus-{domain}"),
                recipe_id=f"recipe-{method}",
                utterances=utterances,
                scorer=scorer,
                counts_errors=errors == "delete",
            )
            for group, domain, method, *seed in cells
        ],
    )
    store.write_run(
        run_id,
        RunRow(
            suite="test",
            suite_toml=suite_toml,
            plan_id="0123456789abcdef",
            created_at=created_at,
            model="demo",
            model_digest="d",
            algorithm_version=1,
            versions="{}",
            git_commit=None,
            host="here",
            scorers=(scorer,),
        ),
    )


def write_shard(
    store: Store,
    key: CellKey,
    texts: Mapping[str, Sequence[str] | None],
    *,
    attempt: int = 1,
    shard: int = 0,
    cell_id: str | None = None,
    reference: str = REFERENCE,
    scored: bool = True,
    speaker: str = "s",
    flags: tuple[str, ...] = (),
    seconds: float = 0.1,
    language: str | None = None,
    metadata: str = "{}",
    audio_seconds: float = 2.0,
    scorer: str = "whisper",
    position: int | None = None,
) -> None:
    """Write one shard of an attempt.

    Args:
        store: the store.
        key: the cell.
        texts: by utterance, the greedy hypothesis in each state, the unadapted first; None for an error.
        attempt: the attempt.
        shard: the shard.
        cell_id: by default, the one in the plan.
        reference: the transcript.
        scored: False for an attempt that was stopped between hypotheses and scores.
        speaker: the speaker.
        flags: of each hypothesis.
        seconds: the time that each took.
        language: of each utterance; by default `LANGUAGE`.
        metadata: of each utterance, as JSON.
        audio_seconds: the duration of each utterance.
        scorer: the scorer.
        position: the position of the first utterance in its stream; the others follow.
    """
    cell_id = cell_id or cell_id_of(key.domain, key.method, key.seed)
    language = language or LANGUAGE
    hypotheses, steps, scores = [], [], []
    for number, (utterance_id, states) in enumerate(texts.items()):
        same = {"cell_id": cell_id, "attempt": attempt, "utterance_id": utterance_id}
        hypotheses.append(
            HypothesisRow(
                **same,
                language=language,
                speaker=speaker,
                audio_seconds=audio_seconds,
                metadata=metadata,
                reference=reference,
                hypothesis=states[-1] if states else None,
                source_hypothesis=states[0] if states else None,
                entropy_before=1.0 if states else None,
                entropy_after=0.5 if states else None,
                tokens=5 if states else None,
                seconds=seconds,
                error=None if states else ERROR,
                flags=flags if states else (),
                position=None if position is None else position + number,
            )
        )
        for step, text in enumerate(states or ()):
            steps.append(StepRow(**same, step=step, hypothesis=text, entropy=1.0 - 0.1 * step, tokens=5))
        utterance = Transcription(utterance_id, language, reference, states[-1] if states else None, states or ())
        scores.append(ScoreRow(**same, **score(utterance, utterance.steps, scorer)))
    store.write_steps(key, attempt, shard, steps)
    store.write_hypotheses(key, attempt, shard, hypotheses)
    if scored:
        store.write_scores(key, attempt, shard, scores)


def end_attempt(
    store: Store,
    key: CellKey,
    *,
    group: str,
    attempt: int = 1,
    error: str | None = None,
    reached_end: bool = True,
    state: str | None = None,
) -> None:
    """Write the record of an attempt, which failed if there is an error; a killed one has not `reached_end`."""
    store.write_cell(
        key,
        CellRow(
            cell_id=cell_id_of(key.domain, key.method, key.seed),
            attempt=attempt,
            group=group,
            state=state or ("failed" if error else "complete"),
            planned=2,
            done=2 if reached_end else 0,
            reused=0 if reached_end else 2,
            errors=0,
            error=error,
            started_at=datetime(2026, 11, 23, 1, tzinfo=UTC),
            finished_at=datetime(2026, 11, 23, 2, tzinfo=UTC),
            seconds=3600.0,
            audio_seconds=4.0,
            device="cpu",
            peak_memory_bytes=None,
            host="here",
            batch_size=16,
        ),
    )


def one_run(store: Store, run_id: str, errors: int = 1) -> None:
    """Write a complete run of one cell with two utterances."""
    key = CellKey(run_id, "babble", "source")
    begin_run(store, run_id, [("noise", "babble", "source")])
    write_shard(store, key, {"a": [with_errors(errors)], "b": [with_errors(errors)]}, attempt=store.begin_attempt(key))
    end_attempt(store, key, group="noise")
