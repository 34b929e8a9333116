"""A corruption's version changes whenever its sound does: each sounds as it did when its version was recorded.

Sounds are compared with a tolerance, because another processor or library may round differently.
`python tests/audio/test_corruption_versions.py` records the versions that are not recorded yet, and no others.
"""

import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from emtta_core.audio import effects
from emtta_core.audio.corrupted import release
from emtta_core.audio.corruption import CORRUPTION_VERSION, Corruption, Graded, Noise
from emtta_core.audio.effects import CORRUPTIONS, EFFECTS
from emtta_core.audio.mix import SnrOver
from emtta_core.audio.noise import NOISES, synthesise
from emtta_core.audio.noise_file import NOISE_FILE_VERSION, NoiseFile
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform

RECORDED = Path(__file__).with_name("corruption_versions.json")

EDGES = (50, 200, 400, 800, 1600, 2800, 3800, 5500, 8001)
"""Edges in Hz of the bands whose levels are compared."""

FAINTEST = -75.0
"""In dB FS; lower levels count as this."""

VALUES = 16
"""The number of samples that are compared, evenly spaced."""

UTTERANCES = {"environment": "abcdfj", "music": "abep", "pitch": "ab"}
"""Utterance ids that together draw each of the possible choices; other corruptions need only one."""


def voice(hertz: float, seed: int) -> Waveform:
    """Synthesise something like 1.6 s of speech with numpy only: syllables of gliding pitch, some hiss, and a pause."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(1.6 * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(hertz * (1 + 0.2 * np.sin(5 * time))) / SAMPLE_RATE
    syllables = np.sin(np.pi * time * 6 / 1.6) ** 2
    formants = (np.cos(phase * n) / n * (1 + np.sin(n + 3 * time)) for n in range(1, int(6000 / hertz)))
    hiss = np.maximum(0, np.sin(np.pi * time * 6 / 1.6 + 1)) ** 8 * rng.standard_normal(time.size)
    talks = np.where((time < 0.8) | (time > 1.3), 0.1, 1e-4)
    sound: Waveform = (talks * (syllables * sum(formants) + 0.3 * hiss) + 1e-5 * rng.random(time.size)).astype(
        np.float32
    )
    return sound


SPEECH = voice(120, 0)
OTHERS = [voice(100 + 15 * i, i) for i in range(1, 9)]


def others(count: int) -> Sequence[Waveform]:
    return OTHERS[:count]


@dataclass(frozen=True)
class Version:
    """A version of a corruption: its declared values, and for each degree a corruption with an utterance id."""

    name: str
    version: int
    amounts: str
    libraries: dict[str, str]
    degrees: dict[str, tuple[Corruption, str]]

    @classmethod
    def of(cls, name: str, folder: Path) -> "Version":
        """Return the current version."""
        if name in CORRUPTIONS:
            effect = EFFECTS[name]
            degrees = {
                f"severity {severity}, utterance {key}": (Graded(name=name, severity=severity), key)
                for severity in range(1, 6)
                for key in UTTERANCES.get(name, "a")
            }
            releases = {library: release(library, name) for library in effect.libraries}
            return cls(name, effect.version, " ".join(map(str, effect.amounts)), releases, degrees)
        ratios = [(over, key) for over in get_args(SnrOver) for key in "ae"]
        if name == "noise-file":
            soundfile.write(folder / "hum.wav", OTHERS[0], SAMPLE_RATE, subtype="FLOAT")
            file = {"path": str(folder), "file": "hum.wav", "offset": "random", "snr_db": 0}
            degrees = {f"over {over}, utterance {key}": (NoiseFile(**file, snr_over=over), key) for over, key in ratios}
            return cls(name, NOISE_FILE_VERSION, "", {}, degrees)
        settings = {"kind": name.removeprefix("noise/"), "snr_db": -10}
        degrees = {f"over {over}, utterance {key}": (Noise(**settings, snr_over=over), key) for over, key in ratios}
        return cls(name, CORRUPTION_VERSION, "", {}, degrees)

    def sounds(self) -> Iterator[tuple[str, Waveform]]:
        """Yield each degree with its sound."""
        for degree, (corruption, key) in self.degrees.items():
            yield degree, corruption.apply(SPEECH, key, others).waveform

    def record(self) -> dict[str, Any]:
        """Return the record of this version."""
        declared = {"version": self.version, "amounts": self.amounts, "libraries": self.libraries}
        return declared | {"sounds": {degree: print_of(sound) for degree, sound in self.sounds()}}


NAMES = (*CORRUPTIONS, *(f"noise/{kind}" for kind in NOISES), "noise-file")

LOCATIONS = {
    "noise": "CORRUPTION_VERSION in emtta_core/audio/corruption.py",
    "noise-file": "NOISE_FILE_VERSION in emtta_core/audio/noise_file.py",
}
"""Where to raise a version; for other names, in their row of the table."""

ADAPTIVE = {"gsm", "mp3", "opus", "speed", "pitch"}
"""Effects whose decisions depend on the signal: a sample's last bit may change a decision, and so a frame's coding."""


def print_of(sound: Waveform) -> dict[str, Any]:
    """Summarize a sound: its length, its levels by band in dB FS, and some samples relative to its RMS."""
    power = np.abs(np.fft.rfft(sound.astype(np.float64))) ** 2 * 2 / sound.size**2
    hertz = np.fft.rfftfreq(sound.size, 1 / SAMPLE_RATE)
    bands = [power[(low <= hertz) & (hertz < high)].sum() for low, high in itertools.pairwise(EDGES)]
    levels = 10 * np.log10(np.maximum(bands, 10 ** (FAINTEST / 10)))
    values = sound[np.linspace(0, sound.size - 1, VALUES + 2).astype(int)[1:-1]] / np.sqrt(np.mean(np.square(sound)))
    return {
        "length": sound.size,
        "levels": " ".join(f"{level:.2f}" for level in levels),
        "values": " ".join(f"{value:.3f}" for value in values),
    }


def difference(was: dict[str, Any], now: dict[str, Any], decibels: float, share: float) -> str | None:
    """Describe a difference from the recorded sound that exceeds rounding; None if there is none."""
    if now["length"] != was["length"]:
        return f"it is {now['length']} samples long, and was {was['length']}"
    for low, high, level, before in zip(EDGES, EDGES[1:], numbers(now["levels"]), numbers(was["levels"]), strict=False):
        if abs(level - before) > decibels:
            return f"from {low} to {high} Hz it has {level} dB FS, and had {before}"
    values, before = numbers(now["values"]), numbers(was["values"])
    apart = np.linalg.norm(values - before) / np.linalg.norm(before)
    return f"its samples are other ones, by {apart:.0%}" if apart > share else None


def numbers(text: str) -> NDArray[np.float64]:
    return np.array(text.split(), dtype=np.float64)


def recorded() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(RECORDED.read_text())
    return known


def how_to(name: str) -> str:
    location = LOCATIONS.get(name.partition("/")[0], f"version of {name!r} in EFFECTS of emtta_core/audio/effects.py")
    return f"if it shall be other, raise {location}, then record it: python tests/audio/{Path(__file__).name}"


@pytest.mark.parametrize("name", NAMES)
def test_changed_sound_has_new_version(name: str, tmp_path: Path) -> None:
    assert name in recorded(), f"{name!r} is not recorded: python tests/audio/{Path(__file__).name}"
    was, now = recorded()[name], Version.of(name, tmp_path)
    here = f"version {now.version} of {name!r}"
    assert was["version"] == now.version, f"{here} is not recorded, but version {was['version']}; {how_to(name)}"
    assert was["amounts"] == now.amounts, f"{here} was recorded with the amounts {was['amounts']}; {how_to(name)}"
    tolerance = (1.0, 0.3) if name in ADAPTIVE else (0.03, 0.005)
    assert list(was["sounds"]) == list(now.degrees)
    for degree, sound in now.sounds():
        found = difference(was["sounds"][degree], print_of(sound), *tolerance)
        if found is not None and was["libraries"] != now.libraries:  # the libraries are part of the identity too
            pytest.skip(f"{here} was recorded with {was['libraries']}, here are {now.libraries}; {how_to(name)}")
        assert found is None, f"{here} is not what it was at {degree}: {found}; {how_to(name)}"


def test_only_known_names_are_recorded() -> None:
    assert set(recorded()) == set(NAMES)


def test_every_environment_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kinds = []

    def recorded(kind: str, *arguments: Any) -> Waveform:
        kinds.append(kind)
        return synthesise(kind, *arguments)

    monkeypatch.setattr(effects, "synthesise", recorded)
    list(Version.of("environment", tmp_path).sounds())
    assert set(kinds) == set(effects.ENVIRONMENTS)


def main() -> None:
    """Record versions that are new, or whose libraries have other releases; otherwise keep what is recorded."""
    known = recorded() if RECORDED.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            now, was = Version.of(name, Path(folder)), known.get(name, {})
            if (was.get("version"), was.get("libraries")) != (now.version, now.libraries):
                known[name] = now.record()
                print(f"recorded version {now.version} of {name}")
    RECORDED.write_text(json.dumps({name: known[name] for name in NAMES}, indent=1) + "\n")


if __name__ == "__main__":
    main()
