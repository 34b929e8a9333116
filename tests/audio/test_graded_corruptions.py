"""A corruption is reproducible, worse at each severity from 1 to 5, and never destroys the speech completely."""

import inspect
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
from numpy.typing import NDArray

from emtta_core.audio import corrupted
from emtta_core.audio.corrupted import Corrupted
from emtta_core.audio.corruption import Graded
from emtta_core.audio.effects import CORRUPTIONS, EFFECTS
from emtta_core.audio.files import encode_flac
from emtta_core.audio.mix import rms_dbfs
from emtta_core.audio.spectrum import signal_to_distortion_db, spectral_distance_db
from emtta_core.audio.waveform import Waveform
from emtta_core.corpora.synthetic import voices_for_noise
from emtta_core.errors import AudioError, UsageError
from emtta_core.pipeline.plan import corpus_id
from emtta_core.suite import load_suite, parse_suite

SPEECH, SECOND, *OTHERS = voices_for_noise(10, seed=2)
UTTERANCES = {"a-1": SPEECH[:40_000], "a-2": SECOND[8_000:40_001]}


def others(count: int) -> Sequence[Waveform]:
    return OTHERS[:count]


def applied(name: str, severity: int, utterance: str = "a-1", seed: int = 0) -> Corrupted:
    return Graded(name=name, severity=severity, seed=seed).apply(UTTERANCES[utterance], utterance, others)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_output_is_bounded_and_audible(name: str) -> None:
    for severity in (1, 3, 5):
        made = applied(name, severity)
        factor = EFFECTS[name].amounts[severity - 1] if name == "speed" else 1
        assert made.waveform.shape == (round(40_000 / factor),)
        assert made.waveform.dtype == np.float32
        assert np.isfinite(made.waveform).all()
        assert 0 < made.gain <= 1
        assert rms_dbfs(made.waveform) > -80
        assert encode_flac(made.waveform)


ROOMS = ("reverberation", "far-field")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ROOMS else ()) for name in CORRUPTIONS]
)
def test_damage_grows_with_severity(name: str) -> None:
    """Holds on average: in some rooms, a greater distance happens to sound better."""
    draws = range(4 if name in ROOMS else 2)
    damage = []
    for severity in range(6):
        made = [Graded(name=name, severity=severity).apply(SPEECH[:24_000], f"a-{i}", others) for i in draws]
        damage.append(np.mean([spectral_distance_db(SPEECH[:24_000], one.waveform) for one in made]))
    assert damage[0] == 0
    assert all(b > a for a, b in itertools.pairwise(damage)), damage


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_same_seed_gives_same_bits(name: str) -> None:
    first = applied(name, 3)
    applied(name, 3, "a-2")
    assert applied(name, 3).waveform.tobytes() == first.waveform.tobytes()


SETTLED = {"telephone", "gsm", "mp3", "opus", "clipping", "low-pass", "gain", "speed"}
"""Effects without randomness."""


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_only_random_effects_use_seed(name: str) -> None:
    speech = SPEECH[:16_000]

    def made(utterance: str, seed: int = 0) -> bytes:
        return Graded(name=name, severity=2, seed=seed).apply(speech, utterance, others).waveform.tobytes()

    first = made("a-0")
    other_utterance = any(made(f"a-{index}") != first for index in range(1, 6))
    other_seed = any(made("a-0", seed) != first for seed in range(1, 6))
    assert [other_utterance, other_seed] == [name not in SETTLED] * 2


CLICK = (np.arange(32_000) == 1_000).astype(np.float32)


def drawn(name: str, severity: int, utterance: str) -> NDArray[np.float64]:
    """Return the sound of what was drawn: the added noise, a room's early reflections, or a hall's background noise."""
    speech = CLICK if name in {"reverberation", "far-field"} else UTTERANCES["a-1"]
    made = Graded(name=name, severity=severity).apply(speech, utterance, others)
    if name == "reverberation":
        return made.waveform[1_020:1_640].astype(np.float64)
    if name == "far-field":
        return made.waveform[16_000:].astype(np.float64)
    return made.waveform - speech * (made.gain * 10 ** ((-25 - rms_dbfs(speech)) / 20))


@pytest.mark.parametrize(
    "name", ["gaussian", "environment", "babble", "music", "crosstalk", "reverberation", "far-field"]
)
def test_severities_share_noise_and_room(name: str) -> None:
    first = drawn(name, 1, "a-1")
    for severity in range(2, 6):
        assert np.corrcoef(first, drawn(name, severity, "a-1"))[0, 1] > 0.95
    assert np.corrcoef(first, drawn(name, 1, "a-3"))[0, 1] < 0.5


def test_losses_nest_by_severity() -> None:
    sounds = [applied("packet-loss", severity).waveform.reshape(-1, 320) for severity in range(1, 6)]
    lost = [~sound.any(axis=1) for sound in sounds]
    assert all((less <= more).all() for less, more in itertools.pairwise(lost))
    after_a_loss = lost[2][1:][lost[2][:-1]].mean()
    assert after_a_loss > 1.5 * lost[2].mean()


def test_flipped_bits_nest_by_severity() -> None:
    clean, *turned = (applied("g711", severity).waveform.astype(np.float64) for severity in range(1, 6))
    errors = [sound * (clean @ clean) / (clean @ sound) - clean for sound in turned]
    assert [less @ more / (less @ less) for less, more in itertools.pairwise(errors)] == pytest.approx([1] * 3, abs=0.2)


def digests(backwards: bool) -> dict[str, str]:
    """Digest each corruption's output for one sound; self-contained, so that another process can run it."""
    import hashlib

    import numpy as np

    from emtta_core.audio.corruption import Graded
    from emtta_core.audio.effects import CORRUPTIONS

    time = np.arange(24_000) / 16_000
    speech = (np.sin(time * 2500) * np.sin(time * 9) ** 2).astype(np.float32)
    voices = [np.sin(time * pitch).astype(np.float32) for pitch in range(900, 1700, 100)]
    made = {
        name: Graded(name=name, severity=4).apply(speech, "é-1", lambda count: voices).waveform
        for name in sorted(CORRUPTIONS, reverse=backwards)
    }
    return {name: hashlib.sha256(made[name].tobytes()).hexdigest() for name in sorted(made)}


def test_process_and_order_change_nothing() -> None:
    program = f"import json\n{inspect.getsource(digests)}\nprint(json.dumps(digests(True)))"
    other = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(other.stdout) == digests(False)


def test_severity_0_shares_clean_audio() -> None:
    text = (
        'name = "t"\nmethods = ["source"]\nmodel = { name = "demo" }\n[defaults]\ncorpus = { name = "synthetic" }\n'
        '[[domains]]\nname = "clean"\ngroup = "a"\n'
        '[[domains]]\nname = "zero"\ngroup = "a"\ncorruption = { name = "gsm", severity = 0 }\n'
        '[[domains]]\nname = "one"\ngroup = "a"\ncorruption = { name = "gsm", severity = 1 }\n'
        '[[domains]]\nname = "seed"\ngroup = "a"\ncorruption = { name = "gsm", severity = 1, seed = 1 }\n'
    )
    ids = [corpus_id(domain, None) for domain in parse_suite(text).domains]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert np.array_equal(applied("gsm", 0).waveform, UTTERANCES["a-1"])
    assert Graded(name="gsm", severity=0).label() is None


@pytest.mark.parametrize("name", ["g711", "gsm", "mp3", "opus", "low-pass", "telephone"])
def test_codecs_keep_speech_timing(name: str) -> None:
    corrupted, speech = applied(name, 1).waveform, UTTERANCES["a-1"]
    distortion = [signal_to_distortion_db(speech, np.roll(corrupted, shift)) for shift in (-8, 0, 8)]
    assert max(distortion) == distortion[1]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_start_and_end_are_kept(name: str) -> None:
    speech = np.zeros(16_000, np.float32)
    speech[800:2_400] = speech[13_600:15_200] = UTTERANCES["a-1"][10_000:11_600]
    corrupted = Graded(name=name, severity=1).apply(speech, "b-1", others).waveform.astype(np.float64)
    assert np.abs(corrupted[: corrupted.size // 5]).max() > 0.01
    assert np.abs(corrupted[corrupted.size * 4 // 5 :]).max() > 0.01


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_only_silence_is_refused(name: str) -> None:
    with pytest.raises(AudioError, match="the speech is silent"):
        Graded(name=name, severity=5).apply(np.zeros(16_000, np.float32), "s-1", others)
    sparse = np.zeros(16_000, np.float32)
    sparse[5_000:5_400] = UTTERANCES["a-1"][10_000:10_400]
    for speech in (sparse, sparse[5_000:5_400]):
        made = Graded(name=name, severity=5).apply(speech, "s-1", others)
        assert np.isfinite(made.waveform).all()
        assert np.abs(made.waveform).max() > 1e-4


def test_missing_library_names_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    corrupted.release.cache_clear()
    monkeypatch.setattr(corrupted, "version", missing)
    try:
        with pytest.raises(UsageError, match=r"'pitch' needs python-stretch.*pip install 'emtta\[corruptions\]'"):
            corpus_id(load_suite("robustness").domain("pitch-3"), None)
        assert corpus_id(load_suite("robustness").domain("echo-3"), None)
    finally:
        corrupted.release.cache_clear()


def test_suite_covers_every_severity() -> None:
    suite = load_suite("robustness")
    found = {(d.corruption.name, d.corruption.severity) for d in suite.domains if d.corruption is not None}
    assert found == {(name, severity) for name in CORRUPTIONS for severity in range(1, 6)}
    assert len(suite.domains) == len(found) + 1


DOMAIN = (
    'name = "t"\nmethods = ["source"]\nmodel = {{ name = "demo" }}\n[[domains]]\nname = "x"\ngroup = "a"\n'
    'corpus = {{ name = "synthetic" }}\ncorruption = {{ {} }}\n'
)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('name = "reverb", severity = 3', ["corruption.name is 'reverb'", "'reverberation'", "'packet-loss'"]),
        ('name = "echo", severity = 6', ["domains[x].corruption.severity is 6", "less than or equal to 5"]),
        ('name = "echo", severity = -1', ["domains[x].corruption.severity is -1", "greater than or equal to 0"]),
        ('name = "echo"', ["domains[x].corruption.severity is missing"]),
        ('name = "echo", severity = 2, snr_db = 5', ["corruption.snr_db is an unknown field", "severity"]),
    ],
)
def test_bad_name_lists_allowed(settings: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_suite(DOMAIN.format(settings))
    for word in words:
        assert word in str(refusal.value)
