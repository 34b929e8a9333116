"""Published corpora that lie on the Hugging Face hub, most of them as Parquet with a row an utterance."""

import re
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import pyarrow as pa
from pydantic import Field

from emtta_core import cache
from emtta_core.audio.files import length_in_seconds, read_audio
from emtta_core.audio.waveform import Waveform
from emtta_core.corpora import hub_files, hub_split
from emtta_core.corpora.base import Standing, Survey, Utterance, choose, id_of, is_few, least, survey
from emtta_core.corpora.hub_files import Repository
from emtta_core.corpora.hub_split import HubSplit
from emtta_core.corpora.published import Published
from emtta_core.corpora.recording import Recording
from emtta_core.errors import AudioError
from emtta_core.hub import endpoint
from emtta_core.identity import RUNTIME, digest


class Hosted(Published):
    """A published corpus that the hub has, which is asked where no folder holds it.

    Its content there is the data set, the configuration, the split, and what git calls the content of their files.
    """

    reading: ClassVar[int] = 1
    """Raised whenever what the hub has of it would give other utterances, or others of their samples."""

    # Of the hub's data set: a branch, a tag, or a commit; a run records the commit, and its files are what counts.
    revision: Annotated[str, RUNTIME, Field(min_length=1)] = "main"

    @abstractmethod
    def pin(self) -> Repository:
        """Return the data set at the commit that the revision is now.

        Raises:
            CorpusError: it cannot be had.
            UsageError: it has no such revision, language or split.
        """

    @abstractmethod
    def count(self, repository: Repository) -> int:
        """Return how many utterances a pinned data set has; no audio is read."""

    @abstractmethod
    def files(self, repository: Repository) -> list[str]:
        """Return the files of a pinned data set that they lie in."""

    @abstractmethod
    def of_commit(self, repository: Repository, limit: int | None) -> Iterator[Utterance]:
        """Return the utterances of a pinned data set, the first `limit` at least."""

    def is_on_hub(self) -> bool:
        """Return whether the hub is asked: no folder is named, and none that is looked in holds the wanted part."""
        return self.path is None and self.in_folder() is None

    def located(self) -> Self:
        """Return the corpus with its place settled: the folder where it was found, or a commit of the hub's data set.

        Raises:
            CorpusError: it cannot be had.
            UsageError: the hub has no such revision, language or split.
        """
        if not self.is_on_hub():
            return super().located()
        return self.model_copy(update={"revision": self.pin().revision})

    def read_all(self, limit: int | None = None) -> Iterator[Utterance]:
        """Return the utterances, on the hub each with an id of its own; audio is read when theirs is asked for.

        Args:
            limit: at most so many, the first ones.

        Raises:
            CorpusError: the corpus cannot be had.
            UsageError: the hub has no such revision, language or split.
        """
        if not self.is_on_hub():
            return super().read_all(limit)
        wanted = least(limit, self.utterances)
        found = told_apart(self.of_commit(self.pin(), wanted if self.max_seconds is None else None))
        return choose(found, self.max_seconds, wanted)

    def survey(self, limit: int | None = None) -> Survey:
        """Return what `read_all` would give, counted. For lengths the audio is fetched, and they are remembered.

        Raises:
            CorpusError: the corpus cannot be had.
            UsageError: the hub has no such revision, language or split.
        """
        if not self.is_on_hub():
            return super().survey(limit)
        wanted, repository = least(limit, self.utterances), self.pin()
        if self.max_seconds is None:
            return Survey(least(self.count(repository), wanted) or 0)
        key = f"{endpoint()}/{repository.name}@{repository.revision}/{self.part()}"
        known = cache.recall("lengths", key)
        if known is None:
            known = {"seconds": [one.seconds() for one in self.of_commit(repository, None)]}
            cache.remember("lengths", key, known)
        lengths: list[float | None] = known["seconds"]
        return survey((_silent(seconds) for seconds in lengths), self.max_seconds, wanted)

    def is_streamed(self, limit: int | None) -> bool:
        """Return whether the first `limit` utterances are read over the network, so that no file is fetched for them.

        Raises:
            CorpusError: the corpus cannot be had.
            UsageError: the hub has no such revision, language or split.
        """
        if not self.is_on_hub() or self.max_seconds is not None:
            return False
        repository = self.pin()
        return not self._is_fetched(repository) and is_few(
            least(limit, self.utterances), lambda: self.count(repository)
        )

    def standing_as(self, what: str) -> Standing:
        """Return how `what` stands, in a folder or on the hub.

        Raises:
            CorpusError: it cannot be had, or is gated and no token is set.
            UsageError: the hub has no such revision, language or split.
        """
        if not self.is_on_hub():
            return super().standing_as(what)
        repository = self.pin()
        where = f"{repository.url} at {repository.revision[:12]}"
        if self._is_fetched(repository):
            return Standing(what, "here", where, self.about.licence)
        hub_files.refuse_gated(repository)
        sizes = hub_files.listing(repository).files
        size = sum(sizes[path] for path in self.files(repository))
        return Standing(what, "to fetch", where, self.about.licence, size)

    def content_digest(self) -> str:
        """Return a digest of what the corpus holds; on the hub a commit to other files does not matter.

        Raises:
            CorpusError: the corpus cannot be had.
            UsageError: the hub has no such revision, language or split.
        """
        if not self.is_on_hub():
            return super().content_digest()
        repository = self.pin()
        contents = hub_files.listing(repository).contents
        files = {path: contents[path] for path in self.files(repository)}
        read_anew = {"reading": self.reading} if self.reading > 1 else {}
        return digest({"hub": repository.name, "files": files, "part": self.part()} | read_anew)

    def _is_fetched(self, repository: Repository) -> bool:
        return all(hub_files.fetched(repository, path) is not None for path in self.files(repository))


class InParquet(Hosted):
    """A published corpus that lies on the hub as Parquet, with a row an utterance."""

    columns: ClassVar[Mapping[str, Sequence[str]]]
    """What is read of a row besides its audio, `text` at least, and what its column may be called."""

    required: ClassVar[Collection[str]] = ("audio", "text")
    """What of it each row must have."""

    @abstractmethod
    def on_hub(self) -> HubSplit:
        """Return where it lies on the hub."""

    @abstractmethod
    def from_row(self, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Return id, transcript, language and speaker of a row."""

    def refuse_columns(self, _schema: "pa.Schema") -> None:
        """Refuse a file whose columns say that rows mean something else than is read of them; UsageError says why."""

    def refusal(self, _row: Mapping[str, Any]) -> str | None:
        """Return why a row, which is counted before it is read, is an utterance in error; None where it is none."""
        return None

    def pin(self) -> Repository:
        """Return the data set at the commit that the revision is now."""
        return hub_split.pin(self.on_hub()).repository

    def count(self, repository: Repository) -> int:
        """Return how many rows there are."""
        return hub_split.count(self._at(repository))

    def files(self, repository: Repository) -> list[str]:
        """Return the Parquet files."""
        return hub_split.paths(self._at(repository))

    def of_commit(self, repository: Repository, limit: int | None) -> Iterator[Utterance]:
        """Yield the utterance of each row."""
        found = hub_split.rows(self._at(repository), self.wanted(), limit, self.required, self.refuse_columns)
        for row in found:
            name, text, language, speaker = self.from_row(row)
            sound = (row["audio"] or {}).get("bytes") or b""
            yield heard(name, text, language, speaker, sound, self.refusal(row))

    def wanted(self) -> Mapping[str, Sequence[str]]:
        """Return what is read of a row, and what its column may be called."""
        return {"audio": ("audio",), **self.columns}

    def _at(self, repository: Repository) -> HubSplit:
        split = self.on_hub()
        return HubSplit(repository, split.config, split.split)


class OnHubAlone(InParquet):
    """A corpus whose extracted folder is not read."""

    def usual_folders(self) -> tuple[str, ...]:
        """Return nothing: no folder is looked for."""
        return ()

    def inside(self, _folder: Path) -> Path | None:
        """Return None."""
        return None

    def recordings(self, _place: Path) -> list[Recording]:
        """Return nothing: `inside` gives no place."""
        return []

    def archive(self) -> None:
        """Return None: an archive would be of no use."""


def heard(name: str, text: str, language: str, speaker: str, sound: bytes, error: str | None = None) -> Utterance:
    """Return the utterance whose audio file has these bytes; without any, or with an `error`, it is one in error."""
    name = id_of(name)
    return Utterance(name, text, language, speaker, partial(_decode, sound, name, error), partial(_length, sound))


def stem_of(row: Mapping[str, Any]) -> str:
    """Return an utterance's id from what a row calls it, or from the name of its audio file, without the ending."""
    name = str(row.get("id") or (row["audio"] or {}).get("path") or "utterance").rpartition("/")[2]
    return re.sub(r"\.(wav|flac|mp3|ogg|opus)$", "", name)


def said(row: Mapping[str, Any], column: str) -> str:
    """Return as text what a row has in a column; nothing where that is null, or there is no such column."""
    value = row.get(column)
    return "" if value is None else str(value)


def told_apart(utterances: Iterator[Utterance]) -> Iterator[Utterance]:
    """Yield the utterances with a number behind an id that was there before: its count, or the next that is free."""
    counts: dict[str, int] = {}
    taken: set[str] = set()
    for one in utterances:
        counts[one.id] = number = counts.get(one.id, 0) + 1
        name = one.id if number == 1 else f"{one.id}-{number}"
        while name in taken:
            number += 1
            name = f"{one.id}-{number}"
        taken.add(name)
        yield replace(one, id=name)


def _decode(sound: bytes, name: str, error: str | None = None) -> Waveform:
    if error is not None:
        raise AudioError(f"{name}: {error}")
    if not sound:
        raise AudioError(f"{name}: its row has no audio")
    return read_audio(sound, name=name)


def _length(sound: bytes) -> float | None:
    return length_in_seconds(sound) if sound else None


def _silent(seconds: float | None) -> Utterance:
    return Utterance("", "", "", "", partial(_decode, b"", "an utterance"), lambda: seconds)
