"""The listening page is self-contained: clean next to corrupted speech, as sound and picture, with no requests."""

import base64
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Command
from numpy.typing import NDArray

from emtta_core.audio.files import read_audio
from emtta_core.errors import UsageError
from emtta_core.pipeline.selection import choose_domains
from emtta_core.report.listening_page import make_listening_page
from emtta_core.suite import load_suite

ROBUSTNESS = load_suite("robustness")

OWN = """
name = "own"
methods = ["source"]
model = { name = "demo" }

[defaults]
corpus = { name = "folder", path = ".", language = "en" }

[[domains]]
name = "hiss"
group = "mine"
corruption = { name = "noise-file", path = ".", file = "late.wav", offset = "start", snr_db = 10 }

[[domains]]
name = "quiet"
group = "mine"
corruption = { name = "gain", severity = 3 }
"""


def test_command_writes_one_playable_file(emtta: Command, tmp_path: Path) -> None:
    ended = emtta("listen", "robustness", "--only", "group=gain", "--examples", "1", "--out", tmp_path / "new")
    assert ended.code == 0, ended.err
    page = (tmp_path / "new" / "emtta-listen-robustness.html").read_text(encoding="utf-8")
    sounds = [read_audio(base64.b64decode(data)) for data in re.findall(r"data:audio/flac;base64,([^\"]+)", page)]
    (utterance,) = [u for u, _ in zip(ROBUSTNESS.domains[0].corpus.read_all(), range(1), strict=False)]
    domains = choose_domains(ROBUSTNESS, ["group=gain"])
    assert len(domains) == 5
    corrupted = [
        domain.corruption.apply(utterance.read(), utterance.id, lambda count: []).waveform for domain in domains
    ]
    for sound, expected in zip(sounds, [utterance.read(), *corrupted], strict=True):
        np.testing.assert_allclose(sound, expected, atol=1 / 32768)
    assert "gain/5 (level -75 dB FS)" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def grey(png: bytes) -> NDArray[np.uint8]:
    """Decode an 8-bit greyscale PNG by the specification: signature, chunks with checksums, lines without a filter."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, position = {}, 8
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        kind, data = png[position + 4 : position + 8], png[position + 8 : position + 8 + length]
        assert struct.unpack(">I", png[position + 8 + length : position + 12 + length]) == (zlib.crc32(kind + data),)
        chunks[kind] = data
        position += 12 + length
    columns, rows, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 0, 0, 0, 0]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(rows, columns + 1)
    assert not lines[:, 0].any()
    assert list(chunks)[-1] == b"IEND"
    return lines[:, 1:]


def test_spectrogram_is_png_of_audio() -> None:
    page = make_listening_page(ROBUSTNESS, choose_domains(ROBUSTNESS, ["domain=low-pass-5"]), 1)
    clean, muffled = (base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", page))
    high = [grey(data)[:60].mean() for data in (clean, muffled)]
    assert high[1] > high[0] + 20, "a low-pass at 1 kHz leaves the upper part of the picture white"


def test_clean_speech_comes_first() -> None:
    page = make_listening_page(ROBUSTNESS, choose_domains(ROBUSTNESS, ["group=gsm", "group=speed"]), 2)
    names = [["clean", *(f"{group}-{severity}" for severity in range(1, 6))] for group in ("gsm", "speed")]
    assert re.findall(r"<figcaption><b>([^<]+)", page) == 2 * names[0] + 2 * names[1]
    links = re.findall(r"<a href=\"#(chapter-\d)\">(\w+)</a>", page)
    assert links == [("chapter-1", "gsm"), ("chapter-2", "speed")]
    assert all(page.count(f'id="{anchor}"') == 1 for anchor, _ in links)


def test_same_group_domains_are_separated() -> None:
    demo = load_suite("demo")
    page = make_listening_page(demo, choose_domains(demo, ["group=accent"]), 1)
    titles = re.findall(r"<h2[^>]*>([^<]+)", page)
    assert titles == re.findall(r"<a href=\"#chapter-\d\">([^<]+)", page)
    assert len(titles) == len(set(titles)) == 2
    assert all(title.startswith("accent: ") for title in titles)


def test_unplayable_audio_shows_reason(tmp_path: Path) -> None:
    """A bad audio file affects only its utterance; noise that is silent where it is used affects only its domain."""
    hum = np.sin(np.arange(16000))
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    soundfile.write(tmp_path / "b.wav", hum, 16000)
    soundfile.write(tmp_path / "late.wav", np.concatenate([np.zeros(16000), hum]), 16000)
    (tmp_path / "manifest.csv").write_text("path,text\na.flac,one\nb.wav,two\n", encoding="utf-8")
    (tmp_path / "own.toml").write_text(OWN, encoding="utf-8")
    suite = load_suite(str(tmp_path / "own.toml"))
    _, broken, whole = make_listening_page(suite, suite.domains, 2).split('<div class="card">')
    assert "a.flac" in broken and "<audio" not in broken
    clean, hiss, quiet = whole.split("<figure>")[1:]
    assert "<audio" in clean and "<audio" in quiet
    assert "is silent" in hiss and "<audio" not in hiss


@pytest.mark.parametrize(
    ("only", "words"),
    [
        (["domain=hum"], "unknown domain 'hum'; choose from: babble-1"),
        (["method=source"], "not of the form domain="),
        (["group=mp3", "domain=gsm-1"], "no domain matches all of group=mp3, domain=gsm-1"),
    ],
)
def test_invalid_selection_is_refused(only: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choose_domains(ROBUSTNESS, only)


def test_uncorrupted_suite_is_refused() -> None:
    with pytest.raises(UsageError, match="no domain of clean has a corruption"):
        make_listening_page(ROBUSTNESS, choose_domains(ROBUSTNESS, ["domain=clean"]))
