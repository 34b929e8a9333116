"""A limit selects a sample spread over the speakers: always the same one, and contained in that of a larger limit."""

from collections import Counter
from pathlib import Path

import pytest
from conftest import Command, SuiteFile
from corpora_factory import l2arctic_folder, librispeech_folder, librispeech_hub, librispeech_rows
from datasets import Audio, Dataset
from hub_server import Hub

from emtta_core.corpora.folder import Folder
from emtta_core.corpora.l2arctic import SPEAKERS, L2Arctic
from emtta_core.corpora.librispeech import LibriSpeech
from emtta_core.corpora.registry import Corpus
from emtta_core.corpora.saved_dataset import SavedDataset
from emtta_core.corpora.synthetic import Synthetic
from emtta_core.pipeline.run import load_run, plan_run, record
from emtta_core.report import make_page
from emtta_core.store import Store
from emtta_core.suite import load_suite


def downloads(hub: Hub) -> list[str]:
    return [line for line in hub.asked if line.startswith("GET /datasets/") and "bytes=" not in line]


def l2arctic(tmp_path: Path) -> L2Arctic:
    return L2Arctic(accent="hindi", path=str(l2arctic_folder(tmp_path, SPEAKERS["hindi"], sentences=4)))


def librispeech(tmp_path: Path) -> LibriSpeech:
    return LibriSpeech(path=str(librispeech_folder(tmp_path, count=12)))


def manifest(tmp_path: Path) -> Folder:
    lines = [f"{speaker}/{index}.flac,hello,{speaker}" for speaker in ("a", "b", "c") for index in range(5)]
    (tmp_path / "manifest.csv").write_text("path,text,speaker\n" + "\n".join(lines) + "\n")
    return Folder(path=str(tmp_path))


def saved(tmp_path: Path) -> SavedDataset:
    rows = [row | {"speaker_id": str(row["speaker_id"])} for row in librispeech_rows(12)]
    Dataset.from_list(rows).cast_column("audio", Audio()).save_to_disk(str(tmp_path / "mine"))
    return SavedDataset(path=str(tmp_path / "mine"), id="id", speaker="speaker_id")


MAKERS = [l2arctic, librispeech, manifest, saved]
"""One corpus of each kind that knows its speakers."""


def speakers(corpus: Corpus, limit: int) -> Counter[str]:
    return Counter(one.speaker for one in corpus.read_all(limit))


@pytest.mark.parametrize("make", MAKERS)
def test_sample_is_spread_over_speakers(tmp_path: Path, make: type) -> None:
    corpus = make(tmp_path)
    everyone = speakers(corpus, 1000)
    for limit in (2, len(everyone), len(everyone) + 1, 2 * len(everyone)):
        taken = speakers(corpus, limit)
        assert taken.total() == limit
        assert len(taken) == min(limit, len(everyone))
        assert max(taken.values()) - min(taken[one] for one in everyone) <= 1


@pytest.mark.parametrize("make", MAKERS)
def test_larger_limit_keeps_smaller_sample(tmp_path: Path, make: type) -> None:
    corpus = make(tmp_path)
    order = [one.id for one in corpus.read_all()]
    before: set[str] = set()
    for limit in range(1, len(order) + 1):
        taken = [one.id for one in corpus.read_all(limit)]
        assert before < set(taken)
        assert taken == [name for name in order if name in taken]
        assert corpus.count(limit).utterances == len(taken)
        before = set(taken)


def test_sample_is_not_first_sentences(tmp_path: Path) -> None:
    corpus = L2Arctic(accent="hindi", path=str(l2arctic_folder(tmp_path, SPEAKERS["hindi"], sentences=4)))
    assert len({one.id.rpartition("-")[2] for one in corpus.read_all(4)}) > 1


def test_sample_ignores_row_order(tmp_path: Path) -> None:
    corpus = manifest(tmp_path)
    before = {one.id for one in corpus.read_all(7)}
    head, *lines = (tmp_path / "manifest.csv").read_text().splitlines()
    (tmp_path / "manifest.csv").write_text("\n".join([head, *reversed(lines)]) + "\n")
    assert {one.id for one in corpus.read_all(7)} == before


def test_sample_without_speakers_is_random(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,text\n" + "".join(f"{index}.flac,hello\n" for index in range(40)))
    corpus = Folder(path=str(tmp_path))
    assert corpus.count(10).sample == "limit 10: 10 of 40 utterances, at random: no speaker is known"
    assert [one.id for one in corpus.read_all(10)] != [str(index) for index in range(10)]


def test_utterances_field_selects_same_sample(tmp_path: Path) -> None:
    corpus = librispeech(tmp_path)
    few = corpus.model_copy(update={"utterances": 5})
    assert [one.id for one in few.read_all()] == [one.id for one in corpus.read_all(5)]
    assert [one.id for one in few.read_all(3)] == [one.id for one in corpus.read_all(3)]
    assert few.content_digest() != corpus.content_digest()


def test_too_long_utterances_are_replaced(tmp_path: Path) -> None:
    corpus = librispeech(tmp_path).model_copy(update={"max_seconds": 0.85})
    short = {one.id for one in corpus.read_all()}
    assert len(short) == 6
    assert {one.id for one in corpus.read_all(6)} == short
    assert (corpus.count(6).utterances, corpus.count().left_out) == (6, 6)


def test_only_sampled_headers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from emtta_core.corpora import recording

    asked: list[Path] = []
    seconds = recording.length_in_seconds
    monkeypatch.setattr(recording, "length_in_seconds", lambda path: asked.append(path) or seconds(path))
    librispeech(tmp_path).model_copy(update={"max_seconds": 20}).count(3)
    assert len(asked) == 3


def test_hub_sample_equals_folders(tmp_path: Path, hub: Hub) -> None:
    librispeech_hub(hub, librispeech_rows(12))
    for limit in (2, 5, 11):
        assert {one.id for one in LibriSpeech().read_all(limit)} == {
            one.id for one in LibriSpeech(path=str(librispeech_folder(tmp_path, count=12))).read_all(limit)
        }
    assert LibriSpeech().count(5).sample == "limit 5: 5 of 12 utterances, spread over 2 speakers"


def test_counting_on_hub_reads_no_audio(hub: Hub) -> None:
    librispeech_hub(hub, librispeech_rows(40))
    assert LibriSpeech().count(6).utterances == 6
    assert not downloads(hub)
    asked = len(hub.asked)
    assert speakers(LibriSpeech(), 1).total() == 1  # reads its row group, and downloads no file
    assert not downloads(hub)
    assert len(hub.asked) > asked
    assert speakers(LibriSpeech(), 30).total() == 30
    assert len(downloads(hub)) == 2


def test_synthetic_knows_its_speakers() -> None:
    corpus = Synthetic(utterances=12, voices=("de", "de+f1", "de+m3"))
    assert corpus.count(2).sample == "limit 2: 2 of 12 utterances, spread over 2 speakers"
    assert (corpus.count(12).sample, corpus.count().sample) == (None, None)


def test_plan_and_page_describe_sample(emtta: Command, suite_file: SuiteFile, tmp_path: Path) -> None:
    librispeech_folder(tmp_path, count=12)
    domain = '[[domains]]\nname = "{}"\ngroup = "g"\ncorpus = {{ name = "librispeech", path = "LibriSpeech" }}\n'
    file = suite_file(domain.format("one") + domain.format("two"), ("source",))
    notice = "limit 5: 5 of 12 utterances, spread over 2 speakers"
    for verb in ("run", "prepare"):
        done = emtta(verb, file, "--limit", 5, "--store", tmp_path / "store", "--dry-run")
        assert " ".join(done.err.split()).count(notice) == 1
    store, run = Store.open(str(tmp_path / "store"), create=True), plan_run(load_suite(str(file), limit=5), "digest")
    record(run, store)
    assert f"{notice} (domains one, two)" in run.plan.remarks
    assert load_run(store, run.run_id).cells == run.cells
    assert f"{notice} (one, two)." in make_page(store, run.run_id).html
