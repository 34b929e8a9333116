"""The published corpora in the layouts in which they are given out; and a run goes on without one that is not there."""

import shutil
from pathlib import Path

import pytest
from conftest import Command, SuiteFile
from corpora_factory import librispeech_folder, librispeech_hub, librispeech_rows
from hub_server import Hub

from emtta_core.corpora.librispeech import LibriSpeech
from emtta_core.errors import AudioError, CorpusError

LIBRISPEECH = '[[domains]]\nname = "{}"\ngroup = "clean"\ncorpus = {{ name = "librispeech", {} }}\n'


def test_librispeech_is_read_from_its_folder_as_from_the_hub(tmp_path: Path, hub: Hub) -> None:
    librispeech_hub(hub)
    root = librispeech_folder(tmp_path)
    (root / "test-other" / "README.TXT").write_text("not a speaker")
    here, there = list(LibriSpeech(path=str(root)).read_all()), list(LibriSpeech().read_all())
    fields = [(one.id, one.text, one.language, one.speaker, one.read().size) for one in here]
    assert sorted(fields) == sorted((one.id, one.text, one.language, one.speaker, one.read().size) for one in there)
    assert [one.speaker for one in here] == ["1688"] * 3 + ["367"] * 3


@pytest.mark.parametrize("below", ["", "LibriSpeech", "LibriSpeech/test-other"])
def test_a_path_may_name_the_corpus_the_split_or_what_they_lie_in(tmp_path: Path, below: str) -> None:
    librispeech_folder(tmp_path)
    assert len(list(LibriSpeech(path=str(tmp_path / below)).read_all())) == 6


def test_a_shelf_is_looked_at_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    librispeech_hub(hub)
    librispeech_folder(tmp_path / "b", count=4)
    monkeypatch.setenv("EMTTA_CORPORA", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    settled = LibriSpeech().located()
    assert settled.path == str(tmp_path / "b" / "LibriSpeech" / "test-other")
    assert (settled.survey().utterances, hub.asked) == (4, [])
    assert LibriSpeech(split="test-clean").located().path is None


def test_a_missing_folder_says_where_the_corpus_is_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"LibriSpeech test-other is not in .*openslr\.org/12 and extract it"):
        LibriSpeech(path=str(tmp_path)).survey()


def test_a_folder_that_moved_is_the_same_corpus_and_a_changed_sample_another(tmp_path: Path) -> None:
    root = librispeech_folder(tmp_path / "one")
    moved = shutil.copytree(root, tmp_path / "two" / "LibriSpeech")
    before = LibriSpeech(path=str(root)).content_digest()
    assert LibriSpeech(path=str(moved)).content_digest() == before
    next(moved.rglob("*.flac")).write_bytes(librispeech_rows()[5]["audio"]["bytes"])
    assert LibriSpeech(path=str(moved)).content_digest() != before


def test_an_empty_split_and_transcripts_without_text_are_refused(tmp_path: Path) -> None:
    root = librispeech_folder(tmp_path)
    (root / "dev-clean").mkdir()
    with pytest.raises(CorpusError, match=r"dev-clean has no transcript .* the split is empty"):
        LibriSpeech(path=str(root), split="dev-clean").survey()
    transcript = next(root.rglob("*.trans.txt"))
    transcript.write_text("1688-142285-0000\n")
    with pytest.raises(CorpusError, match=r"trans\.txt have '1688-142285-0000' as line 1, with no text"):
        LibriSpeech(path=str(root)).survey()


def test_a_missing_transcript_and_a_missing_file_cost_their_own_utterance_alone(tmp_path: Path) -> None:
    root = librispeech_folder(tmp_path)
    transcript = root / "test-other/1688/142285/1688-142285.trans.txt"
    transcript.write_text("\n".join(transcript.read_text().splitlines()[1:]) + "\n")
    (root / "test-other/1688/142285/1688-142285-0002.flac").unlink()
    found = list(LibriSpeech(path=str(root), max_seconds=20).read_all())
    assert len(found) == 6
    with pytest.raises(AudioError, match="has no transcript of 1688-142285-0000"):
        found[0].read()
    with pytest.raises(AudioError, match=r"1688-142285-0002\.flac: cannot be read"):
        found[2].read()
    assert found[1].read().size


def test_a_run_takes_a_corpus_from_the_hub_and_from_a_folder_and_goes_on_without_the_third(
    tmp_path: Path,
    hub: Hub,
    suite_file: SuiteFile,
    emtta: Command,
    monkeypatch: pytest.MonkeyPatch,
    prefect_server: str,
) -> None:
    commit = librispeech_hub(hub)
    librispeech_folder(tmp_path, count=3)
    domains = [
        LIBRISPEECH.format("hub", "max_seconds = 0.55"),
        LIBRISPEECH.format("folder", 'path = "LibriSpeech"'),
        LIBRISPEECH.format("gone", 'path = "elsewhere"'),
    ]
    suite, store = suite_file("".join(domains), methods=("source",)), tmp_path / "store"
    ended = emtta("run", suite, "--store", store, "--run-id", "r")
    assert ended.code == 3
    assert "domain gone cannot be prepared: LibriSpeech test-other is not in" in ended.err
    assert "domain hub: 3 utterances are longer than max_seconds and are left out" in ended.err
    query = "select domain, state, done from cells order by domain"
    assert emtta("sql", query, "--store", store, "--format", "csv").out.split() == [
        "domain,state,done",
        "folder,complete,3",
        "gone,failed,0",
        "hub,complete,3",
    ]
    recorded = emtta("sql", "select suite_toml from runs", "--store", store, "--format", "csv").out
    assert commit in recorded
    hub.status = 503
    again = emtta("rerun", "r", "--store", store)
    assert (again.code, "gone" in again.err) == (3, True)
    complete = emtta("run", suite, "--store", store, "--run-id", "r", "--only", "domain=hub", "--only", "domain=folder")
    assert (complete.code, "nothing to do" in complete.err) == (0, True)
