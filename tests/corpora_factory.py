"""Miniature corpora, in exactly the layouts in which the real ones are published."""

import io
import tarfile
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


def piped(mp3: bytes) -> bytes:
    """Return an MP3 file as ffmpeg writes it into a pipe: with a tag, and without the frame that says its length."""
    assert b"Info" in mp3[:40] or b"Xing" in mp3[:40]
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x23TSSE\x00\x00\x00\x0f\x00\x00\x03Lavf60.16.100\x00".ljust(45, b"\0")
    return tag + mp3[mp3.index(mp3[:2], 4) :]


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


def mls_folder(root: Path, language: str = "german", *, opus: bool = False) -> Path:
    """Make `mls_<language>/test` as https://www.openslr.org/94 gives it."""
    top, ending, form = (f"mls_{language}_opus", "opus", "OGG") if opus else (f"mls_{language}", "flac", "FLAC")
    files: dict[str, bytes | str] = {f"{top}/test/segments.txt": "", f"{top}/metainfo.txt": ""}
    transcripts = ""
    for index, (speaker, book) in enumerate(((1844, 931), (1844, 931), (2422, 1234))):
        name = f"{speaker}_{book}_{index:06d}"
        files[f"{top}/test/audio/{speaker}/{book}/{name}.{ending}"] = sound(0.3 + 0.1 * index, form=form)
        transcripts += f"{name}\tsieben kleine boote {index}\n"
    return put(root, files | {f"{top}/test/transcripts.txt": transcripts}) / top


def mls_hub(hub: Hub, language: str = "german") -> str:
    """Commit `facebook/multilingual_librispeech` with the test split of a language."""
    rows = [
        {
            "audio": {"bytes": sound(0.3 + 0.1 * index), "path": f"{speaker}_{book}_{index:06d}.flac"},
            "original_path": "http://www.archive.org/download/book/book_64kb.mp3",
            "begin_time": 1.5,
            "end_time": 1.8 + 0.1 * index,
            "transcript": f"sieben kleine boote {index}",
            "audio_duration": 0.3 + 0.1 * index,
            "speaker_id": str(speaker),
            "chapter_id": str(book),
            "file": f"{speaker}_{book}_{index:06d}.flac",
            "id": f"{speaker}_{book}_{index:06d}",
        }
        for index, (speaker, book) in enumerate(((1844, 931), (1844, 931), (2422, 1234)))
    ]
    path = f"{language}/test-00000-of-00001.parquet"
    return hub.commit(
        "facebook/multilingual_librispeech",
        {path: parquet(rows), "dutch/test-00000-of-00001.parquet": parquet(rows[:1])},
        configs={language: {"test": f"{language}/test-*"}, "dutch": {"test": "dutch/test-*"}},
    )


def l2arctic_folder(root: Path, speakers: Sequence[str], sentences: int = 2) -> Path:
    """Make the folder of L2-ARCTIC, version 5: a folder a speaker, WAV at 44.1 kHz, annotations beside."""
    files: dict[str, bytes | str] = {"l2arctic_release_v5.0/README.md": "", "l2arctic_release_v5.0/LICENSE": ""}
    for place, speaker in enumerate(speakers):
        for index in range(sentences):
            name, home = f"arctic_a{index + 1:04d}", f"l2arctic_release_v5.0/{speaker}"
            files[f"{home}/wav/{name}.wav"] = sound(0.3 + 0.1 * index, form="WAV", rate=44_100, hertz=200 + 9 * place)
            files[f"{home}/transcript/{name}.txt"] = f"{TEXTS[index].capitalize()}"
            files[f"{home}/textgrid/{name}.TextGrid"] = ""
            files[f"{home}/annotation/{name}.TextGrid"] = ""
    return put(root, files) / "l2arctic_release_v5.0"


def common_voice_folder(root: Path, language: str = "pt", release: str = "cv-corpus-22.0-2025-06-20") -> Path:
    """Make a language of a release of Common Voice as Mozilla gives it: tables, and clips as MP3."""
    home = f"{release}/{language}"
    header = "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\tlocale\n"
    table, files = header, dict[str, bytes | str]()
    for index in range(3):
        clip = f"common_voice_{language}_{1000 + index}.mp3"
        files[f"{home}/clips/{clip}"] = piped(sound(0.5 + 0.2 * index, form="MP3", rate=32_000))
        table += f'{"ab" * 32}{index}\t{clip}\ts{index}\tEle disse: "sim" {index}.\t\t2\t0\t\t\t{language}\n'
    return put(root, files | {f"{home}/test.tsv": table, f"{home}/dev.tsv": header}) / home


def common_voice_hub(hub: Hub, language: str = "pt", *, card: bool = True) -> str:
    """Commit `fixie-ai/common_voice_17_0` with the test split of a language, whose files its card names or does not."""
    rows = [
        {
            "client_id": f"{'ab' * 32}{index}",
            "path": f"pt_test_0/common_voice_{language}_{1000 + index}.mp3",
            "audio": {
                "bytes": piped(sound(0.5 + 0.2 * index, form="MP3", rate=32_000)),
                "path": f"common_voice_{index}.mp3",
            },
            "sentence": f'Ele disse: "sim" {index}.',
            "up_votes": 2,
            "down_votes": 0,
            "locale": language,
        }
        for index in range(3)
    ]
    chunk = "chunk-range-000000000-000000003"
    files = {
        f"{language}/test/{chunk}/test-00000-of-00002.parquet": parquet(rows[:2]),
        f"{language}/test/{chunk}/test-00001-of-00002.parquet": parquet(rows[2:]),
        f"{language}/train/{chunk}/train-00000-of-00001.parquet": parquet(rows[:1]),
    }
    configs = {language: {split: f"{language}/{split}/**" for split in ("test", "train")}} if card else None
    return hub.commit("fixie-ai/common_voice_17_0", files, configs=configs)


def fleurs_files(language: str = "de_de") -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the audio by name, and the table, of the test split of a language of FLEURS."""
    audio = {f"{10**17 + index}.wav": sound(0.3 + 0.1 * index, form="WAV") for index in range(3)}
    table = "".join(
        f"{1500 + index}\t{name}\tSieben, kleine Boote {index}.\tsieben kleine boote {index}\ts i e b\t4800\tMALE\n"
        for index, name in enumerate(audio)
    )
    return audio, {f"data/{language}/test.tsv": table}


def fleurs_hub(hub: Hub, language: str = "de_de") -> str:
    """Commit `google/fleurs`: a script, and for each language tables and archives."""
    audio, table = fleurs_files(language)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(folder := tarfile.TarInfo("test"))
        folder.type = tarfile.DIRTYPE
        for name, content in reversed(audio.items()):
            member = tarfile.TarInfo(f"test/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    files = {path: text.encode() for path, text in table.items()} | {
        f"data/{language}/audio/test.tar.gz": packed.getvalue(),
        "data/pl_pl/test.tsv": b"",
        "data/pl_pl/audio/test.tar.gz": b"",
        "fleurs.py": b"raise SystemExit",
    }
    return hub.commit("google/fleurs", files)


def fleurs_folder(root: Path, language: str = "de_de") -> Path:
    """Make a clone of `google/fleurs` whose archive is extracted where it lies."""
    audio, table = fleurs_files(language)
    extracted = {f"fleurs/data/{language}/audio/test/{name}": content for name, content in audio.items()}
    return put(root, extracted | {f"fleurs/{path}": text for path, text in table.items()}) / "fleurs"


def tedlium_folder(root: Path) -> Path:
    """Make `TEDLIUM_release-3/legacy/test` as https://www.openslr.org/51 gives it: talks, and where to cut them."""
    lines = (
        ";; a comment",
        "AlGore_2009 1 AlGore_2009 0.20 0.70 <o,f0,male> it 's <unk> late",
        "AlGore_2009 1 inter_segment_gap 0.70 0.90 <o,,unknown> ignore_time_segment_in_scoring",
        "AlGore_2009 1 AlGore_2009 0.90 1.50 <o,f0,male> come here",
        "AlGore_2009 1 AlGore_2009 5.00 6.00 <o,f0,male> after the end",
    )
    home = "TEDLIUM_release-3/legacy/test"
    files = {f"{home}/sph/AlGore_2009.sph": sound(2.0, form="NIST"), f"{home}/stm/AlGore_2009.stm": "\n".join(lines)}
    return put(root, files) / "TEDLIUM_release-3"


def tedlium_hub(hub: Hub) -> str:
    """Commit the test split of TED-LIUM as the hub's Open ASR Leaderboard has it."""
    rows = [
        {
            "audio": {"bytes": sound(0.5, form="WAV"), "path": "AlGore_2009.wav"},
            "dataset": "tedlium",
            "text": "it 's <unk> late",
            "id": "AlGore_2009-0.20-0.70-<o,f0,male>",
            "audio_length_s": 0.5,
        }
    ]
    files = {"tedlium/test-00000-of-00001.parquet": parquet(rows)}
    configs = {"tedlium": {"test": "tedlium/test-*"}}
    return hub.commit("hf-audio/esb-datasets-test-only-sorted", files, configs=configs)


def ami_hub(hub: Hub, *, branch: str = "main") -> str:
    """Commit `edinburghcstr/ami`; on the branch of the hub's conversion, as that names its files."""
    name = "AMI_EN2001a_H00_MEE068_0414915_0415078"
    rows = [
        {
            "meeting_id": "EN2001a",
            "audio_id": name,
            "text": "I'VE GOTTEN MM HARDLY ANY",
            "audio": {"bytes": sound(0.4, form="WAV"), "path": f"{name.lower()}.wav"},
            "begin_time": 4149.15,
            "end_time": 4150.78,
            "microphone_id": "H00",
            "speaker_id": "MEE068",
        }
    ] * 2
    if branch == "main":
        files = {"ihm/test-00000-of-00001.parquet": parquet(rows)}
        return hub.commit("edinburghcstr/ami", files, configs={"ihm": {"test": "ihm/test-*"}})
    return hub.commit("edinburghcstr/ami", {"ihm/partial-test/0000.parquet": parquet(rows)}, branch=branch)
