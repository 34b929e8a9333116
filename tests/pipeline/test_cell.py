"""A cell is computed to the last utterance, a bad utterance affects only itself, and finished work is not repeated."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench import Bench
from conftest import Speech, SuiteFile, tone

from emtta_core.adaptation.episode import Batch, run
from emtta_core.adaptation.methods import Method
from emtta_core.adaptation.options import Options
from emtta_core.errors import StoreError
from emtta_core.model import SpeechModel
from emtta_core.pipeline.events import CellFinished, UtterancesDone
from emtta_core.pipeline.job import InterruptedRunError
from emtta_core.store import CellKey
from emtta_core.store.catalogue import Catalogue
from emtta_core.suite import load_suite


@pytest.fixture
def bench(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> Bench:
    return Bench(load_suite(str(suite_file(methods=("source", "em-tok-b", "em-tok")))), tmp_path / "store")


BAD = {
    "unreadable": (b"RIFF this is no sound", "lost", "unreadable"),
    "empty": (b"", "lost", "empty"),
    "missing": (None, "lost", "missing"),
    "nan": (np.full(8000, np.nan, np.float32), "lost", "not finite"),
    "silence": (np.zeros(8000, np.float32), "lost", "silen"),
    "long": (tone(4.5), "lost", "4.5"),
}


def test_bad_utterance_has_row_with_reason(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    for name, (samples, text, _) in BAD.items():
        speech.add(name, samples, text)
    speech.add("last", tone(0.5), "still here")
    done = Bench(load_suite(str(suite_file())), tmp_path / "store").evaluate("em-tok-b")
    assert set(done) == {"good0", "good1", "good2", "last", *BAD}
    for name, (_, _, words) in BAD.items():
        assert words in str(done[name].error)
        assert done[name].hypothesis is None
    assert all(done[name].error is None for name in ("good0", "good1", "good2", "last"))


def test_unknown_language_fails_alone(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    manifest = "path,text,language\ngood0.wav,one,en\ngood1.wav,jeden,xx\ngood2.wav,three,en\n"
    (speech.path / "manifest.csv").write_text(manifest)
    done = Bench(load_suite(str(suite_file())), tmp_path / "store").evaluate("em-tok-b")
    assert "unknown language 'xx'" in str(done["good1"].error)
    assert [done[name].error for name in ("good0", "good2")] == [None, None]


def test_empty_transcript_is_unscored(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    speech.add("hm", tone(0.5), "... hmm")
    bench = Bench(load_suite(str(suite_file())), tmp_path / "store")
    bench.evaluate("source")
    finished = bench.events[-1]
    assert isinstance(finished, CellFinished)
    assert (finished.utterances, finished.errors) == (4, 1)
    with Catalogue(bench.store) as catalogue:
        where = "WHERE utterance_id = 'hm'"
        ((hypothesis,),) = catalogue.query(f"SELECT hypothesis FROM raw.hypotheses {where}").rows
        ((error, words),) = catalogue.query(f"SELECT error, words FROM raw.scores {where}").rows
        ((shown,),) = catalogue.query(f"SELECT error FROM utterances {where}").rows
    assert "the transcript '... hmm' has no words left after normalization by whisper-english" in error
    assert (shown, words) == (error, None)
    assert hypothesis is not None, "another scorer may score what this one cannot"


def test_every_update_has_step(bench: Bench) -> None:
    bench.evaluate("em-tok-b")
    query = "SELECT utterance_id, count(*) FROM raw.{} GROUP BY ALL ORDER BY ALL"
    with Catalogue(bench.store) as catalogue:
        counts = {table: catalogue.query(query.format(table)).rows for table in ("hypotheses", "scores", "steps")}
        ((errors, last),) = catalogue.query(
            "SELECT step_errors, substitutions + deletions + insertions FROM utterances WHERE utterance_id = 'good0'"
        ).rows
    names = ["good0", "good1", "good2"]
    assert counts["hypotheses"] == counts["scores"] == [(name, 1) for name in names]
    assert counts["steps"] == [(name, 2) for name in names]
    assert len(errors) == 2
    assert errors[-1] == last


def test_resumed_cell_has_same_result(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        bench.evaluate("em-tok", stop_after=1)
    first = dict(bench.done)
    assert len(first) == 2  # one batch
    resumed = bench.evaluate("em-tok")
    assert {name: resumed[name] for name in first} == first
    assert {row.attempt for row in resumed.values()} == {1, 2}
    states = [(row.state, row.done, row.reused) for row in bench.store.cells(bench.key(bench.cells["em-tok"]))]
    assert states == [("interrupted", 2, 0), ("complete", 1, 2)]
    whole = Bench(bench.suite, tmp_path / "undisturbed").evaluate("em-tok")
    assert {name: row.hypothesis for name, row in resumed.items()} == {
        name: row.hypothesis for name, row in whole.items()
    }


def room_for(utterances: int, too_large: str = "") -> Callable[..., Any]:
    """An engine that runs out of memory with more than `utterances` in a batch, or with `too_large` in it."""

    def tight(model: SpeechModel, method: Method, options: Options, batch: Batch, *rest: Any) -> Any:
        if len(batch.ids) > utterances or too_large in batch.ids:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(model, method, options, batch, *rest)

    return tight


def test_late_stop_leaves_cell_complete(bench: Bench) -> None:
    assert len(bench.evaluate("source", stop_after=2)) == 3
    (row,) = bench.store.cells(bench.key(bench.cells["source"]))
    assert (row.state, row.done) == ("complete", 3)


def test_oversized_batch_shrinks(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = bench.evaluate("em-tok")

    monkeypatch.setattr("emtta_core.adaptation.paths.run", room_for(1))
    small = Bench(bench.suite, tmp_path / "small")
    tight = small.evaluate("em-tok")
    assert {name: row.hypothesis for name, row in tight.items()} == {
        name: row.hypothesis for name, row in usual.items()
    }
    (row,) = small.store.cells(small.key(small.cells["em-tok"]))
    assert (row.state, row.done, row.batch_size) == ("complete", 3, 1)


def test_oversized_utterance_fails_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emtta_core.adaptation.paths.run", room_for(3, too_large="good1"))
    rows = bench.evaluate("em-tok")
    assert "out of memory with this utterance" in str(rows["good1"].error)
    assert [rows[name].error for name in ("good0", "good2")] == [None, None]
    (row,) = bench.store.cells(bench.key(bench.cells["em-tok"]))
    assert (row.state, row.done, row.errors) == ("complete", 3, 1)


def test_finished_cell_does_nothing(bench: Bench) -> None:
    done = bench.evaluate("source")
    again = bench.evaluate("source")
    assert again == done
    assert bench.store.cells(bench.key(bench.cells["source"]))[-1].done == 0


def test_earlier_work_keeps_its_score(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.evaluate("source")
    first = bench.events[-1]
    monkeypatch.delattr("emtta_core.pipeline.rows.score")
    bench.evaluate("source")
    again = bench.events[-1]
    assert isinstance(first, CellFinished)
    assert isinstance(again, CellFinished)
    assert (again.wer, again.utterances, again.errors) == (first.wer, first.utterances, first.errors)


def test_concurrent_workers_both_succeed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    begin = bench.store.begin_attempt

    def begin_together(key: CellKey) -> int:
        both.wait(60)
        return begin(key)

    monkeypatch.setattr(bench.store, "begin_attempt", begin_together)
    with ThreadPoolExecutor(2) as pool:
        done = [attempt.result() for attempt in [pool.submit(bench.evaluate, "source") for _ in range(2)]]
    assert done[0].keys() == done[1].keys() == {"good0", "good1", "good2"}
    cells = bench.store.cells(bench.key(bench.cells["source"]))
    assert [(cell.attempt, cell.state) for cell in cells] == [(1, "complete"), (2, "complete")]


def test_progress_reports_shards_and_end(bench: Bench) -> None:
    bench.evaluate("source")
    shards = [event for event in bench.events if isinstance(event, UtterancesDone)]
    finished = bench.events[-1]
    assert sum(shard.utterances for shard in shards) == 3
    assert isinstance(finished, CellFinished)
    assert finished.wer == pytest.approx(
        100 * sum(shard.word_errors for shard in shards) / sum(shard.words for shard in shards)
    )


def test_missing_audio_fails_cell(bench: Bench) -> None:
    corpus = bench.store.prepared(bench.cells["source"].corpus_id)
    assert corpus is not None
    bench.store.backend.remove(corpus.shards[:1])
    with pytest.raises(StoreError, match="not in the store"):
        bench.evaluate("source")
    (row,) = bench.store.cells(bench.key(bench.cells["source"]))
    assert row.state == "failed"
    assert "not in the store" in str(row.error)


def test_attempt_records_resources(bench: Bench) -> None:
    bench.evaluate("source")
    (row,) = bench.store.cells(bench.key(bench.cells["source"]))
    assert (row.state, row.group, row.planned, row.done, row.device) == (
        "complete",
        "clean",
        3,
        3,
        str(bench.model.device),
    )
    assert row.started_at <= row.finished_at
    assert row.audio_seconds == pytest.approx(2.4)
    assert row.peak_memory_bytes is not None
    assert row.peak_memory_bytes > 10_000_000
