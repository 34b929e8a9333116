"""Adapting to prepared utterances, some of them in memory at a time."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from emtta_core.adaptation import AdaptationResult, Adapter
from emtta_core.audio.files import read_audio
from emtta_core.audio.waveform import Waveform
from emtta_core.errors import AudioError, UsageError
from emtta_core.store import PreparedRow

CHUNK_UTTERANCES = 256
"""Waveforms held in memory at once, of 64 kB a second."""

Done = tuple[Sequence[PreparedRow], Sequence[AdaptationResult | str]]
"""Utterances, and what became of each; a text says why it was never adapted to."""


def adapt(adapter: Adapter, rows: Iterable[PreparedRow]) -> Iterator[Done]:
    """Yield the utterances as they are done; of each chunk, those that cannot be adapted to first.

    Raises:
        MemoryError: memory does not even suffice for one utterance (or what torch raises then).
        UsageError: the model knows the language of none of a chunk's utterances.
    """
    remaining = iter(rows)
    while chunk := list(itertools.islice(remaining, CHUNK_UTTERANCES)):
        heard: dict[str, tuple[PreparedRow, Waveform]] = {}
        lost: list[tuple[PreparedRow, str]] = []
        foreign = _foreign_languages(adapter, chunk)
        for row in chunk:
            try:
                if row.language in foreign:
                    raise foreign[row.language]
                heard[row.utterance_id] = (row, _waveform(row))
            except (AudioError, UsageError) as error:
                lost.append((row, str(error)))
        if lost:
            yield [row for row, _ in lost], [error for _, error in lost]
        for results in adapter.batches(
            [waveform for _, waveform in heard.values()],
            language=[row.language for row, _ in heard.values()],
            utterance_ids=list(heard),
        ):
            yield [heard[result.utterance_id][0] for result in results], results


def _foreign_languages(adapter: Adapter, rows: Sequence[PreparedRow]) -> dict[str, UsageError]:
    """Return the languages of `rows` that the model does not know, with what it says of each; raise where all are."""
    foreign = {}
    languages = {row.language for row in rows}
    for language in sorted(languages):
        try:
            adapter.model.prompt.rows([language], adapter.model.device)
        except UsageError as error:
            foreign[language] = error
    if len(foreign) == len(languages):
        raise next(iter(foreign.values()))
    return foreign


def _waveform(row: PreparedRow) -> Waveform:
    """Return the waveform of a prepared utterance; AudioError says why there is none."""
    if row.error is not None or row.audio is None:
        raise AudioError(row.error or "it was prepared without audio")
    return np.ascontiguousarray(read_audio(row.audio.bytes, name=row.utterance_id))
