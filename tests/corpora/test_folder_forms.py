"""A folder in the layout of NeMo, Hugging Face, Kaldi or Lhotse gives the same corpus as emtta's own manifest."""

import csv
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, SuiteFile
from corpora_factory import put, sound
from folder_forms import FORMS, Item

from emtta_core.audio.files import read_audio
from emtta_core.corpora.base import Utterance
from emtta_core.corpora.folder import Folder
from emtta_core.errors import AudioError, UsageError
from emtta_core.pipeline.plan import corpus_id
from emtta_core.pipeline.preparation import prepare_domain
from emtta_core.store import PreparedRow, Store
from emtta_core.suite import Domain

REAL = Path(os.environ.get("EMTTA_REAL_SPEECH", Path(__file__).parents[2].parent / "shared/real/speech"))

ITEMS = [
    Item("anna/01.flac", 'Well, "here" we are.', "anna-1", "en", "anna", seconds=0.4, accent="Scottish"),
    Item("anna/02.flac", "Dzień\u00a0dobry", "anna-2", "pl", "anna", seconds=0.5, accent="Łódź"),
    Item("ben/01.flac", "Hello there", "17", "en", "7", seconds=0.6, accent="Irish"),
]
PARTS = [
    Item("talk.flac", "the first words", "a", begin=0.0, seconds=0.5, accent="x"),
    Item("talk.flac", "and the second", "b", begin=0.75, seconds=0.5, accent="x"),
    Item("talk.flac", "they overlap", "c", begin=1.0, seconds=1.0, accent="x"),
]


def corpus(folder: Path, form: str, items: Sequence[Item]) -> Folder:
    if form == "lhotse":
        pytest.importorskip("lhotse", reason="the extra lhotse is not installed")
    lengths: dict[str, float] = {}
    for one in items:
        lengths[one.path] = max(lengths.get(one.path, 0.0), (one.begin or 0.0) + one.seconds)
    put(folder, {path: sound(seconds, hertz=200 + 90 * at) for at, (path, seconds) in enumerate(lengths.items())})
    return FORMS[form](folder, items)


def fields(one: Utterance) -> tuple[str, str, str, str, object]:
    return one.id, one.text, one.language, one.speaker, json.loads(one.metadata)


@pytest.mark.parametrize("form", FORMS)
def test_form_is_detected(tmp_path: Path, form: str) -> None:
    found = list(corpus(tmp_path, form, ITEMS).read_all())
    assert [fields(one) for one in found] == [
        (one.id, one.text, one.language, one.speaker, {"accent": one.accent}) for one in ITEMS
    ]
    assert [one.read().size for one in found] == [6_400, 8_000, 9_600]
    assert corpus(tmp_path, form, ITEMS).count().notes == ("columns kept as metadata: accent",)


@pytest.mark.parametrize("form", FORMS)
def test_only_segment_is_read(tmp_path: Path, form: str) -> None:
    folder = corpus(tmp_path, form, PARTS)
    whole = read_audio(tmp_path / "talk.flac")
    found = {one.id: one for one in folder.read_all()}
    for one in PARTS:
        first = round((one.begin or 0.0) * 16_000)
        assert np.array_equal(found[one.id].read(), whole[first : first + round(one.seconds * 16_000)])
        assert found[one.id].seconds() == pytest.approx(one.seconds)
        assert found[one.id].text == one.text
    assert Folder(path=str(tmp_path), max_seconds=0.75).count().utterances == 2


def test_all_forms_give_same_corpus(tmp_path: Path) -> None:
    digests = {form: corpus(tmp_path / form, form, PARTS).content_digest() for form in FORMS if form != "lhotse"}
    assert len({*digests.values()}) == 1, digests
    changed = [*PARTS[:2], Item("talk.flac", "they overlap", "c", begin=1.01, seconds=0.99, accent="x")]
    assert corpus(tmp_path / "moved", "own-csv", changed).content_digest() != digests["own-csv"]


@pytest.mark.parametrize(("form", "rate"), [("FLAC", 44_100), ("WAV", 8_000), ("OGG", 48_000), ("MP3", 22_050)])
def test_segment_of_any_audio_matches(tmp_path: Path, form: str, rate: int) -> None:
    put(tmp_path, {f"t.{form.lower()}": sound(3.0, form=form, rate=rate, channels=2)})
    put(tmp_path, {"manifest.csv": f"path,text,offset,duration\nt.{form.lower()},x,1.5,0.5\n"})
    (one,) = Folder(path=str(tmp_path)).read_all()
    whole, part = read_audio(tmp_path / f"t.{form.lower()}"), one.read()
    inside = slice(400, -400)  # a resampler sees silence, not the neighbouring audio, at the edges of a segment
    assert part.size == 8_000
    assert np.abs(part - whole[24_000:32_000])[inside].max() < 0.02


@pytest.mark.parametrize(
    ("columns", "values", "seconds", "name"),
    [
        ("offset,duration", "0.5,0.25", 0.25, "talk-0000500-0000750"),
        ("start,end", "0.5,0.75", 0.25, "talk-0000500-0000750"),
        ("start,end,duration", "0.5,0.75,0.3", 0.25, "talk-0000500-0000750"),
        ("offset", "0.5", 1.5, "talk-0000500-end"),
        ("start,end", ",", 2.0, "talk"),
        ("offset,duration", ",2.0", 2.0, "talk"),
    ],
)
def test_segment_is_in_seconds(tmp_path: Path, columns: str, values: str, seconds: float, name: str) -> None:
    put(tmp_path, {"talk.flac": sound(2.0), "manifest.csv": f"path,text,{columns}\ntalk.flac,x,{values}\n"})
    (one,) = Folder(path=str(tmp_path)).read_all()
    assert (one.id, one.read().size, one.seconds()) == (name, round(16_000 * seconds), pytest.approx(seconds))


@pytest.mark.parametrize(
    ("columns", "values", "message"),
    [
        ("offset,duration", "1e308,1", "line 2, column 'offset': 1e\\+308: no recording is longer than 10,000,000"),
        ("offset,duration", "-1,2", "line 2, column 'offset': -1.0: a segment must begin at 0 seconds or later"),
        ("offset,duration", "1,0", "line 2, column 'duration': 0.0: a segment must be longer than 0 seconds"),
        ("offset,duration", "1,-3", "line 2, column 'duration': -3.0: a segment must be longer"),
        ("start,end", "2,2", "line 2, column 'end': 2.0: a segment must end after its start, which is at 2 seconds"),
        ("start,end", "2,1.5", "line 2, column 'end': 1.5: a segment must end after its start"),
        ("start,end", ",1.5", "line 2, column 'end': 1.5: a segment also needs its start"),
        ("start,offset", "1,1", "line 2, column 'start': 1.0: there is an offset \\(1\\) as well"),
        ("start,end", "0:01,2", "line 2, column 'start': '0:01': it must be a number of seconds"),
    ],
)
def test_impossible_segment_is_refused(tmp_path: Path, columns: str, values: str, message: str) -> None:
    put(tmp_path, {"talk.flac": sound(2.0), "manifest.csv": f"path,text,{columns}\ntalk.flac,x,{values}\n"})
    with pytest.raises(UsageError, match=message):
        Folder(path=str(tmp_path)).count()


def test_segment_beyond_file_is_error(tmp_path: Path) -> None:
    rows = "talk.flac,x,1.5,0.51\ntalk.flac,y,1.5,0.6\ntalk.flac,z,2.5,\ngone.flac,z,0,1\nnoise.flac,z,0,1\n"
    put(
        tmp_path,
        {"talk.flac": sound(2.0), "noise.flac": b"no audio", "manifest.csv": f"path,text,offset,duration\n{rows}"},
    )
    rounded, *others = Folder(path=str(tmp_path)).read_all()
    assert rounded.read().size == 8_000
    for one, message in zip(
        others,
        [
            r"talk\.flac \(manifest\.csv, line 3\): the segment from 1\.5 s to 2\.1 s is not in .* 2\.00 s long",
            r"talk\.flac \(manifest\.csv, line 4\): the segment from 2\.5 s to the end is not in the file",
            r"gone\.flac \(manifest\.csv, line 5\): cannot be read: No such file",
            r"noise\.flac \(manifest\.csv, line 6\): is not audio that can be read",
        ],
        strict=True,
    ):
        with pytest.raises(AudioError, match=message):
            one.read()


@pytest.mark.parametrize("second", ["t.flac,1,0.5", "t.flac,,", "./t.flac,1,0.5"])
def test_duplicate_segment_is_refused(tmp_path: Path, second: str) -> None:
    rows = f"path,offset,duration,text,id\nt.flac,1,0.5,x,one\n{second},y,two\n"
    put(tmp_path, {"t.flac": sound(2.0), "manifest.csv": rows})
    with pytest.raises(UsageError, match=r"line 3, column 'path': .* already the recording of line 2 .*offset and dur"):
        Folder(path=str(tmp_path)).count()


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (
            "path,file_name,text\na.flac,a.flac,x\n",
            "manifest.csv",
            r"line 1: the columns 'path' \(emtta\) and 'file_name' \(Hugging Face\) .* columns are 'path', 'file_name'",
        ),
        (
            '{"path": "a.flac", "text": "x"}\n{"audio_filepath": "b.flac", "text": "y"}\n',
            "manifest.jsonl",
            r"line 2: this row has the column 'audio_filepath' \(NeMo\), but those before it have 'path' \(emtta\)",
        ),
        ("file_name,said\na.flac,x\n", "metadata.csv", r"no column 'text' or 'transcription' or .*only 'file_name'"),
        ("file_name,transcript,sentence\na.flac,x,y\n", "metadata.csv", r"rename the right one to 'text'"),
        ("speaker,words\na,b\n", "manifest.csv", r"no column 'path', only 'speaker', 'words'.*\(audio_filepath\)"),
    ],
)
def test_mixed_forms_are_refused(tmp_path: Path, text: str, name: str, message: str) -> None:
    put(tmp_path, {"a.flac": sound(0.5), "b.flac": sound(0.5), name: text})
    with pytest.raises(UsageError, match=message):
        Folder(path=str(tmp_path)).count()


@pytest.mark.parametrize(
    ("name", "row", "language", "speaker"),
    [
        ("manifest.jsonl", {"audio_filepath": "a.flac", "text": "x", "offset": None, "lang": "de"}, "de", ""),
        ("manifest.json", {"audio_filepath": "a.flac", "text": "x", "source_lang": "fr", "pnc": "yes"}, "fr", ""),
        ("metadata.jsonl", {"file_name": "a.flac", "sentence": "x", "speaker_id": 7}, "en", "7"),
    ],
)
def test_common_column_names_are_read(
    tmp_path: Path, name: str, row: dict[str, object], language: str, speaker: str
) -> None:
    put(tmp_path, {"a.flac": sound(0.5), name: json.dumps(row)})
    (one,) = Folder(path=str(tmp_path)).read_all()
    assert (one.id, one.text, one.language, one.speaker) == ("a", "x", language, speaker)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("manifest.csv", "path,text\na.flac,x\n".encode("utf-16"), "line 1: the byte 0xff is not UTF-8"),
        ("manifest.json", '[{"path": "a.flac"}]', "line 1: found .* it must be an object"),
        ("manifest.jsonl", '{"path": "a.flac", "text": "x", "\\ud83d": 1}', "column .*half of a UTF-16 surrogate pair"),
        ("manifest.jsonl", '{"path": "a.flac", "text": "x", "offset": NaN}', "'offset': nan: it must be a number"),
        ("manifest.tsv", 'path\ttext\na.flac\t"x" he said\n', "line 2: this is not CSV: .* its own quotes doubled"),
    ],
)
def test_awkward_content_is_refused(tmp_path: Path, name: str, content: bytes | str, message: str) -> None:
    put(tmp_path, {"a.flac": sound(0.5), name: content})
    with pytest.raises(UsageError, match=message):
        Folder(path=str(tmp_path)).count()


def test_awkward_csv_is_read(tmp_path: Path) -> None:
    rows = 'path,text,speaker\r\na.flac,"one\r\ntwo\tthree, ""four""",7\r\n'
    put(tmp_path / "csv", {"a.flac": sound(0.5), "manifest.csv": b"\xef\xbb\xbf" + rows.encode()})
    put(tmp_path / "tabs", {"a.flac": sound(0.5), "manifest.csv": "path\ttext\tspeaker\na.flac\tone, two\t7\n"})
    put(tmp_path / "ids", {"a.flac": sound(0.5), "manifest.jsonl": '{"path": "a.flac", "text": "x", "id": 12}\r\n'})
    found = {name: next(Folder(path=str(tmp_path / name)).read_all()) for name in ("csv", "tabs", "ids")}
    assert (found["csv"].text, found["csv"].speaker) == ('one\r\ntwo\tthree, "four"', "7")
    assert (found["tabs"].text, found["tabs"].speaker) == ("one, two", "7")
    assert found["ids"].id == "12"
    twice = '{"path": "a.flac", "text": "x", "id": 12}\n{"path": "b.flac", "text": "x", "id": "12"}\n'
    put(tmp_path / "ids", {"b.flac": sound(0.6), "manifest.jsonl": twice})
    with pytest.raises(UsageError, match=r"line 2, column 'id': '12': the id '12' is already used in line 1"):
        Folder(path=str(tmp_path / "ids")).count()


@pytest.mark.parametrize("form", ["own-csv", "nemo", "kaldi", "lhotse"])
def test_outside_files_need_permission(tmp_path: Path, form: str) -> None:
    away = [Item(str(tmp_path / "away/a/1.flac"), "x", "one", seconds=0.4, accent="x")]
    away.append(Item("here.flac", "y", "two", seconds=0.5, accent="x"))
    folder = corpus(tmp_path / "mine", form, away)
    with pytest.raises(
        UsageError, match=r"'.*away/a/1\.flac': it is outside .*absolute = true in the corpus, or --allow"
    ):
        folder.count()
    allowed = folder.model_copy(update={"absolute": True})
    assert [one.read().size for one in allowed.read_all()] == [6_400, 8_000]
    note = f"audio files read from outside the folder: 1, such as {tmp_path / 'away/a/1.flac'}"
    assert note in allowed.count().notes
    assert folder.identity() == allowed.identity()


def test_ids_do_not_depend_on_machine(tmp_path: Path) -> None:
    for machine in ("one", "two"):
        files = {f"data/{name}.flac": sound(0.4, hertz=hertz) for name, hertz in (("a/1", 200), ("b/1", 300))}
        put(tmp_path / machine, files)
        rows = f"path,text\n../data/a/1.flac,x\n{tmp_path / machine / 'data/b/1.flac'},y\n"
        put(tmp_path / machine / "lists", {"manifest.csv": rows})
    first, second = (Folder(path=str(tmp_path / machine / "lists"), absolute=True) for machine in ("one", "two"))
    assert [one.id for one in first.read_all()] == ["a-1", "b-1"]
    assert first.content_digest() == second.content_digest()


def test_silence_has_no_transcript(tmp_path: Path) -> None:
    put(tmp_path / "table", {"a.flac": sound(0.5), "b.flac": sound(0.6), "manifest.csv": "path\na.flac\nb.flac\n"})
    put(tmp_path / "beside", {"a.flac": sound(0.5), "b.flac": sound(0.6), "b.txt": ""})
    put(tmp_path / "kaldi", {"a.flac": sound(0.5), "b.flac": sound(0.6), "wav.scp": "a a.flac\nb b.flac\n"})
    for name in ("table", "beside", "kaldi"):
        quiet = Folder(path=str(tmp_path / name), silence=True)
        assert [(one.text, one.silence, one.read().size) for one in quiet.read_all()] == [
            ("", True, 8_000),
            ("", True, 9_600),
        ]
        with pytest.raises(UsageError, match=r"no column 'text'|without a transcript|text cannot be read"):
            Folder(path=str(tmp_path / name)).count() if name != "beside" else _first(Folder(path=str(tmp_path / name)))
    put(tmp_path / "table", {"manifest.csv": "path,text\na.flac,hello\nb.flac,\n"})
    put(tmp_path / "kaldi", {"text": "a\nb hello\n"})
    put(tmp_path / "beside", {"b.txt": "hello"})
    for name, where in (
        ("table", r"csv, line 2, column 'text'"),
        ("kaldi", "text, line 2"),
        ("beside", r"b\.txt, line 1"),
    ):
        with pytest.raises(UsageError, match=f"{where}: 'hello': silence = true means that there is no speech"):
            Folder(path=str(tmp_path / name), silence=True).count()


def _first(folder: Folder) -> None:
    try:
        next(folder.read_all()).read()
    except AudioError as error:
        raise UsageError(f"without a transcript: {error}") from error


def test_split_is_a_subfolder(tmp_path: Path) -> None:
    for split, text in (("train", "one"), ("test", "two")):
        put(tmp_path / "each" / split, {"a.flac": sound(0.4), "metadata.csv": f"file_name,text\na.flac,{text}\n"})
        put(tmp_path / "top" / split, {"a.flac": sound(0.4)})
    put(tmp_path / "top", {"metadata.csv": "file_name,text\ntrain/a.flac,one\ntest/a.flac,two\n"})
    for name in ("each", "top"):
        (one,) = Folder(path=str(tmp_path / name), split="test").read_all()
        assert (one.text, one.read().size) == ("two", 6_400)
        with pytest.raises(UsageError, match=r"has the splits test, train; name one of them with the field split"):
            Folder(path=str(tmp_path / name)).count()
        with pytest.raises(UsageError, match=r"no (row of the )?split 'dev'.*test, train"):
            Folder(path=str(tmp_path / name), split="dev").count()


def test_every_form_supports_splits(tmp_path: Path) -> None:
    for split, text in (("train", "one"), ("test", "two")):
        put(tmp_path / "top" / split, {"a.flac": sound(0.4)})
        put(tmp_path / "each" / split, {"a.flac": sound(0.4), "wav.scp": "u a.flac\n", "text": f"u {text}\n"})
        put(tmp_path / "beside" / split, {"a.flac": sound(0.4), "a.txt": text})
    put(tmp_path / "top", {"wav.scp": "u train/a.flac\nv test/a.flac\n", "text": "u one\nv two\n"})
    for name in ("top", "each", "beside"):
        assert [one.text for one in Folder(path=str(tmp_path / name), split="test").read_all()] == ["two"]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[PreparedRow]]:
    """The first utterances of each real data set, prepared from its own manifest, by the name of its folder."""
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not there: real speech, a folder a set; EMTTA_REAL_SPEECH names another place")
    made = tmp_path_factory.mktemp("real")
    found = {}
    for place in sorted(REAL.iterdir()):
        head = (place / "manifest.csv").read_text(encoding="utf-8").splitlines(keepends=True)[:4]
        put(made / place.name, {"manifest.csv": "".join(head)})
        for row in csv.DictReader(head):
            (made / place.name / row["path"]).symlink_to(place / row["path"])
        found[place.name] = prepared(Folder(path=str(made / place.name)), made / "store")
    return found


def prepared(folder: Folder, store: Path) -> list[PreparedRow]:
    domain, opened = Domain(name="real", group="real", corpus=folder), Store.open(store, create=True)
    return list(opened.read_prepared(prepare_domain(domain, corpus_id(domain, None), opened).corpus))


@pytest.mark.parametrize("form", ["own-tsv", "own-parquet", "nemo", "hugging-face-csv", "kaldi", "lhotse"])
def test_real_speech_is_same_in_each_form(tmp_path: Path, real: dict[str, list[PreparedRow]], form: str) -> None:
    if form == "lhotse":
        pytest.importorskip("lhotse", reason="the extra lhotse is not installed")
    for name, rows in real.items():
        folder, items = tmp_path / name, []
        for row, stated in zip(
            rows, csv.DictReader((REAL / name / "manifest.csv").read_text(encoding="utf-8").splitlines()), strict=False
        ):
            folder.mkdir(exist_ok=True)
            (folder / stated["path"]).symlink_to(REAL / name / stated["path"])
            items.append(
                Item(
                    stated["path"],
                    row.text,
                    row.utterance_id,
                    row.language,
                    row.speaker,
                    None,
                    row.seconds,
                    stated["source"],
                )
            )
        found = prepared(FORMS[form](folder, items), tmp_path / "store")
        assert [dataclasses.replace(row, metadata="{}") for row in found] == [
            dataclasses.replace(row, metadata="{}") for row in rows
        ]
        assert all(json.loads(row.metadata) == {"accent": one.accent} for row, one in zip(found, items, strict=True))


def test_option_allows_outside_files(tmp_path: Path, emtta: Command, suite_file: SuiteFile) -> None:
    put(tmp_path, {"away/a.flac": sound(0.5), "speech/manifest.csv": "path,text\n../away/a.flac,hello\n"})
    suite = suite_file(methods=("source",))
    refused = emtta("prepare", suite, "--store", tmp_path / "store")
    assert (refused.code, "or --allow-absolute" in refused.err) == (3, True), refused.err
    done = emtta("prepare", suite, "--store", tmp_path / "store", "--allow-absolute")
    assert done.code == 0, done.err
    assert "audio files read from outside the folder: 1, such as ../away/a.flac" in done.out + done.err
    alone = emtta("prepare", "smoke", "--store", tmp_path / "store", "--allow-absolute", "--dry-run")
    assert (alone.code, "no domain of the suite 'smoke' has one; omit it" in alone.err) == (2, True)
