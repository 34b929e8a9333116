"""Corrected references of a run: a file of utterances and their transcripts, checked against the run."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from emtta_core.errors import UsageError
from emtta_core.input_files import read_plain
from emtta_core.store import Catalogue, Store

COLUMNS = ("id", "text", "domain")
"""Columns of the file; the last is needed if an id means different utterances in different domains."""

MAX_LISTED = 5
"""The most utterances that a message names."""

_UTTERANCES = "SELECT DISTINCT domain, utterance_id FROM utterances WHERE run_id = $run_id ORDER BY ALL"


def read_references(path: Path, store: Store, run_id: str, *, partial: bool = False) -> dict[tuple[str, str], str]:
    """Read the corrected transcripts of a run's utterances from a file, by domain and utterance.

    Args:
        path: a `.csv` or `.tsv` with a header, or a `.jsonl`: `id` and `text`, and `domain` where ids are ambiguous.
        store: the run's store.
        run_id: the run.
        partial: whether utterances missing from the file keep their transcript.

    Raises:
        UsageError: the file cannot be read, names an utterance that the run lacks, or lacks one of the run's.
    """
    with Catalogue(store, runs=[run_id]) as catalogue:
        rows = catalogue.query(_UTTERANCES, {"run_id": run_id}).rows
    domains: dict[str, list[str]] = defaultdict(list)
    for domain, utterance_id in rows:
        domains[str(utterance_id)].append(str(domain))
    references: dict[tuple[str, str], str] = {}
    for location, row in _rows(path):
        targets = [row["domain"]] if row.get("domain") else domains.get(row["id"], [])
        if not targets or targets[0] not in domains.get(row["id"], []):
            where = f" in domain {row['domain']!r}" if row.get("domain") else ""
            raise UsageError(
                f"{path}, {location}: the run {run_id!r} has no utterance {row['id']!r}{where}; "
                f"`{store.command('sql', 'SELECT domain, utterance_id FROM utterances')}` lists them"
            )
        if not row["text"].strip():
            raise UsageError(f"{path}, {location}: the text of utterance {row['id']!r} is empty; give its transcript")
        for domain in targets:
            key = domain, row["id"]
            if references.get(key, row["text"]) != row["text"]:
                raise UsageError(
                    f"{path}, {location}: utterance {row['id']!r} has two different texts; leave one of them out"
                )
            references[key] = row["text"]
    missing = [f"{domain}/{utterance}" for domain, utterance in rows if (domain, utterance) not in references]
    if missing and not partial:
        more = f" and {len(missing) - MAX_LISTED} more" if len(missing) > MAX_LISTED else ""
        raise UsageError(
            f"{path} lacks {len(missing)} of {len(rows)} utterances of the run {run_id!r}: "
            f"{', '.join(missing[:MAX_LISTED])}{more}; add them, or let them keep their transcripts with --partial"
        )
    return references


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    # The rows of a file, each with its place in the file.
    try:
        text = read_plain(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"the references {path} are not text in UTF-8 ({error}); convert them") from error
    except OSError as error:
        raise UsageError(f"the references {path} cannot be read: {error.strerror or error}") from error
    kind = path.suffix.lower()
    if kind == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield f"line {number}", _checked(path, f"line {number}", _object(path, number, line))
        return
    if kind not in (".csv", ".tsv"):
        raise UsageError(f"the references {path} have the ending {kind!r}; give a .csv, .tsv or .jsonl")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if kind == ".tsv" else ",")
    columns = reader.fieldnames or []
    if not {"id", "text"} <= set(columns) or set(columns) - set(COLUMNS):
        raise UsageError(
            f"the references {path} have the columns {', '.join(columns)}; give id and text, and domain where needed"
        )
    for row in reader:
        yield f"line {reader.line_num}", _checked(path, f"line {reader.line_num}", row)


def _object(path: Path, number: int, line: str) -> object:
    try:
        return json.loads(line)
    except ValueError as error:
        raise UsageError(f"{path}, line {number}: not valid JSON ({error})") from error


def _checked(path: Path, location: str, row: object) -> Mapping[str, str]:
    if (
        not isinstance(row, dict)
        or not {"id", "text"} <= row.keys() <= set(COLUMNS)
        or not all(isinstance(value, str) for value in row.values())
    ):
        raise UsageError(
            f"{path}, {location}: {row!r} must have id and text, both strings, and may have only domain besides"
        )
    return row
