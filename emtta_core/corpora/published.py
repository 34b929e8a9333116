"""The common parts of published corpora: each can be read from the extracted folder of its archive.

Most of them are also on the Hugging Face hub, as Parquet with one row per utterance.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import pyarrow as pa
from pydantic import Field

from emtta_core import cache
from emtta_core.audio.files import length_in_seconds, read_audio
from emtta_core.audio.waveform import Waveform
from emtta_core.corpora.base import (
    Archive,
    Availability,
    Choice,
    Count,
    Distinct,
    Key,
    Utterance,
    choose,
    choose_of,
    id_of,
    smallest,
)
from emtta_core.corpora.hub_split import HubSplit
from emtta_core.corpora.metadata import of_row
from emtta_core.corpora.recording import FileDigests, Recording
from emtta_core.errors import AudioError, CorpusError, EmttaError
from emtta_core.identity import IDENTITY, RUNTIME, Record, digest
from emtta_core.input_files import CORPORA, candidates, searched


@dataclass(frozen=True, slots=True)
class About:
    """Information about a published corpus."""

    title: str  # its full name
    licence: str  # the licence for its use
    source: str  # where to get it
    get: str  # how to get it without the hub, as an instruction


class Published(Record, ABC):
    """A published corpus.

    Its location is not part of its identity; its transcripts and the bytes of its audio files are. Its methods raise
    `CorpusError` if it is not available.
    """

    about: ClassVar[About]

    # The folder with the extracted corpus; by default, the folders listed in `EMTTA_CORPORA` are searched.
    path: Annotated[str | None, RUNTIME, Field(min_length=1)] = None
    # Longer utterances are left out, and counted.
    max_seconds: Annotated[float | None, IDENTITY, Field(gt=0, allow_inf_nan=False)] = None
    utterances: Annotated[int | None, IDENTITY, Field(ge=1)] = None  # how many to use, spread over the speakers

    @abstractmethod
    def folder_names(self) -> tuple[str, ...]:
        """The usual names of its folder."""

    @abstractmethod
    def inside(self, folder: Path) -> Path | None:
        """The folder of the requested part in an extracted corpus; None if it is not there."""

    @abstractmethod
    def recordings(self, folder: Path) -> Sequence[Recording]:
        """The requested utterances in a folder returned by `inside`, in the same order everywhere.

        Raises:
            CorpusError: there are none, or their transcripts cannot be read.
        """

    def notes(self, _folder: Path) -> tuple[str, ...]:
        """What a folder lacks of the requested part, and what else of it is not used, one sentence each."""
        return ()

    def part(self) -> str:
        """The requested part of the corpus, for messages."""
        return ""

    def archive(self) -> Archive | None:
        """What to download manually if no folder contains the requested part; None if nothing."""
        return Archive()

    @property
    def what(self) -> str:
        """Its title and the requested part."""
        return f"{self.about.title} {self.part()}".strip()

    def in_folder(self) -> Path | None:
        """The folder of the requested part; None if there is none."""
        folders = filter(Path.is_dir, candidates(self.path, self.folder_names()))
        return next((found for folder in folders if (found := self.inside(folder)) is not None), None)

    def folder(self) -> Path:
        """The folder of the requested part; CorpusError, saying where to get it, if there is none."""
        found = self.in_folder()
        if found is not None:
            return found
        raise CorpusError(
            f"{self.what} is not in {searched(self.path)}"
            + (f", nor in a folder {' or '.join(self.folder_names())} there" if self.folder_names() else "")
            + f"; {self.about.get}"
            + (f", and name the folder that contains it in {CORPORA} or as path" if self.path is None else ""),
            subject=self.what,
        )

    def located(self) -> Self:
        """A copy of the corpus with its folder as path."""
        return self.model_copy(update={"path": str(self.folder().absolute())})

    def read_all(self, limit: int | None = None) -> Iterator[Utterance]:
        """Yield the utterances, or `limit` of them, in order; audio is decoded by their `read`."""
        found = self._utterances()
        return (found[index] for index in self._choice(found, limit).indices)

    def count(self, limit: int | None = None) -> Count:
        """Count what `read_all` would yield, without decoding audio."""
        found = self._choice(self._utterances(), limit).count()
        return replace(found, notes=self.notes(self.folder()))

    def content_digest(self) -> str:
        """A digest of the corpus's content."""
        folder = self.folder()
        digests, contents = FileDigests(folder), list[list[str]]()
        found = self.recordings(folder)
        for index in self._choice([one.utterance() for one in found]).indices:
            one = found[index]
            contents.append([one.id, one.text, one.language, one.speaker, one.metadata, digests.of(one.path)])
        digests.save()
        return digest(contents)

    def availability(self) -> Availability:
        """Whether the requested part is on this machine, and otherwise where to get it."""
        try:
            return self._available()
        except EmttaError as error:
            return Availability(
                self.what,
                "missing",
                self.about.source,
                self.about.licence,
                error=str(error),
                subject=error.subject,
                archive=self.archive(),
            )

    def _available(self) -> Availability:
        # That the corpus is here; raises an error if it is not.
        return Availability(self.what, "here", str(self.folder()), self.about.licence)

    def _utterances(self) -> list[Utterance]:
        return [one.utterance() for one in self.recordings(self.folder())]

    def _choice(self, found: Sequence[Utterance], limit: int | None = None) -> Choice:
        return choose_of(found, self.max_seconds, smallest(limit, self.utterances))


HOSTED_VERSION = 2
"""Incremented whenever the same files on the hub would give different utterances or samples."""


class Hosted(Published):
    """A published corpus that is read from the hub if no folder contains it.

    Its content there is identified by the data set, the configuration, the split, and the git hashes of their files.
    Its methods raise `CorpusError` if it is not available, and `UsageError` if the hub has no such revision, language
    or split.
    """

    columns: ClassVar[Mapping[str, Sequence[str]]]
    """The fields read from a row besides its audio, at least `text`, and their possible column names."""

    metadata: ClassVar[Mapping[str, Sequence[str]]] = {}
    """The fields of a row kept as metadata, and their possible column names."""

    required: ClassVar[Collection[str]] = ("audio", "text")
    """The fields that each row must have."""

    # Of the hub's data set: a branch, a tag, or a commit; a run records the commit, but the identity is of its files.
    revision: Annotated[str, RUNTIME, Field(min_length=1)] = "main"

    @abstractmethod
    def on_hub(self) -> HubSplit:
        """Its location on the hub."""

    @property
    def code(self) -> str:
        """The ISO 639-1 code of its language."""
        return "en"

    def from_row(self, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Id, transcript, language and speaker of a row; the speaker is empty if there is no such column."""
        return stem_of(row), text_in(row, "text"), self.code, text_in(row, "speaker")

    def column_names(self) -> Mapping[str, Sequence[str]]:
        """The fields read from a row, and their possible column names."""
        return {"audio": ("audio",), **self.columns}

    def further(self, schema: "pa.Schema") -> dict[str, str]:
        """The columns of a file with this schema that are kept as metadata, by their names there."""
        found = {
            key: next((name for name in names if name in schema.names), "") for key, names in self.metadata.items()
        }
        return {key: name for key, name in found.items() if name}

    def refuse_columns(self, _schema: "pa.Schema") -> None:
        """Raise a UsageError for a file whose columns show that its rows would be misread."""

    def refusal(self, _row: Mapping[str, Any]) -> str | None:
        """Why a row, which is counted before it is read, is an utterance in error; None if it is not."""
        return None

    def is_on_hub(self) -> bool:
        """Whether the hub is used: no folder is named, and no searched folder contains the requested part."""
        return self.path is None and self.in_folder() is None

    def located(self) -> Self:
        """A copy of the corpus with its folder as path, or at a commit of the hub's data set."""
        if not self.is_on_hub():
            return super().located()
        return self.model_copy(update={"revision": self.on_hub().pinned().repository.revision})

    def read_all(self, limit: int | None = None) -> Iterator[Utterance]:
        """Yield the utterances, or `limit` of them, in order; audio is decoded by their `read`.

        On the hub, ids are made unique. A few of many are read over the network; for more, all files are fetched.
        """
        if not self.is_on_hub():
            return super().read_all(limit)
        return self._chosen(limit)

    def count(self, limit: int | None = None) -> Count:
        """Count what `read_all` would yield. If lengths are needed, the audio is fetched and they are cached."""
        if not self.is_on_hub():
            return super().count(limit)
        split = self.on_hub().pinned()
        choice = self._choice_of(split, limit)
        return Count(split.count()) if choice is None else choice[0].count()

    def is_streamed(self, limit: int | None) -> bool:
        """Whether the utterances, or `limit` of them, are read over the network without fetching files."""
        if not self.is_on_hub() or self.max_seconds is not None:
            return False
        split = self.on_hub().pinned()
        choice = None if split.is_fetched() else self._choice_of(split, limit)
        return choice is not None and split.is_streamed(frozenset(choice[0].indices))

    def _available(self) -> Availability:
        if not self.is_on_hub():
            return super()._available()
        split = self.on_hub().pinned()
        repository = split.repository
        where = f"{repository.url} at {repository.revision[:12]}"
        if split.is_fetched():
            return Availability(self.what, "here", where, self.about.licence)
        repository.refuse_gated()
        sizes = repository.listing().sizes
        size = sum(sizes[path] for path in split.paths())
        return Availability(self.what, "to fetch", where, self.about.licence, size)

    def content_digest(self) -> str:
        """A digest of the corpus's content; on the hub, commits to other files do not affect it."""
        if not self.is_on_hub():
            return super().content_digest()
        split = self.on_hub().pinned()
        blobs = split.repository.listing().blobs
        files = {path: blobs[path] for path in split.paths()}
        return digest({"version": HOSTED_VERSION, "hub": split.repository.name, "files": files, "part": self.part()})

    def _chosen(self, limit: int | None) -> Iterator[Utterance]:
        split, distinct = self.on_hub().pinned(), Distinct()
        choice = self._choice_of(split, limit)
        if choice is None:
            for one in self._rows(split):
                yield replace(one, id=distinct(one.id))
            return
        indices, keys = choice[0].indices, choice[1]
        for index, one in zip(indices, self._rows(split, frozenset(indices)), strict=True):
            yield replace(one, id=keys[index].id)

    def _choice_of(self, split: HubSplit, limit: int | None) -> tuple[Choice, list[Key]] | None:
        # The chosen utterances and the keys of all; None if all are used, as their names need not be read.
        count = smallest(limit, self.utterances)
        if self.max_seconds is None and (count is None or count >= split.count()):
            return None
        seconds = None if self.max_seconds is None else self._lengths(split)
        keys = self._keys(split)
        return choose(keys, count, lambda index: seconds is not None and self._is_too_long(seconds[index])), keys

    def _is_too_long(self, seconds: float | None) -> bool:
        return self.max_seconds is not None and seconds is not None and seconds > self.max_seconds

    def _keys(self, split: HubSplit) -> list[Key]:
        # The ids and speakers of the rows, in order; cached, since reading them over the network takes a while.
        key = self._cache_key(split)
        cached = cache.load("names", key)
        if cached is None:
            columns = {role: names for role, names in self.column_names().items() if role in ("audio", "id", "speaker")}
            rows = [self.from_row(row) for row in split.names(columns, {"audio"} | {*self.required} & {*columns})]
            cached = {"ids": [id_of(name) for name, *_ in rows], "speakers": [speaker for *_, speaker in rows]}
            cache.save("names", key, cached)
        distinct = Distinct()
        return [Key(distinct(name), speaker) for name, speaker in zip(cached["ids"], cached["speakers"], strict=True)]

    def _lengths(self, split: HubSplit) -> list[float | None]:
        # The lengths of the rows' audio in seconds, in order, if its headers state them; the audio is fetched for this.
        key = self._cache_key(split)
        cached = cache.load("lengths", key)
        if cached is None:
            cached = {"seconds": [one.seconds() for one in self._rows(split)]}
            cache.save("lengths", key, cached)
        return list(cached["seconds"])

    def _cache_key(self, split: HubSplit) -> str:
        return f"{HOSTED_VERSION}/{split.key}/{type(self).__name__}/{sorted(self.column_names().items())}"

    def _rows(self, split: HubSplit, indices: Set[int] | None = None) -> Iterator[Utterance]:
        for row, further in split.rows(self.column_names(), indices, self.required, self.refuse_columns, self.further):
            audio = (row["audio"] or {}).get("bytes") or b""
            one = from_bytes(*self.from_row(row), audio, self.refusal(row))
            yield replace(one, metadata=of_row(self.what, further))


def from_bytes(name: str, text: str, language: str, speaker: str, audio: bytes, error: str | None = None) -> Utterance:
    """The utterance whose audio file has these bytes; without bytes, or with an `error`, it is in error."""
    name = id_of(name)
    length = partial(length_in_seconds, audio) if audio else lambda: None
    return Utterance(name, text, language, speaker, partial(_decode, audio, name, error), length)


def stem_of(row: Mapping[str, Any]) -> str:
    """An utterance's id: the row's id, or the name of its audio file, without the extension."""
    name = str(row.get("id") or (row["audio"] or {}).get("path") or "utterance").rpartition("/")[2]
    return re.sub(r"\.(wav|flac|mp3|ogg|opus)$", "", name)


def text_in(row: Mapping[str, Any], column: str) -> str:
    """The value of a row's column as text; empty if it is null, or there is no such column."""
    value = row.get(column)
    return "" if value is None else str(value)


def _decode(audio: bytes, name: str, error: str | None = None) -> Waveform:
    if error is not None:
        raise AudioError(f"{name}: {error}")
    if not audio:
        raise AudioError(f"{name}: its row has no audio")
    return read_audio(audio, name=name)
