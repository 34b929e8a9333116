"""Adapting to prepared utterances, a batch at a time; a batch too large for the memory becomes a smaller one."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from emtta_core.adaptation import AdaptationResult, Adapter
from emtta_core.audio.files import read_audio
from emtta_core.audio.waveform import Waveform
from emtta_core.errors import AudioError
from emtta_core.model import SpeechModel
from emtta_core.pipeline.faults import is_out_of_memory
from emtta_core.store import PreparedRow
from emtta_core.suite import Adaptation

log = logging.getLogger("emtta.pipeline")

CHUNK_UTTERANCES = 256
"""Waveforms held in memory at once, of 64 kB a second."""

Done = tuple[Sequence[PreparedRow], Sequence[AdaptationResult | str]]
"""Utterances, and what became of each; a text says why it was never adapted to."""


class Batches:
    """One method's way through a domain.

    Attributes:
        size: utterances side by side; halved where memory does not suffice, which changes no result.
    """

    def __init__(self, model: SpeechModel, method: str, adaptation: Adaptation, size: int) -> None:
        self._model, self._method = model, method
        self._options = {name: getattr(adaptation, name) for name in type(adaptation).model_fields}
        self.size = size

    def adapt(self, rows: Iterable[PreparedRow]) -> Iterator[Done]:
        """Yield the utterances as they are done; of each chunk, those without audio first.

        Raises:
            MemoryError: memory does not even suffice for one utterance (or torch's `OutOfMemoryError`).
            UsageError: the model does not know a language.
        """
        remaining = iter(rows)
        while chunk := list(itertools.islice(remaining, CHUNK_UTTERANCES)):
            heard: dict[str, tuple[PreparedRow, Waveform]] = {}
            lost: list[tuple[PreparedRow, str]] = []
            for row in chunk:
                try:
                    heard[row.utterance_id] = (row, _waveform(row))
                except AudioError as error:
                    lost.append((row, str(error)))
            if lost:
                yield [row for row, _ in lost], [error for _, error in lost]
            while heard:
                try:
                    for results in self._results(list(heard.values())):
                        yield [heard.pop(result.utterance_id)[0] for result in results], results
                except Exception as error:
                    if not is_out_of_memory(error) or self.size == 1:
                        raise
                    self.size //= 2
                    log.warning("out of memory; going on with %d utterances side by side", self.size)
                _release(self._model)

    def _results(self, heard: Sequence[tuple[PreparedRow, Waveform]]) -> Iterator[list[AdaptationResult]]:
        """Yield the engine's results, a batch at a time."""
        adapter = Adapter(self._model, self._method, batch_size=self.size, **self._options)
        return adapter.batches(
            [waveform for _, waveform in heard],
            language=[row.language for row, _ in heard],
            utterance_ids=[row.utterance_id for row, _ in heard],
        )


def _waveform(row: PreparedRow) -> Waveform:
    """Return the waveform of a prepared utterance; AudioError says why there is none."""
    if row.error is not None or row.audio is None:
        raise AudioError(row.error or "it was prepared without audio")
    return np.ascontiguousarray(read_audio(row.audio.bytes, name=row.utterance_id))


def _release(model: SpeechModel) -> None:
    """Give memory that is cached and not in use back to the device."""
    if model.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
