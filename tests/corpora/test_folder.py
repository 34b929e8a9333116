"""A folder with audio and a manifest is a corpus; errors give the file, line and column."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora_factory import put, sound
from pydantic import TypeAdapter, ValidationError

from emtta_core.audio.files import encode_flac
from emtta_core.corpora.base import Count
from emtta_core.corpora.folder import Folder
from emtta_core.corpora.registry import Corpus
from emtta_core.corpora.synthetic import Synthetic
from emtta_core.errors import AudioError, UsageError
from emtta_core.identity import digest


def write_audio(path: Path, seconds: float = 0.1, level: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_flac(level * np.sin(np.arange(int(16_000 * seconds)) * 0.3)))


def folder(tmp_path: Path, manifest: str, name: str = "manifest.csv", **settings: object) -> Folder:
    (tmp_path / name).write_text(manifest, encoding="utf-8")
    return Folder.model_validate({"path": str(tmp_path), "manifest": name, **settings})


@pytest.fixture
def corpus(tmp_path: Path) -> Folder:
    for path in ("anna/01.flac", "anna/02.flac", "ben/01.flac"):
        write_audio(tmp_path / path)
    return folder(
        tmp_path,
        "path,text,speaker,language,town\n"
        'anna/01.flac,"Well, here we are.",anna,,Ulm\n'
        "anna/02.flac,Dzień dobry,anna,pl,Kiel\n"
        "\n"
        "ben/01.flac,Hello there,,,\n",
    )


def test_manifest_order_is_kept(corpus: Folder) -> None:
    utterances = list(corpus.read_all())
    assert [(u.id, u.text, u.language, u.speaker) for u in utterances] == [
        ("anna-01", "Well, here we are.", "en", "anna"),
        ("anna-02", "Dzień dobry", "pl", "anna"),
        ("ben-01", "Hello there", "en", ""),
    ]
    assert all(u.read().shape == (1_600,) for u in utterances)


def test_json_lines_are_same_corpus(corpus: Folder) -> None:
    root = Path(corpus.path)
    rows = [
        {"path": "anna/01.flac", "text": "Well, here we are.", "speaker": "anna", "town": "Ulm"},
        {"path": "anna/02.flac", "text": "Dzień dobry", "speaker": "anna", "language": "pl", "town": "Kiel"},
        {"path": "ben/01.flac", "text": "Hello there", "speaker": None},
    ]
    twin = folder(root, "\n".join(json.dumps(row) for row in rows) + "\n\n", "rows.jsonl")
    assert twin.content_digest() == corpus.content_digest()
    assert digest(twin) == digest(corpus)


def test_bom_and_crlf_are_harmless(corpus: Folder) -> None:
    manifest = Path(corpus.path) / "manifest.csv"
    before = corpus.content_digest()
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes().replace(b"\n", b"\r\n"))
    assert corpus.content_digest() == before


def test_utterances_can_be_limited(corpus: Folder) -> None:
    two = Folder(path=corpus.path, utterances=2)
    assert [u.speaker for u in two.read_all()] == ["anna", ""]
    assert two.content_digest() != corpus.content_digest()


def test_ids_are_unique_and_safe(tmp_path: Path) -> None:
    manifest = (
        "path,text,id\nä.wav,one,\nö.wav,two,\na b.wav,three,\nplain.tar.wav,four,\nabs/x.wav,five,\nz.wav,six,my-6\n"
    )
    ids = [u.id for u in folder(tmp_path, manifest).read_all()]
    assert len(set(ids)) == 6
    assert ids[3:] == ["plain.tar", "abs-x", "my-6"]
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-") for name in ids)


def test_moved_folder_is_same_corpus(corpus: Folder, tmp_path: Path) -> None:
    moved = shutil.copytree(corpus.path, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("elsewhere"))
    there = Folder(path=str(moved))
    assert there.content_digest() == corpus.content_digest()
    assert digest(there) == digest(corpus)


def test_other_content_is_other_corpus(corpus: Folder) -> None:
    root = Path(corpus.path)
    seen = [corpus.content_digest()]
    write_audio(root / "ben/01.flac", level=0.4)
    seen.append(corpus.content_digest())
    (root / "ben/01.flac").unlink()
    seen.append(corpus.content_digest())
    manifest = root / "manifest.csv"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("Hello", "Hullo"), encoding="utf-8")
    seen.append(corpus.content_digest())
    assert len(set(seen)) == 4


def test_bad_audio_fails_alone(corpus: Folder) -> None:
    root = Path(corpus.path)
    (root / "anna/01.flac").unlink()
    (root / "anna/02.flac").write_text("only the transcript")
    first, second, third = corpus.read_all()
    with pytest.raises(AudioError, match=r"anna/01\.flac: cannot be read: No such file"):
        first.read()
    with pytest.raises(AudioError, match=r"anna/02\.flac: is not audio"):
        second.read()
    assert third.read().size == 1_600


@pytest.mark.parametrize(
    ("name", "manifest", "message"),
    [
        ("m.csv", "", r"m\.csv has no rows"),
        ("m.csv", "path,text\n", r"m\.csv has no rows"),
        (
            "m.csv",
            "path;text\na.wav;hello\n",
            r"m\.csv, line 1: there is no column 'path', only 'path;text'; .*path and text",
        ),
        ("m.csv", "path,speaker\na.wav,b\n", r"line 1: there is no column 'text', only 'path', 'speaker'"),
        (
            "m.csv",
            "path,text,langauge\na.wav,b,de\n",
            r"line 1: there is a column 'langauge'; should it be 'language'\?",
        ),
        ("m.csv", "Path,text\na.wav,b\n", r"a column 'Path'; should it be 'path'\?"),
        ("m.csv", "path,text\na.wav,well, hello\n", r"line 2: there are 3 values for the 2 columns .*quotes"),
        ("m.csv", "path,text\na.wav\n", r"line 2: there are 1 values"),
        ("m.csv", 'path,text\na.wav,"hello\n', r"line 2: this is not CSV: unexpected end of data"),
        ("m.csv", "path,text\na.wav,b\n,c\n", r"line 3, column 'path': '': it must name an audio file"),
        ("m.csv", "path,text\n../b.wav,b\n", r"line 2, column 'path': '\.\./b\.wav': it is outside the folder"),
        ("m.csv", "path,text\na/../../b.wav,b\n", r"'a/\.\./\.\./b\.wav': it is outside the folder"),
        ("m.csv", "path,text\n/etc/b.wav,b\n", r"'/etc/b\.wav': it is outside the folder"),
        ("m.csv", "path,text\n.,b\n", r"line 2, column 'path': '\.': it must name"),
        ("m.csv", "path,text,language\na.wav,b,English\n", r"line 2, column 'language': 'English': .*such as en"),
        ("m.csv", "path,text,id\na.wav,b,one/two\n", r"line 2, column 'id': 'one/two': it may contain letters"),
        ("m.csv", "path,text,id\na.wav,b,x\nb.wav,c,x\n", r"line 3, column 'id': 'x': .*already used in line 2"),
        (
            "m.csv",
            "path,text\na/b.wav,b\na/b.flac,c\n",
            r"line 3, column 'path': 'a/b\.flac': the id 'a-b' is already used in line 2",
        ),
        (
            "m.jsonl",
            '{"path": "a.wav", "text": "b"}\n{"path": \n',
            r"m\.jsonl, line 2, character \d+: this is not JSON",
        ),
        ("m.jsonl", '["a.wav", "b"]\n', r"line 1: found '\[.*it must be an object"),
        ("m.jsonl", '{"path": "a.wav"}\n', r"line 1: there is no column 'text', only 'path'"),
        ("m.jsonl", '{"path": "a.wav", "text": 7}\n', r"line 1, column 'text': 7: it must be text, in quotes"),
        ("m.jsonl", '{"path": "a.wav", "text": "b", "id": 7.5}\n', r"line 1, column 'id': 7\.5: it must be text"),
        ("m.jsonl", '{"path": "a.wav", "text": "b", "id": true}\n', r"line 1, column 'id': True: it must be text"),
        ("m.csv", "path,text,text\na.wav,b,c\n", r"line 1: the column 'text' occurs more than once"),
        (
            "m.jsonl",
            '{"path": "a.wav", "text": "half \\ud83d"}\n',
            r"m\.jsonl, line 1, column 'text': it contains '\\ud83d', half of a UTF-16",
        ),
        ("m.txt", "a.wav hello\n", r"m\.txt ends in '\.txt'; it must end in \.csv, \.tsv, \.jsonl, \.json, \.parquet"),
    ],
)
def test_manifest_mistake_is_located(tmp_path: Path, name: str, manifest: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        folder(tmp_path, manifest, name).read_all()


@pytest.mark.parametrize(
    ("name", "manifest"),
    [
        ("m.csv", "path,text,speaker,speaker_id,,\na.wav,b,anna,7,,\n"),
        ("m.jsonl", '{"path": "a.wav", "text": "b", "texts": ["b", "c"], "speaker": "anna"}\n'),
    ],
)
def test_unused_column_is_ignored(tmp_path: Path, name: str, manifest: str) -> None:
    (utterance,) = folder(tmp_path, manifest, name).read_all()
    assert (utterance.text, utterance.speaker) == ("b", "anna")


def test_non_utf8_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes("path,text\na.wav,fine\nb.wav,für\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"line 3: the byte 0xfc is not UTF-8"):
        Folder(path=str(tmp_path)).read_all()


def test_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the corpus folder '.*gone' does not exist"):
        Folder(path=str(tmp_path / "gone")).read_all()
    with pytest.raises(UsageError, match=r"manifest\.csv cannot be read: No such file"):
        Folder(path=str(tmp_path), manifest="manifest.csv").content_digest()
    with pytest.raises(UsageError, match=r"has no audio file with a transcript: put a manifest\.csv, \.jsonl or"):
        Folder(path=str(tmp_path)).count()


def test_names_distinguish_corpora() -> None:
    corpora: TypeAdapter[Corpus] = TypeAdapter(Corpus)
    assert isinstance(corpora.validate_python({"name": "folder", "path": "~/speech"}), Folder)
    assert isinstance(corpora.validate_python({"name": "synthetic", "language": "de", "voices": ["de"]}), Synthetic)
    with pytest.raises(ValidationError, match=r"'cloud' .*'synthetic', 'folder'"):
        corpora.validate_python({"name": "cloud"})
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        corpora.validate_python({"name": "folder", "path": "x", "utterances": 0})
    with pytest.raises(ValidationError, match="language"):
        corpora.validate_python({"name": "folder", "path": "x", "language": "English"})


def test_parquet_manifest_is_read(corpus: Folder) -> None:
    root = Path(corpus.path)
    columns = {
        "path": ["anna/01.flac", "anna/02.flac", "ben/01.flac"],
        "text": ["Well, here we are.", "Dzień dobry", "Hello there"],
        "speaker": ["anna", "anna", None],
        "language": [None, "pl", None],
        "town": ["Ulm", "Kiel", None],
        "picture": [b"x", b"y", None],
    }
    pq.write_table(pa.table(columns), root / "rows.parquet")
    twin = Folder(path=str(root), manifest="rows.parquet")
    assert twin.content_digest() == corpus.content_digest()
    assert twin.count().utterances == 3
    assert twin.count().notes == ("columns that are not used: picture", "columns kept as metadata: town")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a.wav"]}, r"m\.parquet: there is no column 'text', only 'path'"),
        ({"path": ["a.wav"], "text": [7]}, r"m\.parquet, line 1, column 'text': 7: it must be text"),
        (
            {"path": ["a.wav", None], "text": ["a", "b"]},
            r"m\.parquet, line 2, column 'path': '': it must name an audio",
        ),
        ({"path": pa.array([], pa.string()), "text": pa.array([], pa.string())}, r"m\.parquet has no rows"),
        (b"PAR1 no more", r"m\.parquet cannot be read: "),
    ],
)
def test_parquet_mistake_is_located(tmp_path: Path, columns: object, message: str) -> None:
    if isinstance(columns, bytes):
        (tmp_path / "m.parquet").write_bytes(columns)
    else:
        pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    with pytest.raises(UsageError, match=message):
        Folder(path=str(tmp_path), manifest="m.parquet").count()


def test_transcripts_pair_with_any_audio(tmp_path: Path) -> None:
    for name, form, rate, channels in (
        ("a/01.flac", "FLAC", 44_100, 2),
        ("a/02.wav", "WAV", 8_000, 1),
        ("b/03.ogg", "OGG", 48_000, 1),
        ("b/04.mp3", "MP3", 22_050, 2),
    ):
        put(tmp_path, {name: sound(0.5, form=form, rate=rate, channels=channels)})
        put(tmp_path, {name.rpartition(".")[0] + ".txt": f"text of {name}\n"})
    put(tmp_path, {"notes.txt": "no transcript", "c/05.wav": sound(0.2, form="WAV"), "c/picture.png": b"no sound"})
    found = list(Folder(path=str(tmp_path)).read_all())
    assert [(one.id, one.text) for one in found] == [
        ("a-01", "text of a/01.flac"),
        ("a-02", "text of a/02.wav"),
        ("b-03", "text of b/03.ogg"),
        ("b-04", "text of b/04.mp3"),
        ("c-05", ""),
    ]
    assert [one.read().size for one in found[:3]] == [8_000, 8_000, 8_000]
    assert abs(found[3].read().size - 8_000) < 1_200  # MP3 adds padding
    with pytest.raises(AudioError, match=r"05\.wav: .*05\.txt cannot be read: No such file.*; write the transcript"):
        found[4].read()


def test_long_utterances_are_counted(tmp_path: Path) -> None:
    for name, seconds in (("a", 0.2), ("b", 0.5), ("c", 0.3)):
        put(tmp_path, {f"{name}.wav": sound(seconds, form="WAV"), f"{name}.txt": name})
    corpus = Folder(path=str(tmp_path), max_seconds=0.4)
    assert [one.id for one in corpus.read_all()] == ["a", "c"]
    assert corpus.count() == Count(2, left_out=1)
    assert corpus.content_digest() != Folder(path=str(tmp_path)).content_digest()


def test_two_manifests_are_refused(corpus: Folder) -> None:
    (Path(corpus.path) / "manifest.jsonl").write_text("")
    with pytest.raises(UsageError, match=r"has manifest\.csv and manifest\.jsonl; choose one"):
        Folder(path=corpus.path).count()


def test_unchanged_audio_is_not_reread(corpus: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in Path(corpus.path).rglob("*.flac"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 60))
    before = corpus.content_digest()
    read: list[str] = []
    file_digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: read.append(file.name) or file_digest(file, kind))
    assert corpus.content_digest() == before
    write_audio(Path(corpus.path) / "ben/01.flac", level=0.4)
    assert corpus.content_digest() != before
    assert [Path(name).name for name in read] == ["01.flac"]
