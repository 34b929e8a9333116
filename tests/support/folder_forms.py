"""One corpus in each form that a folder may have, to test that it stays the same corpus."""

import csv
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from emtta_core.corpora.folder import Folder


@dataclass(frozen=True)
class Item:
    """An utterance: a file in the corpus's folder, or a segment of one."""

    path: str
    text: str
    id: str
    language: str = "en"
    speaker: str = "s"
    begin: float | None = None
    seconds: float = 0.0  # the duration of the utterance
    accent: str = ""


Write = Callable[[Path, Sequence[Item]], Folder]


def _rows(items: Sequence[Item], path: str, text: str = "text", language: str = "language") -> list[dict[str, object]]:
    rows = []
    for one in items:
        row: dict[str, object] = {path: one.path, text: one.text, "id": one.id, language: one.language}
        row |= {"speaker": one.speaker, "duration": one.seconds, "accent": one.accent}
        rows.append(row if one.begin is None else row | {"offset": one.begin})
    return rows


def _table(folder: Path, name: str, rows: Sequence[Mapping[str, object]]) -> Folder:
    names = list(dict.fromkeys(key for row in rows for key in row))
    file = folder / name
    if file.suffix == ".parquet":
        pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in names}), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.DictWriter(opened, names, delimiter="\t" if file.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return Folder(path=str(folder))


def own(ending: str) -> Write:
    return lambda folder, items: _table(folder, f"manifest.{ending}", _rows(items, "path"))


def nemo(folder: Path, items: Sequence[Item]) -> Folder:
    return _table(folder, "manifest.jsonl", _rows(items, "audio_filepath", language="lang"))


def hugging_face(ending: str) -> Write:
    return lambda folder, items: _table(folder, f"metadata.{ending}", _rows(items, "file_name", "transcription"))


def kaldi(folder: Path, items: Sequence[Item]) -> Folder:
    def write(name: str, lines: Mapping[str, object]) -> None:
        (folder / name).write_text("".join(f"{key} {value}\n" for key, value in lines.items()), encoding="utf-8")

    if any(one.begin is not None for one in items):
        recordings = {one.path: f"rec{number}" for number, one in enumerate(items)}
        write("wav.scp", {name: path for path, name in recordings.items()})
        spans = {one.id: (one.begin or 0.0, (one.begin or 0.0) + one.seconds) for one in items}
        write("segments", {one.id: f"{recordings[one.path]} {spans[one.id][0]} {spans[one.id][1]}" for one in items})
    else:
        write("wav.scp", {one.id: one.path for one in items})
        write("utt2dur", {one.id: one.seconds for one in items})
    write("text", {one.id: one.text for one in items})
    for name, field in (("utt2spk", "speaker"), ("utt2lang", "language"), ("utt2accent", "accent")):
        write(name, {one.id: getattr(one, field) for one in items})
    return Folder(path=str(folder))


def lhotse(folder: Path, items: Sequence[Item]) -> Folder:
    """Write cuts with `lhotse`; the audio must exist."""
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    cuts = []
    for one in items:
        recording = Recording.from_file(folder / one.path)
        recording.sources[0].source = one.path
        begin = one.begin or 0.0
        length = one.seconds if one.begin is not None else recording.duration
        supervision = SupervisionSegment(
            one.id, recording.id, 0.0, length, text=one.text, language=one.language, speaker=one.speaker,
            custom={"accent": one.accent},
        )  # fmt: skip
        cuts.append(MonoCut(one.id, begin, length, 0, supervisions=[supervision], recording=recording))
    CutSet.from_cuts(cuts).to_file(str(folder / "cuts.jsonl.gz"))
    assert gzip.decompress((folder / "cuts.jsonl.gz").read_bytes())
    return Folder(path=str(folder))


FORMS: Mapping[str, Write] = {
    "own-csv": own("csv"),
    "own-tsv": own("tsv"),
    "own-jsonl": own("jsonl"),
    "own-parquet": own("parquet"),
    "nemo": nemo,
    "hugging-face-csv": hugging_face("csv"),
    "hugging-face-jsonl": hugging_face("jsonl"),
    "hugging-face-parquet": hugging_face("parquet"),
    "kaldi": kaldi,
    "lhotse": lhotse,
}
