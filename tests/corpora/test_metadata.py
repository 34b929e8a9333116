"""Other columns of a manifest or data set are kept with each utterance, or reported as left out."""

import datetime
import json
import logging
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora_factory import (
    common_voice_folder,
    common_voice_hub,
    fleurs_folder,
    fleurs_hub,
    librispeech_hub,
    librispeech_rows,
    put,
    sound,
)
from datasets import Audio, ClassLabel, Dataset
from hub_server import Hub

from emtta_core.corpora.common_voice import CommonVoice
from emtta_core.corpora.fleurs import Fleurs
from emtta_core.corpora.folder import Folder
from emtta_core.corpora.hub_dataset import HubDataset
from emtta_core.corpora.metadata import MAX_BYTES, as_json
from emtta_core.corpora.saved_dataset import SavedDataset


def test_values_become_json() -> None:
    values = {"b": True, "a": "ä", "n": 7, "x": 1.5, "day": datetime.date(2026, 11, 30), "price": Decimal("2.5")}
    nothing = {"none": None, "blank": "", "nan": float("nan"), "infinite": float("inf")}
    text, left_out = as_json(values | nothing | {"nested": {"list": [1, {"deep": None}]}})
    assert (json.loads(text), left_out) == (
        {
            "a": "ä",
            "b": True,
            "n": 7,
            "x": 1.5,
            "day": "2026-11-30",
            "price": 2.5,
            "nested": {"list": [1, {"deep": None}]},
        },
        (),
    )
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert as_json({}) == ("{}", ())


def test_size_is_limited_by_column() -> None:
    text, left_out = as_json({"a": "x" * 6_000, "b": "ä" * 2_500, "c": "y" * 3_900})
    assert (list(json.loads(text)), left_out) == (["a", "c"], ("b",))
    assert len(text.encode()) <= MAX_BYTES


def test_large_column_is_reported(tmp_path: Path) -> None:
    rows = [{"path": "a.flac", "text": "x", "town": "Ulm", "vector": [0.5] * 3_000}, {"path": "b.flac", "text": "y"}]
    put(tmp_path, {"a.flac": sound(0.3), "b.flac": sound(0.4)})
    put(tmp_path, {"manifest.jsonl": "\n".join(map(json.dumps, rows))})
    folder = Folder(path=str(tmp_path))
    assert [json.loads(one.metadata) for one in folder.read_all()] == [{"town": "Ulm"}, {}]
    assert folder.count().notes == (
        "columns kept as metadata: town",
        "the column vector is left out of the metadata of 1 utterance: "
        "an utterance has at most 10,000 bytes of it, as JSON",
    )


def test_binary_column_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, {"a.flac": sound(0.3)})
    when = pa.array([datetime.datetime(2026, 1, 2, 3)], pa.timestamp("us"))
    columns = {
        "path": ["a.flac"],
        "text": ["x"],
        "picture": [{"bytes": b"p", "path": "p.png"}],
        "age": [30],
        "at": when,
    }
    pq.write_table(pa.table(columns), tmp_path / "manifest.parquet")
    folder = Folder(path=str(tmp_path))
    (one,) = folder.read_all()
    assert json.loads(one.metadata) == {"age": 30, "at": "2026-01-02T03:00:00"}
    assert folder.count().notes == ("columns that are not used: picture", "columns kept as metadata: age, at")


def test_metadata_is_part_of_corpus(tmp_path: Path) -> None:
    put(tmp_path, {"a.flac": sound(0.3)})
    digests = set()
    for rows in ("path,text\na.flac,x\n", "path,text,age\na.flac,x,30\n", "path,text,age\na.flac,x,40\n"):
        put(tmp_path, {"manifest.csv": rows})
        digests.add(Folder(path=str(tmp_path)).content_digest())
    assert len(digests) == 3


def test_saved_set_keeps_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns = {
        "audio": [{"bytes": sound(0.3), "path": f"{at}.flac"} for at in range(2)],
        "text": ["one", "two"],
        "gender": [1, 0],
        "age": [30, None],
        "tags": [["a", "b"], []],
        "picture": [b"p", b"q"],
        "vector": [[0.25] * 4_000, [0.5]],
    }
    dataset = Dataset.from_dict(columns).cast_column("audio", Audio())
    dataset.cast_column("gender", ClassLabel(names=["female", "male"])).save_to_disk(str(tmp_path / "d"))
    corpus = SavedDataset(path=str(tmp_path / "d"))
    with caplog.at_level(logging.WARNING, "emtta.corpora"):
        found = [json.loads(one.metadata) for one in corpus.read_all()]
    assert found == [
        {"age": 30, "gender": "male", "tags": ["a", "b"]},
        {"gender": "female", "tags": [], "vector": [0.5]},
    ]
    assert "the column vector is left out of the metadata of at least one utterance" in caplog.text
    assert corpus.count().notes == (
        "columns kept as metadata: gender, age, tags, vector",
        "columns that are not used: picture",
    )


def test_hub_set_keeps_plain_columns(hub: Hub) -> None:
    rows = [row | {"words": ["a"], "noise": 0.5} for row in librispeech_rows(4)]
    librispeech_hub(hub, rows)
    corpus = HubDataset(
        repository="openslr/librispeech_asr", config="all", split="test.other", id="id", speaker="speaker_id"
    )
    expected = [{name: row[name] for name in ("chapter_id", "file", "noise")} for row in rows]
    assert [json.loads(one.metadata) for one in corpus.read_all()] == expected
    assert json.loads(next(corpus.read_all(1)).metadata) in expected


def test_common_voice_keeps_accent(tmp_path: Path, hub: Hub) -> None:
    home = common_voice_folder(tmp_path)
    table = home / "test.tsv"
    header, *lines = table.read_text().splitlines()
    assert header.endswith("age\tgender\tlocale")
    filled = [line.replace("\t\t\tpt", "\ttwenties\tfemale\tpt") for line in lines]
    table.write_text(
        "\n".join([header.replace("locale", "accents"), *filled[:2], lines[2].replace("\tpt", "\t")]) + "\n"
    )
    found = list(CommonVoice(language="pt", path=str(home)).read_all())
    kept = {"accent": "pt", "age": "twenties", "gender": "female"}
    assert [json.loads(one.metadata) for one in found] == [kept, kept, {}]
    common_voice_hub(hub)
    assert [one.metadata for one in CommonVoice(language="pt").read_all()] == ["{}"] * 3


def test_fleurs_keeps_gender(tmp_path: Path, hub: Hub) -> None:
    fleurs_hub(hub)
    here = Fleurs(language="de_de", path=str(fleurs_folder(tmp_path)))
    assert [json.loads(one.metadata) for one in here.read_all()] == [{"gender": "male"}] * 3
    assert [json.loads(one.metadata) for one in Fleurs(language="de_de").read_all()] == [{"gender": 0}] * 3
