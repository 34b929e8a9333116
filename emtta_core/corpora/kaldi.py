"""Kaldi data folders: `wav.scp`, `text`, `segments`, `utt2spk` and more tables by utterance.

Source: https://kaldi-asr.org/doc/data_prep.html. Nothing is executed: a command in `wav.scp` is refused.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from emtta_core.corpora.base import id_of
from emtta_core.corpora.manifest import read_text
from emtta_core.corpora.utterance_rows import LANGUAGE, NO_LANGUAGE, NOT_SILENT, Row, Table, number_of, segment, some
from emtta_core.errors import UsageError

SCP = "wav.scp"
"""The table of recordings, which identifies such a folder."""

_READ = frozenset({SCP, "text", "segments", "reco2file_and_channel", "spk2utt"})
"""The tables that are not metadata; `spk2utt` repeats `utt2spk`."""

_ARCHIVE = re.compile(r".+\.ark(:\d+)?")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of a table."""

    file: Path
    line: int
    value: str  # what follows the key

    def refusal(self, reason: str) -> UsageError:
        return UsageError(f"{self.file}, line {self.line}: {self.value!r}: {reason}")


def read_kaldi(scp: Path, folder: Path, *, needs_text: bool = True) -> Table:
    """The rows of a data folder, one per utterance, in the order of `segments`, or else of `wav.scp`.

    A table `utt2NAME`, or `spk2NAME` by speaker, is metadata called NAME, except `utt2spk`, `utt2lang` and `utt2dur`.
    Paths are relative to the corpus's folder, as Kaldi's are to its working directory. Without `needs_text`,
    transcripts must be empty.

    Raises:
        UsageError: a table is missing or has a mistake.
    """
    data_dir = scp.parent
    recordings = _table(scp)
    for entry in recordings.values():
        _refuse_command(entry)
    _refuse_channels(data_dir)
    texts = _table(data_dir / "text", may_be_empty=True) if needs_text or (data_dir / "text").exists() else {}
    by_utterance = {name: _table(data_dir / f"utt2{name}") for name in _names(data_dir, "utt2")}
    by_speaker = {name: _table(data_dir / f"spk2{name}") for name in _names(data_dir, "spk2")}
    rows = []
    for name, row in _rows(data_dir, recordings):
        found = {kind: table[name].value for kind, table in by_utterance.items() if name in table}
        speaker, duration = found.pop("spk", ""), found.pop("dur", "")
        if duration and number_of(duration) is None:
            raise by_utterance["dur"][name].refusal("it must be a number of seconds such as 1.5")
        language = found.pop("lang", "")
        if language and not LANGUAGE.fullmatch(language):
            raise by_utterance["lang"][name].refusal(NO_LANGUAGE)
        if not needs_text and name in texts and texts[name].value:
            raise texts[name].refusal(NOT_SILENT)
        error = None
        if needs_text and name not in texts:
            error = f"{data_dir / 'text'} has no line for {name}: write its transcript there, or remove the utterance"
        spoken = {kind: table[speaker].value for kind, table in by_speaker.items() if speaker in table}
        rows.append(
            replace(
                row,
                id=id_of(name),
                text=texts[name].value if name in texts else "",
                language=language,
                speaker=speaker,
                duration=number_of(duration),
                metadata=spoken | found,
                error=error,
            )
        )
    if not rows:
        raise UsageError(f"{scp} has no rows; add one for each recording")
    return Table(rows, folder, tuple(_notes(data_dir, texts, {row.id for row in rows})))


def _rows(data_dir: Path, recordings: Mapping[str, _Entry]) -> Iterator[tuple[str, Row]]:
    # The utterances by name: recordings, or segments of them.
    if not (data_dir / "segments").exists():
        for name, entry in recordings.items():
            yield name, Row(entry.file, entry.line, entry.value)
        return
    for name, entry in _table(data_dir / "segments").items():
        fields = entry.value.split()
        numbers = [number_of(field) for field in fields[1:]]
        if len(fields) != 3 or None in numbers:
            raise entry.refusal("a segment is its id, its recording's id, and its start and end in seconds")
        if fields[0] not in recordings:
            raise entry.refusal(
                f"the recording {fields[0]!r} is not in {data_dir / SCP}; add it, or remove the segment"
            )
        blank = Row(entry.file, entry.line, recordings[fields[0]].value)
        start, end = numbers
        # An end of -1 means that of the recording.
        begin, length = segment(blank.refusal, start=start, end=None if end == -1 else end)
        yield name, replace(blank, begin=begin, length=length)


def _table(path: Path, *, may_be_empty: bool = False) -> dict[str, _Entry]:
    # The lines of a table by their first word; UsageError if one has nothing after it, or occurs twice.
    found: dict[str, _Entry] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        key, *rest = line.strip().split(None, 1)
        entry = _Entry(path, number, rest[0] if rest else "")
        if not rest and not may_be_empty:
            raise UsageError(f"{path}, line {number}: there is nothing after {key!r}; a line is an id and a value")
        if key in found:
            raise UsageError(
                f"{path}, line {number}: the id {key!r} is already used in line {found[key].line}; give each a unique "
                "id"
            )
        found[key] = entry
    return found


def _refuse_command(entry: _Entry) -> None:
    if entry.value.endswith("|") or entry.value.startswith("|"):
        raise entry.refusal(
            "it is a command, and commands are not run; write its output to a file, and put that file's path here"
        )
    if _ARCHIVE.fullmatch(entry.value):
        raise entry.refusal(
            "it is in an archive, which is not read; write it to a file, for example with Kaldi's wav-copy, and put "
            "that file's path here"
        )


def _refuse_channels(data_dir: Path) -> None:
    # Refuse recordings given by channel, since the channels of a file are averaged.
    path = data_dir / "reco2file_and_channel"
    for entry in _table(path).values() if path.exists() else ():
        if entry.value.split()[-1] not in ("A", "1"):
            raise entry.refusal(
                "it names a channel, but the channels of a file are averaged: write each to a separate file"
            )


def _names(data_dir: Path, beginning: str) -> list[str]:
    found = sorted(path.name for path in data_dir.glob(f"{beginning}*") if path.is_file() and path.name not in _READ)
    return [name.removeprefix(beginning) for name in found if name != beginning]


def _notes(data_dir: Path, texts: Mapping[str, _Entry], ids: Collection[str]) -> Iterator[str]:
    unmatched = [name for name in texts if id_of(name) not in ids]
    if unmatched:
        yield f"lines of text without a recording or a segment, and not used: {some(unmatched)}"
    others = sorted(path.name for path in data_dir.glob("*.scp") if path.name != SCP and path.is_file())
    if others:
        yield f"tables that are not used: {some(others)}"
