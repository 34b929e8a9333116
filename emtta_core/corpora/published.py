"""What the published corpora have in common: each can lie in a folder of this machine, as its archive has it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field

from emtta_core.corpora.base import Archive, Availability, Choice, Count, Utterance, choose_of, least
from emtta_core.corpora.recording import FileDigests, Recording
from emtta_core.errors import CorpusError, EmttaError
from emtta_core.identity import IDENTITY, RUNTIME, Record, digest
from emtta_core.input_files import CORPORA, candidates, searched


@dataclass(frozen=True, slots=True)
class About:
    """What to know of a published corpus."""

    title: str  # its name in full
    licence: str  # under which it may be used
    source: str  # where it is to be had
    get: str  # how it is put onto this machine without the hub


class Published(Record, ABC):
    """A corpus that others publish.

    Where it lies is no part of its identity; its transcripts and the bytes of its audio files are. Its methods raise
    `CorpusError` where it cannot be had.
    """

    about: ClassVar[About]

    # A folder that holds it, extracted; left out, it is looked for in the folders that `EMTTA_CORPORA` names.
    path: Annotated[str | None, RUNTIME, Field(min_length=1)] = None
    # Longer utterances are left out, and counted.
    max_seconds: Annotated[float | None, IDENTITY, Field(gt=0, allow_inf_nan=False)] = None
    utterances: Annotated[int | None, IDENTITY, Field(ge=1)] = None  # how many to use, spread over the speakers

    @abstractmethod
    def usual_folders(self) -> tuple[str, ...]:
        """What its folder is usually called."""

    @abstractmethod
    def inside(self, folder: Path) -> Path | None:
        """Where the wanted part lies in an extracted corpus; None where it does not."""

    @abstractmethod
    def recordings(self, folder: Path) -> Sequence[Recording]:
        """The wanted utterances, of a folder that `inside` gave, in an order that is the same everywhere.

        Raises:
            CorpusError: there is none, or their transcripts cannot be read.
        """

    def notes(self, _folder: Path) -> tuple[str, ...]:
        """What of the wanted part a folder lacks, and what else of it is not used, a sentence each."""
        return ()

    def part(self) -> str:
        """What of the corpus is wanted, for a message."""
        return ""

    def archive(self) -> Archive | None:
        """What is got by hand where no folder holds the wanted part; None where that is nothing."""
        return Archive()

    @property
    def what(self) -> str:
        """Its title, with the part of it that is wanted."""
        return f"{self.about.title} {self.part()}".strip()

    def in_folder(self) -> Path | None:
        """Where a folder holds the wanted part; None where none does."""
        folders = filter(Path.is_dir, candidates(self.path, self.usual_folders()))
        return next((found for folder in folders if (found := self.inside(folder)) is not None), None)

    def folder(self) -> Path:
        """Where a folder holds the wanted part; CorpusError, which says where it is to be had, where none does."""
        found = self.in_folder()
        if found is not None:
            return found
        raise CorpusError(
            f"{self.what} is not in {searched(self.path)}"
            + (f", nor in a folder {' or '.join(self.usual_folders())} there" if self.usual_folders() else "")
            + f"; {self.about.get}"
            + (f", and name the folder that holds it in {CORPORA} or as path" if self.path is None else ""),
            subject=self.what,
        )

    def located(self) -> Self:
        """The corpus with the folder that holds it as its path."""
        return self.model_copy(update={"path": str(self.folder().absolute())})

    def read_all(self, limit: int | None = None) -> Iterator[Utterance]:
        """Yield the utterances, or `limit` of them, in their order; audio is decoded by their `read`."""
        found = self._utterances()
        return (found[index] for index in self._choice(found, limit).indices)

    def count(self, limit: int | None = None) -> Count:
        """Count what `read_all` would give; no audio is decoded."""
        found = self._choice(self._utterances(), limit).count()
        return replace(found, notes=self.notes(self.folder()))

    def content_digest(self) -> str:
        """A digest of what the corpus holds."""
        folder = self.folder()
        digests, contents = FileDigests(folder), list[list[str]]()
        found = self.recordings(folder)
        for index in self._choice([one.utterance() for one in found]).indices:
            one = found[index]
            contents.append([one.id, one.text, one.language, one.speaker, one.metadata, digests.of(one.path)])
        digests.save()
        return digest(contents)

    def availability(self) -> Availability:
        """Whether the wanted part is on this machine, and else where it is to be had."""
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
        # That the corpus is here; raises why it is not.
        return Availability(self.what, "here", str(self.folder()), self.about.licence)

    def _utterances(self) -> list[Utterance]:
        return [one.utterance() for one in self.recordings(self.folder())]

    def _choice(self, found: Sequence[Utterance], limit: int | None = None) -> Choice:
        return choose_of(found, self.max_seconds, least(limit, self.utterances))
