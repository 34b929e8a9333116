"""`emtta suites`: the shipped suites, and the domains of a suite."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from emtta_core.sanitize import escaped
from flows.cli._output import say, tabulate


def suites(
    suite: Annotated[
        str | None, typer.Argument(help="A shipped suite, or the path of a .toml file.", show_default=False)
    ] = None,
) -> None:
    """List the shipped suites, or explain the domains of one suite.

    A suite of your own is a TOML file, named by its path.

    Examples:
        emtta suites

        emtta suites demo

        emtta run suites/mine.toml
    """
    from emtta_core.suite.file import find, read, suite_names

    if suite is not None:
        from emtta_core.suite import load_suite

        loaded = load_suite(suite)
        table = Table("domain", "group", "description")
        for domain in loaded.domains:
            table.add_row(*(Text(escaped(text)) for text in (domain.name, domain.group, domain.description())))
        tabulate(table)
        say(f"methods: {', '.join(method.name for method in loaded.methods)}; model: {loaded.model.name}")
        return
    table = Table("suite", "domains", "methods", "description")
    for name in suite_names():
        path, text = find(name, Path())
        content = read(text, str(path), path.parent)
        table.add_row(name, str(len(content["domains"])), str(len(content["methods"])), content["description"])
    tabulate(table)
    say("the domains of a suite: emtta suites SUITE")
