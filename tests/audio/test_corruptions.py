"""Noise is reproducible: the same settings, utterance and speech give the same samples, in any order."""

import json
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from emtta_core.audio.corruption import Corruption, Noise
from emtta_core.audio.files import encode_flac
from emtta_core.audio.mix import rms_dbfs
from emtta_core.audio.noise import NOISES, VOICES
from emtta_core.audio.waveform import Waveform
from emtta_core.corpora.synthetic import voices_for_noise
from emtta_core.errors import AudioError
from emtta_core.identity import digest

SPEECH, *OTHERS = voices_for_noise(9, seed=2)


def others(count: int) -> Sequence[Waveform]:
    return OTHERS[:count]


def nobody(count: int) -> Sequence[Waveform]:
    raise AssertionError(f"asked for {count} voices")


@pytest.mark.parametrize("kind", NOISES)
def test_same_seed_gives_same_bits(kind: str) -> None:
    noise = Noise(kind=kind, snr_db=5)
    first = noise.apply(SPEECH, "a-1", others)
    noise.apply(SPEECH, "a-2", others)
    again = Noise(kind=kind, snr_db=5).apply(SPEECH, "a-1", others)
    assert first.waveform.tobytes() == again.waveform.tobytes()
    assert not np.array_equal(noise.apply(SPEECH, "a-2", others).waveform, first.waveform)
    assert not np.array_equal(Noise(kind=kind, snr_db=5, seed=1).apply(SPEECH, "a-1", others).waveform, first.waveform)


PROGRAM = """
import hashlib
import numpy as np
from emtta_core.audio.corruption import Noise
speech = np.sin(np.arange(20_000) * 0.1).astype(np.float32)
for kind in ("typing", "copy-machine"):
    print(hashlib.sha256(Noise(kind=kind, snr_db=5, seed=7).apply(speech, "é-1", None).waveform.tobytes()).hexdigest())
"""


def test_other_process_makes_same_noise() -> None:
    runs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": str(seed), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(runs) == 1


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("snr_db", [-10.0, 10.0])
def test_output_is_storable_and_described(kind: str, snr_db: float) -> None:
    corrupted = Noise(kind=kind, snr_db=snr_db).apply(SPEECH, "a-1", others)
    assert corrupted.waveform.shape == SPEECH.shape
    assert corrupted.waveform.dtype == np.float32
    assert corrupted.snr_db == snr_db
    assert 0 < corrupted.gain <= 1
    assert len(encode_flac(corrupted.waveform)) > 0
    speech = SPEECH * (corrupted.gain * 10 ** ((-25 - rms_dbfs(SPEECH)) / 20))
    assert rms_dbfs(speech) - rms_dbfs(corrupted.waveform - speech) == pytest.approx(snr_db, abs=1e-2)


def test_noise_is_same_at_any_ratio() -> None:
    faint, loud = (Noise(kind="typing", snr_db=snr).apply(SPEECH, "a-1", nobody) for snr in (20.0, 0.0))
    speech = SPEECH * 10 ** ((-25 - rms_dbfs(SPEECH)) / 20)
    likeness = np.corrcoef(faint.waveform - speech * faint.gain, loud.waveform - speech * loud.gain)[0, 1]
    assert likeness > 0.999


def test_only_speech_noises_need_voices() -> None:
    asked: dict[str, int] = {}
    for kind in NOISES:

        def voices(count: int, kind: str = kind) -> Sequence[Waveform]:
            asked[kind] = count
            return OTHERS[:count]

        Noise(kind=kind, snr_db=5).apply(SPEECH, "a-1", voices)
    assert asked == dict(VOICES)


@pytest.mark.parametrize(
    ("speech", "message"),
    [
        (np.zeros(16_000, np.float32), "the speech is silent"),
        (np.zeros(0, np.float32), "the speech is empty"),
        (np.full(10, np.nan, np.float32), "the speech has 10 of 10 samples that are not finite"),
    ],
)
def test_unusable_speech_is_refused(speech: Waveform, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        Noise(kind="gaussian", snr_db=5).apply(speech, "a-1", nobody)


@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"name": "noise", "kind": "rain", "snr_db": 5}, "kind", "'vacuum-cleaner'"),
        ({"name": "noise", "kind": "typing"}, "snr_db", "required"),
        ({"name": "noise", "kind": "typing", "snr_db": 100}, "snr_db", "less than or equal to 60"),
        ({"name": "noise", "kind": "typing", "snr_db": float("nan")}, "snr_db", "finite"),
        ({"name": "noise", "kind": "typing", "snr_db": 5, "snr": 5}, "snr", "not permitted"),
    ],
)
def test_bad_setting_lists_allowed(settings: dict[str, object], field: str, message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        TypeAdapter(Corruption).validate_python(settings)
    (error,) = refusal.value.errors()
    assert error["loc"][-1] == field
    assert message in error["msg"]


def test_every_setting_is_in_identity() -> None:
    base = {"kind": "typing", "snr_db": 5.0, "seed": 0}
    others = [base | change for change in ({}, {"kind": "babble"}, {"snr_db": 6.0}, {"seed": 1})]
    assert len({digest(Noise.model_validate(settings)) for settings in others}) == len(others)
    noise = Noise.model_validate(base)
    assert Noise.model_validate(json.loads(noise.model_dump_json())) == noise
