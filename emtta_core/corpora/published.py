"""What the published corpora have in common: they lie in a folder of this machine, or on the Hugging Face hub."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field

from emtta_core.audio.files import length_in_seconds, read_audio
from emtta_core.audio.waveform import Waveform
from emtta_core.corpora.choice import Survey, choose, is_too_long, least, survey
from emtta_core.corpora.file_digests import FileDigests
from emtta_core.corpora.standing import Standing
from emtta_core.corpora.utterance import Utterance
from emtta_core.errors import AudioError, CorpusError, EmttaError
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
    hosted: ClassVar[bool] = False
    """Whether the hub has it."""
    reading: ClassVar[int] = 1
    """Raised whenever what the hub has of it would give other utterances, or others of their samples."""

    path: Annotated[str | None, RUNTIME, Field(min_length=1)] = None
    max_seconds: Annotated[float | None, IDENTITY, Field(gt=0, allow_inf_nan=False)] = None
    utterances: Annotated[int | None, IDENTITY, Field(ge=1)] = None

    @abstractmethod
    def usual_folders(self) -> tuple[str, ...]:
        """Return what its folder is usually called."""

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
        for folder in places(self.path, self.usual_folders()):
            found = self.inside(folder) if folder.is_dir() else None
            if found is not None:
                return found
        if self.path is None and self.hosted:
            return None
        wanted = f"{self.about.title} {self.part()}".strip()
        raise CorpusError(
            f"{wanted} is not in {looked_in(self.path)}"
            + (f", nor in a folder {' or '.join(self.usual_folders())} there" if self.usual_folders() else "")
            + f"; {self.about.get}"
            + (f", and name the folder that holds it in {CORPORA} or as path" if self.path is None else ""),
            subject=wanted,
        )

    def located(self) -> Self:
        """Return the corpus with its place settled: the folder where it was found.

        Raises:
            CorpusError: it cannot be had.
        """
        place = self.place()
        return self if place is None else self.model_copy(update={"path": str(place.absolute())})

    def read_all(self, limit: int | None = None) -> Iterator[Utterance]:
        """Return the utterances; audio is read when theirs is asked for.

        Args:
            limit: at most so many, the first ones.

        Raises:
            CorpusError: the corpus cannot be had.
            UsageError: the hub has no such revision, language or split.
        """
        wanted, place = least(limit, self.utterances), self.place()
        found = self.of_hub(wanted if self.max_seconds is None else None) if place is None else self._of(place)
        return choose(found, self.max_seconds, wanted)

    def survey(self, limit: int | None = None) -> Survey:
        """Return what `read_all` would give, counted; no audio is heard, but lengths can need it to be fetched.

        Raises:
            CorpusError: the corpus cannot be had.
            UsageError: the hub has no such revision, language or split.
        """
        wanted, place = least(limit, self.utterances), self.place()
        return self.survey_hub(wanted) if place is None else survey(self._of(place), self.max_seconds, wanted)

    def content_digest(self) -> str:
        """Return a digest of what the corpus holds.

        Raises:
            CorpusError: the corpus cannot be had.
            UsageError: the hub has no such revision, language or split.
        """
        place = self.place()
        if place is None:
            return self.digest_of_hub()
        digests, contents, used = FileDigests(place), [], 0
        for one in self.recordings(place):
            if used == self.utterances:
                break
            if not is_too_long(one.utterance(), self.max_seconds):
                contents.append([one.id, one.text, one.language, one.speaker, digests.of(one.path)])
                used += 1
        digests.keep()
        return digest(contents)

    def standing(self) -> Standing:
        """Return whether the wanted part is on this machine, and else where it is to be had."""
        what = f"{self.about.title} {self.part()}".strip()
        try:
            place = self.place()
            if place is None:
                return self.standing_on_hub(what)
        except EmttaError as error:
            return Standing(
                what, "missing", self.about.source, self.about.licence, error=str(error), subject=error.subject
            )
        return Standing(what, "here", str(place), self.about.licence)

    def _of(self, place: Path) -> Iterator[Utterance]:
        return (one.utterance() for one in self.recordings(place))

    def of_hub(self, limit: int | None) -> Iterator[Utterance]:
        """Return the utterances on the hub, the first `limit` at least."""
        raise NotImplementedError(f"{self.about.title} is not on the hub")

    def survey_hub(self, limit: int | None) -> Survey:
        """Return what is on the hub, counted."""
        raise NotImplementedError(f"{self.about.title} is not on the hub")

    def standing_on_hub(self, what: str) -> Standing:
        """Return how `what` stands on the hub."""
        raise NotImplementedError(f"{what} is not on the hub")

    def digest_of_hub(self) -> str:
        """Return a digest of what is on the hub."""
        raise NotImplementedError(f"{self.about.title} is not on the hub")


def _hear(path: Path, error: str | None) -> Waveform:
    if error is not None:
        raise AudioError(error)
    return read_audio(path)
