"""`emtta report html`: the page on a run, as a file."""

from pathlib import Path

from flows.cli.output import say
from flows.cli.size import size

PAGE = "html"
"""What the page is called beside the reports."""

OUT = "emtta-{run}.html"
"""What the file is called where no name is given."""


def write_page(run: str | None, store: str, out: Path | None, audio: int) -> None:
    """Write the page on a run, and say where it is.

    Args:
        run: the run; the newest by default.
        store: which has it.
        out: the file; by default one in this folder, named for the run.
        audio: recordings that it holds.

    Raises:
        UsageError: there is no such run, or the file cannot be written.
    """
    from emtta_core.errors import UsageError
    from emtta_core.report import make_page
    from emtta_core.store import Store

    page = make_page(Store.open(store), run, audio=audio)
    path = out or Path(OUT.format(run=page.run_id))
    content = page.html.encode()
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name another file with --out") from error
    held = f", with {page.recordings} recordings" if audio else ""
    say(f"{path}: the page on {page.run_id}, {size(len(content))}{held}")
    if page.recordings < audio:
        say(f"there were no more recordings of utterances that changed: {page.recordings} of {audio}")
