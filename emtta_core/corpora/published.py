"""What the published corpora have in common: they lie in a folder of this machine, or on the Hugging Face hub."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from emtta_core import cache
from emtta_core.audio.files import length_in_seconds, read_audio
from emtta_core.audio.waveform import Waveform
from emtta_core.corpora import hub, hub_split
from emtta_core.corpora.choice import Survey, choose, is_too_long, least, survey
from emtta_core.corpora.file_digests import FileDigests
from emtta_core.corpora.hub_split import HubSplit
from emtta_core.corpora.utterance import Utterance
from emtta_core.errors import AudioError, CorpusError
from emtta_core.identity import IDENTITY, RUNTIME, Record, digest
from emtta_core.shelves import CORPORA, looked_in, places


@dataclass(frozen=True, slots=True)
class About:
    """What to know of a published corpus.

    Attributes:
        title: its name in full.
        licence: under which it may be used.
        source: where it is to be had.
        get: how it is put onto this machine without the hub.
    """

    title: str
    licence: str
    source: str
    get: str


@dataclass(frozen=True, slots=True)
class Recording:
    """An utterance in a folder.

    Attributes:
        id: as in `Utterance`, and so are the text, the language and the speaker.
        path: its audio file.
        error: why it cannot be used, where that is known already.
    """

    id: str
    text: str
    language: str
    speaker: str
    path: Path
    error: str | None = None

    def utterance(self) -> Utterance:
        """Return it as every corpus does."""
        read, seconds = partial(_hear, self.path, self.error), partial(length_in_seconds, self.path)
        return Utterance(self.id, self.text, self.language, self.speaker, read, seconds)


class Published(Record, ABC):
    """A corpus that others publish.

    Where it lies is no part of its identity. In a folder its content is its transcripts and the bytes of its audio
    files; on the hub it is the data set, the commit, the configuration and the split.

    Attributes:
        path: a folder that holds it, extracted; left out, it is looked for in the folders that `EMTTA_CORPORA` names,
            and then on the hub.
        max_seconds: longer utterances are left out, and counted.
        utterances: how many to use, from the first; None for all.
    """

    about: ClassVar[About]
    folders: ClassVar[tuple[str, ...]]
    """What its folder is usually called."""

    path: Annotated[str | None, RUNTIME, Field(min_length=1)] = None
    max_seconds: Annotated[float | None, IDENTITY, Field(gt=0, allow_inf_nan=False)] = None
    utterances: Annotated[int | None, IDENTITY, Field(ge=1)] = None

    @abstractmethod
    def inside(self, folder: Path) -> Path | None:
        """Return where the wanted part lies in an extracted corpus; None where it does not."""

    @abstractmethod
    def recordings(self, place: Path) -> Sequence[Recording]:
        """Return the wanted utterances, of a place that `inside` gave, in an order that is the same everywhere.

        Raises:
            CorpusError: there is none, or their transcripts cannot be read.
        """

    def part(self) -> str:
        """Return what of the corpus is wanted, for a message."""
        return ""

    def place(self) -> Path | None:
        """Return the folder that holds the wanted part; None where no folder does and the hub may.

        Raises:
            CorpusError: no folder does, and `path` is given or the hub does not have it.
        """
        for folder in places(self.path, self.folders):
            found = self.inside(folder) if folder.is_dir() else None
            if found is not None:
                return found
        if self.path is None and self.on_hub() is not None:
            return None
        wanted = f"{self.about.title} {self.part()}".strip()
        raise CorpusError(
            f"{wanted} is not in {looked_in(self.path)}, nor in a folder {' or '.join(self.folders)} there; "
            f"{self.about.get}"
            + (f", and name the folder that holds it in {CORPORA} or as path" if self.path is None else "")
        )

    def on_hub(self) -> HubSplit | None:
        """Return where it lies on the hub; None where it does not."""
        return None

    def located(self) -> Self:
        """Return the corpus with its place settled: the folder where it was found.

        Raises:
            CorpusError: it cannot be had.
        """
        place = self.place()
        return self if place is None else self.model_copy(update={"path": str(place.resolve())})

    def read_all(self, limit: int | None = None) -> Iterator[Utterance]:
        """Return the utterances; audio is read when theirs is asked for.

        Args:
            limit: at most so many, the first ones.

        Raises:
            CorpusError: the corpus cannot be had.
            UsageError: the hub has no such revision, language or split.
        """
        wanted, place = least(limit, self.utterances), self.place()
        read = wanted if self.max_seconds is None else None
        found = self._in_hub(read) if place is None else (one.utterance() for one in self.recordings(place))
        return choose(found, self.max_seconds, wanted)

    def survey(self, limit: int | None = None) -> Survey:
        """Return what `read_all` would give, counted; no audio is heard, but lengths can need it to be fetched.

        Raises:
            CorpusError: the corpus cannot be had.
            UsageError: the hub has no such revision, language or split.
        """
        wanted, place = least(limit, self.utterances), self.place()
        if place is not None:
            return survey((one.utterance() for one in self.recordings(place)), self.max_seconds, wanted)
        return self._survey_hub(wanted)

    def content_digest(self) -> str:
        """Return a digest of what the corpus holds.

        Raises:
            CorpusError: the corpus cannot be had.
            UsageError: the hub has no such revision, language or split.
        """
        place = self.place()
        if place is None:
            return self._hub_digest()
        digests, contents, used = FileDigests(place), [], 0
        for one in self.recordings(place):
            if used == self.utterances:
                break
            if not is_too_long(one.utterance(), self.max_seconds):
                contents.append([one.id, one.text, one.language, one.speaker, digests.of(one.path)])
                used += 1
        digests.keep()
        return digest(contents)

    def _in_hub(self, limit: int | None) -> Iterator[Utterance]:
        raise NotImplementedError

    def _survey_hub(self, limit: int | None) -> Survey:
        raise NotImplementedError

    def _hub_digest(self) -> str:
        raise NotImplementedError


class Hosted(Published):
    """A published corpus that lies on the hub as Parquet.

    Attributes:
        revision: of the hub's data set: a branch, a tag, or a commit; a run records the commit.
    """

    columns: ClassVar[Mapping[str, Sequence[str]]]
    """What is read of a row, `audio` and `text` at least, and what its column may be called."""

    revision: Annotated[str, IDENTITY, Field(min_length=1)] = "main"

    @abstractmethod
    def on_hub(self) -> HubSplit:
        """Return where it lies on the hub."""

    @abstractmethod
    def from_row(self, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Return id, transcript, language and speaker of a row."""

    def located(self) -> Self:
        """Return the corpus with its place settled: the folder where it was found, or a commit of the hub's data set.

        Raises:
            CorpusError: it cannot be had.
            UsageError: the hub has no such revision, language or split.
        """
        if self.place() is not None:
            return super().located()
        return self.model_copy(update={"revision": hub_split.pin(self.on_hub()).repository.revision})

    def _in_hub(self, limit: int | None) -> Iterator[Utterance]:
        wanted = {"audio": ("audio",), **self.columns}
        seen: dict[str, int] = {}
        for row in hub_split.rows(hub_split.pin(self.on_hub()), wanted, limit):
            name, text, language, speaker = self.from_row(row)
            name = _plain(name)
            seen[name] = seen.get(name, 0) + 1
            name = name if seen[name] == 1 else f"{name}-{seen[name]}"
            sound = (row["audio"] or {}).get("bytes") or b""
            yield Utterance(name, text, language, speaker, partial(_decode, sound, name), partial(_length, sound))

    def _survey_hub(self, limit: int | None) -> Survey:
        split = hub_split.pin(self.on_hub())
        if self.max_seconds is None:
            return Survey(least(hub_split.count(split), limit) or 0)
        key = f"{hub.endpoint()}/{split.repository.name}@{split.repository.revision}/{split.config}/{split.split}"
        known = cache.recall("lengths", key)
        if known is None:
            known = {"seconds": [one.seconds() for one in self._in_hub(None)]}
            cache.remember("lengths", key, known)
        lengths: list[float | None] = known["seconds"]
        silent = (Utterance("", "", "", "", _nothing, partial(_same, seconds)) for seconds in lengths)
        return survey(silent, self.max_seconds, limit)

    def _hub_digest(self) -> str:
        split = hub_split.pin(self.on_hub())
        return digest({"hub": split.repository.name, "commit": split.repository.revision, "part": str(split)})


def stem_of(row: Mapping[str, Any]) -> str:
    """Return an utterance's id from what a row calls it, or from the name of its audio file."""
    return Path(str(row.get("id") or (row["audio"] or {}).get("path") or "utterance")).stem


def _plain(name: str) -> str:
    """Return a name that may be an utterance's id; what it may not hold becomes `_`, and a digest tells such apart."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return plain if plain == name else f"{plain}-{digest(name, 8)}"


def _hear(path: Path, error: str | None) -> Waveform:
    if error is not None:
        raise AudioError(error)
    return read_audio(path)


def _decode(sound: bytes, name: str) -> Waveform:
    if not sound:
        raise AudioError(f"{name}: its row on the hub holds no audio")
    return read_audio(sound, name=name)


def _length(sound: bytes) -> float | None:
    return length_in_seconds(sound) if sound else None


def _same(seconds: float | None) -> float | None:
    return seconds


def _nothing() -> Waveform:
    raise AudioError("there is no audio to hear")
