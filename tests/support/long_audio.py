"""Prepared utterances, some of them longer than the model's window, and the results of adapting to them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from conftest import RATE, tone

from emtta_core.adaptation import AdaptationResult, Adapter
from emtta_core.audio.files import encode_flac
from emtta_core.model import SpeechModel
from emtta_core.pipeline.batches import adapt
from emtta_core.pipeline.long_audio import Outcome
from emtta_core.store import AudioBytes, PreparedRow
from emtta_core.suite import ModelChoice

SILENCE = np.zeros(RATE, np.float32)


LONG = np.concatenate([tone(2.6, 300), SILENCE, tone(3.0, 500)])


def prepared(**waveforms: np.ndarray) -> list[PreparedRow]:
    return [
        PreparedRow(
            utterance_id=name,
            audio=AudioBytes(bytes=encode_flac(waveform), path=f"{name}.flac"),
            text="seven small boats",
            language="en",
            speaker="s",
            seconds=len(waveform) / RATE,
            corruption=None,
            snr_db=None,
        )
        for name, waveform in waveforms.items()
    ]


def outcomes(model: SpeechModel, rows: Sequence[PreparedRow], long_audio: str, **options: object) -> dict[str, Outcome]:
    adapter = Adapter(model, **{"method": "em-tok", "steps": 1, "candidates": 2, "batch_size": 2, **options})
    choice = ModelChoice(name=model.name, long_audio=long_audio)
    return {outcome.row.utterance_id: outcome for done in adapt(adapter, rows, choice) for outcome in done}


def result(outcome: Outcome) -> AdaptationResult:
    assert not isinstance(outcome.result, str)
    return dataclasses.replace(outcome.result, seconds=0.0)
