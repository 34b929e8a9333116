"""What the published corpora have in common: each can lie in a folder of this machine, as its archive has it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field

from emtta_core.corpora.base import Archive, Availability, Count, Utterance, choose, count, is_too_long, least
from emtta_core.corpora.recording import FileDigests, Recording
from emtta_core.corpus_dirs import CORPORA, looked_in, places
from emtta_core.errors import CorpusError, EmttaError
from emtta_core.identity import IDENTITY, RUNTIME, Record, digest


@dataclass(frozen=True, slots=True)
class About:
    """What to know of a published corpus."""

    title: str  # its name in full
    licence: str  # under which it may be used
    source: str  # where it is to be had
    get: str  # how it is put onto this machine without the hub


class Published(Record, ABC):
    """A corpus that others publish.

    Where it lies is no part of its identity; its transcripts and the bytes of its audio files are.
    """

    about: ClassVar[About]

    # A folder that holds it, extracted; left out, it is looked for in the folders that `EMTTA_CORPORA` names.
    path: Annotated[str | None, RUNTIME, Field(min_length=1)] = None
    # Longer utterances are left out, and counted.
    max_seconds: Annotated[float | None, IDENTITY, Field(gt=0, allow_inf_nan=False)] = None
    utterances: Annotated[int | None, IDENTITY, Field(ge=1)] = None  # how many to use, from the first; None for all

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

    def archive(self) -> Archive | None:
        """Return what is got by hand where no folder holds the wanted part; None where that is nothing."""
        return Archive()

    def in_folder(self) -> Path | None:
        """Return where a folder holds the wanted part; None where none does."""
        for folder in places(self.path, self.usual_folders()):
            found = self.inside(folder) if folder.is_dir() else None
            if found is not None:
                return found
        return None

    def place(self) -> Path:
        """Return where a folder holds the wanted part.

        Raises:
            CorpusError: none does; says where the corpus is to be had.
        """
        found = self.in_folder()
        if found is not None:
            return found
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
        return self.model_copy(update={"path": str(self.place().absolute())})

    def read_all(self, limit: int | None = None) -> Iterator[Utterance]:
        """Return the utterances; audio is read when theirs is asked for.

        Args:
            limit: at most so many, the first ones.

        Raises:
            CorpusError: the corpus cannot be had.
        """
        return choose(self._utterances(), self.max_seconds, least(limit, self.utterances))

    def count(self, limit: int | None = None) -> Count:
        """Return what `read_all` would give, counted; no audio is heard, but lengths can need it to be fetched.

        Raises:
            CorpusError: the corpus cannot be had.
        """
        return count(self._utterances(), self.max_seconds, least(limit, self.utterances))

    def content_digest(self) -> str:
        """Return a digest of what the corpus holds.

        Raises:
            CorpusError: the corpus cannot be had.
        """
        place = self.place()
        digests, contents, used = FileDigests(place), [], 0
        for one in self.recordings(place):
            if used == self.utterances:
                break
            if not is_too_long(one.utterance(), self.max_seconds):
                contents.append([one.id, one.text, one.language, one.speaker, digests.of(one.path)])
                used += 1
        digests.keep()
        return digest(contents)

    def availability(self) -> Availability:
        """Return whether the wanted part is on this machine, and else where it is to be had."""
        what = f"{self.about.title} {self.part()}".strip()
        try:
            return self._availability(what)
        except EmttaError as error:
            return Availability(
                what,
                "missing",
                self.about.source,
                self.about.licence,
                error=str(error),
                subject=error.subject,
                archive=self.archive(),
            )

    def _availability(self, what: str) -> Availability:
        """Return how `what` stands where it can be had.

        Raises:
            CorpusError: it cannot.
        """
        return Availability(what, "here", str(self.place()), self.about.licence)

    def _utterances(self) -> Iterator[Utterance]:
        return (one.utterance() for one in self.recordings(self.place()))
