"""Data sets by column names: any on the hub, and any that `datasets` saved to a folder."""

from pathlib import Path
from typing import Any

import pytest
from conftest import Command, SuiteFile
from corpora_factory import librispeech_hub, librispeech_rows, sound
from datasets import Audio, Dataset, DatasetDict
from hub_server import Hub

from emtta_core.corpora.base import Count, Utterance
from emtta_core.corpora.hub_dataset import HubDataset
from emtta_core.corpora.saved_dataset import SavedDataset
from emtta_core.errors import AudioError, CorpusError, UsageError

MINE = {"repository": "openslr/librispeech_asr", "config": "all", "split": "test.other"}


def rows(count: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "sound": {"bytes": sound(0.3 + 0.1 * index), "path": f"call {index}.flac"},
            "sentence": f"hello number {index}",
            "who": 7 + index,
        }
        for index in range(count)
    ]


def saved(folder: Path, content: list[dict[str, Any]], split: str | None = "test") -> SavedDataset:
    dataset = Dataset.from_list(content).cast_column("sound", Audio())
    whole = dataset if split is None else DatasetDict({split: dataset, "train": dataset.select([0])})
    whole.save_to_disk(str(folder))
    return SavedDataset(path=str(folder), split=split, audio="sound", text="sentence", speaker="who")


def summaries(utterances: list[Utterance]) -> list[tuple[str, str, str, str, int]]:
    return [(one.id, one.text, one.language, one.speaker, one.read().size) for one in utterances]


@pytest.mark.parametrize("split", ["test", None])
def test_saved_set_keeps_row_order(tmp_path: Path, split: str | None) -> None:
    corpus = saved(tmp_path / "mine", rows(), split)
    found = summaries(list(corpus.read_all()))
    assert [one[1:] for one in found] == [
        (f"hello number {index}", "en", str(7 + index), 4_800 + 1_600 * index) for index in range(3)
    ]
    assert [one[0].rpartition("-")[0] for one in found] == ["call_0", "call_1", "call_2"]
    assert (corpus.count().utterances, corpus.count(2).utterances, corpus.availability().state) == (3, 2, "here")


def test_long_utterances_are_counted(tmp_path: Path) -> None:
    corpus = saved(tmp_path / "mine", rows()).model_copy(update={"max_seconds": 0.45})
    assert corpus.count() == Count(2, 1)
    assert len(list(corpus.read_all())) == 2


def test_row_without_audio_is_error(tmp_path: Path) -> None:
    corpus = saved(tmp_path / "mine", [*rows(1), {"sound": None, "sentence": "nothing", "who": 1}])
    good, silent = corpus.read_all()
    assert good.read().size == 4_800
    with pytest.raises(AudioError, match="its row has no audio"):
        silent.read()


def test_identity_is_rows_not_location(tmp_path: Path) -> None:
    first = saved(tmp_path / "a", rows())
    (tmp_path / "a").rename(tmp_path / "b")
    moved = first.model_copy(update={"path": str(tmp_path / "b")})
    assert moved.content_digest() == saved(tmp_path / "c", rows()).content_digest()
    assert moved.identity() == first.identity()
    assert saved(tmp_path / "d", rows(2)).content_digest() != moved.content_digest()


@pytest.mark.parametrize(
    ("change", "refusal", "message"),
    [
        ({"path": "nowhere"}, CorpusError, "'nowhere' contains no data set that can be read"),
        ({"split": "dev"}, UsageError, "there is no split 'dev'; name one of test, train as split"),
        ({"split": None}, UsageError, "no split was named; name one of test, train as split"),
        ({"text": "txt"}, UsageError, "has no column txt; its columns are sound, sentence, who"),
        ({"audio": "who"}, UsageError, "the column 'who' of the data set .* is not audio but"),
    ],
)
def test_mistake_lists_choices(tmp_path: Path, change: dict[str, Any], refusal: type[Exception], message: str) -> None:
    corpus = saved(tmp_path / "mine", rows()).model_copy(update=change)
    with pytest.raises(refusal, match=message):
        corpus.count()
    assert corpus.availability().state == "missing"


def test_split_of_unsplit_set_is_refused(tmp_path: Path) -> None:
    corpus = saved(tmp_path / "mine", rows(), None).model_copy(update={"split": "test"})
    with pytest.raises(UsageError, match="there is no split 'test'; it has none: omit split"):
        corpus.count()


def test_hub_set_is_read_by_columns(hub: Hub) -> None:
    commit = librispeech_hub(hub)
    corpus = HubDataset(**MINE, id="id", speaker="speaker_id")
    assert [one[:4] for one in summaries(list(corpus.read_all()))] == [
        (row["id"], row["text"], "en", str(row["speaker_id"])) for row in librispeech_rows()
    ]
    assert corpus.located().revision == commit
    assert (corpus.count().utterances, corpus.availability().state) == (6, "here")


def test_missing_column_lists_existing(hub: Hub) -> None:
    librispeech_hub(hub)
    with pytest.raises(CorpusError, match=r"has no column who, only file, audio, text, speaker_id.*name one of these"):
        list(HubDataset(**MINE, speaker="who").read_all())
    with pytest.raises(UsageError, match=r"has no split 'dev' of 'all' in Parquet; choose from: all: test\.clean"):
        HubDataset(**MINE | {"split": "dev"}).count()


def test_suite_runs_on_folder_and_hub(
    tmp_path: Path, hub: Hub, suite_file: SuiteFile, emtta: Command, prefect_server: str
) -> None:
    librispeech_hub(hub)
    saved(tmp_path / "mine", rows())
    domains = """
    [[domains]]
    name = "folder"
    group = "g"
    corpus = { name = "saved-dataset", path = "mine", split = "test", audio = "sound", text = "sentence" }
    [[domains]]
    name = "hub"
    group = "g"
    corpus = { name = "hub-dataset", repository = "openslr/librispeech_asr", config = "all", split = "test.other" }
    """
    store = tmp_path / "store"
    ended = emtta("run", suite_file(domains, methods=("source",)), "--store", store)
    assert ended.code == 0, ended.err
    query = "select domain, state, done from cells order by domain"
    assert emtta("sql", query, "--store", store, "--format", "csv").out.split()[1:] == [
        "folder,complete,3",
        "hub,complete,6",
    ]
