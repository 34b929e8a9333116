"""Hypotheses and references for other scorers: sclite's trn, stm and ctm, and JSON Lines for NeMo and Open ASR.

Each format has the utterances that count in the WER: utterances in error (unless they count as deleted) and audio
without speech are left out. sclite's files have normalized texts, so that it counts the same words; JSON Lines have raw
ones.

sclite's formats: https://github.com/usnistgov/SCTK/blob/master/doc/infmts.htm
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from emtta_core.errors import UsageError
from emtta_core.names import counted
from emtta_core.store import Catalogue

Row = Mapping[str, Any]
"""A row of `_UTTERANCES`."""

Files = Iterator[tuple[str, str]]
"""The name of a file, and its content."""

_UTTERANCES = """
    SELECT
        utterance_id, coalesce(speaker, 'unknown') AS speaker, audio_seconds, seconds, words, error,
        reference, coalesce(hypothesis, '') AS hypothesis,
        reference_normalized, coalesce(hypothesis_normalized, '') AS hypothesis_normalized
    FROM utterances
    WHERE run_id = $run AND domain = $domain AND method = $method AND seed IS NOT DISTINCT FROM $seed
    ORDER BY utterance_id
"""

_WINDOWS = """
    SELECT utterance_id, begins, seconds, length(coalesce(hypothesis, '')) AS characters
    FROM windows
    WHERE run_id = $run AND domain = $domain AND method = $method AND seed IS NOT DISTINCT FROM $seed
    ORDER BY utterance_id, "window"
"""

_ALIKE = str.maketrans("(){}@<;", "\uff08\uff09\uff5b\uff5d\uff20\uff1c\uff1b")
"""The full-width replacement of each character that sclite takes for markup, so that a word stays a word."""

CTM_HEAD = (
    ";; Times are estimates: each word's place in its window's text, as if it were spoken at an even pace.\n"
    ";; An utterance that was not cut is one window. Words are normalized.\n"
)


@dataclass(frozen=True, slots=True)
class ChosenCell:
    """A cell to export."""

    domain: str
    method: str
    seed: int | None  # None: the method draws no random numbers

    @property
    def of_method(self) -> str:
        """The method, with its seed if any, as used in file names."""
        return self.method if self.seed is None else f"{self.method}.seed-{self.seed}"


@dataclass(slots=True)
class Transcripts:
    """Writes the transcripts of cells of a run."""

    catalogue: Catalogue  # the store's catalogue
    run_id: str  # the run
    suite: str  # its suite
    model: str  # its model, as the suite names it
    cells: Sequence[ChosenCell]  # the cells, in plan order
    left_out: Counter[str] = field(default_factory=Counter)  # number of rows left out so far, by reason
    altered: int = 0  # number of texts so far with characters that sclite takes for markup

    def trn(self) -> Files:
        """`<domain>.ref.trn` and, per method, `<domain>.<method>.hyp.trn`: a normalized text and its id on each line.

        Raises:
            UsageError: utterances of a domain are not normalized in the same way for all methods.
        """
        for domain, cells in self._by_domain():
            references, ids = self._references(domain, cells)
            yield f"{domain}.ref.trn", _lines(f"{self._plain(text)} ({ids[key]})" for key, text in references.items())
            for cell, rows in cells.items():
                lines = (f"{self._plain(row['hypothesis_normalized'])} ({ids[row['utterance_id']]})" for row in rows)
                yield f"{domain}.{cell.of_method}.hyp.trn", _lines(lines)

    def ctm(self) -> Files:
        """`<domain>.stm` and, per method, `<domain>.<method>.ctm`: a normalized word and its time on each line.

        Raises:
            UsageError: no utterance was cut into windows, so there are no times; or as for `trn`.
        """
        windows = {cell: self._windows(cell) for cell in self.cells}
        if all(len(found) < 2 for of_cell in windows.values() for found in of_cell.values()):
            raise UsageError(
                f"no selected utterance of the run {self.run_id!r} was cut into windows, so words have no times and "
                "there is no ctm; write the texts without times with --format trn"
            )
        for domain, cells in self._by_domain():
            references, ids = self._references(domain, cells)
            spoken = {row["utterance_id"]: row for rows in cells.values() for row in rows}
            ordered = sorted(references, key=lambda key: ids[key].encode())  # sclite requires byte order
            yield (
                f"{domain}.stm",
                _lines(
                    f"{ids[key]} A {ids[key].partition('-')[0]} 0.000 {spoken[key]['audio_seconds']:.3f} "
                    f"{self._plain(references[key])}"
                    for key in ordered
                ),
            )
            for cell, rows in cells.items():
                by_id = {row["utterance_id"]: row for row in rows}
                lines = (
                    f"{ids[key]} A {begin:.3f} {seconds:.3f} {word}"
                    for key in ordered
                    if key in by_id
                    for begin, seconds, word in timed(
                        self._plain(by_id[key]["hypothesis_normalized"]).split(),
                        windows[cell].get(key) or [(0.0, by_id[key]["audio_seconds"], 1)],
                    )
                )
                yield f"{domain}.{cell.of_method}.ctm", CTM_HEAD + _lines(lines)

    def nemo(self) -> Files:
        """`<domain>.<method>.jsonl` for each cell: audio_filepath, duration, text, pred_text."""
        yield from self._json_lines(lambda cell: f"{cell.domain}.{cell.of_method}.jsonl", ("duration",))

    def open_asr(self) -> Files:
        """One file per cell, named as by the Open ASR Leaderboard's scripts: the keys of `nemo`, and the time spent.

        https://github.com/huggingface/open_asr_leaderboard/blob/main/normalizer/eval_utils.py
        """
        model = re.sub(r"[^\w.]+", "-", self.model).strip("-")

        def named(cell: ChosenCell) -> str:
            return f"MODEL_{model}-{cell.of_method}_DATASET_{self.suite}_{cell.domain}_test.jsonl"

        yield from self._json_lines(named, ("duration", "time"))

    def remarks(self) -> Iterator[str]:
        """What the files written so far lack or change compared with the store, one sentence each."""
        for reason, count in sorted(self.left_out.items()):
            yield f"left out, counted for each method: {counted(count, 'utterance')} {reason}"
        if self.altered:
            yield (
                f"texts with a character that sclite takes for markup, one of ( ) {{ }} @ < ;: {self.altered}; "
                "full-width forms replace these characters"
            )

    def _json_lines(self, named: Callable[[ChosenCell], str], numbers: Sequence[str]) -> Files:
        for _, cells in self._by_domain():
            for cell, rows in cells.items():
                lines = []
                for row in rows:
                    found = {"duration": row["audio_seconds"], "time": row["seconds"]}
                    lines.append(
                        {"audio_filepath": f"{row['utterance_id']}.flac"}
                        | {name: found[name] for name in numbers}
                        | {"text": row["reference"], "pred_text": row["hypothesis"]}
                    )
                yield named(cell), _lines(json.dumps(line, ensure_ascii=False) for line in lines)

    def _by_domain(self) -> Iterator[tuple[str, dict[ChosenCell, list[Row]]]]:
        # The utterances that count in the rates, one domain in memory at a time.
        for domain in dict.fromkeys(cell.domain for cell in self.cells):
            of_domain = (cell for cell in self.cells if cell.domain == domain)
            found = {cell: rows for cell in of_domain if (rows := list(self._counted(cell)))}
            if found:
                yield domain, found

    def _counted(self, cell: ChosenCell) -> Iterator[Row]:
        for row in self._of_cell(_UTTERANCES, cell):
            if row["words"]:
                yield row
            elif row["words"] == 0:
                self.left_out["without speech"] += 1
            else:
                self.left_out["in error" if row["error"] is not None else "not scored by this scorer"] += 1

    def _references(
        self, domain: str, cells: Mapping[ChosenCell, Sequence[Row]]
    ) -> tuple[dict[str, str], dict[str, str]]:
        # The normalized transcript, and the id for sclite, by utterance.
        references: dict[str, str] = {}
        speakers: dict[str, str] = {}
        for rows in cells.values():
            for row in rows:
                key, text = row["utterance_id"], row["reference_normalized"]
                if references.setdefault(key, text) != text:
                    command = self.catalogue.store.command("score", self.run_id)
                    raise UsageError(
                        f"the transcript of {domain}/{key} is not normalized in the same way for all methods, but "
                        f"sclite uses one file of references for them; score the run with one release: {command}"
                    )
                speakers[key] = row["speaker"]
        ordered = sorted(references)
        return {key: references[key] for key in ordered}, plain_ids({key: speakers[key] for key in ordered})

    def _plain(self, text: str) -> str:
        plain = text.translate(_ALIKE)
        self.altered += plain != text
        return plain

    def _windows(self, cell: ChosenCell) -> dict[str, list[tuple[float, float, int]]]:
        found: dict[str, list[tuple[float, float, int]]] = {}
        for row in self._of_cell(_WINDOWS, cell):
            found.setdefault(row["utterance_id"], []).append((row["begins"], row["seconds"], row["characters"]))
        return found

    def _of_cell(self, sql: str, cell: ChosenCell) -> list[dict[str, Any]]:
        where = {"run": self.run_id, "domain": cell.domain, "method": cell.method, "seed": cell.seed}
        return self.catalogue.query(sql, where).records


def plain_ids(speakers: Mapping[str, str]) -> dict[str, str]:
    """An id for sclite per utterance, `speaker-utterance` in lower case, given the speakers by utterance.

    sclite takes the part before the first hyphen or underscore for the speaker, and ignores case. Other characters that
    would end an id become full stops, and a duplicate id gets a number.
    """
    ids: dict[str, str] = {}
    used: set[str] = set()
    for key, speaker in speakers.items():
        plain = "-".join((re.sub(r"[^\w.]|_", ".", speaker), re.sub(r"[^\w.-]", ".", key))).lower()
        number, name = 1, plain
        while name in used:
            number += 1
            name = f"{plain}.{number}"
        used.add(name)
        ids[key] = name
    return ids


def timed(words: Sequence[str], windows: Sequence[tuple[float, float, int]]) -> Iterator[tuple[float, float, str]]:
    """Estimate when the words of an utterance were spoken, at an even pace within each window.

    A window is its start and length in seconds, and the number of characters of its text.

    Yields:
        The start and length of each word, in seconds, and the word.
    """
    with_text = [window for window in windows if window[2]] or [
        (begin, seconds, 0) for begin, seconds, _ in windows[:1]
    ]
    ends = [0, *accumulate(characters + 1 for *_, characters in with_text)]  # with a space after each window and word
    offsets = [0, *accumulate(len(word) + 1 for word in words)]

    def time_at(offset: float, window: int) -> float:
        begin, seconds, characters = with_text[window]
        return begin + (offset - ends[window]) / (characters + 1) * seconds

    for word, word_span in zip(words, pairwise(offsets), strict=True):
        first, last = (offset * ends[-1] / offsets[-1] for offset in word_span)
        begin = time_at(first, bisect_right(ends, first) - 1)
        end = time_at(last, bisect_left(ends, last) - 1)
        yield begin, max(end - begin, 0.0), word


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
