"""Each column and file that a user provides is used, refused, or reported as unused."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora_factory import put, sound
from datasets import Audio, ClassLabel, Dataset, DatasetDict

from emtta_core.corpora.folder import Folder
from emtta_core.corpora.saved_dataset import SavedDataset
from emtta_core.errors import AudioError, CorpusError, UsageError


def manifest(folder: Path, text: str, name: str = "manifest.csv") -> Folder:
    put(folder, {"a.flac": sound(1.0), "b.flac": sound(1.0), name: text})
    return Folder(path=str(folder))


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        *((name, "language") for name in ("lang", "Lang", "lang_id", "locale", "language_id", "source-lang", "lid")),
        *((name, "speaker") for name in ("speaker_id", "spk", "client_id")),
        *((name, "id") for name in ("utt_id", "uid", "audio_id")),
    ],
)
def test_synonymous_column_is_questioned(tmp_path: Path, column: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"there is a column '{column}'; should it be '{meant}'"):
        manifest(tmp_path, f"path,text,{column}\na.flac,hello,de\n").count()
    assert manifest(tmp_path, f"path,text,{column},{meant}\na.flac,hello,x,de\n").count().utterances == 1


def test_foreign_columns_are_suggested(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'wav_path'; should it be 'path'"):
        manifest(tmp_path, '{"wav_path": "a.flac", "text": "x"}', "manifest.jsonl").count()


@pytest.mark.parametrize(
    "column", ["begin_time", "start_time", "end_ms", "audio_start", "seg_end", "t0", "start_ms", "channel"]
)
def test_ambiguous_column_is_questioned(tmp_path: Path, column: str) -> None:
    for text, name in (
        (f"path,text,{column}\na.flac,hello,0.5\n", "manifest.csv"),
        (f'{{"path": "a.flac", "text": "x", "{column}": 0.5}}', "manifest.jsonl"),
    ):
        folder = tmp_path / name
        with pytest.raises(UsageError, match=f"a column '{column}'(; a segment .* in seconds|, but .* averaged)"):
            manifest(folder, text, name).count()


def test_other_columns_are_reported(tmp_path: Path) -> None:
    assert manifest(tmp_path, "path,text,age,accent,\na.flac,hello,7,us,\n").count().notes == (
        "columns kept as metadata: accent, age",
    )
    assert manifest(tmp_path / "index", ",path,text\n0,a.flac,hello\n").count().notes == (
        "columns that are not used: one without a name",
    )


@pytest.mark.parametrize("duration", ["00:02", "1.7s", "1;7", "nan", "inf"])
def test_nonnumeric_duration_is_refused(tmp_path: Path, duration: str) -> None:
    with pytest.raises(UsageError, match=f"column 'duration': '{duration}': it must be a number of seconds"):
        manifest(tmp_path, f"path,text,duration\na.flac,x,{duration}").count()


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.jsonl", "manifest.parquet"])
def test_empty_transcript_fails_alone(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        corpus = manifest(tmp_path, "", name)
        pq.write_table(pa.table({"path": ["a.flac", "b.flac"], "text": [None, "x"]}), tmp_path / name)
    elif name.endswith("jsonl"):
        corpus = manifest(tmp_path, '{"path": "a.flac", "text": null}\n{"path": "b.flac", "text": "x"}', name)
    else:
        corpus = manifest(tmp_path, "path,text\na.flac,\nb.flac,x", name)
    first, second = corpus.read_all()
    with pytest.raises(AudioError, match=r"line [12], has an empty text: write the transcript of a.flac there"):
        first.read()
    assert second.text == "x"


@pytest.mark.parametrize(("duration", "fits"), [(1.0, True), (1000, True), (1.3, True), (0.2, False), (12.5, False)])
def test_duration_is_checked_against_file(tmp_path: Path, duration: float, fits: bool) -> None:
    row = f'{{"path": "a.flac", "text": "x", "duration": {duration}}}'
    (utterance,) = manifest(tmp_path, row, "manifest.jsonl").read_all()
    if fits:
        assert utterance.read().size == 16_000
    else:
        with pytest.raises(AudioError, match=f"states a length of {duration:g} s, but it is 1.00 s"):
            utterance.read()


@pytest.mark.parametrize(
    "second", ["a.flac,other,two", "./a.flac,other,two", "link.flac,other,two"], ids=["same", "spelling", "link"]
)
def test_duplicate_recording_is_refused(tmp_path: Path, second: str) -> None:
    corpus = manifest(tmp_path, f"path,text,id\na.flac,hello,one\n{second}\n")
    (tmp_path / "link.flac").symlink_to("a.flac")
    with pytest.raises(UsageError, match=r"line 3, column 'path': .* it is already the recording of line 2"):
        corpus.count()


def test_duplicate_object_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 1: the column 'text' occurs more than once"):
        manifest(tmp_path, '{"path": "a.flac", "text": "x", "text": "y"}', "manifest.jsonl").count()


def test_every_file_is_read_or_reported(tmp_path: Path) -> None:
    foreign = ("webm", "aac", "wma", "amr", "mp4", "m4a")
    put(tmp_path / "c", {f"{kind}.{kind}": b"x" for kind in foreign} | {f"{kind}.txt": "hello" for kind in foreign})
    put(tmp_path / "c", {"u0.flac": sound(0.2), "u0.TXT": "here", "notes.txt": "n", "p.png": b"p", "q.json": b"{}"})
    put(tmp_path / "other", {"u1.flac": sound(0.2), "u1.txt": "there"})
    (tmp_path / "c/linked").symlink_to(tmp_path / "other")
    (tmp_path / "c/loop").symlink_to(tmp_path / "c")
    (tmp_path / "c/again.flac").symlink_to("u0.flac")
    corpus = Folder(path=str(tmp_path / "c"))
    found = {one.id: one for one in corpus.read_all()}
    assert set(found) == {*foreign, "u0", "linked-u1"}
    for name in foreign:
        with pytest.raises(AudioError, match=r"is not audio that can be read .*convert it to FLAC"):
            found[name].read()
    assert found["linked-u1"].read().size == 3_200
    assert corpus.count().notes == (
        "linked to again, and read once: again.flac (the same recording as u0.flac), loop (the same folder as .)",
        "text files without a recording of the same name, and not used: notes.txt",
        "neither recordings nor transcripts by their names, and not used: 1 .png, 1 .json",
    )


def test_hidden_copies_are_reported(tmp_path: Path) -> None:
    put(tmp_path, {"u0.flac": sound(0.2), "u0.txt": "here", "._u0.flac": b"\0\5", "._u0.txt": b"\0\5\xff"})
    put(tmp_path / ".ipynb_checkpoints", {"u0-checkpoint.flac": sound(0.2), "u0-checkpoint.txt": "here"})
    put(tmp_path / "__MACOSX", {"._u0.flac": b"\0\5"})
    corpus = Folder(path=str(tmp_path))
    assert [one.id for one in corpus.read_all()] == ["u0"]
    assert corpus.count().notes == ("hidden, and skipped: ._u0.flac, ._u0.txt, .ipynb_checkpoints and 1 more",)


def test_two_recordings_of_name_are_refused(tmp_path: Path) -> None:
    put(tmp_path, {"u0.flac": sound(0.2), "u0.wav": sound(0.2, form="WAV"), "u0.txt": "here"})
    with pytest.raises(UsageError, match=r"has u0\.flac and u0\.wav, which share a transcript; remove one"):
        Folder(path=str(tmp_path)).count()
    put(tmp_path / "d", {"a/b.flac": sound(0.2), "a/b.txt": "x", "a-b.flac": sound(0.2), "a-b.txt": "y"})
    with pytest.raises(UsageError, match=r"which would both be named 'a-b'; rename one"):
        Folder(path=str(tmp_path / "d")).count()


def saved(folder: Path, **columns: list[Any]) -> Dataset:
    audio = [{"bytes": sound(0.3), "path": f"{index}.flac"} for index in range(2)]
    dataset = Dataset.from_dict({"audio": audio, "text": ["one", "two"], **columns}).cast_column("audio", Audio())
    dataset.save_to_disk(str(folder))
    return dataset


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([{"en": "a", "de": "b"}] * 2, r"struct<.*>"),
        ([["a", "b"]] * 2, "list<"),
        ([1, 0], "int64"),
        ([1.5, 0.5], "double"),
        ([True, False], "bool"),
        ([b"a", b"b"], "binary"),
    ],
)
def test_nontext_column_is_refused(tmp_path: Path, values: list[Any], kind: str) -> None:
    saved(tmp_path / "d", other=values)
    with pytest.raises(UsageError, match=f"the column 'other' .* named as text, contains {kind}.*it must contain text"):
        SavedDataset(path=str(tmp_path / "d"), text="other").count()


def test_class_label_is_not_transcript(tmp_path: Path) -> None:
    saved(tmp_path / "d", label=[0, 1]).cast_column("label", ClassLabel(names=["no", "yes"])).save_to_disk(
        str(tmp_path / "e")
    )
    with pytest.raises(UsageError, match="named as text, contains int64"):
        SavedDataset(path=str(tmp_path / "e"), text="label").count()


def test_declared_language_is_kept(tmp_path: Path) -> None:
    saved(tmp_path / "d", locale=["de", "de"], gender=["f", "m"])
    with pytest.raises(UsageError, match=r"has a column 'locale', which is not read.*set language"):
        SavedDataset(path=str(tmp_path / "d")).count()
    found = SavedDataset(path=str(tmp_path / "d"), language="de").count()
    assert (found.utterances, found.notes) == (2, ("columns kept as metadata: locale, gender",))


def test_only_empty_split_is_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "d")
    whole.select([]).save_to_disk(str(tmp_path / "empty"))
    DatasetDict({"test": whole, "none": whole.select([])}).save_to_disk(str(tmp_path / "both"))
    for corpus in (
        SavedDataset(path=str(tmp_path / "empty")),
        SavedDataset(path=str(tmp_path / "both"), split="none"),
    ):
        assert "has no rows" in str(corpus.availability().error)
        with pytest.raises(UsageError, match="has no rows, perhaps because a filter kept none"):
            corpus.count()
    assert SavedDataset(path=str(tmp_path / "both"), split="test").count().utterances == 2


def test_broken_set_is_explained(tmp_path: Path) -> None:
    saved(tmp_path / "d")
    for path in (tmp_path / "d").glob("*.arrow"):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CorpusError, match="contains no data set that can be read") as refusal:
        SavedDataset(path=str(tmp_path / "d")).count()
    assert "Error" not in str(refusal.value)
