"""The recordings that an adapter accepts, and its errors for anything else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from whisper_factory import make_checkpoint, sounds

from emtta_core.adaptation import Adapter
from emtta_core.adaptation.inputs import read_recording
from emtta_core.errors import AudioError, UsageError
from emtta_core.model import SpeechModel, load_model

LEVELS = np.array([0.5, -0.25] * 4000)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SpeechModel:
    return load_model(make_checkpoint(tmp_path_factory.mktemp("checkpoint")), device="cpu")


@pytest.fixture(scope="module")
def waveform() -> NDArray[np.float32]:
    return sounds([1.0])[0]


SAME: dict[str, Any] = {
    "float32": LEVELS.astype(np.float32),
    "float64": LEVELS,
    "float16": LEVELS.astype(np.float16),
    "int8": (LEVELS * 128).astype(np.int8),
    "int16": (LEVELS * 2**15).astype(np.int16),
    "int32": (LEVELS * 2**31).astype(np.int32),
    "uint8, zero in the middle": (LEVELS * 128 + 128).astype(np.uint8),
    "a list": LEVELS.tolist(),
    "a tuple": tuple(LEVELS.tolist()),
    "a tensor": torch.tensor(LEVELS),
    "a tensor of bfloat16": torch.tensor(LEVELS).bfloat16(),
    "a tensor of int16": torch.tensor((LEVELS * 2**15).astype(np.int16)),
    "a tensor with a gradient": torch.tensor(LEVELS, requires_grad=True),
    "channels last": np.stack([LEVELS * 1.5, LEVELS * 0.5], axis=1),
    "channels first": np.stack([LEVELS * 1.5, LEVELS * 0.5]),
    "one channel": LEVELS[None],
    "integers of two channels": np.stack([(LEVELS * 2**15).astype(np.int16)] * 2, axis=1),
    "not contiguous": np.repeat(LEVELS, 2)[::2],
}


@pytest.mark.parametrize("given", SAME.values(), ids=list(SAME))
def test_samples_become_full_scale_mono(model: SpeechModel, given: Any) -> None:
    samples = read_recording(given, "waveforms[0]", model)
    assert samples.dtype == np.float32
    assert np.array_equal(samples, LEVELS.astype(np.float32))


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (8_000, 1), (44_100, 2)])
def test_files_are_read_at_model_rate(model: SpeechModel, tmp_path: Path, kind: type, rate: int, channels: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 200 * np.arange(rate) / rate)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone] * channels, axis=1), rate)
    samples = read_recording(kind(tmp_path / "tone.wav"), "waveforms[0]", model)
    expected = 0.5 * np.sin(2 * np.pi * 200 * np.arange(16_000) / 16_000)
    assert len(samples) == 16_000
    assert np.abs(samples - expected)[200:-200].max() < 1e-3


def test_file_and_samples_agree(model: SpeechModel, waveform: NDArray[np.float32], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", waveform, 16_000, subtype="FLOAT")
    one, other = Adapter(model, "em-tok", steps=1, candidates=2).transcribe([waveform, tmp_path / "a.wav"])
    assert (one.utterance_id, one.hypothesis, one.error) == (other.utterance_id, other.hypothesis, None)


WRONG: dict[str, tuple[Any, str]] = {
    "one waveform": (LEVELS, r"not one array of shape \(8000,\); pass \[array\]"),
    "one tensor": (torch.tensor(LEVELS), r"not one array of shape \(8000,\)"),
    "an array of rows": (np.stack([LEVELS, LEVELS]), r"list\(array\) if each row is one"),
    "one list of samples": (LEVELS.tolist(), r"not the 8000 samples of one; pass \[samples\]"),
    "one path": ("speech.wav", r"pass \['speech\.wav'\]"),
    "one path object": (Path("speech.wav"), r"pass \['speech\.wav'\]"),
    "a file's bytes": (b"RIFF", "not a bytes"),
    "nothing": (None, "not a NoneType"),
    "a number": (3, "not an int"),
    "a row of a data set": ({"array": LEVELS}, "not a dict"),
    "no waveform": ([LEVELS, None], r"waveforms\[1\] is a NoneType"),
    "a file's bytes in a list": ([b"RIFF"], r"waveforms\[0\] is a bytes"),
    "a row of a data set in a list": ([{"array": LEVELS}], r"waveforms\[0\] is a dict"),
    "an open file": ([object()], r"waveforms\[0\] is an object of type object"),
    "truth values": ([LEVELS > 0], "of type bool"),
    "complex numbers": ([LEVELS * 1j], "of type complex128"),
    "texts": ([["0.5", "0.25"]], "of type <U4"),
    "integers without a full scale": ([LEVELS.astype(np.int64)], r"int64.*pass int16 or int32"),
    "a list of integers": ([[0, 16384, -8192]], r"int64.*32768"),
    "rows of unequal length": ([[[0.5], [0.5, 0.25]]], "a list that is not an array"),
    "a single number in an array": ([np.array(0.5)], "single number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_type_names_expected(model: SpeechModel, name: str) -> None:
    given, message = WRONG[name]
    for call in (Adapter(model, "source").transcribe, lambda it: list(Adapter(model, "source").batches(it))):
        with pytest.raises(TypeError, match=message):
            call(given)


UNUSABLE: dict[str, tuple[Any, str]] = {
    "three axes": (np.ones((2, 3, 4)), r"shape \(2, 3, 4\).*of shape \(N,\)"),
    "two axes that could both be time": (np.ones((40, 50)), r"shape \(40, 50\)"),
    "no sample": (np.zeros(0), "empty"),
    "an empty list": ([], "empty"),
    "no sample in two channels": (np.zeros((0, 2)), "empty"),
    "16-bit integers in floating point": (LEVELS * 2**15, "divide former 16-bit integers by 32768"),
    "a file that is missing": ("missing.wav", "missing.wav: cannot be read: No such file"),
    "a file that is no audio": (__file__, "is not audio"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_recording_fails_alone(
    model: SpeechModel, waveform: NDArray[np.float32], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    given, message = UNUSABLE[name]
    bad, good = Adapter(model, "source").transcribe([given, waveform])
    with pytest.raises(AudioError, match=message):
        raise AudioError(bad.error)
    assert good.error is None
    assert [record.getMessage() for record in caplog.records] == [f"waveforms[0] is left out: {bad.error}"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"language": None}, TypeError, "language is None"),
        ({"language": ["en", None]}, TypeError, "language has None, a NoneType"),
        ({"language": ["en"]}, UsageError, "language has 1 entries for 2 waveforms"),
        ({"utterance_ids": "ab"}, TypeError, "utterance_ids is 'ab'; pass a list"),
        ({"utterance_ids": [1, 2]}, TypeError, "utterance_ids has 1, an int"),
        ({"utterance_ids": ["a", "b", "c"]}, UsageError, "utterance_ids has 3 entries for 2 waveforms"),
    ],
)
def test_languages_and_ids_match_count(
    model: SpeechModel, waveform: NDArray[np.float32], given: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Adapter(model, "source").transcribe([waveform, waveform], **given)


def test_model_comes_from_load_model() -> None:
    with pytest.raises(TypeError, match=r"model is 'demo'; pass what load_model returns"):
        Adapter("demo")  # type: ignore[arg-type]


def test_input_may_be_iterator(model: SpeechModel, waveform: NDArray[np.float32]) -> None:
    results = Adapter(model, "source").transcribe(waveform for _ in range(2))
    assert [result.error for result in results] == [None, None]


def test_progress_is_shown_on_request(
    model: SpeechModel, waveform: NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = Adapter(model, "em-tok", steps=3, candidates=2, batch_size=2)
    adapter.transcribe([waveform] * 3)
    assert capsys.readouterr().err == ""
    adapter.transcribe([waveform] * 3, progress=True)
    assert "3/3 utterances" in capsys.readouterr().err
