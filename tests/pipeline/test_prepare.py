"""A domain is prepared once; unusable audio becomes a row with the reason, and affects nothing else."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import CLEAN, Speech, SuiteFile, tone
from corpora_factory import librispeech_hub, librispeech_rows
from hub_server import Hub

from emtta_core.audio.files import read_audio
from emtta_core.errors import UsageError
from emtta_core.pipeline.plan import corpus_id
from emtta_core.pipeline.preparation import SHARD_UTTERANCES, Prepared, prepare_domain
from emtta_core.store import PreparedRow, Store
from emtta_core.suite import Domain, load_suite

NOISY = CLEAN + 'corruption = { name = "noise", kind = "gaussian", snr_db = 10 }\n'


def prepared(path: Path, store: Store, limit: int | None = None) -> Prepared:
    domain = load_suite(str(path)).domains[0]
    return prepare_domain(domain, corpus_id(domain, limit), store, limit)


def rows(done: Prepared, store: Store) -> dict[str, PreparedRow]:
    return {row.utterance_id: row for row in store.read_prepared(done.corpus)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


def test_clean_speech_roundtrips_exactly(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    found = rows(prepared(suite_file(), store), store)
    assert list(found) == ["good0", "good1", "good2"]
    row = found["good1"]
    assert row.audio is not None
    np.testing.assert_allclose(read_audio(row.audio.bytes), read_audio(speech.path / "good1.wav"), atol=1 / 32768)
    assert (row.text, row.language, row.corruption, row.snr_db, row.gain) == (
        "the quick brown fox",
        "en",
        None,
        None,
        1,
    )
    assert row.seconds == pytest.approx(0.8)


def test_noise_is_recorded_with_ratio(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    row = rows(prepared(suite_file(NOISY), store), store)["good0"]
    assert (row.corruption, row.snr_db) == ("noise/gaussian", 10)


def test_second_preparation_reuses_audio(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    first = prepared(suite_file(), store)
    written = store.backend.list("prepared")
    second = prepared(suite_file(), store)
    assert (first.reused, second.reused) == (False, True)
    assert store.backend.list("prepared") == written


def test_truncated_shard_is_redone(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    shard = prepared(suite_file(), store).corpus.shards[0]
    whole = store.backend.read(shard)
    store.backend.write(shard, whole[: len(whole) // 2])
    again = prepared(suite_file(), store)
    assert not again.reused
    assert store.backend.read(shard) == whole


def test_shared_audio_is_prepared_once(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    path = suite_file(NOISY)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: prepared(path, store), range(4)))
    assert sorted(each.reused for each in found) == [False, True, True, True]


def test_unreadable_audio_is_error_row(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    speech.add("unreadable", b"RIFF this is no sound", "lost")
    speech.add("empty", b"", "lost")
    speech.add("missing", None, "lost")
    speech.add("nan", np.full(8000, np.nan, np.float32), "lost")
    speech.add("last", tone(0.5), "still here")
    found = rows(prepared(suite_file(), store), store)
    errors = {name: row.error for name, row in found.items() if row.error is not None}
    assert set(errors) == {"unreadable", "empty", "missing", "nan"}
    assert all(name in str(error) for name, error in errors.items())
    assert all(found[name].audio is None for name in errors)
    assert found["last"].audio is not None


@pytest.mark.parametrize("text", ["", "   ", '"\n"'])
def test_blank_transcript_is_located(suite_file: SuiteFile, speech: Speech, store: Store, text: str) -> None:
    speech.add("blank", tone(0.5), text)
    done = prepared(suite_file(), store)
    errors = {name: row.error for name, row in rows(done, store).items() if row.error is not None}
    assert set(errors) == {"blank"}
    assert f"{speech.path / 'manifest.csv'}, line " in str(errors["blank"])
    assert "has an empty text: write the transcript of blank.wav there, or remove" in str(errors["blank"])
    assert done.corpus.errors == 1


def test_empty_transcript_file_is_named(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    (speech.path / "manifest.csv").unlink()
    for name, text in (("good0", "\ufeff \n"), ("good1", "here"), ("good2", "there")):
        (speech.path / f"{name}.txt").write_text(text, encoding="utf-8")
    found = rows(prepared(suite_file(), store), store)
    assert f"{speech.path / 'good0.txt'} is empty: write the transcript of good0.wav there" in str(found["good0"].error)
    assert [found[name].error for name in ("good1", "good2")] == [None, None]


def test_published_blank_text_is_error(suite_file: SuiteFile, store: Store, hub: Hub) -> None:
    blank, *others = librispeech_rows(3)
    librispeech_hub(hub, [blank | {"text": None}, *others])
    found = rows(prepared(suite_file(CLEAN.replace('"folder", path = "speech"', '"librispeech"')), store), store)
    assert [name for name, row in found.items() if row.error is not None] == [blank["id"]]
    assert str(found[blank["id"]].error).startswith("its transcript is empty")


def test_noise_on_silence_is_error(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    speech.add("silence", np.zeros(8000, np.float32), "nothing")
    row = rows(prepared(suite_file(NOISY), store), store)["silence"]
    assert "silent" in str(row.error)


def test_loud_speech_is_rescaled(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    speech.add("loud", tone(0.5, peak=2.0), "loud")
    row = rows(prepared(suite_file(), store), store)["loud"]
    assert row.audio is not None
    assert row.gain == pytest.approx(0.5, abs=0.01)
    assert np.abs(read_audio(row.audio.bytes)).max() == pytest.approx(1, abs=1e-3)


def test_changed_corpus_is_refused(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    domain = load_suite(str(suite_file())).domains[0]
    planned = corpus_id(domain, None)
    speech.add("new", tone(0.7), "one more")
    with pytest.raises(UsageError, match="the corpus of domain 'clean' is not the one that was planned"):
        prepare_domain(domain, planned, store)
    assert not store.backend.list("prepared")


def test_smaller_limit_is_subset(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    one, two = (set(rows(prepared(suite_file(), store, limit=count), store)) for count in (1, 2))
    assert one < two < set(rows(prepared(suite_file(), store), store))


def test_long_corpus_is_sharded(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    for index in range(SHARD_UTTERANCES):
        speech.add(f"more{index}", tone(0.05), "more")
    done = prepared(suite_file(), store)
    assert len(done.corpus.shards) == 2
    assert done.corpus.utterances == len(rows(done, store)) == SHARD_UTTERANCES + 3


def test_synthetic_domain_is_reproducible(suite_file: SuiteFile, tmp_path: Path) -> None:
    path = suite_file(
        NOISY.replace('"folder", path = "speech"', '"synthetic", utterances = 2').replace("gaussian", "babble")
    )
    stores = [Store.open(tmp_path / name, create=True) for name in ("one", "two")]
    first, second = (rows(prepared(path, store), store) for store in stores)
    assert first == second


def test_domain_roundtrips_through_json(suite_file: SuiteFile) -> None:
    domain = load_suite(str(suite_file(NOISY))).domains[0]
    assert Domain.model_validate_json(domain.model_dump_json()) == domain
