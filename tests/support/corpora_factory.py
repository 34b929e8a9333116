"""Miniature corpora in exactly the layouts of the published ones."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from hub_server import Hub, parquet

TEXTS = ("SEVEN SMALL BOATS", "THE QUICK BROWN FOX", "NOBODY KNOWS WHERE", "IT IS LATE", "COME HERE", "ONE MORE TIME")


def sound(seconds: float, *, form: str = "FLAC", rate: int = 16_000, channels: int = 1, hertz: float = 220.0) -> bytes:
    """A tone as an audio file."""
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * hertz * time) * (0.6 + 0.4 * np.sin(6 * time))
    file = io.BytesIO()
    subtype = {"FLAC": "PCM_16", "WAV": "PCM_16", "OGG": "OPUS", "MP3": "MPEG_LAYER_III", "NIST": "PCM_16"}[form]
    soundfile.write(file, np.stack([tone] * channels, axis=1), rate, format=form, subtype=subtype)
    return file.getvalue()


def piped(mp3: bytes) -> bytes:
    """An MP3 file as ffmpeg writes it to a pipe: with a tag, and without the frame that states its length."""
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


def marked(text: str, *parts: str) -> str:
    """A transcript that names its split, language or microphone, except the usual ones."""
    return " ".join([text, *(part for part in parts if part not in ("test", "german", "pt", "de_de", "ihm"))])


def librispeech_rows(count: int = 6) -> list[dict[str, Any]]:
    """Rows of `openslr/librispeech_asr`: utterances of two speakers, each 0.1 s longer than the previous one."""
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
    """Write `LibriSpeech/<split>` in the layout of https://www.openslr.org/12, and return the folder `LibriSpeech`."""
    files: dict[str, bytes | str] = {}
    for row in librispeech_rows(count):
        chapter = f"LibriSpeech/{split}/{row['speaker_id']}/{row['chapter_id']}"
        files[f"{chapter}/{row['file']}"] = row["audio"]["bytes"]
        transcript = f"{chapter}/{row['speaker_id']}-{row['chapter_id']}.trans.txt"
        files[transcript] = f"{files.get(transcript, '')}{row['id']} {row['text']}\n"
    return put(root, files) / "LibriSpeech"


def librispeech_hub(hub: Hub, rows: Sequence[Mapping[str, Any]] | None = None, **options: Any) -> str:
    """Commit `openslr/librispeech_asr` with the configurations `all` and `other`, and return the commit."""
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


def mls_utterances(language: str, split: str) -> dict[str, str]:
    """The transcripts of a split of a language, by id; there are two speakers."""
    speakers = ((1844, 931), (1844, 931), (2422, 1234))
    return {
        f"{speaker}_{book}_{index:06d}": marked(f"sieben kleine boote {index}", language, split)
        for index, (speaker, book) in enumerate(speakers)
    }


def mls_folder(root: Path, language: str = "german", split: str = "test", *, opus: bool = False) -> Path:
    """Write `mls_<language>/<split>` in the layout of https://www.openslr.org/94."""
    top, ending, form = (f"mls_{language}_opus", "opus", "OGG") if opus else (f"mls_{language}", "flac", "FLAC")
    files: dict[str, bytes | str] = {f"{top}/{split}/segments.txt": "", f"{top}/metainfo.txt": ""}
    texts = mls_utterances(language, split)
    for index, name in enumerate(texts):
        speaker, book, _ = name.split("_")
        files[f"{top}/{split}/audio/{speaker}/{book}/{name}.{ending}"] = sound(0.3 + 0.1 * index, form=form)
    files[f"{top}/{split}/transcripts.txt"] = "".join(f"{name}\t{text}\n" for name, text in texts.items())
    return put(root, files) / top


def mls_hub(hub: Hub, parts: Sequence[tuple[str, str]] = (("german", "test"), ("dutch", "test"))) -> str:
    """Commit `facebook/multilingual_librispeech` with these parts, each a language and a split."""
    files, configs = dict[str, bytes](), dict[str, dict[str, str]]()
    for language, split in parts:
        rows = [
            {
                "audio": {"bytes": sound(0.3 + 0.1 * index), "path": f"{name}.flac"},
                "original_path": "http://www.archive.org/download/book/book_64kb.mp3",
                "begin_time": 1.5,
                "end_time": 1.8 + 0.1 * index,
                "transcript": text,
                "audio_duration": 0.3 + 0.1 * index,
                "speaker_id": name.split("_")[0],
                "chapter_id": name.split("_")[1],
                "file": f"{name}.flac",
                "id": name,
            }
            for index, (name, text) in enumerate(mls_utterances(language, split).items())
        ]
        files[f"{language}/{split}-00000-of-00001.parquet"] = parquet(rows)
        configs.setdefault(language, {})[split] = f"{language}/{split}-*"
    return hub.commit("facebook/multilingual_librispeech", files, configs=configs)


def l2arctic_folder(
    root: Path,
    speakers: Sequence[str],
    sentences: int = 2,
    *,
    top: str = "l2arctic_release_v5.0",
    nested: bool = False,
) -> Path:
    """Write the folder of L2-ARCTIC, version 5: a folder per speaker, with WAV at 44.1 kHz and annotations.

    If `nested`, each speaker's archive was extracted into a folder with the archive's name.
    """
    files: dict[str, bytes | str] = {f"{top}/README.md": "", f"{top}/LICENSE": ""}
    for number, speaker in enumerate(speakers):
        for index in range(sentences):
            name, home = f"arctic_a{index + 1:04d}", f"{top}/{speaker}/{speaker}" if nested else f"{top}/{speaker}"
            files[f"{home}/wav/{name}.wav"] = sound(0.3 + 0.1 * index, form="WAV", rate=44_100, hertz=200 + 9 * number)
            files[f"{home}/transcript/{name}.txt"] = f"{TEXTS[index].capitalize()}"
            files[f"{home}/textgrid/{name}.TextGrid"] = ""
            files[f"{home}/annotation/{name}.TextGrid"] = ""
    return put(root, files) / top


def common_voice_rows(language: str, split: str) -> list[dict[str, str]]:
    """The speaker, clip and sentence of each row of a table of Common Voice."""
    first = {"test": 1000, "validation": 2000, "train": 3000}[split]
    return [
        {
            "client_id": f"{'ab' * 32}{index}",
            "path": f"common_voice_{language}_{first + index}.mp3",
            "sentence": marked(f'Ele disse: "sim" {index}.', language, split),
        }
        for index in range(3)
    ]


def common_voice_folder(
    root: Path, language: str = "pt", split: str = "test", release: str = "cv-corpus-22.0-2025-06-20"
) -> Path:
    """Write a split of a Common Voice release in Mozilla's layout: tables, with an empty `dev.tsv`, and MP3 clips."""
    home = f"{release}/{language}"
    header = "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\tlocale\n"
    table, files = header, dict[str, bytes | str]({f"{home}/dev.tsv": header})
    for index, row in enumerate(common_voice_rows(language, split)):
        files[f"{home}/clips/{row['path']}"] = piped(sound(0.5 + 0.2 * index, form="MP3", rate=32_000))
        table += f"{row['client_id']}\t{row['path']}\ts{index}\t{row['sentence']}\t\t2\t0\t\t\t{language}\n"
    return put(root, files | {f"{home}/{'dev' if split == 'validation' else split}.tsv": table}) / home


def common_voice_hub(
    hub: Hub, parts: Sequence[tuple[str, str]] = (("pt", "test"), ("pt", "train")), *, card: bool = True
) -> str:
    """Commit `fixie-ai/common_voice_17_0` with these parts, each a language and a split.

    `card`: whether the data set card lists them.
    """
    chunk = "chunk-range-000000000-000000003"
    files, configs = dict[str, bytes](), dict[str, dict[str, str]]()
    for language, split in parts:
        rows = [
            row
            | {
                "path": f"pt_test_0/{row['path']}",
                "audio": {
                    "bytes": piped(sound(0.5 + 0.2 * index, form="MP3", rate=32_000)),
                    "path": f"common_voice_{index}.mp3",
                },
                "up_votes": 2,
                "down_votes": 0,
                "locale": language,
            }
            for index, row in enumerate(common_voice_rows(language, split))
        ]
        files[f"{language}/{split}/{chunk}/{split}-00000-of-00002.parquet"] = parquet(rows[:2])
        files[f"{language}/{split}/{chunk}/{split}-00001-of-00002.parquet"] = parquet(rows[2:])
        configs.setdefault(language, {})[split] = f"{language}/{split}/**"
    return hub.commit("fixie-ai/common_voice_17_0", files, configs=configs if card else None)


def fleurs_files(language: str = "de_de", split: str = "test") -> tuple[dict[str, bytes], str]:
    """The audio by name, and the table, of a split of a language of FLEURS."""
    first = {"test": 10**17, "dev": 2 * 10**17, "train": 3 * 10**17}[split]
    audio = {f"{first + index}.wav": sound(0.3 + 0.1 * index, form="WAV") for index in range(3)}
    table = ""
    for index, name in enumerate(audio):
        text = marked(f"Sieben, kleine Boote {index}.", language, split)
        table += f"{1500 + index}\t{name}\t{text}\tsieben kleine boote {index}\ts i e b\t4800\tMALE\n"
    return audio, table


def fleurs_hub(hub: Hub, parts: Sequence[tuple[str, str]] = (("de_de", "test"),), *, card: bool = True) -> str:
    """Commit `google/fleurs` with these parts, each a language and a split: as Parquet, and as the earlier table.

    `card`: whether the data set card lists them.
    """
    files, configs = dict[str, bytes](), dict[str, dict[str, str]]()
    for language, split in parts:
        audio, table = fleurs_files(language, split)
        rows = []
        for line, (name, content) in zip(table.splitlines(), audio.items(), strict=True):
            number, _, raw, text, _, samples, _ = line.split("\t")
            constants = {"gender": 0, "lang_id": 19, "language": "German", "lang_group_id": 0}
            identity = {"id": int(number), "num_samples": int(samples), "path": f"/downloads/extracted/{split}/{name}"}
            speech = {"audio": {"bytes": content, "path": name}, "transcription": text, "raw_transcription": raw}
            rows.append(identity | speech | constants)
        there = "validation" if split == "dev" else split
        files[f"parquet-data/{language}/{there}-00000-of-00001.parquet"] = parquet(rows[::-1])
        files[f"data/{language}/{split}.tsv"] = table.encode()
        configs.setdefault(language, {})[there] = f"parquet-data/{language}/{there}-*"
    return hub.commit("google/fleurs", files, configs=configs if card else None)


def fleurs_folder(root: Path, language: str = "de_de", split: str = "test") -> Path:
    """Write a clone of `google/fleurs` with its archive extracted in place."""
    audio, table = fleurs_files(language, split)
    home = f"fleurs/data/{language}"
    extracted = {f"{home}/audio/{split}/{name}": content for name, content in audio.items()}
    return put(root, extracted | {f"{home}/{split}.tsv": table.encode()}) / "fleurs"


def tedlium_folder(root: Path, split: str = "test", *more: str) -> Path:
    """Write `TEDLIUM_release-3/legacy/<split>` in the layout of https://www.openslr.org/51: talks, and their segments.

    Args:
        root: the folder to write to.
        split: the split.
        more: the texts of more segments of the talk, from its beginning.
    """
    late = marked("it 's <unk> late", split)
    lines = [
        ";; a comment",
        f"AlGore_2009 1 AlGore_2009 0.20 0.70 <o,f0,male> {late}",
        "AlGore_2009 1 inter_segment_gap 0.70 0.90 <o,,unknown> ignore_time_segment_in_scoring",
        "AlGore_2009 1 AlGore_2009 0.90 1.50 <o,f0,male> come here",
        "AlGore_2009 1 AlGore_2009 5.00 6.00 <o,f0,male> after the end",
        *(f"AlGore_2009 1 AlGore_2009 0.00 1.{number:02d} <o,f0,male> {text}" for number, text in enumerate(more)),
    ]
    home = f"TEDLIUM_release-3/legacy/{split}"
    files = {f"{home}/sph/AlGore_2009.sph": sound(2.0, form="NIST"), f"{home}/stm/AlGore_2009.stm": "\n".join(lines)}
    return put(root, files) / "TEDLIUM_release-3"


def tedlium_hub(hub: Hub, *more: str) -> str:
    """Commit the test split of TED-LIUM as in the hub's Open ASR Leaderboard, with more rows for these texts."""
    rows = [
        {
            "audio": {"bytes": sound(0.5, form="WAV"), "path": "AlGore_2009.wav"},
            "dataset": "tedlium",
            "text": text,
            "id": f"AlGore_2009-{number}.20-{number}.70-<o,f0,male>",
            "audio_length_s": 0.5,
        }
        for number, text in enumerate(["it 's <unk> late", *more])
    ]
    files = {"tedlium/test-00000-of-00001.parquet": parquet(rows)}
    configs = {"tedlium": {"test": "tedlium/test-*"}}
    return hub.commit("hf-audio/esb-datasets-test-only-sorted", files, configs=configs)


def ami_hub(hub: Hub, parts: Sequence[tuple[str, str]] = (("ihm", "test"),), *, branch: str = "main") -> str:
    """Commit `edinburghcstr/ami` with these parts, each a microphone and a split.

    On another branch, files are named as in the hub's conversion to Parquet.
    """
    name = "AMI_EN2001a_H00_MEE068_0414915_0415078"
    files, configs = dict[str, bytes](), dict[str, dict[str, str]]()
    for microphone, split in parts:
        row = {
            "meeting_id": "EN2001a",
            "audio_id": name,
            "text": marked("I'VE GOTTEN MM HARDLY ANY", microphone, split),
            "audio": {"bytes": sound(0.4, form="WAV"), "path": f"{name.lower()}.wav"},
            "begin_time": 4149.15,
            "end_time": 4150.78,
            "microphone_id": "H00",
            "speaker_id": "MEE068",
        }
        file = f"{split}-00000-of-00001.parquet" if branch == "main" else f"partial-{split}/0000.parquet"
        files[f"{microphone}/{file}"] = parquet([row] * 2)
        configs.setdefault(microphone, {})[split] = f"{microphone}/{split}-*"
    return hub.commit("edinburghcstr/ami", files, configs=configs if branch == "main" else None, branch=branch)
