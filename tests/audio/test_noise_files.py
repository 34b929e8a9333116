"""Recorded noise: where it comes from, its SNR, the part of the speech that the SNR is over, and the SNR convention."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import CLEAN, Command, Speech, SuiteFile

from emtta_core.audio.corruption import Noise
from emtta_core.audio.mix import rms_dbfs
from emtta_core.audio.noise_file import MS_SNSD, NoiseFile
from emtta_core.audio.waveform import Waveform, speech_mask
from emtta_core.corpora.synthetic import voices_for_noise
from emtta_core.errors import UsageError
from emtta_core.pipeline.plan import corpus_id
from emtta_core.pipeline.preparation import prepare_domain
from emtta_core.store import Store
from emtta_core.suite import Domain, load_suite, parse_suite

VOICE = voices_for_noise(1, seed=4)[0][:32_000]
SPEECH = np.concatenate([np.zeros(16_000, np.float32), VOICE, np.zeros(24_000, np.float32)])
HISS = 0.2 * np.random.default_rng(0).standard_normal(20_000) * np.linspace(0.2, 1, 20_000)

SUITE = """
name = "t"
methods = ["source"]
model = {{ name = "demo" }}
[[domains]]
name = "x"
group = "a"
corpus = {{ name = "synthetic", utterances = 1 }}
corruption = {{ name = "noise-file", path = "snsd", {} }}
"""


@pytest.fixture
def snsd(tmp_path: Path) -> Path:
    """A folder like a clone of MS-SNSD, plus noise at 8 kHz with two channels."""
    for number, name in enumerate(MS_SNSD.values()):
        folder = tmp_path / "snsd" / ("noise_train" if number % 2 else "noise_test")
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.roll(HISS, 1_000 * number), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "snsd" / "own.wav", np.stack([HISS, HISS], axis=1), 8_000)
    return tmp_path / "snsd"


def domain(folder: Path, settings: str) -> Domain:
    return parse_suite(SUITE.format(settings), folder=folder.parent).domains[0]


def nobody(count: int) -> list[Waveform]:
    raise AssertionError(f"asked for {count} voices")


def measured(waveform: Waveform, gain: float, *, over_speech: bool = False) -> float:
    """Return the ratio of the speech to everything else, computed from the clean speech."""
    speech = SPEECH.astype(np.float64) * gain * 10 ** ((-25 - rms_dbfs(SPEECH)) / 20)
    mask = speech_mask(SPEECH.astype(np.float64)) if over_speech else np.ones(SPEECH.size, bool)
    return rms_dbfs(speech[mask]) - rms_dbfs((waveform - speech)[mask])


@pytest.mark.parametrize("kind", ["gaussian", *MS_SNSD])
@pytest.mark.parametrize("offset", ["start", "random"])
def test_measured_ratio_is_requested(snsd: Path, kind: str, offset: str) -> None:
    made = NoiseFile(path=str(snsd), kind=kind, offset=offset, snr_db=10).apply(SPEECH, "u-1", nobody)
    assert measured(made.waveform, made.gain) == pytest.approx(10, abs=1e-2)
    assert made.snr_db == 10


def test_ratio_can_be_over_speech_only(snsd: Path) -> None:
    for corruption in (
        NoiseFile(path=str(snsd), kind="babble", snr_db=10, snr_over="speech"),
        Noise(kind="vacuum-cleaner", snr_db=10, snr_over="speech"),
    ):
        made = corruption.apply(SPEECH, "u-1", nobody)
        assert measured(made.waveform, made.gain, over_speech=True) == pytest.approx(10, abs=1e-2)
        assert measured(made.waveform, made.gain) < 9, "the pauses count as well, and make it less over all"


def test_speech_is_located() -> None:
    mask = speech_mask(SPEECH.astype(np.float64))
    assert not mask[:15_000].any()
    assert not mask[-20_000:].any()
    assert mask[16_000:48_000].mean() > 0.8


def test_old_convention_halves_ratio(snsd: Path) -> None:
    for corruption in (
        NoiseFile(path=str(snsd), kind="babble", snr_db=10, snr_convention="msnsd-old"),
        Noise(kind="gaussian", snr_db=10, snr_convention="msnsd-old"),
    ):
        made = corruption.apply(SPEECH, "u-1", nobody)
        assert measured(made.waveform, made.gain) == pytest.approx(5, abs=1e-2)
        assert made.snr_db == 5
        assert "SNR convention msnsd-old: 10 dB by name, 5 dB in truth" in corruption.label()


def test_prepared_audio_has_true_ratio(snsd: Path, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), create=True)
    old = domain(snsd, 'kind = "typing", snr_db = 10, snr_convention = "msnsd-old"')
    (row,) = store.read_prepared(prepare_domain(old, corpus_id(old, None), store).corpus)
    assert row.corruption == "noise-file/typing (SNR convention msnsd-old: 10 dB by name, 5 dB in truth)"
    assert row.snr_db == 5


def test_offset_is_zero_or_per_utterance(snsd: Path) -> None:
    def noise(utterance: str, offset: str) -> Waveform:
        made = NoiseFile(path=str(snsd), kind="air-conditioner", offset=offset, snr_db=0).apply(
            SPEECH, utterance, nobody
        )
        return made.waveform - SPEECH * np.float32(made.gain * 10 ** ((-25 - rms_dbfs(SPEECH)) / 20))

    expected = np.tile(HISS, 4)[: SPEECH.size]
    assert np.corrcoef(noise("u-1", "start"), expected)[0, 1] > 0.9999
    assert np.array_equal(noise("u-1", "random"), noise("u-1", "random"))
    assert np.corrcoef(noise("u-1", "random"), noise("u-2", "random"))[0, 1] < 0.9
    assert np.corrcoef(noise("u-1", "random"), expected)[0, 1] < 0.9


def test_identity_is_content_not_location(snsd: Path) -> None:
    settings = 'file = "own.wav", snr_db = 5'
    before = corpus_id(domain(snsd, settings), None)
    moved = snsd.parent / "elsewhere" / "snsd"
    moved.parent.mkdir()
    snsd.rename(moved)
    assert corpus_id(domain(moved, settings), None) == before
    soundfile.write(moved / "own.wav", HISS[::-1], 8_000)
    assert corpus_id(domain(moved, settings), None) != before


def test_corpora_subfolder_path_is_kept(snsd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snsd / "street").mkdir()
    (snsd / "own.wav").rename(snsd / "street" / "cafe.wav")
    monkeypatch.setenv("EMTTA_CORPORA", str(snsd))
    noise = NoiseFile(file="street/cafe.wav", snr_db=5)
    settled = noise.located()
    assert settled.path == str(snsd)
    assert settled.located() == settled
    assert settled.determinants(str) == noise.determinants(str)
    assert NoiseFile(kind="babble", snr_db=5).located().path in (str(snsd / "noise_train"), str(snsd / "noise_test"))


def test_paper_recording_wins_name_clash(tmp_path: Path) -> None:
    for folder, shift in (("noise_train", 0), ("noise_test", 500)):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "Typing_2.wav", np.roll(HISS, shift), 16_000, subtype="FLOAT")
    noise = NoiseFile(path=str(tmp_path), kind="typing", snr_db=10)
    assert noise.located().path == str(tmp_path)
    (tmp_path / "noise_train" / "Typing_2.wav").unlink()
    alone = NoiseFile(path=str(tmp_path), kind="typing", snr_db=10)
    assert noise.determinants(str) == alone.determinants(str)


@pytest.mark.parametrize("level", [-25.0, -35.0])
def test_levels_are_as_requested(snsd: Path, level: float) -> None:
    noise = NoiseFile(path=str(snsd), kind="typing", snr_db=20, level_dbfs=level)
    made = noise.apply(SPEECH, "a", nobody)
    assert made.gain == 1.0
    assert rms_dbfs(made.waveform) == pytest.approx(level + 10 * np.log10(1 + 10**-2), abs=0.05)
    assert ("dB FS" in noise.label()) == (level != -25)


def test_every_setting_is_in_identity(snsd: Path) -> None:
    base = {"path": str(snsd), "kind": "babble", "snr_db": 5.0}
    changes = (
        {},
        {"kind": "typing"},
        {"snr_db": 6.0},
        {"offset": "random"},
        {"snr_over": "speech"},
        {"snr_convention": "msnsd-old"},
        {"level_dbfs": -30.0},
        {"seed": 1},
    )
    made = [str(NoiseFile.model_validate(base | change).determinants(str)) for change in changes]
    assert len(set(made)) == len(changes)


def test_missing_file_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape("git clone https://github.com/microsoft/MS-SNSD")) as refusal:
        corpus_id(domain(tmp_path / "snsd", 'kind = "babble", snr_db = 10'), None)
    assert "Babble_4.wav" in str(refusal.value)
    assert '{ name = "noise" } of the same kind' in str(refusal.value)


def test_broken_or_silent_file_is_refused(snsd: Path) -> None:
    (snsd / "own.wav").write_bytes(b"RIFF no")
    with pytest.raises(UsageError, match=r"the noise cannot be used: .*own\.wav"):
        corpus_id(domain(snsd, 'file = "own.wav", snr_db = 10'), None)
    soundfile.write(snsd / "own.wav", np.zeros(1_000), 16_000)
    with pytest.raises(UsageError, match="is silent"):
        corpus_id(domain(snsd, 'file = "own.wav", snr_db = 10'), None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("snr_db = 5", ["kind is None and file is None", "air-conditioner"]),
        ('kind = "babble", file = "own.wav", snr_db = 5', ["set one of them"]),
        ('file = "../own.wav", snr_db = 5', ["'../own.wav'", "must be in the folder"]),
        ('kind = "rain", snr_db = 5', ["corruption.kind is 'rain'", "'vacuum-cleaner'"]),
        ('kind = "babble", snr_db = 5, offset = "end"', ["offset is 'end'", "'start' or 'random'"]),
        ('kind = "babble", snr_db = 5, snr_convention = "old"', ["snr_convention is 'old'", "msnsd-old"]),
        ('kind = "babble", snr_db = 5, snr_over = "words"', ["snr_over is 'words'", "'speech'"]),
    ],
)
def test_bad_setting_lists_allowed(settings: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_suite(SUITE.format(settings))
    for word in words:
        assert word in str(refusal.value)


def test_demo_audio_identity_is_pinned() -> None:
    """If the audio changes, raise a version and update these digests; otherwise prepared audio would not be reused."""
    suite = load_suite("demo")
    ids = {name: corpus_id(suite.domain(name), suite.limit) for name in ("GS", "BA", "VC", "New-York", "German")}
    assert ids == {
        "GS": "dec1867ba4755220",
        "BA": "e6bde5cf53fe44b3",
        "VC": "a624a6b6bda5f4a8",
        "New-York": "90a8a805049cfe34",
        "German": "5ce847ea83918fb0",
    }


@pytest.mark.slow
def test_reports_flag_old_convention(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    notice = "SNR convention msnsd-old, the published mistake: 10 dB by name are 5 dB in truth"
    noisy = 'corruption = { name = "noise", kind = "gaussian", snr_db = 10, snr_convention = "msnsd-old" }\n'
    store = ("--store", tmp_path / "store")
    assert notice not in emtta("run", suite_file(methods=("source",)), *store).err
    suite = suite_file(CLEAN + noisy, methods=("source",), name="old.toml")
    ended = emtta("run", suite, "--run-id", "old", *store)
    assert (ended.code, notice in " ".join(ended.err.split())) == (0, True), ended.err
    for words in (
        ("report", "leaderboard"),
        ("report", "errors", "--run", "old", "--format", "csv"),
        ("compare", "old", "old"),
    ):
        shown = emtta(*words, *store)
        assert (shown.code, notice in " ".join(shown.err.split())) == (0, True), words
    assert notice not in emtta("report", "runs", *store).err
    assert emtta("report", "html", "--run", "old", "--out", tmp_path / "old.html", *store).code == 0
    assert notice in (tmp_path / "old.html").read_text()
