"""`emtta prepare` and `emtta doctor` show what a suite needs before anything runs; `prepare` then fetches it."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Command, Speech, SuiteFile
from corpora_factory import (
    l2arctic_folder,
    librispeech_folder,
    librispeech_hub,
    librispeech_rows,
    mls_folder,
    put,
    sound,
)
from hub_server import TOKEN, Hub

from emtta_core.audio.noise_file import MS_SNSD
from emtta_core.corpora.l2arctic import SPEAKERS
from emtta_core.corpora.librispeech import CODES
from emtta_core.store import Store

DOMAIN = '[[domains]]\nname = "{}"\ngroup = "{}"\n'
NOISE = 'corruption = {{ name = "noise-file", kind = "{}", snr_db = 10 }}\n'


def paper_like() -> str:
    """Return 23 domains like the paper's: nine recorded noises and Gaussian noise, six accents, seven languages."""
    text = '[groups.noise]\ncorpus = { name = "librispeech" }\n'
    for kind in ("gaussian", *MS_SNSD):
        text += DOMAIN.format(kind, "noise") + NOISE.format(kind)
    for accent in SPEAKERS:
        text += DOMAIN.format(accent, "accent") + f'corpus = {{ name = "l2arctic", accent = "{accent}" }}\n'
    for language in CODES:
        text += DOMAIN.format(f"mls-{language}", "language") + f'corpus = {{ name = "mls", language = "{language}" }}\n'
    return text


@pytest.fixture
def corpus_folder(tmp_path: Path) -> Path:
    """Miniatures of all of the paper's data sets, laid out as published."""
    root = tmp_path / "data"
    librispeech_folder(root)
    l2arctic_folder(root, [speaker for speakers in SPEAKERS.values() for speaker in speakers], sentences=1)
    for language in CODES:
        mls_folder(root, language, opus=language == "polish")
    hiss = 0.2 * np.random.default_rng(0).standard_normal(8_000)
    for number, name in enumerate(MS_SNSD.values()):
        path = root / "MS-SNSD" / ("noise_train" if number % 2 else "noise_test") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.roll(hiss, 500 * number), 16_000)
    return root


def test_paper_domains_prepare_offline(
    tmp_path: Path, corpus_folder: Path, hub: Hub, suite_file: SuiteFile, emtta: Command
) -> None:
    suite, store = suite_file(paper_like()), tmp_path / "store"
    foreseen = emtta("prepare", suite, "--store", store, "--corpus-dir", corpus_folder, "--dry-run")
    assert (foreseen.code, store.exists()) == (0, False), foreseen.err
    assert "LibriSpeech test-other" in foreseen.out
    assert "gaussian and 9 more" in foreseen.out
    done = emtta("prepare", suite, "--store", store, "--corpus-dir", corpus_folder)
    assert done.code == 0, done.err
    assert done.err.count("prepared in") == 23
    assert "hindi: 4 utterances" in done.err
    assert hub.asked == []
    again = emtta("prepare", suite, "--store", store, "--only", "group=noise")
    assert (again.code, again.err.count("6 utterances, already prepared")) == (0, 10)
    examined = emtta("doctor", suite, "--store", store)
    assert examined.code == 0
    assert "here, 10 of 10 prepared" in examined.out
    assert "6, 0.00 h" in examined.out
    assert "noise babble" in examined.out


def test_fetches_are_announced(tmp_path: Path, hub: Hub, suite_file: SuiteFile, emtta: Command) -> None:
    librispeech_hub(hub, declared={"all/test.other-00000-of-00002.parquet": 300 * 10**6})
    suite, store = suite_file(paper_like()), tmp_path / "store"
    shown = emtta("prepare", suite, "--store", store, "--dry-run", "--only", "group=noise", "--only", "domain=hindi")
    assert shown.code == 2  # no domain matches both
    shown = emtta("prepare", suite, "--store", store, "--dry-run")
    assert (shown.code, store.exists()) == (3, False), shown.err
    line = next(line for line in shown.out.splitlines() if "LibriSpeech" in line)
    assert "to fetch, 300 MB" in line
    assert "CC BY 4.0" in line
    assert "L2-ARCTIC arabic is not in any folder" in shown.err
    assert "l2-arctic-corpus/, and extract" in shown.err
    assert "git clone https://github.com/microsoft/MS-SNSD" in shown.err
    assert not [line for line in hub.asked if "parquet" in line and line.startswith("GET") and "bytes=" not in line]


@pytest.mark.parametrize("verb", ["doctor", "prepare"])
def test_shared_reason_is_printed_once(
    tmp_path: Path, hub: Hub, suite_file: SuiteFile, emtta: Command, verb: str
) -> None:
    hub.status = 503
    shown = emtta(verb, suite_file(paper_like()), "--store", tmp_path / "store", *["--dry-run"][: verb == "prepare"])
    assert shown.err.count("L2-ARCTIC arabic is not in any folder") == shown.err.count("l2-arctic-corpus/, and ex") == 1
    assert "missing, for the same reason: L2-ARCTIC mandarin, L2-ARCTIC hindi, L2-ARCTIC korean, " in shown.err
    assert shown.err.count("git clone https://github.com/microsoft/MS-SNSD") == 1
    assert "missing, for the same reason: the noise 'AirportAnnouncements_2.wav', the noise 'Babble_4.wav'" in shown.err
    assert shown.err.count("asked for data set facebook/multilingual_librispeech") == 1
    reasons = "".join(line for line in shown.err.splitlines() if line.startswith("missing"))
    assert reasons.count("Multilingual LibriSpeech") == len(CODES) - 1
    assert shown.err.count("asked for data set openslr/librispeech_asr") == 1


def test_manual_download_size_is_cited(tmp_path: Path, hub: Hub, suite_file: SuiteFile, emtta: Command) -> None:
    hub.status = 503
    suite = paper_like() + DOMAIN.format("meeting", "m") + 'corpus = { name = "ami" }\n'
    shown = emtta("doctor", suite_file(suite), "--store", tmp_path / "store")
    accents = ", ".join(f"L2-ARCTIC {accent}" for accent in SPEAKERS)
    assert f"\n{accents}: about 7.5 GB to get by hand (all speakers), according to https://github.com/" in shown.err
    listed = (
        "LibriSpeech test-other: about 328.8 MB to get by hand (the split), according to https://www.openslr.org/12"
    )
    assert f"\n{listed}\n" in shown.err
    for language, size in {"german": "122.9 GB", "polish": "6.6 GB"}.items():
        assert f"Multilingual LibriSpeech {language} test: about {size} to get by hand (all splits of" in shown.err
    rows = " ".join(shown.out.split())
    assert rows.count("missing, size unknown") == len(MS_SNSD)
    assert rows.count("missing, about 7.5 GB") == len(SPEAKERS)
    assert "AMI ihm test meeting missing CC BY 4.0" in rows


def test_failed_domain_is_isolated(tmp_path: Path, hub: Hub, suite_file: SuiteFile, emtta: Command) -> None:
    librispeech_hub(hub)
    text = DOMAIN.format("long", "a") + 'corpus = { name = "librispeech", max_seconds = 0.55 }\n'
    text += DOMAIN.format("short", "a") + 'corpus = { name = "librispeech", max_seconds = 0.1 }\n'
    text += DOMAIN.format("noisy", "a") + 'corpus = { name = "librispeech" }\n' + NOISE.format("babble")
    text += DOMAIN.format("gone", "a") + 'corpus = { name = "l2arctic" }\n'
    text += DOMAIN.format("gone-too", "a") + 'corpus = { name = "l2arctic" }\n'
    done = emtta("prepare", suite_file(text), "--store", tmp_path / "store")
    assert done.code == 3
    assert "long: 3 utterances, prepared in" in done.err
    assert "3 longer than max_seconds were left out" in done.err
    assert "short: not prepared: the corpus of domain 'short' has no utterance that is short enough: 6 are " in done.err
    assert "noisy: not prepared: the noise 'Babble_4.wav' is not in any folder" in done.err
    assert "gone: not prepared: L2-ARCTIC of all accents is not in any folder" in done.err
    assert "\ngone-too: not prepared, like gone\n" in done.err
    (corpus_id,) = {entry.name.split("/")[1] for entry in Store.open(str(tmp_path / "store")).backend.list("prepared")}
    kept = Store.open(str(tmp_path / "store")).prepared(corpus_id)
    assert kept is not None
    assert (kept.utterances, kept.left_out) == (3, 3)


def test_unusable_utterances_are_counted(tmp_path: Path, suite_file: SuiteFile, speech: Speech, emtta: Command) -> None:
    speech.add("torn", b"RIFF this is no sound", "lost")
    speech.add("gone", None, "lost")
    summary = r"clean: 5 utterances, 2 in error \(first: torn: \S+torn\.wav: is cut off: .*\), "
    for made in ("prepared in", "already prepared"):
        done = emtta("prepare", suite_file(), "--store", tmp_path / "store")
        assert done.code == 0, done.err
        assert re.search(summary + made, done.err)


def test_unusable_domain_exits_3(tmp_path: Path, suite_file: SuiteFile, emtta: Command) -> None:
    speech = Speech(tmp_path / "speech")
    for name in ("one", "two"):
        speech.add(name, None, "lost")
    for made in ("prepared in", "already prepared"):
        done = emtta("prepare", suite_file(), "--store", tmp_path / "store")
        assert done.code == 3
        assert re.search(
            r"clean: 2 utterances, 2 in error \(first: one: \S+one\.wav: cannot be .*\), " + made, done.err
        )


def test_low_disk_is_reported_first(tmp_path: Path, hub: Hub, suite_file: SuiteFile, emtta: Command) -> None:
    librispeech_hub(hub, declared={"all/test.clean-00000-of-00001.parquet": 10**17})
    text = DOMAIN.format("other", "a") + 'corpus = { name = "librispeech" }\n'
    text += DOMAIN.format("clean", "a") + 'corpus = { name = "librispeech", split = "test-clean" }\n'
    done = emtta("prepare", suite_file(text), "--store", tmp_path / "store")
    assert done.code == 1
    assert "the download for the suite takes 100000000.00 GB" in done.err
    assert not [line for line in hub.asked if "parquet" in line and line.startswith("GET") and "bytes=" not in line]


def test_remote_reads_need_no_disk(tmp_path: Path, hub: Hub, suite_file: SuiteFile, emtta: Command) -> None:
    librispeech_hub(hub, librispeech_rows(12), declared={"all/test.other-00000-of-00002.parquet": 10**17})
    suite = suite_file(DOMAIN.format("x", "a") + 'corpus = { name = "librispeech" }\n')
    shown = emtta("prepare", suite, "--store", tmp_path / "store", "--limit", "1", "--dry-run")
    assert "to read over the network" in " ".join(shown.out.split())
    done = emtta("prepare", suite, "--store", tmp_path / "store", "--limit", "1")
    assert done.code == 0, done.err
    assert "x: 1 utterance, prepared in" in done.err
    refused = emtta("prepare", suite, "--store", tmp_path / "store", "--limit", "6")
    assert refused.code == 1
    assert "the download for the suite takes 100000000.00 GB" in refused.err


def test_shared_files_are_fetched_once(tmp_path: Path, hub: Hub, suite_file: SuiteFile, emtta: Command) -> None:
    sizes = {f"all/test.other-0000{part}-of-00002.parquet": 300 * 10**6 for part in (0, 1)}
    librispeech_hub(hub, declared=sizes)
    text = DOMAIN.format("all", "a") + 'corpus = { name = "librispeech" }\n'
    text += DOMAIN.format("most", "a") + 'corpus = { name = "librispeech", utterances = 5 }\n'
    done = emtta("prepare", suite_file(text), "--store", tmp_path / "store")
    assert done.code == 0, done.err
    assert "fetching up to 600 MB from the hub" in done.err


def test_doctor_links_terms_of_gated_set(
    tmp_path: Path, hub: Hub, suite_file: SuiteFile, emtta: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    librispeech_hub(hub, gated=True)
    suite = suite_file(DOMAIN.format("x", "a") + 'corpus = { name = "librispeech" }\n')
    examined = emtta("doctor", suite, "--store", tmp_path / "store")
    assert examined.code == 1
    assert "openslr/librispeech_asr is gated, and no token is set; accept its terms at" in examined.err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    examined = emtta("doctor", suite, "--store", tmp_path / "store")
    assert (examined.code, "to fetch" in examined.out) == (0, True)


def test_doctor_shows_folder_mistake(tmp_path: Path, suite_file: SuiteFile, emtta: Command) -> None:
    put(tmp_path / "speech", {"manifest.csv": "path,text\n../a.wav,hello\n", "b.wav": sound(0.2, form="WAV")})
    examined = emtta("doctor", suite_file(), "--store", tmp_path / "store")
    assert examined.code == 1
    assert "manifest.csv, line 2, column 'path': '../a.wav': it is outside the folder" in examined.err


def test_corpus_dir_must_be_folder(tmp_path: Path, suite_file: SuiteFile, emtta: Command) -> None:
    refused = emtta("prepare", suite_file(), "--corpus-dir", tmp_path / "nowhere")
    assert refused.code == 2
    assert "is not a folder; name the folder that contains LibriSpeech/ and other corpora" in refused.err


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        (("tokenizer.json", "vocab.json", "merges.txt"), "tokenizer.json (or vocab.json and merges.txt)"),
        (("model.safetensors",), "model.safetensors (or model.safetensors.index.json and its shards)"),
        (("generation_config.json", "preprocessor_config.json"), "generation_config.json, preprocessor_config.json"),
    ],
)
def test_model_folder_gaps_are_named(
    gone: tuple[str, ...],
    named: str,
    tmp_path: Path,
    suite_file: SuiteFile,
    speech: Speech,
    tiny_model: Path,
    emtta: Command,
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "checkpoint-4000"))
    suite = suite_file()
    suite.write_text(suite.read_text().replace(str(tiny_model), str(folder)))
    assert emtta("doctor", suite, "--store", tmp_path / "store").code == 0
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    for words in (("doctor", suite), ("prepare", suite, "--dry-run")):
        outcome = emtta(*words, "--store", tmp_path / "store")
        assert outcome.code != 0, outcome.out
        assert f"missing: the model folder {folder} lacks {named}; copy what training" in " ".join(outcome.err.split())


def test_missing_model_folder_is_not_bug(tmp_path: Path, suite_file: SuiteFile, speech: Speech, emtta: Command) -> None:
    suite = suite_file()
    suite.write_text(re.sub(r'name = "[^"]*model"', 'name = "/data/no-such-whisper"', suite.read_text()))
    for verb, code in (("doctor", 1), ("prepare", 3)):
        outcome = emtta(verb, suite, "--store", tmp_path / "store")
        assert outcome.code == code, outcome.err
        assert "no folder '/data/no-such-whisper'" in " ".join(outcome.err.split())
