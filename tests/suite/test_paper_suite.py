"""The paper's suite runs end to end without a network, on miniature corpora in exactly the published layouts."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from conftest import Command
from corpora_factory import put
from whisper_factory import make_checkpoint

from emtta_core.adaptation.options import USES
from emtta_core.audio.noise_file import MS_SNSD, NoiseFile
from emtta_core.corpora.l2arctic import SPEAKERS
from emtta_core.corpora.librispeech import CODES
from emtta_core.corpora.synthetic import Synthetic
from emtta_core.demo.recipe import trained_voices
from emtta_core.suite import ModelChoice, Suite, load_suite
from emtta_core.suite.composed_methods import MethodChoice

UTTERANCES = 2
SUITE = """\
extends = "paper"
name = "miniature"
model = {{ name = "{model}" }}
adaptation = {{ steps = 1, candidates = 2 }}
runtime = {{ isolation = "none", batch_size = 2 }}
"""


def spoken(language: str, *, form: str = "FLAC", rate: int = 16_000) -> Iterator[tuple[bytes, str]]:
    """Yield sentences of the synthetic corpus as audio files, with their texts."""
    voices = trained_voices(language)[:1]
    for utterance in Synthetic(language=language, voices=voices, utterances=UTTERANCES).read_all():
        file = io.BytesIO()
        soundfile.write(file, soxr.resample(utterance.read(), 16_000, rate), rate, format=form)
        yield file.getvalue(), utterance.text


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with LibriSpeech, L2-ARCTIC, MLS and MS-SNSD in the layout of their archives, with synthetic speech."""
    root = tmp_path_factory.mktemp("corpora")
    files: dict[str, bytes | str] = {}
    chapter = "LibriSpeech/test-other/1688/142285"
    transcript = ""
    for index, (audio, text) in enumerate(spoken("en")):
        files[f"{chapter}/1688-142285-{index:04d}.flac"] = audio
        transcript += f"1688-142285-{index:04d} {text.upper()}\n"
    files[f"{chapter}/1688-142285.trans.txt"] = transcript
    read = list(spoken("en", form="WAV", rate=44_100))
    for speaker in (speaker for speakers in SPEAKERS.values() for speaker in speakers):
        for index, (audio, text) in enumerate(read):
            files[f"l2arctic_release_v5.0/{speaker}/wav/arctic_a{index + 1:04d}.wav"] = audio
            files[f"l2arctic_release_v5.0/{speaker}/transcript/arctic_a{index + 1:04d}.txt"] = text.capitalize()
    for language, code in CODES.items():
        transcript = ""
        for index, (audio, text) in enumerate(spoken(code)):
            files[f"mls_{language}/test/audio/1844/931/1844_931_{index:06d}.flac"] = audio
            transcript += f"1844_931_{index:06d}\t{text}\n"
        files[f"mls_{language}/test/transcripts.txt"] = transcript
    rng = np.random.default_rng(0)
    for name in MS_SNSD.values():
        file = io.BytesIO()
        soundfile.write(file, 0.1 * rng.standard_normal(16_000), 16_000, format="WAV", subtype="PCM_16")
        files[f"MS-SNSD/noise_test/{name}"] = file.getvalue()
    return put(root, files)


def run_miniature(
    emtta: Command, model: str, corpus_folder: Path, folder: Path, methods: Sequence[str]
) -> list[dict[str, object]]:
    """Run methods of the suite with a model on one utterance per domain; return the rows of the report `paper`.

    Checks that every domain is complete.
    """
    suite, store = folder / "miniature.toml", folder / "store"
    suite.write_text(SUITE.format(model=model))
    ready = emtta("doctor", suite, "--corpus-dir", corpus_folder, "--store", store)
    assert ready.code == 0, ready.out
    where = ("--corpus-dir", corpus_folder, "--store", store)
    only = [word for method in methods for word in ("--only", f"method={method}")]
    outcome = emtta("run", suite, "--run-id", "mini", *where, "--limit", 1, *only)
    assert outcome.code == 0, outcome.err
    assert f"{23 * len(methods)} of 115 complete" in emtta("status", "mini", "--store", store).out
    answer = emtta("report", "paper", "--run", "mini", "--store", store, "--format", "json")
    rows: list[dict[str, object]] = [row for row in json.loads(answer.out) if row["method"] in methods]
    assert len(rows) == 3 * len(methods)
    assert {(row["suite"], row["domains"], row["paper_domains"]) for row in rows} == {
        ("LS-C", 10, 10),
        ("L2-ARCTIC", 6, 6),
        ("MLS", 7, 7),
    }
    assert all(row["wer"] is not None and row["paper_wer"] is not None for row in rows)
    return rows


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_suite_runs_with_demo_model(emtta: Command, corpus_folder: Path, tmp_path: Path) -> None:
    rows = run_miniature(emtta, "demo", corpus_folder, tmp_path, ("source", "em-tok-b"))
    source = {row["suite"]: row["wer"] for row in rows if row["method"] == "source"}
    assert source["L2-ARCTIC"] == source["MLS"] == 0.0, "clean sentences in voices that the model knows"
    query = "SELECT DISTINCT corruption, snr_db FROM prepared WHERE corruption IS NOT NULL"
    made = json.loads(emtta("sql", query, "--store", tmp_path / "store", "--format", "json").out)
    assert len(made) == 10
    assert {row["snr_db"] for row in made} == {10.0}


def test_readings_name_only_suite_fields() -> None:
    page = (Path(__file__).parents[2] / "docs/reproduce.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\| (?:paper|earlier code|ours)[^|]*\| (.+) \|$", page, flags=re.MULTILINE)
    domains = load_suite("paper").domains
    tables = {
        "model": set(ModelChoice.model_fields),
        "adaptation": set(USES),
        "corpus": {name for domain in domains for name in type(domain.corpus).model_fields},
        "corruption": set(NoiseFile.model_fields),
        "": {*Suite.model_fields, *MethodChoice.model_fields},
    }
    named, table = [], ""
    for row in rows:
        for field in re.findall("`([^`]+)`", row) if not row.startswith("none") else ():
            *given, name = field.split(".")
            table = given[0] or table if given else ""  # `.steps` belongs to the table named last
            named.append(name)
            assert name in tables[table], f"{field} in: {row}"
    assert len(rows) >= 30
    assert len(named) >= 25


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_all_methods_run_on_whisper_base_shape(emtta: Command, corpus_folder: Path, tmp_path: Path) -> None:
    model = make_checkpoint(
        tmp_path / "whisper-base",
        d_model=512,
        heads=8,
        encoder_layers=6,
        decoder_layers=6,
        ffn=2048,
        chunk_seconds=30,
        hop_length=160,
        languages=("en", *CODES.values()),
    )
    run_miniature(emtta, str(model), corpus_folder, tmp_path, [choice.name for choice in load_suite("paper").methods])
