"""A special file, or one of absurd size, is refused at once, wherever a user names it."""

import io
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from generic_factory import KINDS
from whisper_factory import make_checkpoint

from emtta_core.audio.files import encode_flac, length_in_seconds, read_audio
from emtta_core.audio.noise_file import NoiseFile
from emtta_core.corpora.folder import Folder
from emtta_core.errors import AudioError, CorpusError, ModelError, UsageError
from emtta_core.input_files import MAX_AUDIO_HOURS, MAX_PARAMETERS
from emtta_core.model import load_model


def claiming(rate: int, frames: int, path: Path) -> None:
    """Write a sparse WAV file with the length that its header states, but no data on the disk."""
    size = min(2 * frames, 0xFFFF_FFFF)
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", min(36 + size, 0xFFFF_FFFF), b"WAVE", b"fmt ", 16, 1, 1, rate,
                         2 * rate, 2, 16, b"data", size)  # fmt: skip
    with path.open("wb") as file:
        file.write(header)
        file.truncate(44 + 2 * frames)


def sparse(path: Path) -> None:
    claiming(16_000, 5 * 1024**3, path)


def slow(path: Path) -> None:
    claiming(1, 16_000, path)


def silence(path: Path) -> None:
    with soundfile.SoundFile(path, "w", 1_000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(5):
            file.write(np.zeros(1_000 * 3600, dtype=np.int16))


SPECIAL: dict[str, tuple[Callable[[Path], None], str]] = {
    "zeros": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a plain file"),
    "pipe": (os.mkfifo, "it is a named pipe, not a plain file"),
    "folder": (Path.mkdir, "it is a folder, not a plain file"),
    "gone": (lambda path: path.symlink_to("/nowhere/at/all"), "No such file"),
    "sparse": (sparse, "hours, and the limit is 3|but the limit is"),
    "slow": (slow, "sample rate is 1 Hz"),
    "silence": (silence, r"its header states 5\.0 hours, and the limit is 3; .* set EMTTA_MAX_AUDIO_HOURS"),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_recording_fails_without_blocking(tmp_path: Path, kind: str) -> None:
    make, words = SPECIAL[kind]
    make(tmp_path / "bad.wav")
    (tmp_path / "good.flac").write_bytes(encode_flac(0.1 * np.ones(1_600)))
    (tmp_path / "manifest.csv").write_text("path,text\nbad.wav,no\ngood.flac,yes\n")
    corpus = Folder(path=str(tmp_path), max_seconds=60)
    corpus.count()
    corpus.content_digest()
    found = {one.id: one for one in Folder(path=str(tmp_path)).read_all()}
    with pytest.raises(AudioError, match=words):
        found["bad"].read()
    assert found["good"].read().size == 1_600


@pytest.mark.parametrize("kind", ["zeros", "pipe", "gone"])
def test_special_file_without_manifest_fails(tmp_path: Path, kind: str) -> None:
    make, words = SPECIAL[kind]
    make(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text("no")
    (tmp_path / "b.flac").write_bytes(encode_flac(0.1 * np.ones(1_600)))
    make(tmp_path / "b.txt")
    (tmp_path / "c.flac").write_bytes(encode_flac(0.1 * np.ones(1_600)))
    (tmp_path / "c.txt").write_text("yes")
    first, second, third = Folder(path=str(tmp_path)).read_all()
    for one in (first, second):
        with pytest.raises(AudioError, match=words):
            one.read()
    assert third.read().size == 1_600


@pytest.mark.parametrize("kind", ["zeros", "pipe"])
@pytest.mark.parametrize("name", ["manifest.csv", "manifest.jsonl", "manifest.parquet"])
def test_special_manifest_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    make, words = SPECIAL[kind]
    make(tmp_path / name)
    with pytest.raises((UsageError, CorpusError), match=f"cannot be read: {words}"):
        Folder(path=str(tmp_path)).count()


@pytest.mark.parametrize("kind", ["zeros", "pipe", "slow"])
def test_special_noise_is_refused(tmp_path: Path, kind: str) -> None:
    make, words = SPECIAL[kind]
    make(tmp_path / "noise.wav")
    with pytest.raises(UsageError, match=f"the noise cannot be used: .*{words}"):
        NoiseFile(path=str(tmp_path), file="noise.wav", snr_db=10).determinants(str)


def test_environment_raises_hours_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(36_000), 1_000, format="FLAC")
    assert length_in_seconds(file.getvalue()) == 36
    monkeypatch.setenv(MAX_AUDIO_HOURS, "0.005")
    with pytest.raises(AudioError, match=r"the limit is 0\.005"):
        read_audio(file.getvalue())
    monkeypatch.setenv(MAX_AUDIO_HOURS, "0.02")
    assert read_audio(file.getvalue()).size == 576_000
    monkeypatch.setenv(MAX_AUDIO_HOURS, "many")
    with pytest.raises(UsageError, match="EMTTA_MAX_AUDIO_HOURS is 'many'; it must be a number above 0"):
        read_audio(file.getvalue())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"decoder_layers": 10**9}, r"asks for about \S+ parameters, but its weights have"),
        ({"encoder_layers": 10**6, "d_model": 10**5}, "asks for about"),
        ({"vocab_size": 10**12}, "asks for about"),
        ({"vocab_size": 10**400}, "asks for about"),
        ({"decoder_layers": -1}, "decoder_layers is -1 .* whole number above 0"),
        ({"d_model": 1e300}, "d_model is 1e"),
        ({"encoder_layers": "many"}, "encoder_layers is 'many'"),
    ],
)
def test_absurd_config_is_refused(checkpoint: Path, tmp_path: Path, settings: dict[str, object], words: str) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(ModelError, match=words):
        load_model(copy, device="cpu")


@pytest.mark.parametrize(
    ("kind", "part", "settings", "words"),
    [
        ("moonshine", None, {"decoder_num_hidden_layers": 10**9}, "asks for about"),
        ("moonshine", None, {"intermediate_size": 10**12}, "asks for about"),
        ("wav2vec2", None, {"num_hidden_layers": 10**9}, "asks for about"),
        ("wav2vec2", None, {"hidden_size": "wide"}, "hidden_size is 'wide' .* whole number above 0"),
        ("qwen2_audio", "text_config", {"num_hidden_layers": 10**9}, "asks for about"),
        ("qwen2_audio", "audio_config", {"d_model": 10**9}, "asks for about"),
    ],
)
def test_absurd_config_of_any_family_is_refused(
    tmp_path: Path, kind: str, part: str | None, settings: dict[str, object], words: str
) -> None:
    folder = KINDS[kind](tmp_path / kind)
    config = json.loads((folder / "config.json").read_text())
    (config if part is None else config[part]).update(settings)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=words):
        load_model(folder, device="cpu")


def test_environment_raises_size_limit(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_PARAMETERS, "1000")
    with pytest.raises(ModelError, match=r"the limit is 1e.*set EMTTA_MAX_PARAMETERS to more"):
        load_model(checkpoint, device="cpu")
    monkeypatch.setenv(MAX_PARAMETERS, "1e6")
    load_model(checkpoint, device="cpu")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"])
def test_special_model_file_is_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    for kind in ("zeros", "pipe"):
        copy = Path(shutil.copytree(checkpoint, tmp_path / kind))
        (copy / name).unlink()
        SPECIAL[kind][0](copy / name)
        with pytest.raises(ModelError, match=name):
            load_model(copy, device="cpu")
