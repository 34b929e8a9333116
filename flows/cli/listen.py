"""`emtta listen`: what the corruptions of a suite sound like."""

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from flows.cli._options import AllowAbsoluteOption, SnrConventionOption, SuiteArgument
from flows.cli._output import say

PAGE = "emtta-listen-{suite}.html"
"""What the file is called."""


def listen(
    suite: SuiteArgument,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="domain=…|group=…", help="These domains; repeatable.")
    ] = None,
    snr_convention: SnrConventionOption = None,
    allow_absolute: AllowAbsoluteOption = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", file_okay=False, help="Where the page goes.")] = Path(),
    examples: Annotated[int, typer.Option("--examples", min=1, metavar="N", help="Utterances a domain.")] = 2,
) -> None:
    """Write a page with a few utterances of each corrupted domain: clean beside corrupted, with spectrograms.

    Examples:
        emtta listen demo --only group=noise

        emtta listen robustness --only group=opus --examples 1 --out pages
    """
    from emtta_core.errors import UsageError
    from emtta_core.pipeline.selection import choose_domains
    from emtta_core.report.listening_page import make_listening_page
    from emtta_core.suite import load_suite

    loaded = load_suite(suite, snr_convention=snr_convention, allow_absolute=allow_absolute)
    page = make_listening_page(loaded, choose_domains(loaded, only or []), examples)
    path = out / PAGE.format(suite=loaded.name)
    try:
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name another folder with --out") from error
    say(f"{path}: {decimal(path.stat().st_size)}")
