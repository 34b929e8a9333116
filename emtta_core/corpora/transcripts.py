"""Transcripts in text files."""

from pathlib import Path

from emtta_core.errors import CorpusError
from emtta_core.input_files import MEBIBYTE, read_plain
from emtta_core.pointers import pointer_at

MOST = 1024 * MEBIBYTE
"""Bytes of the largest file of transcripts, or manifest, that is read."""


def text_of(path: Path) -> str:
    """Return the text in a file without the white space about it; CorpusError where it cannot be read."""
    pointer = pointer_at(path)
    if pointer is not None:
        raise CorpusError(f"the transcript {path} cannot be read: {pointer}")
    try:
        text = read_plain(path, most=MOST).decode("utf-8-sig")
    except OSError as error:
        raise CorpusError(f"the transcript {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"the transcript {path} is not UTF-8: {error.reason} at byte {error.start}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


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
