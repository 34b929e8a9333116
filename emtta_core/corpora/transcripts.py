"""Transcripts in text files."""

from pathlib import Path

from emtta_core.errors import CorpusError
from emtta_core.pointers import pointer_at


def text_of(path: Path) -> str:
    """Return the text in a file without the white space about it; CorpusError where it cannot be read."""
    pointer = pointer_at(path)
    if pointer is not None:
        raise CorpusError(f"the transcript {path} cannot be read: {pointer}")
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise CorpusError(f"the transcript {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"the transcript {path} is not UTF-8: {error.reason} at byte {error.start}") from error


def lines_of(path: Path, separator: str) -> list[str]:
    """Return the lines of a file that are not blank; CorpusError where one has no `separator` in it."""
    lines = [line for line in text_of(path).split("\n") if line.strip()]
    for number, line in enumerate(lines, start=1):
        if separator not in line:
            raise CorpusError(
                f"the transcripts {path} have {line[:40]!r} as line {number}, with no text behind the id; "
                "extract the corpus anew"
            )
    return [line.rstrip("\r") for line in lines]
