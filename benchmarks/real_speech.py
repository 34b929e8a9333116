"""Run the shipped suite `paper` on a share of the paper's corpora: real speech, real noise, OpenAI's Whisper-base.

    python benchmarks/real_speech.py SHARE OUT --per-speaker 1 --method source --method em-tok-b
    python benchmarks/real_speech.py SHARE OUT                  # more of it; finished work is not repeated
    python benchmarks/real_speech.py SHARE OUT --report-only    # the figures of the results so far
    python benchmarks/real_speech.py SHARE OUT --hypotheses F   # those of hypotheses from benchmarks/gpu_speech.py
    python benchmarks/real_speech.py SHARE OUT --counts C       # together with other machines' measurements

SHARE is a folder with recordings of the corpora, as FLAC in `speech/librispeech-test-other`, `speech/l2-arctic` and
`speech/mls`, each with a `manifest.csv` (path, text, language, speaker), and with recordings of MS-SNSD in
`noise/ms-snsd`. They are laid out below OUT/corpora exactly as the corpora are published, so that the suite finds them
like the complete corpora; then `emtta run` evaluates a suite that extends `paper`. emtta reports what the share lacks,
and evaluates the rest.

The words and errors of each utterance, by the text transform of the paper's authors and by Whisper's normalizer, are
added to OUT/counts.json, or to the file C of an earlier measurement. The figures of everything in it go to
OUT/figures.json: WER of each method and group, with emtta's intervals and tests. A group's mean covers only the domains
that the share has.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import soundfile

from emtta_core.corpora.l2arctic import SPEAKERS
from emtta_core.corpora.librispeech import CODES
from emtta_core.pipeline.run_statistics import compute_statistics
from emtta_core.scoring import Rule, word_errors
from emtta_core.store.catalogue import open_store

ACCENTS = {"ar": "arabic", "zh": "mandarin", "hi": "hindi", "ko": "korean", "es": "spanish", "vi": "vietnamese"}
"""The accents of L2-ARCTIC, by the first part of a recording's name."""

METHODS = ("source", "source-beam", "greedy-em", "em-seq", "em-tok", "em-tok-b")
GROUPS = ("noise", "accent", "language")
RULES: tuple[Rule, ...] = ("jiwer", "whisper")
TEXTS = ("reference", "hypothesis", "error")
SUITE = """\
extends = "paper"
name = "paper-real"
description = "The suite paper on a share of its corpora"
methods = {methods}
model = {{ name = {model} }}
runtime = {{ workers = 1, batch_size = {batch_size}, trace = "metrics" }}
"""

Row = Mapping[str, Any]

UTTERANCES = """
    WITH memory AS (SELECT method, max(peak_memory_bytes) / 1e6 AS memory_mb FROM raw.cells GROUP BY method)

    SELECT
        "group", domain, method, utterance_id, speaker, language, reference, hypothesis,
        audio_seconds, seconds, memory_mb
    FROM utterances
    INNER JOIN (SELECT run_id, created_at FROM raw.runs) AS begun USING (run_id)
    LEFT JOIN memory USING (method)
    WHERE error IS NULL
    QUALIFY row_number() OVER (PARTITION BY domain, method, utterance_id ORDER BY created_at DESC) = 1
"""
RUNS = "SELECT run_id, created_at::VARCHAR AS created_at, git_commit, host, versions FROM raw.runs ORDER BY created_at"


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording of the share."""

    path: Path
    text: str
    language: str
    speaker: str


def main() -> None:
    """Lay the corpora out, run the suite on them, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("share", type=Path, help="folder with speech/ and noise/")
    parser.add_argument("out", type=Path, help="folder of the corpora, the store and the figures")
    parser.add_argument("--model", default="openai/whisper-base", help="name or folder (default: %(default)s)")
    parser.add_argument("--method", action="append", help="repeatable; by default the suite's and source-beam")
    parser.add_argument("--per-speaker", type=int, metavar="N", help="only the first N recordings of each speaker")
    parser.add_argument("--only", action="append", default=[], help="as for `emtta run`")
    parser.add_argument("--batch-size", type=int, default=2, help="utterances in a batch (default: %(default)s)")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--lay-out-only", action="store_true", help="lay out the corpora, and run nothing")
    parts.add_argument("--report-only", action="store_true", help="only report, without laying out or running")
    parts.add_argument("--hypotheses", type=Path, metavar="FILE", help="report on these instead of the store's")
    parser.add_argument("--counts", type=Path, help="the file to add the counts to (default: OUT/counts.json)")
    parser.add_argument("--figures", type=Path, help="the file of the figures (default: OUT/figures.json)")
    options = parser.parse_args()
    options.counts = options.counts or options.out / "counts.json"
    options.figures = options.figures or options.out / "figures.json"
    code = 0
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.report_only and options.hypotheses is None:
        lay_out(options.share, options.out / "corpora", options.per_speaker)
        if options.lay_out_only:
            return
        code = run(options)
    if options.hypotheses is not None:
        rows = [row for row in json.loads(options.hypotheses.read_text(encoding="utf-8")) if row["error"] is None]
        found = Measured([{"hypotheses": options.hypotheses.name}], counted(rows))
    else:
        found = stored(options.out / "store") if (options.out / "store").is_dir() else Measured([], [])
    known = Measured.read(options.counts).joined(found)
    known.write(options.counts)
    figures = report(known.counts, options.method)
    options.figures.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    show(figures)
    sys.exit(code)


def lay_out(share: Path, corpora: Path, per_speaker: int | None = None) -> None:
    """Copy the share to `corpora`, in the layouts in which the corpora are published.

    Args:
        share: the script's argument.
        corpora: the folder to write; its previous content is deleted.
        per_speaker: the number of recordings to copy per speaker of a corpus, from the first on; None for all.
    """
    shutil.rmtree(corpora, ignore_errors=True)
    lay_out_librispeech(clips(share / "speech/librispeech-test-other", per_speaker), corpora)
    lay_out_l2arctic(clips(share / "speech/l2-arctic", per_speaker), corpora)
    lay_out_mls(clips(share / "speech/mls", per_speaker), corpora)
    noises = corpora / "MS-SNSD/noise_test"
    noises.mkdir(parents=True)
    for path in (share / "noise/ms-snsd").glob("*.wav"):
        shutil.copy(path, noises)


def clips(folder: Path, per_speaker: int | None) -> list[Clip]:
    """Return a manifest's recordings, sorted by path; none if there is no manifest."""
    if not (folder / "manifest.csv").is_file():
        print(f"{folder} has no manifest.csv: the share has nothing of this corpus")
        return []
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["path"])
    found, of_speaker = [], defaultdict[str, int](int)
    for row in rows:
        of_speaker[row["speaker"]] += 1
        if per_speaker is None or of_speaker[row["speaker"]] <= per_speaker:
            found.append(Clip(folder / row["path"], row["text"], row["language"], row["speaker"]))
    return found


def lay_out_librispeech(found: Iterable[Clip], corpora: Path) -> None:
    """Write `LibriSpeech/test-other/<speaker>/<chapter>/`, with transcripts in capitals."""
    for clip in found:
        speaker, chapter, _ = clip.path.stem.split("-")
        folder = corpora / "LibriSpeech/test-other" / speaker / chapter
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip.path, folder)
        with (folder / f"{speaker}-{chapter}.trans.txt").open("a", encoding="utf-8") as file:
            file.write(f"{clip.path.stem} {clip.text.upper()}\n")


def lay_out_l2arctic(found: Iterable[Clip], corpora: Path) -> None:
    """Write `l2arctic_release_v5.0/<speaker>/`: a WAV and a text file per recording.

    A speaker without a known name gets the folder of a speaker with the same accent that the share lacks.
    """
    found = list(found)
    named = {clip.speaker for clip in found}
    folder_speakers: dict[str, str] = {}
    for clip in found:
        accent, *_, prompt = clip.path.stem.split("-")
        free = (one for one in SPEAKERS[ACCENTS[accent]] if one not in {*named, *folder_speakers.values()})
        if clip.speaker not in folder_speakers:
            known = clip.speaker in SPEAKERS[ACCENTS[accent]]
            folder_speakers[clip.speaker] = clip.speaker if known else next(free)
            if not known:
                print(f"L2-ARCTIC: {clip.speaker} is laid out as {folder_speakers[clip.speaker]}")
        speaker_folder = corpora / "l2arctic_release_v5.0" / folder_speakers[clip.speaker]
        for name in ("wav", "transcript"):
            (speaker_folder / name).mkdir(parents=True, exist_ok=True)
        samples, rate = soundfile.read(clip.path, dtype="int16")
        soundfile.write(speaker_folder / "wav" / f"arctic_{prompt}.wav", samples, rate, subtype="PCM_16")
        (speaker_folder / "transcript" / f"arctic_{prompt}.txt").write_text(clip.text, encoding="utf-8")


def lay_out_mls(found: Iterable[Clip], corpora: Path) -> None:
    """Write `mls_<language>/test/`; English, which the paper does not use, is left out."""
    languages = {code: language for language, code in CODES.items()}
    for clip in found:
        if clip.language not in languages:
            continue
        name = clip.path.stem.split("-", 1)[1]
        speaker, book, _ = name.split("_")
        split = corpora / f"mls_{languages[clip.language]}" / "test"
        folder = split / "audio" / speaker / book
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip.path, folder / f"{name}.flac")
        with (split / "transcripts.txt").open("a", encoding="utf-8") as file:
            file.write(f"{name}\t{clip.text}\n")


def run(options: argparse.Namespace) -> int:
    """Run `emtta run`, and return its exit code: 3 if the share lacks something of the paper's."""
    methods = options.method or METHODS
    model = options.model if not Path(options.model).is_dir() else str(Path(options.model).resolve())
    suite = options.out / "paper-real.toml"
    suite.write_text(
        SUITE.format(methods=json.dumps(methods), model=json.dumps(model), batch_size=options.batch_size),
        encoding="utf-8",
    )
    only = chain.from_iterable(("--only", text) for text in options.only)
    command = [sys.executable, "-m", "emtta_core", "run", suite, "--store", options.out / "store"]
    return subprocess.run([*map(str, command), "--corpus-dir", str(options.out / "corpora"), *only]).returncode


@dataclass(frozen=True, slots=True)
class Measured:
    """Words and errors of utterances, and the runs that measured them."""

    runs: list[Row]
    counts: list[Row]

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """Read the measurements of a file; empty if there is no such file."""
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else cls([], [])

    def joined(self, newer: "Measured") -> "Measured":
        """Merge both; if both have an utterance and method, the newer one counts."""
        counts = {(row["domain"], row["method"], row["utterance_id"]): row for row in [*self.counts, *newer.counts]}
        runs = [*self.runs, *(run for run in newer.runs if run not in self.runs)]
        return Measured(runs, sorted(counts.values(), key=sort_key))

    def write(self, path: Path) -> None:
        """Write the measurements, one row per line."""
        parts = (
            f'"{name}": [\n{rows}\n]' for name, rows in (("runs", lines(self.runs)), ("counts", lines(self.counts)))
        )
        path.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


def sort_key(row: Row) -> tuple[Any, ...]:
    """Return the sort key of a row."""
    method = METHODS.index(row["method"]) if row["method"] in METHODS else len(METHODS)
    return GROUPS.index(row["group"]), row["domain"], row["utterance_id"], method


def lines(rows: Iterable[Row]) -> str:
    """Return rows as JSON, one per line."""
    return ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def stored(store: Path) -> Measured:
    """Return the newest result in a store for each utterance and method, over all its runs."""
    with open_store(str(store)) as catalogue:
        return Measured(catalogue.query(RUNS).records, counted(catalogue.query(UTTERANCES).records))


def counted(rows: Iterable[Row]) -> list[Row]:
    """Replace the texts of results by their words and errors, by each rule."""
    found = []
    for row in rows:
        counts = {}
        for rule in RULES:
            errors = word_errors(row["reference"], row["hypothesis"] or "", row["language"], rule)
            counts[rule] = {"words": errors.words, "errors": errors.errors, "normalizer": errors.normalizer}
        found.append({name: value for name, value in row.items() if name not in TEXTS} | counts)
    return found


def report(rows: Sequence[Row], methods: Sequence[str] | None) -> dict[str, Any]:
    """Compute the figures of some counts.

    Args:
        rows: the counts.
        methods: the methods to compare, over the utterances that all of them have; None for all.
    """
    methods = list(methods or dict.fromkeys(row["method"] for row in rows))
    rows = shared([row for row in rows if row["method"] in methods], len(methods))
    if not rows:
        raise SystemExit(
            f"no utterance has a result of each of {', '.join(methods) or 'any method'}; there are no figures"
        )
    groups = [*dict.fromkeys(row["group"] for row in rows), "all"]
    figures: dict[str, Any] = {"methods": methods, "domains": sizes(rows), "cost": cost(rows, methods)}
    for rule in RULES:
        of_methods = {method: list(groups) for method in methods}
        scored = [{**row, **row[rule]} for row in rows]
        found = [asdict(row) for row in compute_statistics(scored, of_methods, dict.fromkeys(methods, ""))]
        figures[rule] = [{name: value for name, value in row.items() if "revision" not in name} for row in found]
    return figures


def shared(rows: Sequence[Row], methods: int) -> list[Row]:
    """Return the results of utterances that all methods have."""
    results = Counter((row["domain"], row["utterance_id"]) for row in rows)
    return [row for row in rows if results[row["domain"], row["utterance_id"]] == methods]


def sizes(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Return the numbers of utterances and speakers of each domain."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["domain"], []).append(row)
    return {
        domain: {
            "utterances": len({row["utterance_id"] for row in own}),
            "speakers": len({row["speaker"] for row in own}),
        }
        for domain, own in found.items()
    }


def cost(rows: Sequence[Row], methods: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return each method's mean computing time and duration of an utterance in seconds, and its maximum memory."""
    found = {}
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        found[method] = {
            "seconds": sum(row["seconds"] for row in own) / len(own),
            "audio_seconds": sum(row["audio_seconds"] for row in own) / len(own),
            "memory_mb": max(row["memory_mb"] or 0 for row in own),
        }
    return found


def show(figures: Mapping[str, Any]) -> None:
    """Print a table for each rule, in Markdown."""
    for rule in RULES:
        rows = [row for row in figures[rule] if row["domain"] is None and row["baseline"] in (None, "source")]
        groups = list(dict.fromkeys(row["group"] for row in rows))
        print(f"\n{rule}\n\n| method | {' | '.join(groups)} |\n|---|{'---:|' * len(groups)}")
        for method in figures["methods"]:
            own = {row["group"]: row for row in rows if row["method"] == method}
            print(f"| {method} | {' | '.join(cell(own[group]) if group in own else '' for group in groups)} |")
    print(f"\n{json.dumps(figures['cost'])}")


def cell(row: Row) -> str:
    """Format a rate with its interval, and its change from source with the change's interval."""
    text = f"{row['wer']:.2f}"
    if row["wer_low"] is not None:
        text += f" ({row['wer_low']:.1f}; {row['wer_high']:.1f})"
    if row["change_low"] is not None:
        text += f"; {row['change']:+.2f} ({row['change_low']:+.1f}; {row['change_high']:+.1f})"
    return text


if __name__ == "__main__":
    main()
