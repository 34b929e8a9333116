"""`emtta suites`: the shipped suites, and the domains of one; `emtta listen`: audio examples of its corruptions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from emtta_core.sanitize import escaped
from flows.cli._options import AllowAbsoluteOption, DomainsOption, FormOption, SnrConventionOption, SuiteArgument
from flows.cli._output import echo, put_json, tabulate


def suites(
    suite: Annotated[
        str | None, typer.Argument(help="A shipped suite, or the path of a .toml file.", show_default=False)
    ] = None,
    form: FormOption = "table",
) -> None:
    """List the shipped suites, or explain the domains of one suite.

    A suite of your own is a TOML file, named by its path.

    Examples:
        emtta suites

        emtta suites demo --format json

        emtta run suites/mine.toml
    """
    if suite is not None:
        _show_domains(suite, form)
        return
    from emtta_core.suite.file import find, read, suite_names

    found = []
    for name in suite_names():
        path, text = find(name, Path())
        content = read(text, str(path), path.parent)
        counts = {"domains": len(content["domains"]), "methods": len(content["methods"])}
        found.append({"suite": name, **counts, "description": content["description"]})
    _show(found, form)
    echo("the domains of a suite: emtta suites SUITE")


def _show_domains(suite: str, form: str) -> None:
    from emtta_core.suite import load_suite

    loaded = load_suite(suite)
    _show(
        [{"domain": one.name, "group": one.group, "description": one.description()} for one in loaded.domains],
        form,
    )
    echo(f"methods: {', '.join(method.name for method in loaded.methods)}; model: {loaded.model.name}")


def _show(rows: Sequence[Mapping[str, object]], form: str) -> None:
    if form == "json":
        put_json(rows)
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(Text(escaped(str(value))) for value in row.values()))
    tabulate(table)


PAGE = "emtta-listen-{suite}.html"
"""The name of the file."""


def listen(
    suite: SuiteArgument,
    only: DomainsOption = None,
    snr_convention: SnrConventionOption = None,
    allow_absolute: AllowAbsoluteOption = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", file_okay=False, help="Folder of the page.")] = Path(),
    examples: Annotated[int, typer.Option("--examples", min=1, metavar="N", help="Utterances per domain.")] = 2,
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
    echo(f"{path}: {decimal(path.stat().st_size)}")
