"""`emtta report html`: the page on a run, as a file."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from flows.cli._output import say

if TYPE_CHECKING:
    from emtta_core.store.queries import Limits

PAGE = "html"
"""What the page is called beside the reports."""

ENDINGS = (".html", ".htm")
"""Endings of a file that can hold the page."""

OUT = "emtta-{run}.html"
"""What the file is called where no name is given."""


def write_page(run: str | None, store: str, out: Path | None, audio: int, limits: "Limits | None" = None) -> None:
    """Write the page on a run, the newest by default, with so many recordings, and say where it is.

    Raises:
        UsageError: there is no such run, the file's name is not that of a page, or the file cannot be written.
    """
    from emtta_core.errors import UsageError
    from emtta_core.report import make_page
    from emtta_core.store import Store

    if out is not None and out.suffix.lower() not in ENDINGS:
        raise UsageError(f"--out {out} is not the name of a page; write the HTML page to a file that ends in .html")
    page = make_page(Store.open(store), run, audio=audio, limits=limits)
    path = out or Path(OUT.format(run=page.run_id))
    content = page.html.encode()
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name another file with --out") from error
    held = f", with {page.recordings} recordings" if audio else ""
    say(f"{path}: page of run {page.run_id}, {decimal(len(content))}{held}")
    if page.recordings < audio:
        say(f"only {page.recordings} recordings of utterances that changed are available, not {audio}")
