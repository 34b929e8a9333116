"""Miniature corpora, in exactly the layouts in which the real ones are published."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from hub_server import Hub, parquet

TEXTS = ("SEVEN SMALL BOATS", "THE QUICK BROWN FOX", "NOBODY KNOWS WHERE", "IT IS LATE", "COME HERE", "ONE MORE TIME")


def sound(seconds: float, *, form: str = "FLAC", rate: int = 16_000, channels: int = 1, hertz: float = 220.0) -> bytes:
    """Return a tone as an audio file."""
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * hertz * time) * (0.6 + 0.4 * np.sin(6 * time))
    file = io.BytesIO()
    subtype = {"FLAC": "PCM_16", "WAV": "PCM_16", "OGG": "OPUS", "MP3": "MPEG_LAYER_III", "NIST": "PCM_16"}[form]
    soundfile.write(file, np.stack([tone] * channels, axis=1), rate, format=form, subtype=subtype)
    return file.getvalue()


def put(root: Path, files: Mapping[str, bytes | str]) -> Path:
    """Write files below a folder, and return it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def librispeech_rows(count: int = 6) -> list[dict[str, Any]]:
    """Return rows of `openslr/librispeech_asr`: the utterances of two speakers, each 0.1 s longer than the last."""
    rows = []
    for index in range(count):
        speaker, chapter = (1688, 142285) if index < (count + 1) // 2 else (367, 130732)
        name = f"{speaker}-{chapter}-{index:04d}"
        rows.append(
            {
                "file": f"{name}.flac",
                "audio": {"bytes": sound(0.3 + 0.1 * index, hertz=200 + 20 * index), "path": f"{name}.flac"},
                "text": TEXTS[index % len(TEXTS)],
                "speaker_id": speaker,
                "chapter_id": chapter,
                "id": name,
            }
        )
    return rows


def librispeech_folder(root: Path, split: str = "test-other", count: int = 6) -> Path:
    """Make `LibriSpeech/<split>` as https://www.openslr.org/12 gives it, and return the folder `LibriSpeech`."""
    files: dict[str, bytes | str] = {}
    for row in librispeech_rows(count):
        place = f"LibriSpeech/{split}/{row['speaker_id']}/{row['chapter_id']}"
        files[f"{place}/{row['file']}"] = row["audio"]["bytes"]
        transcript = f"{place}/{row['speaker_id']}-{row['chapter_id']}.trans.txt"
        files[transcript] = f"{files.get(transcript, '')}{row['id']} {row['text']}\n"
    return put(root, files) / "LibriSpeech"


def librispeech_hub(hub: Hub, rows: Sequence[Mapping[str, Any]] | None = None, **options: Any) -> str:
    """Commit `openslr/librispeech_asr`, whose configurations are `all`, `clean` and `other`; return the commit."""
    shown = librispeech_rows() if rows is None else rows
    return hub.commit(
        "openslr/librispeech_asr",
        {
            "all/test.other-00000-of-00002.parquet": parquet(shown[: len(shown) // 2]),
            "all/test.other-00001-of-00002.parquet": parquet(shown[len(shown) // 2 :]),
            "all/test.clean-00000-of-00001.parquet": parquet(librispeech_rows(2)),
            "other/test-00000-of-00001.parquet": parquet(shown),
        },
        configs={
            "all": {"test.clean": "all/test.clean-*", "test.other": "all/test.other-*"},
            "other": {"test": "other/test-*"},
        },
        **options,
    )
