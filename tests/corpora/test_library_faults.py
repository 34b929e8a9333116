"""If a library fails on one utterance, only that utterance fails, with a plain reason."""

import logging
from pathlib import Path
from typing import Any

import jiwer
import pytest
import soundfile
from bench import Bench
from conftest import Speech, SuiteFile

from emtta_core.adaptation import paths as engine
from emtta_core.pipeline.plan import corpus_id
from emtta_core.pipeline.preparation import prepare_domain
from emtta_core.scoring import wer
from emtta_core.store import Store
from emtta_core.suite import load_suite

FAULTS = [
    (IndexError("list index out of range"), "list index out of range"),
    (KeyError("cat"), "there is no 'cat'"),
    (ValueError("soundlib.errors.DecodeError: bad block\nmore"), "bad block"),
    (RuntimeError(""), "no reason given"),
    (AssertionError(), "an internal check failed"),
    (ZeroDivisionError("division by zero"), "division by zero"),
]


@pytest.fixture
def bench(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> Bench:
    return Bench(load_suite(str(suite_file())), tmp_path / "store")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


def check(errors: dict[str, str | None], bad: str, stage: str, words: str) -> None:
    """Check that only one utterance is in error, with a reason that names no exception class."""
    assert [name for name, error in errors.items() if error is not None] == [bad]
    reason = str(errors[bad])
    assert reason.startswith(f"it could not be {stage}: {words};")
    assert not [word for word in reason.replace(":", " ").split() if word.endswith(("Error", "Exception"))]


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_preparation_error_is_isolated(
    suite_file: SuiteFile,
    speech: Speech,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
    words: str,
) -> None:
    read = soundfile.SoundFile.read

    def fail(self: Any, *arguments: Any, **options: Any) -> Any:
        frames = read(self, *arguments, **options)
        if round(len(frames) / 16_000, 1) == 0.8:  # good1
            raise fault
        return frames

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    domain = load_suite(str(suite_file())).domains[0]
    done = prepare_domain(domain, corpus_id(domain, None), store)
    check({row.utterance_id: row.error for row in store.read_prepared(done.corpus)}, "good1", "prepared", words)


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_adaptation_error_is_isolated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception, words: str
) -> None:
    prepare = engine.prepare_batch

    def fail(model: Any, waveforms: Any, languages: Any, ids: Any) -> Any:
        if "good1" in ids:
            raise fault
        return prepare(model, waveforms, languages, ids)

    monkeypatch.setattr(engine, "prepare_batch", fail)
    with caplog.at_level(logging.WARNING):
        done = bench.evaluate("em-tok-b")
    check({name: row.error for name, row in done.items()}, "good1", "adapted to", words)
    assert any(record.exc_info for record in caplog.records), "the log has the traceback"


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_scoring_error_is_isolated(bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Exception, words: str) -> None:
    process = jiwer.process_words

    def fail(reference: str, hypothesis: str) -> Any:
        if "quick brown" in reference:
            raise fault
        return process(reference, hypothesis)

    monkeypatch.setattr(jiwer, "process_words", fail)
    wer._by_word.cache_clear()  # another test may have filled it
    bench.evaluate("source")
    done = bench.store.done(bench.key(bench.cells["source"]), bench.cells["source"].cell_id)
    check({name: row.error for name, row in done.items()}, "good1", "scored", words)


def test_system_errors_are_not_caught(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for fault in (ConnectionResetError("gone"), KeyboardInterrupt()):

        def fail(*_: Any, fault: BaseException = fault) -> Any:
            raise fault

        monkeypatch.setattr(engine, "prepare_batch", fail)
        with pytest.raises(type(fault)):
            bench.evaluate("source")
