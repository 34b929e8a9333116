"""A data set that `datasets` saved to a folder (`save_to_disk`).

It is read by that library (https://huggingface.co/docs/datasets/process#save), so every version of the layout is
supported; nothing in the folder is executed.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import pyarrow.compute as pc
from pydantic import Field

from emtta_core.corpora.base import (
    Availability,
    Choice,
    Count,
    Distinct,
    Key,
    Utterance,
    choose,
    id_of,
    is_too_long,
    smallest,
)
from emtta_core.corpora.hub_dataset import DatasetColumns
from emtta_core.corpora.hub_split import class_names, in_class
from emtta_core.corpora.metadata import further_columns, of_row
from emtta_core.corpora.published import from_bytes
from emtta_core.corpora.recording import FileDigests
from emtta_core.errors import CorpusError, EmttaError, UsageError, in_words
from emtta_core.identity import IDENTITY, RUNTIME, digest
from emtta_core.input_files import MEBIBYTE, check_plain, pointer_at, read_plain

if TYPE_CHECKING:
    from datasets import Dataset


_ROWS = 1000
"""Rows whose names are read at a time."""


class SavedDataset(DatasetColumns):
    """A split of a data set in a folder, with one row per utterance.

    Its location is not part of its identity; `content_digest` covers its files.
    """

    name: Annotated[Literal["saved-dataset"], IDENTITY] = "saved-dataset"
    path: Annotated[str, RUNTIME, Field(min_length=1)]  # the folder; `~` is the home folder
    # The split to use; None for a data set that was saved without splits.
    split: Annotated[str | None, IDENTITY, Field(min_length=1)] = None
    utterances: Annotated[int | None, IDENTITY, Field(ge=1)] = None  # how many to use, spread over the speakers
    # Longer utterances are left out, and counted.
    max_seconds: Annotated[float | None, IDENTITY, Field(gt=0, allow_inf_nan=False)] = None

    def located(self) -> Self:
        """Return the corpus unchanged, as its path is given."""
        return self

    def read_all(self, limit: int | None = None) -> Iterator[Utterance]:
        """Yield the utterances, or `limit` of them, in the order of the rows; audio is decoded by their `read`.

        Raises:
            CorpusError: the folder contains no data set, or it cannot be read.
            UsageError: the data set has no such split or column; lists those that exist.
        """
        dataset = self._dataset()
        keys = self._keys(dataset)
        read, labels = self.named().values(), class_names(dataset.data.schema)

        def utterance(index: int) -> Utterance:
            row = dataset[index]
            further = {name: in_class(value, labels.get(name)) for name, value in row.items() if name not in read}
            metadata = of_row(f"the data set {self.path!r}", further)
            return replace(self._utterance(row), id=keys[index].id, metadata=metadata)

        return map(utterance, self._choice(dataset, keys, limit).indices)

    def count(self, limit: int | None = None) -> Count:
        """Count what `read_all` would yield.

        Raises:
            CorpusError: the folder contains no data set, or it cannot be read.
            UsageError: the data set has no such split or column; lists those that exist.
        """
        dataset = self._dataset()
        notes = self.notes_of(self._load().data.schema)
        return replace(self._choice(dataset, self._keys(dataset), limit).count(), notes=notes)

    def content_digest(self) -> str:
        """A digest of the split's Arrow files, which include the audio; a file is read only if it has changed.

        Raises:
            CorpusError: the folder contains no data set, or it cannot be read.
            UsageError: the data set has no such split or column; lists those that exist.
        """
        dataset, digests = self._dataset(), FileDigests(self._folder)
        found = [digests.of(Path(file["filename"])) for file in dataset.cache_files]
        digests.save()
        return digest(found)

    def availability(self) -> Availability:
        """Whether the data set exists and has the split and the columns."""
        what = f"data set {self._folder.name} {self.split or ''}".strip()
        try:
            self._dataset()
        except EmttaError as error:
            return Availability(what, "missing", self.path, "your own", error=str(error))
        return Availability(what, "here", self.path, "your own")

    @property
    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    def _dataset(self) -> "Dataset":
        # The split with only the columns that are read or kept as metadata, its audio not decoded.
        from datasets import Audio

        for path in (*self._folder.glob("*"), *self._folder.glob("*/*")):
            pointer = pointer_at(path) if path.suffix in (".arrow", ".json") else None
            if pointer is not None:
                raise CorpusError(f"{path} cannot be read: {pointer}")
        dataset = self._load()
        missing = [name for name in self.named().values() if name not in dataset.column_names]
        if missing:
            raise UsageError(
                f"the data set {self.path!r} has no column {', '.join(missing)}; its columns are "
                f"{', '.join(dataset.column_names)}: name them in the corpus as audio, text, id, speaker"
            )
        if not isinstance(dataset.features[self.audio], Audio):
            raise UsageError(
                f"the column {self.audio!r} of the data set {self.path!r} is not audio but "
                f"{dataset.features[self.audio]}; cast it with cast_column({self.audio!r}, Audio()) and save it again"
            )
        self.refuse_schema(f"the data set {self.path!r}", dataset.data.schema)
        further, _ = further_columns(dataset.data.schema, self.named().values())
        only = dataset.select_columns([*dict.fromkeys([*self.named().values(), *further])])
        return only.cast_column(self.audio, Audio(decode=False))

    def _load(self) -> "Dataset":
        # The split with all its columns; its other splits are not opened.
        from datasets import Dataset

        splits = self._splits()
        if (self.split is None) != (not splits) or (splits and self.split not in splits):
            problem = "no split was named" if self.split is None else f"there is no split {self.split!r}"
            advice = f"name one of {', '.join(splits)} as split" if splits else "it has none: omit split"
            raise UsageError(f"the data set {self.path!r}: {problem}; {advice}")
        folder = self._folder / (self.split or "")
        try:
            if not _settings(folder / "state.json")["_data_files"]:
                raise self._no_rows()  # `datasets` writes this, but cannot read it
            for file in folder.iterdir():
                check_plain(file)
            found = Dataset.load_from_disk(str(folder))
        except EmttaError:
            raise
        except Exception as error:  # what datasets, Arrow and the parsers raise has no common base
            raise CorpusError(
                f"{self.path!r} contains no data set that can be read: {in_words(error)}; name the folder that "
                "save_to_disk of the library datasets wrote"
            ) from error
        if not len(found):
            raise self._no_rows()
        return found

    def _splits(self) -> list[str]:
        # The names of the splits; none for a data set that was saved without any.
        index = self._folder / "dataset_dict.json"
        if not index.exists() and not (self._folder / "state.json").exists():
            raise CorpusError(
                f"{self.path!r} contains no data set that can be read; name the folder that save_to_disk of the "
                "library datasets wrote"
            )
        try:
            return [str(name) for name in _settings(index)["splits"]] if index.exists() else []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(
                f"{self.path!r} contains no data set that can be read: dataset_dict.json: {in_words(error)}; save it "
                "again"
            ) from error

    def _no_rows(self) -> UsageError:
        split = "" if self.split is None else f", split {self.split!r},"
        return UsageError(
            f"the data set {self.path!r}{split} has no rows, perhaps because a filter kept none; save one that has, or "
            "remove its domains from the suite"
        )

    def _keys(self, dataset: "Dataset") -> list[Key]:
        # The keys of the rows, in order; of the audio only the file names are read.
        names = [self.audio, *(name for name in (self.id, self.speaker) if name is not None)]
        distinct, keys = Distinct(), list[Key]()
        for table in dataset.select_columns(names).with_format("arrow").iter(_ROWS):
            paths = pc.struct_field(table.column(self.audio), "path").to_pylist()
            columns: dict[str, list[Any]] = {"audio": [{"path": path} for path in paths]}
            columns |= {
                role: table.column(name).to_pylist() for role, name in self.named().items() if role in ("id", "speaker")
            }
            for values in zip(*columns.values(), strict=True):
                name, _, _, speaker = self.from_row(dict(zip(columns, values, strict=True)))
                keys.append(Key(distinct(id_of(name)), speaker))
        return keys

    def _choice(self, dataset: "Dataset", keys: Sequence[Key], limit: int | None) -> Choice:
        def too_long(index: int) -> bool:
            return self.max_seconds is not None and is_too_long(self._utterance(dataset[index]), self.max_seconds)

        return choose(keys, smallest(limit, self.utterances), too_long)

    def _utterance(self, row: dict[str, Any]) -> Utterance:
        # The utterance of a row; one whose audio was not saved with the data set is in error.
        name, text, language, speaker = self.from_row({role: row[column] for role, column in self.named().items()})
        return from_bytes(name, text, language, speaker, (row[self.audio] or {}).get("bytes") or b"")


def _settings(file: Path) -> dict[str, Any]:
    found = json.loads(read_plain(file, max_bytes=MEBIBYTE))
    return found if isinstance(found, dict) else {}
