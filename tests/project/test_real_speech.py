"""Real speech is laid out as the corpora are published, scored by both rules, and moved intact to another machine."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from corpora_factory import put, sound

from emtta_core.audio.files import encode_flac, read_audio
from emtta_core.corpora.l2arctic import L2Arctic
from emtta_core.corpora.librispeech import LibriSpeech, MultilingualLibriSpeech
from emtta_core.model.model_files import folder_of
from emtta_core.suite import load_suite

ROOT = Path(__file__).parents[2]
CLIPS = {
    "librispeech-test-other": [
        ("367-130732-0000.flac", "lobsters and lobsters", "en", "367"),
        ("1688-142285-0000.flac", "there's iron they say", "en", "1688"),
        ("1688-142285-0001.flac", "margaret said", "en", "1688"),
    ],
    "l2-arctic": [
        ("ar-ABA-a0001.flac", "Author of the danger trail.", "en", "ABA"),
        ("ar-ABA-b0013.flac", "Left out.", "en", "ABA"),
        ("hi-unnamed-a0002.flac", "Not at this particular case.", "en", "unnamed"),
    ],
    "mls": [
        ("de-1844_931_000001.flac", "wenn nicht", "de", "1844"),
        ("en-10611_10308_000071.flac", "o god", "en", "10611"),
    ],
}


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A share of the corpora: tones with the names of recordings, and one noise."""
    files: dict[str, bytes | str] = {"noise/ms-snsd/AirConditioner_6.wav": sound(0.7, form="WAV", hertz=90)}
    for folder, rows in CLIPS.items():
        table = "path,text,language,speaker\n"
        for index, row in enumerate(rows):
            files[f"speech/{folder}/{row[0]}"] = sound(0.8 + 0.1 * index, hertz=200 + 30 * index)
            table += ",".join(row) + "\n"
        files[f"speech/{folder}/manifest.csv"] = table
    return put(tmp_path / "share", files)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return {name: importlib.import_module(name) for name in ("real_speech", "gpu_pack", "gpu_speech")}


def rows_of(corpus: Any) -> list[tuple[str, str, str]]:
    return [(one.id, one.text, one.speaker) for one in corpus.read_all() if one.read().size]


def test_share_is_laid_out_as_published(share: Path, tmp_path: Path, scripts: dict[str, ModuleType]) -> None:
    root = tmp_path / "corpora"
    scripts["real_speech"].lay_out(share, root)
    assert rows_of(LibriSpeech(path=str(root))) == [
        ("1688-142285-0000", "THERE'S IRON THEY SAY", "1688"),
        ("1688-142285-0001", "MARGARET SAID", "1688"),
        ("367-130732-0000", "LOBSTERS AND LOBSTERS", "367"),
    ]
    arabic = L2Arctic(accent="arabic", path=str(root / "l2arctic_release_v5.0"), exceptions="leave-out")
    assert rows_of(arabic) == [("ABA-arctic_a0001", "Author of the danger trail.", "ABA")]
    assert [one.speaker for one in L2Arctic(accent="hindi", path=arabic.path).read_all()] == ["ASI"], "a free folder"
    german = MultilingualLibriSpeech(language="german", path=str(root))
    assert rows_of(german) == [("1844_931_000001", "wenn nicht", "1844")]
    assert not (root / "mls_english").exists()
    scripts["real_speech"].lay_out(share, root, per_speaker=1)
    assert [name for name, *_ in rows_of(LibriSpeech(path=str(root)))] == ["1688-142285-0000", "367-130732-0000"]


def test_packed_noise_matches_run(
    share: Path, tmp_path: Path, scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts["real_speech"].lay_out(share, tmp_path / "corpora")
    monkeypatch.setenv("EMTTA_CORPORA", str(tmp_path / "corpora"))
    suite, recordings = load_suite("paper"), dict[str, Any]()
    for name in ("GS", "AC", "German"):
        domain = suite.domain(name)
        rows = scripts["gpu_pack"].packed(domain, recordings)
        for row, one in zip(rows, domain.corpus.read_all(), strict=True):
            clean = one.read()
            noisy = (
                clean if domain.corruption is None else domain.corruption.apply(clean, one.id, lambda _: []).waveform
            )
            (tmp_path / "made.flac").write_bytes(encode_flac(noisy))
            expected = read_audio(tmp_path / "made.flac")
            np.testing.assert_array_equal(scripts["gpu_speech"].waveform(row, recordings), expected)


def test_counts_from_machines_are_joined(tmp_path: Path, scripts: dict[str, ModuleType]) -> None:
    real_speech, path = scripts["real_speech"], tmp_path / "counts.json"

    def measured(run: str, method: str, *hypotheses: str) -> Any:
        common = {
            "group": "noise",
            "domain": "AC",
            "method": method,
            "language": "en",
            "reference": "seven small boats",
        }
        more = {"audio_seconds": 2.0, "seconds": 1.0, "memory_mb": 900.0, "error": None}
        texts = enumerate(hypotheses)
        rows = [
            {**common, **more, "utterance_id": f"u{n}", "speaker": f"s{n}", "hypothesis": text} for n, text in texts
        ]
        return real_speech.Measured([{"run_id": run}], real_speech.counted(rows))

    first = measured("first", "source", "seven small goats", "seven")
    first.write(path)
    assert "boats" not in path.read_text(), "no text of the corpora is kept"
    assert real_speech.Measured.read(path) == first
    newer = measured("second", "em-tok", "seven small boats", "seven small")
    known = first.joined(newer).joined(measured("third", "source", "seven small boats"))
    assert [run["run_id"] for run in known.runs] == ["first", "second", "third"]
    wers = {
        row["method"]: row["wer"] for row in real_speech.report(known.counts, None)["jiwer"] if row["domain"] == "AC"
    }
    assert wers == {"source": pytest.approx(100 * 2 / 6), "em-tok": pytest.approx(100 / 6)}


def test_rounds_take_speakers_in_turn(scripts: dict[str, ModuleType]) -> None:
    rows = [{"domain": "d", "speaker": speaker, "utterance_id": name} for speaker, name in ("a1", "a2", "b3", "c4")]
    found = scripts["gpu_speech"].rounds([*rows, {"domain": "e", "speaker": "a", "utterance_id": "5"}], 2)
    assert [[one["utterance_id"] for one in part] for part in found] == [["1", "3", "5"], ["4", "2"]]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_shipped_suite_runs_on_share(share: Path, tmp_path: Path) -> None:
    suite = ["--model", "demo", "--method", "source", "--method", "greedy-em", "--batch-size", "4"]
    only = [word for name in ("AC", "Arabic", "Hindi") for word in ("--only", f"domain={name}")]
    done = python("real_speech.py", share, tmp_path / "out", *suite, *only)
    assert "noise 'Typing_2.wav' is not in" in done.stderr
    assert "RRBI, SVBI, TNI, 3 of 4; the figures are for the others" in done.stderr
    assert "recordings left out, as the paper's authors do: ABA arctic_b0013" in done.stderr
    figures = json.loads((tmp_path / "out/figures.json").read_text())
    assert figures["domains"]["AC"] == {"utterances": 3, "speakers": 2}
    for rule in ("jiwer", "whisper"):
        found = {(row["method"], row["domain"]) for row in figures[rule]}
        assert {("source", "AC"), ("greedy-em", "Arabic"), ("greedy-em", "Hindi")} <= found


@pytest.mark.slow
def test_gpu_machine_needs_only_engine() -> None:
    loaded = "import gpu_parity, gpu_speech, sys; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, env=environment, check=True)
    others = {
        "prefect",
        "duckdb",
        "pydantic",
        "jiwer",
        "soundfile",
        "datasets",
        "pyarrow",
        "soxr",
        "whisper_normalizer",
    }
    assert others & set(done.stdout.split()) == set()


@pytest.mark.slow
def test_gpu_script_is_checked_on_cpu(share: Path, tmp_path: Path) -> None:
    python("real_speech.py", share, tmp_path / "out", "--lay-out-only")
    made = python("gpu_pack.py", tmp_path / "out/corpora", folder_of("demo"), tmp_path / "pieces", "--piece", 2_000_000)
    assert "domain TP is left out: the noise 'Typing_2.wav'" in made.stdout
    pieces = sorted((tmp_path / "pieces").glob("piece-*"))
    assert len(pieces) > 1
    assert max(path.stat().st_size for path in pieces) <= 2_000_000
    environment = {"DEVICE": "cpu", "CHECK": "1", "PACK": str(tmp_path / "there"), "PYTHON": sys.executable}
    environment |= {"OUT": str(tmp_path / "results"), "OMP_NUM_THREADS": "1"}
    script = ["bash", str(ROOT / "benchmarks/gpu.sh")]
    for command in ([*script, "collect", str(tmp_path / "pieces")], script):
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "speech: exit 0" in done.stdout
    parity = json.loads((tmp_path / "results/parity.json").read_text())
    assert {row["texts_equal"] for row in parity["rows"] if row["precision"] == "float32"} == {2}
    assert len(list((tmp_path / "results").glob("adaptation-*-check.json"))) == 2
    hypotheses = tmp_path / "results/hypotheses.json"
    python("real_speech.py", share, tmp_path / "scored", "--hypotheses", hypotheses)
    figures = json.loads((tmp_path / "scored/figures.json").read_text())
    assert figures["domains"]["AC"] == {"utterances": 3, "speakers": 2}
    pieces[0].write_bytes(b"?")
    (tmp_path / "there" / pieces[0].name).write_bytes(b"?")
    again = subprocess.run(script, capture_output=True, text=True, env=os.environ | environment)
    assert again.returncode == 1
    assert "piece-00 is not as it was packed" in again.stdout


def python(script: str, *words: object) -> "subprocess.CompletedProcess[str]":
    """Run a benchmark as a user would; it may exit with 3, as some of the paper's corpora are missing."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, words)]
    nowhere = "http://127.0.0.1:9"  # corpora that the share lacks are not fetched
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_ENDPOINT": nowhere}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    return done
