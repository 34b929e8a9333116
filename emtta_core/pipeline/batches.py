"""Adapt to prepared utterances, holding a limited number in memory at a time."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from emtta_core.adaptation import AdaptationResult, Adapter
from emtta_core.adaptation.inputs import check_waveform
from emtta_core.audio.files import read_audio
from emtta_core.audio.waveform import Waveform
from emtta_core.errors import AudioError, UsageError
from emtta_core.faults import is_fatal, unexpected
from emtta_core.model import Model
from emtta_core.model.speech_model import detect_language
from emtta_core.pipeline.long_audio import Outcome, Window, WindowResult, join, split
from emtta_core.store import PreparedRow
from emtta_core.suite import ModelChoice

log = logging.getLogger("emtta.pipeline")

CHUNK_UTTERANCES, CHUNK_SECONDS = 256, 7_200.0
"""Limits on the waveforms held in memory at once (64 kB per second of audio); whichever is reached first applies."""


def adapt(adapter: Adapter, rows: Iterable[PreparedRow], choice: ModelChoice) -> Iterator[list[Outcome]]:
    """Yield utterances as they finish; in each chunk, those that cannot be adapted to come first.

    Raises:
        MemoryError: there is not enough memory to detect an utterance's language (or torch's own error for that).
        UsageError: the model cannot detect languages.
    """
    if choice.language == "detect":
        adapter.model.prompt.common()
    for chunk in _chunks(rows):
        unknown = _unknown_languages(adapter.model, chunk) if choice.language == "corpus" else {}
        started = [_begin(row, adapter.model, choice, unknown) for row in chunk]
        failed = [outcome for outcome in started if isinstance(outcome, Outcome)]
        if failed:
            yield failed
        yield from _adapt(adapter, [utterance for utterance in started if isinstance(utterance, OpenUtterance)])


def begin(row: PreparedRow, model: Model, choice: ModelChoice) -> "OpenUtterance | Outcome":
    """Return an utterance ready for adaptation, or the outcome that says why it cannot be adapted to.

    Raises:
        MemoryError: as for `adapt`.
    """
    return _begin(row, model, choice, _unknown_languages(model, [row]) if choice.language == "corpus" else {})


def _begin(
    row: PreparedRow, model: Model, choice: ModelChoice, unknown: Mapping[str, UsageError]
) -> "OpenUtterance | Outcome":
    try:
        if row.language in unknown:
            raise unknown[row.language]
        return OpenUtterance(row, _waveform(row), model, choice)
    except (AudioError, UsageError) as error:
        return Outcome(row, str(error))
    except Exception as error:
        if is_fatal(error):
            raise
        log.warning("utterance %s could not be adapted to", row.utterance_id, exc_info=True)
        return Outcome(row, unexpected("adapted to", error))


def check_languages(model: Model, rows: Iterable[PreparedRow]) -> None:
    """Refuse utterances if the model knows none of their languages; stop reading rows at the first language it knows.

    Raises:
        UsageError: the model knows none of the languages.
    """
    unknown: dict[str, UsageError] = {}
    for row in rows:
        if row.language not in unknown:
            unknown |= _unknown_languages(model, [row])
        if row.language not in unknown:
            return
    if unknown:
        raise next(iter(unknown.values()))


def _chunks(rows: Iterable[PreparedRow]) -> Iterator[list[PreparedRow]]:
    chunk: list[PreparedRow] = []
    seconds = 0.0
    for row in rows:
        chunk.append(row)
        seconds += row.seconds
        if len(chunk) == CHUNK_UTTERANCES or seconds >= CHUNK_SECONDS:
            yield chunk
            chunk, seconds = [], 0.0
    if chunk:
        yield chunk


class OpenUtterance:
    """An utterance whose windows are being adapted to."""

    def __init__(self, row: PreparedRow, waveform: Waveform, model: Model, choice: ModelChoice):
        """Cut the utterance into windows, and detect its language if that was chosen.

        Raises:
            AudioError: the audio has no sound in which to detect a language.
        """
        self.row = row
        self.windows = split(row.utterance_id, waveform, model.front_end.longest, choice.long_audio)
        # Ids of the unfinished windows.
        self.waiting = {window.id for window in self.windows if not window.silent}
        self.language = row.language  # the language given to the model
        self._probability: float | None = None
        self._results: dict[str, AdaptationResult] = {}
        if choice.language == "detect":
            first = next(window.waveform for window in self.windows if not window.silent)
            detected = detect_language(model, check_waveform(first, model))
            self.language, self._probability = detected.language, detected.probability

    def add_result(self, result: AdaptationResult) -> None:
        """Take the result of a window."""
        self.waiting.remove(result.utterance_id)
        self._results[result.utterance_id] = result

    def outcome(self) -> Outcome:
        """Return the utterance's outcome; call it once no window is waiting."""
        windows = tuple(
            WindowResult(window, self.language, self._probability, self._results.get(window.id))
            for window in self.windows
        )
        reported = windows if len(windows) > 1 or self._probability is not None else ()
        return Outcome(self.row, join(self.row.utterance_id, windows), reported)


def _adapt(adapter: Adapter, utterances: Sequence[OpenUtterance]) -> Iterator[list[Outcome]]:
    windows = {
        window.id: (utterance, window) for utterance in utterances for window in utterance.windows if not window.silent
    }
    for results in _results(adapter, windows):
        for result in results:
            windows[result.utterance_id][0].add_result(result)
        updated = dict.fromkeys(windows[result.utterance_id][0] for result in results)
        done = [utterance.outcome() for utterance in updated if not utterance.waiting]
        if done:
            yield done


def _results(adapter: Adapter, windows: Mapping[str, tuple[OpenUtterance, Window]]) -> Iterator[list[AdaptationResult]]:
    # If a library fails on a batch, the window at fault is unknown: the remaining windows are adapted one by one, and
    # one that fails again gets the reason as its result. A window's result does not depend on the rest of its batch.
    remaining = dict(windows)
    try:
        for results in _batches(adapter, remaining):
            for result in results:
                del remaining[result.utterance_id]
            yield results
        return
    except Exception as error:
        if is_fatal(error):
            raise
        log.warning("a batch failed; retrying its %d windows one by one", len(remaining), exc_info=True)
    for name, window in remaining.items():
        try:
            yield from _batches(adapter, {name: window})
        except Exception as error:
            if is_fatal(error):
                raise
            log.warning("utterance %s could not be adapted to", window[0].row.utterance_id, exc_info=True)
            reason = unexpected("adapted to", error)
            yield [AdaptationResult(name, "", "", math.nan, math.nan, (), 0.0, error=reason)]


def _batches(adapter: Adapter, windows: Mapping[str, tuple[OpenUtterance, Window]]) -> Iterator[list[AdaptationResult]]:
    return adapter.batches(
        [window.waveform for _, window in windows.values()],
        language=[utterance.language for utterance, _ in windows.values()],
        utterance_ids=list(windows),
    )


def _unknown_languages(model: Model, rows: Sequence[PreparedRow]) -> dict[str, UsageError]:
    # The languages of `rows` that the model does not know, with its error for each.
    unknown = {}
    for language in sorted({row.language for row in rows}):
        try:
            model.prompt.rows([language], model.device)
        except UsageError as error:
            unknown[language] = error
    return unknown


def _waveform(row: PreparedRow) -> Waveform:
    # The waveform of a prepared utterance; raises AudioError with the reason if there is none.
    if row.error is not None or row.audio is None:
        raise AudioError(row.error or "it was prepared without audio")
    return np.ascontiguousarray(read_audio(row.audio.bytes, name=row.utterance_id))
